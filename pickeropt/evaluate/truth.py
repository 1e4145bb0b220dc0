"""True particles from a folder with one file a micrograph, or from one file for all."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError
from pickeropt.io.delimited import read_csv
from pickeropt.io.find import PICKER_SUFFIXES
from pickeropt.io.picks import read_picks
from pickeropt.records import PARTICLE, Picks

Coordinates = NDArray[np.float64]

MICROGRAPH_SUFFIXES = (".mrc", ".mrcs", ".tif", ".tiff", ".eer", ".png", ".jpg", ".jpeg", ".st", ".ali")
TRUTH_SUFFIXES = (".csv", ".box", ".star")
NAME_ENDINGS = (*PICKER_SUFFIXES, "_particles", "_truth")
"""What a truth file's stem may have after the micrograph's."""


@dataclass(frozen=True)
class Truth:
    """True particles by micrograph stem.

    particles : (m, 2) float64 px each; m is 0 for a micrograph known to hold none
    unused : number of micrographs that have truth and are not among those asked for
    """

    particles: dict[str, Coordinates]
    unused: int


def read_truth(path: Path, micrographs: Collection[str]) -> Truth:
    """Read the truth of the named micrographs.

    path : a folder of `.csv` (header x,y), `.box` or `.star`, one file a micrograph, named
        as it or with an ending of `NAME_ENDINGS`; or one file: a STAR with micrograph names,
        or a CSV with a column `micrograph`. Where there are classes (`_pickeroptClass`, or
        a CSV column `class`) only those called `particle` are particles; the others still
        make their micrograph one that has truth.
    micrographs : stems, as in `ScoredPicks.micrographs`

    Raises FormatError for a file that cannot be read, two files for one micrograph, truth
    for none of the micrographs, or no particle at all.
    """
    wanted = set(micrographs)
    if path.is_dir():
        truth, names = _read_folder(path, wanted)
    elif path.is_file():
        truth, names = _read_file(path, wanted)
    else:
        raise FormatError(f"{path}: no such file or folder; give the truth with --truth")
    if not truth.particles:
        raise FormatError(
            f"{path}: has truth for none of the {len(wanted)} scored micrographs; it names"
            f" {_some(names)}, the scores name {_some(wanted)}; names must agree up to folder and suffix"
        )
    if not any(len(xy) for xy in truth.particles.values()):
        raise FormatError(
            f"{path}: holds no particle on the {len(truth.particles)} scored micrographs that it names;"
            f" where there are classes, particles must be called {PARTICLE!r}"
        )
    return truth


def _read_folder(folder: Path, wanted: set[str]) -> tuple[Truth, set[str]]:
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in TRUTH_SUFFIXES or path.name.startswith("."):
            continue
        name = _micrograph_of(path.stem, wanted)
        if name in wanted and name in files:
            raise FormatError(f"{path}: a second truth for micrograph {name!r}, after {files[name].name}; remove one")
        files[name] = path
    if not files:
        raise FormatError(f"{folder}: holds no {', '.join(TRUTH_SUFFIXES)} file; give the folder that does")
    particles = {name: _read_single(path) for name, path in files.items() if name in wanted}
    return Truth(particles, len(files) - len(particles)), set(files)


def _micrograph_of(stem: str, wanted: set[str]) -> str:
    if stem in wanted:
        return stem
    shorter = [stem[: -len(ending)] for ending in NAME_ENDINGS if stem.endswith(ending)]
    bare = micrograph_stem(stem)  # a.mrc.csv
    return next((name for name in [*shorter, bare] if name in wanted), stem)


def _read_single(path: Path) -> Coordinates:
    """The particles of a file that is one micrograph's."""
    if path.suffix.lower() == ".csv":
        table = read_csv(path, ("x", "y"), ("class",))
        xy = np.column_stack([table.numbers("x"), table.numbers("y")])
        return xy[_are_particles(table.columns.get("class"), len(xy))]
    picks = read_picks(path).picks
    if len(picks.micrograph_names) > 1:
        raise FormatError(
            f"{path}: names {len(picks.micrograph_names)} micrographs, where a folder has one file for each;"
            " give this file itself as --truth"
        )
    return picks.coordinates[_are_particles(picks.class_names, len(picks))]


def _read_file(path: Path, wanted: set[str]) -> tuple[Truth, set[str]]:
    if path.suffix.lower() == ".csv":
        names, xy, is_particle = _read_csv(path)
    else:
        picks = read_picks(path).picks
        names, xy = _names(picks), picks.coordinates
        is_particle = _are_particles(picks.class_names, len(picks))
    stems = [_micrograph_of(stem, wanted) for stem in micrograph_stems(path, names)]
    rows: dict[str, list[int]] = {}
    for row, stem in enumerate(stems):
        rows.setdefault(stem, []).append(row)
    particles = {stem: xy[mine][is_particle[mine]] for stem, mine in rows.items() if stem in wanted}
    return Truth(particles, len(rows) - len(particles)), set(rows)


def _read_csv(path: Path) -> tuple[list[str], Coordinates, NDArray[np.bool_]]:
    table = read_csv(path, ("x", "y"), ("micrograph", "class"))
    xy = np.column_stack([table.numbers("x"), table.numbers("y")])
    names = list(table.columns.get("micrograph", [path.stem] * len(table)))
    return names, xy, _are_particles(table.columns.get("class"), len(table))


def _names(picks: Picks) -> list[str]:
    return [picks.micrograph_names[k] for k in picks.micrograph_index.tolist()]


def _are_particles(classes: Collection[str] | None, count: int) -> NDArray[np.bool_]:
    if classes is None:
        return np.ones(count, dtype=np.bool_)
    return np.array([name.strip().lower() == PARTICLE for name in classes], dtype=np.bool_)


def _some(names: Collection[str]) -> str:
    shown = ", ".join(repr(name) for name in sorted(names)[:2])
    return f"{shown} …" if len(names) > 2 else shown or "nothing"


def micrograph_stem(name: str) -> str:
    """File name without folder and image suffix: `a/b.1.mrc` and `b.1` both give `b.1`."""
    file_name = PurePosixPath(name.strip()).name
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
        folder = PurePosixPath(name.strip()).parent
        other = longest.setdefault(stem, folder)
        long, short = sorted((folder, other), key=lambda p: len(p.parts), reverse=True)
        if short.parts and long.parts[-len(short.parts) :] != short.parts:
            raise FormatError(
                f"{path}: two micrographs are called {stem!r}, in {str(other)!r} and {str(folder)!r};"
                " scores and truth are brought together by name: evaluate the folders one at a time"
            )
        longest[stem] = long
    return [micrograph_stem(name) for name in names]
