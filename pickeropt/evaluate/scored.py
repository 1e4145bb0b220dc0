"""`scores.csv` of `pickeropt prune`, and which names in it are the same micrograph."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError
from pickeropt.evaluate.table import Table, read_table

MICROGRAPH_SUFFIXES = (".mrc", ".mrcs", ".tif", ".tiff", ".eer", ".png", ".jpg", ".jpeg", ".st", ".ali")


@dataclass(frozen=True)
class ScoredPicks:
    """n scored picks in the order of the file.

    coordinates : (n, 2) float64, x and y, px
    files : the distinct coordinate files; file_index : (n,) into them
    micrographs : the distinct micrographs by stem; micrograph_index : (n,) into them
    score : (n,) P(particle)
    figure_of_merit : (n,) the picker's score, NaN where it gave none
    kept : (n,) bool
    """

    coordinates: NDArray[np.float64]
    files: tuple[str, ...]
    file_index: NDArray[np.int64]
    micrographs: tuple[str, ...]
    micrograph_index: NDArray[np.int64]
    score: NDArray[np.float64]
    figure_of_merit: NDArray[np.float64]
    kept: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.score)

    def take(self, rows: NDArray[np.bool_]) -> "ScoredPicks":
        """The picks of some rows; files and micrographs keep their indices."""
        return ScoredPicks(
            self.coordinates[rows],
            self.files,
            self.file_index[rows],
            self.micrographs,
            self.micrograph_index[rows],
            self.score[rows],
            self.figure_of_merit[rows],
            self.kept[rows],
        )


def read_scores(path: Path) -> ScoredPicks:
    """Read `scores.csv`.

    Raises FormatError (file, line, value) for a missing column, a number that is none, a
    score outside 0 to 1, a `kept` other than 0 and 1, an empty table, or two different
    micrographs of one name.
    """
    required = ("file", "micrograph", "x", "y", "figure_of_merit", "score", "kept")
    table = read_table(path, required)
    if not len(table):
        raise FormatError(f"{path}: has no rows; run `pickeropt prune` on a file that has picks")
    score = table.numbers("score")
    outside = (score < 0) | (score > 1)
    if outside.any():
        raise table.fault(int(np.argmax(outside)), "score", "is outside 0 to 1; it must be P(particle)")
    files, file_index = _distinct(table.columns["file"])
    names, name_index = _distinct(table.columns["micrograph"])
    stems = micrograph_stems(path, names)
    micrographs, stem_index = _distinct(stems)
    return ScoredPicks(
        coordinates=np.column_stack([table.numbers("x"), table.numbers("y")]),
        files=files,
        file_index=file_index,
        micrographs=micrographs,
        micrograph_index=stem_index[name_index],
        score=score,
        figure_of_merit=table.numbers("figure_of_merit", empty_is_nan=True),
        kept=_kept(table),
    )


def micrograph_stem(name: str) -> str:
    """File name without folder and image suffix: `a/b.1.mrc` and `b.1` both give `b.1`."""
    file_name = PurePosixPath(name).name
    for suffix in MICROGRAPH_SUFFIXES:
        if file_name.lower().endswith(suffix):
            return file_name[: -len(suffix)]
    return file_name


def micrograph_stems(path: Path, names: Sequence[str]) -> list[str]:
    """The stem of each name in `path`.

    One micrograph may be named by a longer and a shorter path. Raises FormatError where two
    different folders have a micrograph of one name, as matching by stem would mix them.
    """
    longest: dict[str, PurePosixPath] = {}
    for name in dict.fromkeys(names):
        stem = micrograph_stem(name)
        if not stem:
            raise FormatError(f"{path}: a row has an empty micrograph name {name!r}; name its micrograph")
        folder = PurePosixPath(name).parent
        other = longest.setdefault(stem, folder)
        long, short = sorted((folder, other), key=lambda p: len(p.parts), reverse=True)
        if short.parts and long.parts[-len(short.parts) :] != short.parts:
            raise FormatError(
                f"{path}: two micrographs are called {stem!r}, in {str(other)!r} and {str(folder)!r};"
                " scores and truth are brought together by name: evaluate the folders one at a time"
            )
        longest[stem] = long
    return [micrograph_stem(name) for name in names]


def _kept(table: Table) -> NDArray[np.bool_]:
    cells = table.columns["kept"]
    for row, cell in enumerate(cells):
        if cell not in ("0", "1"):
            raise table.fault(row, "kept", "is neither 1 nor 0")
    return np.array([cell == "1" for cell in cells], dtype=np.bool_)


def _distinct(cells: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The distinct cells in order of first mention, and each cell's index into them."""
    places: dict[str, int] = {}
    index = [places.setdefault(cell, len(places)) for cell in cells]
    return tuple(places), np.array(index, dtype=np.int64)


def pruned_diameter_px(scores_csv: Path) -> float | None:
    """Particle diameter, px of the micrograph, by the `summary.json` that `prune` left beside its scores.

    None where there is none, or where the micrographs differ in pixel size.
    """
    try:
        summary = json.loads(scores_csv.with_name("summary.json").read_text(encoding="utf-8"))
        (pixel_size,) = summary["pixel_sizes"]
        return float(summary["diameter_angstrom"]) / float(pixel_size)
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return None
