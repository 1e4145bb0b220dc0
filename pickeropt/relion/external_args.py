"""What RELION's External job gives on the command line: `--o DIR --in_X FILE --label value --j N`.

Source: RELION 3.1 to 5, pipeline_jobs.cpp (External) and the External page of its GUI.

What RELION gives a job: lists of coordinate files, suffix files, and the STAR file of micrographs.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path

from pickeropt.errors import FormatError, GeometryError, OutputError, PickeroptError
from pickeropt.finetune.finetune_config import MODEL_FILE
from pickeropt.io.lists import is_coordinate_list, read_coordinate_list
from pickeropt.io.relion_star import MICROGRAPH, pixel_size
from pickeropt.io.star import check_labels, column_spans, find_block, read_blocks
from pickeropt.io.text import column, read_text
from pickeropt.prune.prune_config import Filters, PruneConfig, ScorerConfig
from pickeropt.relion.job_outputs import SUFFIX_FILE, root_path
from pickeropt.relion.job_outputs import TYPES as VERSIONS

MODEL = Path(MODEL_FILE)
"""Of the project folder, where no model is given; as `pickeropt prune` has it."""


@dataclass(frozen=True)
class ExternalJob:
    """A job as RELION called it; paths are those of the project folder, the current one.

    out : as `--o` has it, with a slash at the end: what node names begin with
    coordinates : an `autopick.star` list or a `coords_suffix_*` file; or else
    particles : a STAR file of particles
    micrographs : the STAR file of micrographs, where it was given
    relion_version : of RELION, as `nodes.TYPES` has them; None: to be seen from the project
    prune : what `prune` is told; its folder lies in the job's
    scorer : what its classifier is loaded with
    """

    out: str
    coordinates: Path | None
    particles: Path | None
    micrographs: Path | None
    threads: int
    relion_version: str | None
    prune: PruneConfig
    scorer: ScorerConfig

    @property
    def folder(self) -> Path:
        return Path(self.out)


def _number(label: str, value: str, wanted: str = "a number") -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise PickeroptError(f"--{label} is {value!r}; give {wanted}")
    return number


def _count(label: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and int(value) > 0):
        raise PickeroptError(f"--{label} is {value!r}; give a whole number from 1 on")
    return int(value)


def _path(label: str, value: str) -> Path:
    return Path(value).expanduser()


def _word(label: str, value: str) -> str:
    return value


def _yes(label: str, value: str) -> bool:
    if value.lower() not in ("yes", "no"):
        raise PickeroptError(f"--{label} is {value!r}; give yes or no")
    return value.lower() == "yes"


def _prior(label: str, value: str) -> float | str:
    wanted = "auto, or a number between 0 and 1"
    if value == "auto" or 0 < _number(label, value, wanted) < 1:
        return value if value == "auto" else float(value)
    raise PickeroptError(f"--{label} is {value!r}; give {wanted}")


LABELS: dict[str, tuple[str, Callable[[str, str], object]]] = {
    "model": ("model", _path),
    "diameter": ("diameter_angstrom", _number),
    "threshold": ("threshold", _number),
    "pixel_size": ("pixel_size", _number),
    "batch_size": ("batch_size", _count),
    "device": ("device", _word),
    "write_score": ("write_score", _yes),
    "prior": ("prior", _prior),
    "shots": ("picker_shots", _path),
    "trust_frame": ("trust_frame", _yes),
}
"""Parameters of the job: the setting of `prune` that each is, and how its value is read."""

FILTERS = tuple(field.name for field in fields(Filters))
"""Parameters that are bounds, each a number."""

INPUTS = ("in_mics", "in_coords", "in_parts", "in_movies", "in_3dref", "in_mask")
OTHERS = ("o", "j", "pipeline_control", "relion_version")


def job_folder(words: Sequence[str]) -> Path:
    """The folder of `--o`. Raises OutputError where there is none, and where an input lies in it."""
    given = list(pairwise(words))
    folder = next((Path(v) for word, v in given if word == "--o" and not v.startswith("--")), None)
    if folder is None:
        raise OutputError("no output folder; give --o External/job001/, as RELION does")
    for word, value in given:
        is_input = word.removeprefix("--").replace("-", "_") in INPUTS
        if is_input and Path(value).resolve().is_relative_to(folder.resolve()):
            what = f"{value}: lies in the output folder {folder}, and inputs are never written to"
            raise OutputError(f"{what}; give --o a folder of its own, like External/job001/")
    return folder


def parse_arguments(words: Sequence[str]) -> ExternalJob:
    """The job. Labels may be written with - or _.

    Raises PickeroptError for a label that is unknown, given twice or without a value, for a
    value that is none, and where there is nothing to prune; FormatError for an input that
    is not there.
    """
    given = dict[str, str]()
    for label, value in _pairs(words):
        if label in given:
            raise PickeroptError(f"--{label} is given twice; remove one of the two parameters")
        given[label] = value
    out = job_folder(words).as_posix() + "/"
    version = given.get("relion_version")
    if version is not None and version not in VERSIONS:
        raise PickeroptError(f"--relion_version is {version!r}; give one of {', '.join(VERSIONS)}")
    settings = {LABELS[name][0]: LABELS[name][1](name, given[name]) for name in LABELS if name in given}
    settings["filters"] = Filters(**{name: _number(name, given[name]) for name in FILTERS if name in given})
    if "model" not in settings and MODEL.is_file():
        settings["model"] = MODEL
    of_scorer = {field.name: settings.pop(field.name) for field in fields(ScorerConfig) if field.name in settings}
    coordinates, particles, micrographs = _inputs(given)
    return ExternalJob(
        out,
        coordinates,
        particles,
        micrographs,
        _count("j", given.get("j", "1")),
        version,
        PruneConfig(**{**settings, "out": Path(out) / "pruned", "overwrite": True}),  # type: ignore[arg-type]
        ScorerConfig(**of_scorer),  # type: ignore[arg-type]
    )


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Labels and values; `--label` is followed by its value, and no value begins with `--`."""
    known = {*LABELS, *FILTERS, *INPUTS, *OTHERS}
    i = 0
    while i < len(words):
        label = words[i].removeprefix("--").replace("-", "_")
        if not words[i].startswith("--"):
            raise PickeroptError(f"{words[i]!r} follows no label; a parameter is --label value, without blanks")
        if label not in known:
            close = get_close_matches(label, sorted(known), n=1)
            hint = f"is it --{close[0]}? " if close else ""
            labels = ", ".join([*LABELS, *FILTERS, "relion_version"])
            raise PickeroptError(f"the label --{label} is unknown; {hint}labels are {labels}")
        if i + 1 == len(words) or words[i + 1].startswith("--"):
            raise PickeroptError(f"--{label} has no value; fill it in, or empty its label")
        yield label, words[i + 1]
        i += 2


