"""Convert files of picks: read any format, write any other."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.convert.conversion import Group, bare_stem, gather
from pickeropt.convert.convert_config import ConvertConfig, ConvertReport
from pickeropt.convert.targets import TARGETS, choose_target, encode, losses
from pickeropt.errors import GeometryError, OutputError, PickeroptError
from pickeropt.io.inputs import Inputs, read_inputs
from pickeropt.io.lists import write_coordinate_list
from pickeropt.io.tables import write_bytes_atomically
from pickeropt.records import Picks

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
    kind = TARGETS[target]
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
        raise GeometryError(
            f"--shift is {config.shift[0]:g},{config.shift[1]:g}; give two finite numbers of px"
        )


def _folder(out: Path, target: str, groups: list[Group]) -> tuple[dict[Path, bytes], list[str]]:
    """A file for each micrograph; of STAR files a list as well."""
    contents, notes = {}, []
    for group in groups:
        names = (group.stem,) * bool(len(group.picks)) if target == "topaz" else ()
        contents[out / f"{group.stem}{TARGETS[target].file}"] = encode(
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
    kind = TARGETS[target]
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
