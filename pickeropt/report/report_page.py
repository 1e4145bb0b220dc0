"""The page `report.html`: one file without scripts or links to elsewhere, its charts drawn as SVG.

Every text in it is escaped.
"""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

import pickeropt
from pickeropt.display import Image8, as_jpeg
from pickeropt.report.ice_and_defocus import Quantity
from pickeropt.report.kinds import KEPT, Kind, MicrographCounts, ReportedRun
from pickeropt.report.report_pictures import BOX, VIEW, Sheet, halo, outline
from pickeropt.report.rerun_command import another_threshold, command_of

WIDTH, HEIGHT = 620, 230
LEFT, RIGHT, TOP, BOTTOM = 64, 22, 14, 44
BINS = 50
"""Of the histogram of scores."""
ORDINARY, CUT = 0.8, 0.35
"""So large a share of the bars is ordinary; lower than so much of the highest they get their own chart."""
DOTS = 400
"""Along the acquisition; more micrographs share them."""
TREND = 12
"""Parts of the micrographs, sorted, whose mean makes the line."""


@dataclass(frozen=True)
class Axes:
    """A frame of WIDTH x HEIGHT for x and y within bounds."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the data lies in the SVG."""
        (x0, x1), (y0, y1) = self.x, self.y
        across, up = (x - x0) / ((x1 - x0) or 1), (y - y0) / ((y1 - y0) or 1)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def drawn(self, labels: tuple[str, str], percent: bool = False) -> list[str]:
        """Grid, numbers and names of both axes."""
        parts = []
        for value in ticks(*self.y):
            x, y = self.at(self.x[0], value)
            text = f"{100 * value:.0f} %" if percent else f"{value:,.6g}"
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
        for value in ticks(*self.x):
            x, y = self.at(value, self.y[0])
            parts.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{escape(f"{value:,.6g}")}</text>')
        middle = (TOP + HEIGHT - BOTTOM) / 2
        parts.append(
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(labels[0])}</text>'
        )
        parts.append(
            f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(labels[1])}</text>'
        )
        return parts


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from low to high, about five."""
    span = high - low
    if not span > 0:
        return [low]
    step = 10.0 ** np.floor(np.log10(span / most))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= most)
    first = np.ceil(low / step - 1e-9) * step
    return [float(round(v, 12)) + 0.0 for v in np.arange(first, high + step * 1e-6, step)]


def histograms(run: ReportedRun, kinds: Sequence[Kind]) -> list[str]:
    """How many picks have which score, stacked by kind, and where the threshold is.

    Where a few bars are so high that the others are flat a second chart is cut off above these.
    """
    edges = np.linspace(0, 1, BINS + 1)
    counts = [np.histogram(run.score[kind.rows], edges)[0] for kind in kinds]
    total = np.sum(counts, axis=0)
    tops = [1.05 * float(total.max())]
    ordinary = 1.3 * float(np.quantile(total, ORDINARY))
    if 0 < ordinary < CUT * tops[0]:
        tops.append(max(ordinary, 5.0))
    return [_histogram(run, kinds, (edges, counts), top) for top in tops]


def _histogram(
    run: ReportedRun,
    kinds: Sequence[Kind],
    bins: tuple[NDArray[np.float64], Sequence[NDArray[np.int64]]],
    most: float,
) -> str:
    """One chart up to so many picks; bins : their edges, and how many picks of each kind are in each."""
    edges, counts = bins
    cut = bool(most < np.sum(counts, axis=0).max())
    axes = Axes((0, 1), (0, most))
    parts = axes.drawn(("P(particle)", f"picks, cut at {most:,.0f}" if cut else "picks"))
    base = np.zeros(len(edges) - 1)
    for kind, count in zip(kinds, counts, strict=True):
        for i in np.flatnonzero(count).tolist():
            left, bottom = axes.at(float(edges[i]), min(float(base[i]), most))
            right, top = axes.at(float(edges[i + 1]), min(float(base[i] + count[i]), most))
            what = f"{kind.title}: {count[i]:,} picks from {edges[i]:.2f} to {edges[i + 1]:.2f}"
            parts.append(
                f'<rect class="bar" x="{left + 0.5:.1f}" y="{top:.1f}" width="{right - left - 1:.1f}" '
                f'height="{bottom - top:.1f}" fill="{kind.colour}"><title>{escape(what)}</title></rect>'
            )
        base += count
    x, low = axes.at(run.threshold, 0)
    parts.append(f'<line class="threshold" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{low:.1f}"/>')
    side, gap = ("end", -6) if run.threshold > 0.5 else ("start", 6)
    text = f"threshold {run.threshold:g}"
    parts.append(f'<text class="said" x="{x + gap:.1f}" y="{TOP + 12}" text-anchor="{side}">{text}</text>')
    return _svg(parts, f"Histogram of P(particle) of {len(run):,} picks with the {text}{', cut' * cut}")


def acquisition(run: ReportedRun, numbers: MicrographCounts) -> str:
    """The share kept of each micrograph, in the order of their names."""
    order = sorted(range(len(run.micrographs)), key=run.micrographs.__getitem__)
    groups = [g for g in np.array_split(np.array(order), min(DOTS, len(order))) if len(g)]
    axes = Axes((0.5, len(order) + 0.5), (0, 1))
    parts = axes.drawn(("micrographs, by name", "picks kept"), percent=True)
    points, at = [], 1
    for group in groups:
        picks, kept = int(numbers.picks[group].sum()), int(numbers.kept[group].sum())
        x, y = axes.at(at + (len(group) - 1) / 2, kept / max(picks, 1))
        first, last = run.micrographs[group[0]], run.micrographs[group[-1]]
        names = first if len(group) == 1 else f"{first} to {last}"
        parts.append(_dot(x, y, f"{names}: {kept:,} of {picks:,} kept"))
        points.append((x, y))
        at += len(group)
    if len(points) >= 2 * TREND:
        parts.insert(0, _line(_means(np.array(points))))
    return _svg(parts, f"Share of picks kept on each of {len(order):,} micrographs in the order of their names")


def against(run: ReportedRun, numbers: MicrographCounts, quantity: Quantity) -> str | None:
    """The share kept of each micrograph by ice, defocus or the like; None where nothing can be seen."""
    known = np.flatnonzero(np.isfinite(quantity.values) & (numbers.picks > 0))
    values = quantity.values[known]
    if len(known) < 2 or values.min() == values.max():
        return None
    label = f"{quantity.name}, {quantity.unit}" if quantity.unit else quantity.name
    axes = Axes((float(values.min()), float(values.max())), (0, 1))
    parts = axes.drawn((label, "picks kept"), percent=True)
    order = known[np.argsort(values, kind="stable")]
    points = [axes.at(float(quantity.values[i]), float(numbers.share[i])) for i in order.tolist()]
    step = -(-len(order) // (2 * DOTS))
    for i, (x, y) in list(zip(order.tolist(), points, strict=True))[::step]:
        kept = percent(int(numbers.kept[i]), int(numbers.picks[i]))
        what = f"{run.micrographs[i]}: {quantity.values[i]:.4g} {quantity.unit}, {kept} kept"
        parts.append(_dot(x, y, what))
    if len(points) >= 2 * TREND:
        parts.append(_line(_means(np.array(points))))
    return _svg(parts, f"Share of picks kept of {len(known):,} micrographs by {label}")


def swatch(kind: Kind) -> str:
    """The kind's mark in its colour as overlays have it, for legends; its name stands beside it."""
    paths = "".join(
        f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'
        for points in outline(kind.mark, (9, 9), 6.5)
    )
    return (
        f'<svg class="swatch" viewBox="0 0 18 18" aria-hidden="true"><rect width="18" height="18" rx="3"/>'
        f'<g class="halo" stroke="{halo(kind)}">{paths}</g><g stroke="{kind.colour}">{paths}</g></svg>'
    )