def _inputs(given: dict[str, str]) -> tuple[Path | None, Path | None, Path | None]:
    """Coordinates, particles, micrographs."""
    coordinates, particles, micrographs = (
        Path(given[name]) if name in given else None for name in ("in_coords", "in_parts", "in_mics")
    )
    if coordinates and particles:
        what = "both input coordinates (--in_coords) and particles (--in_parts)"
        raise PickeroptError(f"{what} are given; prune one of them in a job")
    if not (coordinates or particles):
        others = ", ".join(f"--{name}" for name in INPUTS if name in given)
        found = f" (there is {others}, which has no picks)" if others else ""
        remedy = "give input coordinates (--in_coords) or particles (--in_parts)"
        raise PickeroptError(f"nothing to prune{found}; {remedy}")
    for path in (coordinates, particles, micrographs):
        if path and not path.is_file():
            raise FormatError(f"{path}: no such file; run in the RELION project folder")
    return coordinates, particles, micrographs


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


def _unmatched(path: Path, rows: Sequence[tuple[str, str]], micrographs: MicrographStar | None) -> tuple[str, ...]:
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
        raise FormatError(f"{what} ({example}); RELION matches whole names: give the micrographs that were picked")
    return (f"{what} (first {strange[0]}): RELION will extract nothing from them",)
