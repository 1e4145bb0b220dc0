"""Sheets of boxes: which picks they show, and `contact_sheet.png` for a terminal without a browser."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pickeropt.display import Image8
from pickeropt.report.kinds import Kind, Rows, by_score, closest, spread
from pickeropt.report.reading import Run
from pickeropt.report.report_pictures import BOX

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


def sheets_of(run: Run, kinds: Sequence[Kind]) -> tuple[Sheet, ...]:
    """One sheet of each kind, and after the kept that of the closest calls."""
    found = [Sheet(kind.title, spread(run, kind.rows, COUNT), len(kind.rows)) for kind in kinds]
    near = closest(run, COUNT)
    kept = 1 if kinds and kinds[0].title == "kept" else 0
    if len(near):
        found.insert(kept, Sheet("closest calls", by_score(run, near), len(run), mixed=True))
    return tuple(found)


def contact_sheet(run: Run, sheets: Sequence[Sheet], boxes: Mapping[int, Image8]) -> Image8:
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
