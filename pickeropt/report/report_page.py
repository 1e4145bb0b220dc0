"""`report.html`: one file, no script, nothing from elsewhere; every text in it is escaped."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path, PurePath

import pickeropt
from pickeropt.display import Image8, as_jpeg
from pickeropt.report.charts import acquisition, against, histograms, percent, share_bar, swatch
from pickeropt.report.ice_and_defocus import Quantity
from pickeropt.report.kinds import KEPT, Kind, Tally
from pickeropt.report.reading import Run
from pickeropt.report.report_pictures import BOX, VIEW
from pickeropt.report.rerun_command import another_threshold, command_of
from pickeropt.report.sheet import Sheet

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

    run: Run
    kinds: Sequence[Kind]
    numbers: Tally
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
    bodies = "".join(
        f'<section id="{name}"><h2>{head}</h2>{body}</section>\n' for name, head, body in sections if body
    )
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


def _short(run: Run, index: int) -> str:
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
