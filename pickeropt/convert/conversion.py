"""The picks of all inputs by micrograph, in the frame of the output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from pickeropt.convert.convert_config import ConvertConfig
from pickeropt.convert.targets import Target
from pickeropt.errors import GeometryError, OutputError
from pickeropt.io.find import EXTENSIONS, PICKER_SUFFIXES, MicrographFinder
from pickeropt.io.micrographs import MicrographHeader, read_micrograph_header
from pickeropt.io.picks_file import PicksFile
from pickeropt.io.pixel_size import choose_pixel_size
from pickeropt.records import Picks


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
class _Part:
    """Some rows of one file, all on one micrograph."""

    file: PicksFile
    rows: NDArray[np.int64]
    found: Path | None


def gather(
    files: Sequence[PicksFile], config: ConvertConfig, kind: Target, listed: Mapping[Path, str]
) -> list[Group]:
    """The groups, in order of first mention.

    kind : the output's format
    listed : the micrographs of files without picks, by the file, where a list names them
    Raises MicrographError for micrographs that are needed and missing, GeometryError where nothing says
    how large the boxes are, OutputError for two micrographs of one stem, and for two files of one micrograph.
    """
    turned = config.flip_x or config.flip_y or any(file.rows_from_top for file in files)
    parts = _parts(files, config, turned or kind.rows_from_top or kind.shapes, listed)
    groups = [_group(name, own, config, kind) for name, own in parts.items()]
    owner: dict[str, str] = {}
    for group in groups:
        other = owner.setdefault(group.stem, group.name)
        if other != group.name:
            what = f"{other} and {group.name} have the same name without their folders"
            raise OutputError(f"{what}; convert them one after the other")
    return groups


def _parts(
    files: Sequence[PicksFile], config: ConvertConfig, needed: bool, listed: Mapping[Path, str]
) -> dict[str, list[_Part]]:
    """By micrograph as the output names it."""
    finder = MicrographFinder(config.micrographs, folders_first=True)
    wanted = bool(config.micrographs) or needed
    found = finder.find_all(files) if wanted else None
    parts: dict[str, list[_Part]] = {}
    for i, file in enumerate(files):
        names = file.picks.micrograph_names
        if not names and file.names_from_stem:
            key, path = _without_picks(file, finder if config.micrographs else None, listed)
            parts.setdefault(key, []).append(_Part(file, np.empty(0, np.int64), path))
        for k, name in enumerate(names):
            path = None if found is None else found[i][k]
            key = str(path) if path is not None and config.micrographs else name
            if path is None and file.names_from_stem:
                key = bare_stem(name)
            rows = np.flatnonzero(file.picks.micrograph_index == k)
            parts.setdefault(key, []).append(_Part(file, rows, path))
    for name, own in parts.items():
        if len(own) > 1:
            what = f"{own[0].file.path} and {own[1].file.path} both are of {name}"
            raise OutputError(f"{what}; convert them one after the other")
    return parts


def _without_picks(
    file: PicksFile, finder: MicrographFinder | None, listed: Mapping[Path, str]
) -> tuple[str, Path | None]:
    """For a file without picks: its micrograph's name, and its path where it is looked for and there."""
    name = listed.get(file.path)
    path = finder.find(name or file.path.stem, file.path, name is None) if finder else None
    return (str(path) if path else name or bare_stem(file.path.stem)), path


def _group(name: str, parts: list[_Part], config: ConvertConfig, kind: Target) -> Group:
    path = parts[0].found
    header = None if path is None else read_micrograph_header(path)
    xy = np.concatenate([_placed(part, config.scale, header) for part in parts])
    xy = _turned(xy, config, header)
    if header is not None and kind.rows_from_top:
        xy[:, 1] = header.shape[0] - xy[:, 1]
    merits = np.concatenate([part.file.picks.figure_of_merit[part.rows] for part in parts])
    picks = Picks(xy, (name,) if len(xy) else (), np.zeros(len(xy), dtype=np.int64), merits)
    sizes = _boxes(name, parts, config, header) if kind.boxes else None
    named = path is not None or not parts[0].file.names_from_stem or name.lower().endswith(EXTENSIONS)
    shape = None if header is None else header.shape
    return Group(name, _stem(name) if named else bare_stem(name), named, picks, sizes, shape)


def _placed(part: _Part, scale: float, header: MicrographHeader | None) -> NDArray[np.float64]:
    """Coordinates in px of the output's micrograph, rows as stored."""
    xy = part.file.picks.coordinates[part.rows] * scale
    if part.file.rows_from_top and header is not None:
        xy[:, 1] = header.shape[0] - xy[:, 1]
    return xy


def _turned(
    xy: NDArray[np.float64], config: ConvertConfig, header: MicrographHeader | None
) -> NDArray[np.float64]:
    """Swapped, mirrored and shifted as the user asked; what is mirrored has a micrograph."""
    turned = xy[:, ::-1].copy() if config.swap_xy else xy
    if header is not None:
        height, width = header.shape
        for axis, flipped, side in ((0, config.flip_x, width), (1, config.flip_y, height)):
            if flipped:
                turned[:, axis] = side - 1 - turned[:, axis]
    placed: NDArray[np.float64] = turned + np.array(config.shift)
    return placed


def _boxes(
    name: str, parts: list[_Part], config: ConvertConfig, header: MicrographHeader | None
) -> NDArray[np.float64]:
    """(m, 2): the boxes of the input, or even ones that just hold the diameter."""
    count = sum(len(part.rows) for part in parts)
    if config.diameter_angstrom is not None:
        size = _pixel_size(name, parts, config, header)
        return np.full((count, 2), 2.0 * np.ceil(config.diameter_angstrom / size / 2))
    sizes = [part.file.box_sizes[part.rows] for part in parts if part.file.box_sizes is not None]
    if len(sizes) < len(parts) and count:
        what = f"{parts[0].file.path}: the output has boxes, and this file does not say their size"
        raise GeometryError(f"{what}; give the particle's diameter with --diameter")
    found = np.concatenate(sizes) * config.scale if sizes else np.empty((0, 2))
    return found[:, ::-1].copy() if config.swap_xy else found


def _pixel_size(
    name: str, parts: list[_Part], config: ConvertConfig, header: MicrographHeader | None
) -> float:
    """Å/px of the output's micrograph."""
    said = {str(p.file.path): p.file.picks.pixel_size for p in parts if p.file.picks.pixel_size is not None}
    optics = {path: size / config.scale for path, size in said.items()}
    if header is not None:
        return choose_pixel_size(config.pixel_size, header, optics)
    sizes = [size for size in (config.pixel_size, *optics.values()) if size is not None]
    if not sizes:
        what = f"{name}: --diameter is in Å, and nothing says the size of a pixel"
        raise GeometryError(f"{what}; give it with --pixel-size, or the micrographs with --micrographs")
    return sizes[0]


def bare_stem(name: str) -> str:
    """The name of a file of picks without folder, extension and what pickers append."""
    stem = _stem(name)
    suffix = next((s for s in PICKER_SUFFIXES if stem.endswith(s)), "")
    return stem.removesuffix(suffix) or stem


def _stem(name: str) -> str:
    """The file name of a micrograph without extension."""
    stem = PurePath(name).name
    return stem[: stem.rindex(".")] if stem.lower().endswith(EXTENSIONS) else stem
