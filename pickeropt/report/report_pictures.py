"""The pictures of a report: boxes of picks in sheets, and micrographs with their picks drawn over them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pickeropt.display import LOWPASS, Filter, Image8, display_box, display_micrograph, micrograph_grey_scale
from pickeropt.errors import PickeroptError
from pickeropt.io.micrographs import map_micrograph
from pickeropt.report.kinds import KEPT, Kind, ReportedRun, Rows, by_score, closest, spread

BOX = 112
"""px of a box's picture."""
VIEW = 1.6
"""Particle diameters that it is wide."""
WIDTH = 900
"""px of an overlay."""
CONTRAST = 4.0
DETAIL = 6.0
"""Of a particle's diameter a picture shows at least so small a part."""
HALF = 170
"""Brightness from which a colour is light."""
LINE_WIDTH = 2
"""px of an outline."""

Made = TypeVar("Made")


@dataclass
class Missing:
    """Micrographs without pictures, and why, in the order they were met."""

    reasons: dict[str, str] = field(default_factory=dict)

    def warnings(self) -> tuple[str, ...]:
        """One sentence for all, or none."""
        if not self.reasons:
            return ()
        first = next(iter(self.reasons.values()))
        if len(self.reasons) == 1:
            return (f"the report lacks pictures of one micrograph: {first}",)
        return (f"the report lacks pictures of {len(self.reasons)} micrographs, the first: {first}",)


def boxes_of(run: ReportedRun, rows: Iterable[int], missing: Missing) -> dict[int, Image8]:
    """A picture, (BOX, BOX), of each pick that can be shown; every micrograph is opened once."""
    wanted: dict[int, list[int]] = {}
    for row in sorted(set(rows)):
        wanted.setdefault(int(run.micrograph[row]), []).append(row)
    found: dict[int, Image8] = {}
    for index, here in wanted.items():
        found |= _try(run, index, missing, partial(_boxes, run, index, here)) or {}
    return found


def _boxes(run: ReportedRun, index: int, rows: Sequence[int]) -> dict[int, Image8]:
    place = run.places[run.micrographs[index]]
    pixels = map_micrograph(place.path)
    shown = Filter(place.pixel_size, min(LOWPASS, run.diameter_angstrom / DETAIL))
    scale = micrograph_grey_scale(pixels, shown)
    side = max(8, round(VIEW * run.diameter_angstrom / place.pixel_size))
    centres = {row: (float(run.xy[row, 0]), float(run.xy[row, 1])) for row in rows}
    return {row: display_box(pixels, centre, (side, BOX), shown, scale, CONTRAST) for row, centre in centres.items()}


def overlay_of(run: ReportedRun, index: int, kinds: Sequence[Kind], missing: Missing) -> Image8 | None:
    """A micrograph with all its picks in the colour and shape of their kind, (h, WIDTH, 3), or None."""
    return _try(run, index, missing, partial(_overlay, run, index, kinds))


def _overlay(run: ReportedRun, index: int, kinds: Sequence[Kind]) -> Image8:
    place = run.places[run.micrographs[index]]
    pixels = map_micrograph(place.path)
    height, width = pixels.shape
    picture = Image.fromarray(display_micrograph(pixels, WIDTH, place.pixel_size, CONTRAST)).convert("RGB")
    scale = picture.width / width
    draw = ImageDraw.Draw(picture)
    radius = max(4.0, 0.5 * run.diameter_angstrom / place.pixel_size * scale)
    for kind in sorted(kinds, key=lambda kind: kind.name == KEPT):
        for x, y in run.xy[_on(run, kind.rows, index)].tolist():
            mark(draw, kind, ((x + 0.5) * scale, (height - y - 0.5) * scale), radius)
    return np.asarray(picture)


def _on(run: ReportedRun, rows: Rows, index: int) -> Rows:
    found: Rows = rows[run.micrograph[rows] == index]
    return found


def mark(draw: ImageDraw.ImageDraw, kind: Kind, centre: tuple[float, float], radius: float) -> None:
    """The kind's shape about a point, with a halo that sets it off, that of the rejected wider."""
    wider = 1 if kind.name == KEPT else 2
    for colour, line in ((halo(kind), LINE_WIDTH + wider), (kind.colour, LINE_WIDTH)):
        for points in outline(kind.mark, centre, radius):
            draw.line(points, fill=colour, width=line, joint="curve")


