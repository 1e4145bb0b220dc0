"""The conversion of files of picks: read any format, put the picks in the frame of the output, write any format.

`OUTPUT_FORMATS` lists the formats that can be written, with their endings and what each cannot hold.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from pickeropt.convert.convert_config import ConvertConfig, ConvertReport
from pickeropt.errors import GeometryError, OutputError, PickeroptError
from pickeropt.files import write_bytes_atomically
from pickeropt.io.cbox import write_cbox
from pickeropt.io.cryosparc import write_cs
from pickeropt.io.deeppicker import write_deeppicker
from pickeropt.io.delimited import write_cryoppp, write_csv, write_topaz, write_xy
from pickeropt.io.eman import write_box, write_info_json
from pickeropt.io.find import EXTENSIONS, PICKER_SUFFIXES, MicrographFinder
from pickeropt.io.inputs import Inputs, read_inputs
from pickeropt.io.lists import write_coordinate_list
from pickeropt.io.micrographs import MicrographHeader, choose_pixel_size, read_micrograph_header
from pickeropt.io.picks_file import PicksFile
from pickeropt.io.relion_star import write_star
from pickeropt.io.star import write_pos
from pickeropt.records import Picks
from pickeropt.sites import Micrographs


@dataclass(frozen=True)
class OutputFormat:
    """A format to write.

    file : what follows a micrograph's stem in the name of its file in a folder
    several : whether one file can hold the picks of several micrographs
    boxes, scores, decimals : whether it has them
    rows_from_top : y counts from the last row
    shapes : it holds the size of each micrograph
    """

    file: str
    several: bool = False
    boxes: bool = False
    scores: bool = True
    decimals: bool = True
    rows_from_top: bool = False
    shapes: bool = False


OUTPUT_FORMATS = {
    "star": OutputFormat("_autopick.star", several=True),
    "topaz": OutputFormat(".txt", several=True),
    "box": OutputFormat(".box", boxes=True),
    "cbox": OutputFormat(".cbox", boxes=True),
    "eman2": OutputFormat("_info.json"),
    "xmipp": OutputFormat(".pos", decimals=False),
    "csv": OutputFormat(".csv", several=True),
    "xy": OutputFormat(".txt"),
    "cryoppp": OutputFormat(".csv", scores=False, rows_from_top=True),
    "cryosparc": OutputFormat(".cs", several=True, shapes=True),
    "deeppicker": OutputFormat(".pickle", several=True),
}
_BY_ENDING = {
    ".star": "star",
    ".box": "box",
    ".cbox": "cbox",
    ".json": "eman2",
    ".pos": "xmipp",
    ".csv": "csv",
    ".cs": "cryosparc",
    ".pickle": "deeppicker",
    ".pkl": "deeppicker",
}


def choose_target(out: Path, to: str | None) -> str:
    """The format of an output: as told, else by its ending. Raises PickeroptError where neither says it."""
    known = ", ".join(OUTPUT_FORMATS)
    if to is not None:
        if to not in OUTPUT_FORMATS:
            raise PickeroptError(f"--to is {to!r}; give one of {known}")
        return to
    ending = out.suffix.lower()
    if ending == ".csg":
        what = f"{out}: a group is written by cryoSPARC only"
        raise PickeroptError(f"{what}; give a .cs file, or prune the group itself")
    if ending not in _BY_ENDING:
        raise PickeroptError(f"{out}: its name does not say the format; give --to with one of {known}")
    return _BY_ENDING[ending]


def encode(
    target: str,
    picks: Picks,
    names: tuple[str, ...],
    boxes: NDArray[np.float64] | None,
    shapes: Sequence[tuple[int, int]],
) -> bytes:
    """The file's bytes.

    names : of each of `picks.micrograph_names`, for formats that hold several micrographs; none where the
        file is one micrograph's
    boxes : (n, 2) px for formats that have them
    shapes : (h, w) px of each of `picks.micrograph_names`, for formats that hold it
    Raises FormatError for a name that the format cannot hold.
    """
    if target == "star":
        return write_star(picks, names)
    if target == "topaz":
        return write_topaz(picks, names)
    if target == "csv":
        return write_csv(picks, names)
    if target == "cryosparc":
        return write_cs(picks, shapes)
    if target == "deeppicker":
        return write_deeppicker(picks)
    if target in ("box", "cbox"):
        assert boxes is not None  # they are asked for before
        return (write_box if target == "box" else write_cbox)(picks, boxes)
    plain = {"eman2": write_info_json, "xmipp": write_pos, "xy": write_xy, "cryoppp": write_cryoppp}
    return plain[target](picks)


def losses(target: str, picks: Picks) -> list[str]:
    """What the format cannot hold of these picks, a sentence each."""
    kind = OUTPUT_FORMATS[target]
    found = []
    shift = float(np.abs(picks.coordinates - np.rint(picks.coordinates)).max(initial=0))
    if shift > 0 and not kind.decimals:
        found.append(f"{target} holds whole pixels: coordinates were rounded, by {shift:.3g} px at most")
    if target == "box" and shift > 0:
        found.append("RELION and EMAN read whole pixels of a .box file; pickeropt and crYOLO read all of it")
    if target == "cryosparc":
        found.append("cryoSPARC imports groups of its own micrographs: to go back there prune its own files")
    if not kind.scores and not np.isnan(picks.figure_of_merit).all():
        found.append(f"{target} holds no scores: they are left out")
    return found


@dataclass(frozen=True)
class Group:
    """The m picks of one micrograph.

    name : as the output names it; stem : without folder, extension and what pickers append
    named : whether the input names it, or a micrograph was found
    picks : coordinates in px of the output's micrograph, rows as stored unless told otherwise
    boxes : (m, 2) px, None where there are none
    shape : (h, w) px of the micrograph, None where it was not looked for
    """

    name: str
    stem: str
    named: bool
    picks: Picks
    boxes: NDArray[np.float64] | None
    shape: tuple[int, int] | None


@dataclass(frozen=True)
class FilePart:
    """Some rows of one file, all on one micrograph, with its header where it was looked for."""

    file: PicksFile
    rows: NDArray[np.int64]
    header: MicrographHeader | None


def gather(
    files: Sequence[PicksFile], config: ConvertConfig, kind: OutputFormat, listed: Mapping[Path, str]
) -> list[Group]:
    """The groups, in order of first mention.

    kind : the output's format
    listed : the micrographs of files without picks, by the file, where a list names them
    Raises MicrographError for micrographs that are needed and missing, GeometryError where nothing says
    how large the boxes are, OutputError for two micrographs of one stem, and for two files of one micrograph.
    """
    turned = config.flip_x or config.flip_y or any(file.rows_from_top for file in files)
    parts = _parts(files, config, turned or kind.rows_from_top or kind.shapes, listed)
    groups = [_group(name, part, config, kind) for name, part in parts.items()]
    owner: dict[str, str] = {}
    for group in groups:
        other = owner.setdefault(group.stem, group.name)
        if other != group.name:
            what = f"{other} and {group.name} have the same name without their folders"
            raise OutputError(f"{what}; convert them one after the other")
    return groups


def _parts(
    files: Sequence[PicksFile], config: ConvertConfig, needed: bool, listed: Mapping[Path, str]
) -> dict[str, FilePart]:
    """By micrograph as the output names it."""
    micrographs = Micrographs(config.micrographs, folders_first=True)
    wanted = bool(config.micrographs) or needed
    places = [micrographs.add(file).tolist() for file in files] if wanted else []
    micrographs.check_missing()
    micrographs.read_headers(range(len(micrographs)))
    parts: dict[str, FilePart] = {}

    def take(key: str, part: FilePart) -> None:
        other = parts.setdefault(key, part)
        if other is not part:
            what = f"{other.file.path} and {part.file.path} both are of {key}"
            raise OutputError(f"{what}; convert them one after the other")

    for i, file in enumerate(files):
        names = file.picks.micrograph_names
        if not names and file.names_from_stem:
            take(*_without_picks(file, micrographs.finder if config.micrographs else None, listed))
        for k, name in enumerate(names):
            key, header = name, None
            if wanted:
                header = micrographs.header(places[i][k])
                key = str(micrographs.entries[places[i][k]].found) if config.micrographs else name
            elif file.names_from_stem:
                key = bare_stem(name)
            take(key, FilePart(file, np.flatnonzero(file.picks.micrograph_index == k), header))
    return parts


def _without_picks(
    file: PicksFile, finder: MicrographFinder | None, listed: Mapping[Path, str]
) -> tuple[str, FilePart]:
    """For a file without picks: its micrograph's name, and its header where it is looked for and there."""
    name = listed.get(file.path)
    path = finder.find(name or file.path.stem, file.path, name is None) if finder else None
    header = None if path is None else read_micrograph_header(path)
    return str(path or name or bare_stem(file.path.stem)), FilePart(file, np.empty(0, np.int64), header)