def percent(part: int, whole: int) -> str:
    """A share in words."""
    return f"{100 * part / max(whole, 1):.1f} %"


def share_bar(kinds: Sequence[Kind], total: int) -> str:
    """One bar of all picks, by kind."""
    parts, left = [], 0.0
    for kind in kinds:
        width = 1000 * len(kind.rows) / total
        what = f"{kind.title}: {len(kind.rows):,} picks, {percent(len(kind.rows), total)}"
        parts.append(
            f'<rect class="bar" x="{left:.2f}" width="{width:.2f}" height="24" fill="{kind.colour}">'
            f"<title>{escape(what)}</title></rect>"
        )
        left += width
    said = ", ".join(f"{kind.title} {percent(len(kind.rows), total)}" for kind in kinds)
    return (
        f'<svg class="share" viewBox="0 0 1000 24" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(said)}">{"".join(parts)}</svg>'
    )


def _means(points: NDArray[np.float64]) -> list[tuple[float, float]]:
    """The middle of each of TREND parts of the points, sorted by x."""
    return [(float(part[:, 0].mean()), float(part[:, 1].mean())) for part in np.array_split(points, TREND)]


def _line(points: Sequence[tuple[float, float]]) -> str:
    return f'<polyline class="trend" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def _dot(x: float, y: float, what: str) -> str:
    return f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{escape(what)}</title></circle>'


