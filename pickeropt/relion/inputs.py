"""What RELION gives a job: lists of coordinate files, suffix files, and the STAR file of micrographs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pickeropt.errors import FormatError, GeometryError
from pickeropt.io.lists import is_coordinate_list, read_coordinate_list
from pickeropt.io.relion_star import MICROGRAPH, pixel_size
from pickeropt.io.star import check_labels, column_spans, find_block, read_blocks
from pickeropt.io.text import column, read_text
from pickeropt.relion.job_outputs import SUFFIX_FILE, root_path


@dataclass(frozen=True)
class MicrographStar:
    """RELION's micrographs.

    names : as extraction matches them
    pixel_size : Å/px as RELION takes it; None where the file has none, or several
    """

    path: Path
    names: tuple[str, ...]
    pixel_size: float | None


@dataclass(frozen=True)
class Coordinates:
    """The picks of a job.

    rows : micrograph and coordinate file, from the project folder
    micrographs : None where the job was given none
    warnings : what RELION will pass over in silence
    """

    rows: tuple[tuple[str, str], ...]
    is_list: bool
    micrographs: MicrographStar | None
    warnings: tuple[str, ...]


def read_micrograph_star(path: Path) -> MicrographStar:
    """Read `corrected_micrographs.star` and its like. Raises FormatError for another file."""
    text = read_text(path)
    blocks = read_blocks(text)
    block = find_block(blocks, MICROGRAPH)
    if block is None:
        raise FormatError(f"{path}: no loop_ with {MICROGRAPH}; give the STAR file of the micrographs")
    check_labels(text, block)
    names = tuple(name.decode() for name in column(text, column_spans(text, block, MICROGRAPH)))
    try:
        size = pixel_size(text, blocks, block)
    except GeometryError:  # optics groups differ: each micrograph's header has its own
        size = None
    return MicrographStar(path, names, size)


def read_coordinates(path: Path, micrographs: Path | None) -> Coordinates:
    """The coordinate files that `--in_coords` stands for.

    micrographs : of `--in_mics`; else a suffix file names them
    Raises FormatError for a file that is neither list nor suffix file, for names that match
    nothing, and where no coordinate file is there.
    """
    if is_coordinate_list(path):
        listed = read_coordinate_list(path)
        rows = tuple(zip(listed.micrograph_names, listed.coordinate_paths, strict=True))
        star = None if micrographs is None else read_micrograph_star(micrographs)
        return Coordinates(rows, True, star, _unmatched(path, rows, star))
    if not path.name.startswith(SUFFIX_FILE):
        what = f"{path}: is neither a list of coordinate files nor a {SUFFIX_FILE} file"
        raise FormatError(f"{what}; give autopick.star (RELION 4 and 5) or {SUFFIX_FILE}_autopick.star (3.1)")
    star = read_micrograph_star(micrographs or _named_inside(path))
    found = _suffix_rows(path, star)
    lost = len(star.names) - len(found)
    missing = (f"{lost} of {len(star.names)} micrographs have no coordinate file, and are left out",)
    return Coordinates(found, False, star, missing if lost else ())


def _named_inside(path: Path) -> Path:
    """The STAR file of micrographs that a suffix file names."""
    text = read_text(path).content.decode().strip()
    if not text or "\n" in text or not Path(text).is_file():
        what = f"{path}: names {text[:80]!r}, and there is no such file of micrographs"
        raise FormatError(f"{what}; give the input micrographs too (--in_mics)")
    return Path(text)


def _suffix_rows(path: Path, micrographs: MicrographStar) -> tuple[tuple[str, str], ...]:
    suffix = path.name.removeprefix(SUFFIX_FILE)
    folder = f"{path.parent.as_posix()}/"
    rows = [(name, root_path(folder, name) + suffix) for name in micrographs.names]
    found = tuple(row for row in rows if Path(row[1]).is_file())
    if not found:
        example = f" ({rows[0][1]} is not there)" if rows else ""
        what = f"{path}: no coordinate file for any micrograph of {micrographs.path}{example}"
        raise FormatError(f"{what}; give the micrographs that were picked")
    return found


def _unmatched(
    path: Path, rows: Sequence[tuple[str, str]], micrographs: MicrographStar | None
) -> tuple[str, ...]:
    """A warning for rows that no micrograph's name matches. Raises FormatError where none does."""
    if micrographs is None:
        return ()
    names = set(micrographs.names)
    strange = [name for name, _ in rows if name not in names]
    if not strange:
        return ()
    what = f"{len(strange)} of {len(rows)} micrographs of {path} are not in {micrographs.path}"
    if len(strange) == len(rows):
        example = f"{strange[0]!r} here, {micrographs.names[0]!r} there" if names else "it has none"
        raise FormatError(
            f"{what} ({example}); RELION matches whole names: give the micrographs that were picked"
        )
    return (f"{what} (first {strange[0]}): RELION will extract nothing from them",)