def _group(name: str, part: FilePart, config: ConvertConfig, kind: OutputFormat) -> Group:
    file, rows, header = part.file, part.rows, part.header
    xy = file.picks.coordinates[rows] * config.scale
    if file.rows_from_top and header is not None:
        xy[:, 1] = header.shape[0] - xy[:, 1]
    xy = _turned(xy, config, header)
    if header is not None and kind.rows_from_top:
        xy[:, 1] = header.shape[0] - xy[:, 1]
    merits = file.picks.figure_of_merit[rows]
    picks = Picks(xy, (name,) if len(xy) else (), np.zeros(len(xy), dtype=np.int64), merits)
    sizes = _boxes(name, part, config) if kind.boxes else None
    named = header is not None or not file.names_from_stem or name.lower().endswith(EXTENSIONS)
    shape = None if header is None else header.shape
    return Group(name, _stem(name) if named else bare_stem(name), named, picks, sizes, shape)


def _turned(xy: NDArray[np.float64], config: ConvertConfig, header: MicrographHeader | None) -> NDArray[np.float64]:
    """Swapped, mirrored and shifted as the user asked; what is mirrored has a micrograph."""
    turned = xy[:, ::-1].copy() if config.swap_xy else xy
    if header is not None:
        height, width = header.shape
        for axis, flipped, side in ((0, config.flip_x, width), (1, config.flip_y, height)):
            if flipped:
                turned[:, axis] = side - 1 - turned[:, axis]
    placed: NDArray[np.float64] = turned + np.array(config.shift)
    return placed