def _svg(parts: Sequence[str], label: str) -> str:
    start = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
    return f"{start}{''.join(parts)}</svg>"


POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
LISTED = 10
"""Micrographs that lost most, in the table."""


@dataclass(frozen=True)
class Overlay:
    """A micrograph with its picks on it, (h, w, 3); index : of the run's micrographs; most : lost most."""

    index: int
    most: bool
    picture: Image8


@dataclass(frozen=True)
class Content:
    """All that the page shows.

    boxes : picture of each pick, (BOX, BOX), by its row; one that is missing has none
    warnings : of the run and of the report
    """

    run: ReportedRun
    kinds: Sequence[Kind]
    numbers: MicrographCounts
    sheets: Sequence[Sheet]
    boxes: Mapping[int, Image8]
    overlays: Sequence[Overlay]
    quantities: Sequence[Quantity]
    warnings: Sequence[str]


def page(content: Content) -> str:
    """The whole HTML document."""
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    title = escape(f"Pruned: {content.run.summary['out']}")
    sections = [
        ("result", "What was kept", _result(content)),
        ("scores", "Scores", _scores(content)),
        ("boxes", "Boxes", _sheets(content)),
        ("micrographs", "Micrographs", _micrographs(content)),
        ("optics", "Ice and defocus", _optics(content)),
        ("again", "Run it again", _again(content)),
    ]
    links = "".join(f'<a href="#{name}">{head}</a>' for name, head, body in sections if body)
    bodies = "".join(f'<section id="{name}"><h2>{head}</h2>{body}</section>\n' for name, head, body in sections if body)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>\n{style}</style></head>\n"
        f"<body><main><h1>{title}</h1><nav>{links}</nav>\n{_warnings(content.warnings)}{bodies}"
        f'<p class="quiet">pickeropt {escape(pickeropt.__version__)}</p></main></body></html>\n'
    )


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in warnings)
    return f'<section class="warnings"><h2>Warnings</h2><ul>{items}</ul></section>\n'


def _result(content: Content) -> str:
    run = content.run
    total, kept = len(run), int(run.kept.sum())
    facts = [
        ("picks", f"{total:,}"),
        ("kept", f"{kept:,} ({percent(kept, total)})"),
        ("rejected", f"{total - kept:,} ({percent(total - kept, total)})"),
        ("micrographs", f"{len(run.micrographs):,}"),
        ("threshold", f"{run.threshold:g}"),
    ]
    said = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    rows = [
        [swatch(kind) + escape(kind.title), f"{len(kind.rows):,}", percent(len(kind.rows), total)]
        for kind in content.kinds
    ]
    notes = "".join(f"<p>{escape(str(note))}.</p>" for note in run.summary.get("notes") or ())
    bar = share_bar(content.kinds, total)
    return f'<dl class="facts">{said}</dl>{bar}{_table(("what", "picks", "share"), rows)}{notes}'


def _scores(content: Content) -> str:
    text = (
        "How sure the model is that a pick is a particle. Picks from the threshold on are kept. Two heaps "
        "far apart mean a clear decision; much around the threshold means that more shots would help."
    )
    charts = "".join(f"<div>{chart}</div>" for chart in histograms(content.run, content.kinds))
    return f'<p>{text}</p>{_legend(content.kinds)}<div class="pair">{charts}</div>'


def _sheets(content: Content) -> str:
    run = content.run
    text = (
        f"Each box is {VIEW:g} particle diameters ({VIEW * run.diameter_angstrom:.0f} Å) wide, low-passed, "
        "grey by the level and noise of its micrograph, row 0 at the bottom. The number is P(particle). "
        "Closest calls are the picks with the scores nearest to the threshold; all others are drawn by "
        "lot and spread over the micrographs. Stripes are the edge of the micrograph, repeated where a box "
        "reaches over it. The title of a box names its file, row and micrograph."
    )
    return f"<p>{text}</p>" + "".join(_sheet(content, sheet) for sheet in content.sheets)


def _sheet(content: Content, sheet: Sheet) -> str:
    items = "".join(_box(content, sheet, row) for row in sheet.rows.tolist())
    head = f"{sheet.title[:1].upper()}{sheet.title[1:]}: {len(sheet.rows)} of {sheet.of:,}"
    return f'<h3>{escape(head)}</h3><ul class="sheet">{items}</ul>'