def halo(kind: Kind) -> str:
    """White about dark colours, black about light ones and about the kept, who are many."""
    colour = kind.colour
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    dark = 0.3 * red + 0.59 * green + 0.11 * blue < HALF
    return "#ffffff" if dark and kind.name != KEPT else "#000000"


def outline(shape: str, centre: tuple[float, float], radius: float) -> list[list[tuple[float, float]]]:
    """The lines of a shape, each a list of points; those of the kept are circles, all others smaller."""
    x, y = centre
    if shape == "circle":
        turns = np.linspace(0, 2 * np.pi, 25)
        return [[(x + radius * float(np.cos(t)), y + radius * float(np.sin(t))) for t in turns]]
    r = 0.7 * radius
    if shape == "plus":
        return [[(x - r, y), (x + r, y)], [(x, y - r), (x, y + r)]]
    if shape == "cross":
        return [[(x - r, y - r), (x + r, y + r)], [(x - r, y + r), (x + r, y - r)]]
    shapes: dict[str, list[tuple[float, float]]] = {
        "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
        "diamond": [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
        "triangle": [(0, -1.2), (1.1, 0.8), (-1.1, 0.8)],
        "tip": [(0, 1.2), (1.1, -0.8), (-1.1, -0.8)],
    }
    corners = shapes[shape]
    return [[(x + r * a, y + r * b) for a, b in [*corners, corners[0]]]]


def _try(run: ReportedRun, index: int, missing: Missing, make: Callable[[], Made]) -> Made | None:
    """What is made of a micrograph; None, and a note why, where it cannot be."""
    name = run.micrographs[index]
    if name not in run.places:
        missing.reasons.setdefault(name, f"{name}: summary.json does not say where it is")
        return None
    try:
        return make()
    except (PickeroptError, OSError, ValueError, MemoryError) as error:
        missing.reasons.setdefault(name, str(error) or type(error).__name__)
        return None


COUNT = 24
"""Boxes of a sheet at most."""
ACROSS = 12
GAP, LINE, FOOT = 4, 24, 16
"""px between boxes, of a heading, of the score under a box."""
BACK, TEXT = 24, 236
"""Grey levels."""


@dataclass(frozen=True)
class Sheet:
    """Some picks to look at.

    of : how many picks they were chosen from; mixed : kept and rejected ones together
    """

    title: str
    rows: Rows
    of: int
    mixed: bool = False


def sheets_of(run: ReportedRun, kinds: Sequence[Kind]) -> tuple[Sheet, ...]:
    """One sheet of each kind, and after the kept that of the closest calls."""
    found = [Sheet(kind.title, spread(run, kind.rows, COUNT), len(kind.rows)) for kind in kinds]
    near = closest(run, COUNT)
    kept = 1 if kinds and kinds[0].title == "kept" else 0
    if len(near):
        found.insert(kept, Sheet("closest calls", by_score(run, near), len(run), mixed=True))
    return tuple(found)


def contact_sheet(run: ReportedRun, sheets: Sequence[Sheet], boxes: Mapping[int, Image8]) -> Image8:
    """All sheets one below the other, (h, w), each box with its score."""
    lines = [-(-len(sheet.rows) // ACROSS) for sheet in sheets]
    step = BOX + FOOT + GAP
    page = Image.new("L", (GAP + ACROSS * (BOX + GAP), sum(LINE + step * n for n in lines) + GAP), BACK)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    top = GAP
    for sheet, count in zip(sheets, lines, strict=True):
        heading = f"{sheet.title}: {len(sheet.rows)} of {sheet.of:,} picks, by P(particle)"
        draw.text((GAP, top + 3), _plain(heading), fill=TEXT, font=font)
        top += LINE
        for place, row in enumerate(sheet.rows.tolist()):
            x, y = GAP + place % ACROSS * (BOX + GAP), top + place // ACROSS * step
            box = boxes.get(row)
            if box is None:
                draw.rectangle((x, y, x + BOX - 1, y + BOX - 1), outline=128)
                draw.text((x + 6, y + 6), "no picture", fill=TEXT, font=font)
            else:
                page.paste(Image.fromarray(box), (x, y))
            word = (" kept" if run.kept[row] else " rejected") if sheet.mixed else ""
            draw.text((x, y + BOX), f"{run.score[row]:.3f}{word}", fill=TEXT, font=font)
        top += step * count
    return np.asarray(page)


def _plain(text: str) -> str:
    """What any font has."""
    return text.encode("ascii", "replace").decode()