def _boxes(name: str, part: FilePart, config: ConvertConfig) -> NDArray[np.float64]:
    """(m, 2): the boxes of the input, or even ones that just hold the diameter."""
    if config.diameter_angstrom is not None:
        size = _pixel_size(name, part, config)
        return np.full((len(part.rows), 2), 2.0 * np.ceil(config.diameter_angstrom / size / 2))
    if not len(part.rows):
        return _no_boxes()
    if part.file.box_sizes is None:
        what = f"{part.file.path}: the output has boxes, and this file does not say their size"
        raise GeometryError(f"{what}; give the particle's diameter with --diameter")
    found = part.file.box_sizes[part.rows] * config.scale
    return found[:, ::-1].copy() if config.swap_xy else found


def _pixel_size(name: str, part: FilePart, config: ConvertConfig) -> float:
    """Å/px of the output's micrograph."""
    said = part.file.picks.pixel_size
    optics = {} if said is None else {str(part.file.path): said / config.scale}
    if part.header is not None:
        return choose_pixel_size(config.pixel_size, part.header, optics)
    size = next((size for size in (config.pixel_size, *optics.values()) if size is not None), None)
    if size is None:
        what = f"{name}: --diameter is in Å, and nothing says the size of a pixel"
        raise GeometryError(f"{what}; give it with --pixel-size, or the micrographs with --micrographs")
    return size


def bare_stem(name: str) -> str:
    """The name of a file of picks without folder, extension and what pickers append."""
    stem = _stem(name)
    suffix = next((s for s in PICKER_SUFFIXES if stem.endswith(s)), "")
    return stem.removesuffix(suffix) or stem


def _stem(name: str) -> str:
    """The file name of a micrograph without extension."""
    stem = PurePath(name).name
    return stem[: stem.rindex(".")] if stem.lower().endswith(EXTENSIONS) else stem


LIST = "autopick.star"
"""Beside the STAR files of a folder: RELION 4 and 5 import it."""


def convert(source: Path, out: Path, config: ConvertConfig) -> ConvertReport:
    """Write the picks of a file, list or folder as another format.

    out : a file, or a folder (one that is there, or a name without ending), which gets a file a micrograph
    Coordinates keep at least 1e-3 px, scores are carried; what the format cannot hold is in the report.
    Raises PickeroptError as the readers do; for a format that is not written, for a file that is there
    (OutputError), for several micrographs where a file holds one; nothing is written then.
    """
    _check(config)
    target = choose_target(out, config.to)
    inputs = read_inputs([source], empty=True)
    kind = OUTPUT_FORMATS[target]
    files = [item.file for item in inputs.sources]
    groups = gather(files, config, kind, _listed(inputs))
    if out.is_dir() or not out.suffix:
        contents, notes = _folder(out, target, groups)
    else:
        contents, notes = _single(out, target, groups)
    _check_targets(list(contents), inputs, config.overwrite)
    for path, content in contents.items():
        write_bytes_atomically(path, content)
    if any(file.format in ("relion-particles", "labelled") or "cryosparc" in file.format for file in files):
        notes.append("only coordinates, scores and names are carried, no other columns")
    picks = sum(len(group.picks) for group in groups)
    notes = [*inputs.warnings, *dict.fromkeys(notes)]
    return ConvertReport(target, picks, len(groups), tuple(contents), tuple(notes))