def _box(content: Content, sheet: Sheet, row: int) -> str:
    run = content.run
    x, y = run.xy[row].tolist()
    place = f"{run.files[run.file[row]]}, row {run.row[row]}; {run.micrographs[run.micrograph[row]]}"
    fate = KEPT if run.kept[row] else f"rejected, class {run.classes[run.best[row]]}"
    title = escape(f"{place}, x {x:.0f}, y {y:.0f}; P(particle) {run.score[row]:.3f}; {fate}")
    box = content.boxes.get(row)
    shown = (
        f'<span class="none" title="{title}">no picture</span>'
        if box is None
        else f'<img src="{_jpeg(box)}" width="{BOX}" height="{BOX}" alt="{title}" title="{title}">'
    )
    word = (" kept" if run.kept[row] else " rejected") if sheet.mixed else ""
    return f"<li>{shown}{run.score[row]:.3f}{word}</li>"


def _micrographs(content: Content) -> str:
    run, numbers = content.run, content.numbers
    order = sorted(
        range(len(run.micrographs)),
        key=lambda i: (int(numbers.kept[i] - numbers.picks[i]), run.micrographs[i]),
    )
    rows = [
        [_short(run, i), f"{n:,}", f"{n - k:,}", percent(n - k, n)]
        for i in order[:LISTED]
        if (n := int(numbers.picks[i])) > (k := int(numbers.kept[i]))
    ]
    table = _table(("rejected most picks", "picks", "rejected", "share"), rows) if rows else ""
    text = "The share of each micrograph's picks that was kept, in the order of their names, which for most "
    text += "microscopes is that of the acquisition: a slope or a step shows what changed on the way."
    parts = [f'<p>{text}</p><div class="pair"><div>{acquisition(run, numbers)}</div><div>{table}</div></div>']
    legend = _legend(content.kinds)
    for most, head in ((True, "Lost the largest share"), (False, "Lost the smallest share")):
        figures = "".join(_overlay(content, shown) for shown in content.overlays if shown.most == most)
        if figures:
            parts.append(f'<h3>{head}</h3>{legend}<div class="overlays">{figures}</div>')
            legend = ""
    return "".join(parts)


def _overlay(content: Content, shown: Overlay) -> str:
    name, numbers = content.run.micrographs[shown.index], content.numbers
    picks, kept = int(numbers.picks[shown.index]), int(numbers.kept[shown.index])
    said = f"{kept:,} of {picks:,} picks kept ({percent(kept, picks)})"
    source = _jpeg(shown.picture, 72)
    h, w = shown.picture.shape[:2]
    image = f'<img src="{source}" width="{w}" height="{h}" alt="{escape(name)} with its picks, {said}">'
    return f"<figure>{image}<figcaption>{_short(content.run, shown.index)}: {said}</figcaption></figure>"


def _optics(content: Content) -> str:
    charts = [against(content.run, content.numbers, quantity) for quantity in content.quantities]
    drawn = "".join(f"<div>{chart}</div>" for chart in charts if chart)
    text = "The share of picks kept on each micrograph, by what the STAR files of the run say of it."
    return f'<p>{text}</p><div class="pair">{drawn}</div>' if drawn else ""


def _again(content: Content) -> str:
    run = content.run
    settings = [
        ("model", str(run.summary["settings"].get("model") or "the general model of the package")),
        ("sha256 of the model", str(run.summary.get("model_digest", ""))),
        ("diameter", f"{run.diameter_angstrom:g} Å"),
        ("pixel size", ", ".join(f"{float(s):g}" for s in run.summary.get("pixel_sizes") or ()) + " Å/px"),
        ("pickeropt", str(run.summary.get("pickeropt", ""))),
    ]
    rows = [[escape(name), escape(value)] for name, value in settings]
    again, other = escape(command_of(run.summary)), escape(another_threshold(run.summary, 0.7))
    return (
        f"{_table(('setting', 'of this run'), rows, 'plain')}"
        f'<h3>The same run once more</h3><pre tabindex="0">{again}</pre>'
        f'<h3>Another threshold, in seconds</h3><pre tabindex="0">{other}</pre>'
    )


def _short(run: ReportedRun, index: int) -> str:
    """A micrograph's file name, with the whole name as its title."""
    name = run.micrographs[index]
    return f'<span title="{escape(name)}">{escape(PurePath(name).name)}</span>'


def _legend(kinds: Iterable[Kind]) -> str:
    return f'<ul class="legend">{"".join(f"<li>{swatch(k)}{escape(k.title)}</li>" for k in kinds)}</ul>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], style: str = "numbers") -> str:
    """The cells are HTML already."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<table class="{style}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'


def _jpeg(picture: Image8, quality: int = 80) -> str:
    return f"data:image/jpeg;base64,{b64encode(as_jpeg(picture, quality)).decode()}"