def _listed(inputs: Inputs) -> dict[Path, str]:
    """The micrograph of each file that a list names."""
    names = {
        target: micrograph
        for source in inputs.lists
        for target, micrograph in zip(source.targets, source.coordinates.micrograph_names, strict=True)
    }
    return {source.file.path: names[source.name] for source in inputs.sources if source.name in names}


def _check(config: ConvertConfig) -> None:
    numbers = {
        "--scale": config.scale,
        "--diameter": config.diameter_angstrom,
        "--pixel-size": config.pixel_size,
    }
    for flag, value in numbers.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise GeometryError(f"{flag} is {value:g}; give a number above 0")
    if not all(math.isfinite(value) for value in config.shift):
        raise GeometryError(f"--shift is {config.shift[0]:g},{config.shift[1]:g}; give two finite numbers of px")


def _folder(out: Path, target: str, groups: list[Group]) -> tuple[dict[Path, bytes], list[str]]:
    """A file for each micrograph; of STAR files a list as well."""
    contents, notes = {}, []
    for group in groups:
        names = (group.stem,) * bool(len(group.picks)) if target == "topaz" else ()
        contents[out / f"{group.stem}{OUTPUT_FORMATS[target].file}"] = encode(
            target, group.picks, names, group.boxes, _shapes([group])
        )
    notes += losses(target, _together(groups))
    if target == "star":
        if not all(group.named for group in groups):
            what = f"{LIST} names micrographs without folder and extension, which RELION will not find"
            notes.append(f"{what}: give them with --micrographs")
        paths = [path.as_posix() for path in contents]
        contents[out / LIST] = write_coordinate_list([group.name for group in groups], paths)
    return contents, notes


def _single(out: Path, target: str, groups: list[Group]) -> tuple[dict[Path, bytes], list[str]]:
    """One file for all."""
    kind = OUTPUT_FORMATS[target]
    if len(groups) > 1 and not kind.several:
        what = f"{out}: {len(groups)} micrographs, and a {target} file holds one"
        raise PickeroptError(f"{what}; give a folder, with --to {target}")
    picks = _together(groups)
    notes = losses(target, picks)
    filled = [group for group in groups if len(group.picks)]
    own = len(groups) == 1 and bare_stem(out.stem) == groups[0].stem
    names: tuple[str, ...] = ()
    if target == "topaz":
        names = tuple(group.stem for group in filled)
    elif kind.several and not own:
        names = tuple(group.name for group in filled)
    elif not own and groups:
        notes.append(f"{target} holds no names: the file's own must say that it is of {groups[0].stem}")
    boxes = [group.boxes for group in groups if group.boxes is not None]
    sizes = np.concatenate(boxes) if boxes else _no_boxes()
    return {out: encode(target, picks, names, sizes, _shapes(groups))}, notes


def _shapes(groups: list[Group]) -> list[tuple[int, int]]:
    """(h, w) of each micrograph that has picks, where they were looked for."""
    return [group.shape for group in groups if len(group.picks) and group.shape is not None]


def _no_boxes() -> NDArray[np.float64]:
    return np.empty((0, 2))


def _together(groups: list[Group]) -> Picks:
    """The picks of all micrographs, one after the other."""
    counts = [len(group.picks) for group in groups if len(group.picks)]
    return Picks(
        coordinates=np.concatenate([np.empty((0, 2)), *(group.picks.coordinates for group in groups)]),
        micrograph_names=tuple(group.name for group in groups if len(group.picks)),
        micrograph_index=np.repeat(np.arange(len(counts), dtype=np.int64), counts),
        figure_of_merit=np.concatenate([np.empty(0), *(group.picks.figure_of_merit for group in groups)]),
    )


def _check_targets(paths: list[Path], inputs: Inputs, overwrite: bool) -> None:
    """Raises OutputError for an output that is an input, or is there and may not be replaced."""
    read = {item.file.path.resolve() for item in inputs.sources}
    read |= {companion.path.resolve() for item in inputs.sources for companion in item.file.companions}
    read |= {listed.coordinates.path.resolve() for listed in inputs.lists}
    for path in paths:
        if path.resolve() in read:
            raise OutputError(f"{path}: is an input, and inputs are never written to; choose another name")
        if path.is_dir() or (path.exists() and not overwrite):
            remedy = "choose another name" if path.is_dir() else "choose another name, or give --overwrite"
            raise OutputError(f"{path}: exists already; {remedy}")
