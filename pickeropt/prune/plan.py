"""What is to be scored where: every check, before any compute."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import FormatError, GeometryError, MicrographError
from pickeropt.io.cbox import FILAMENT_REMEDY, FILAMENTS
from pickeropt.io.find import MicrographFinder
from pickeropt.io.inputs import Inputs, ListSource, Source, read_inputs
from pickeropt.io.micrographs import MicrographHeader, read_micrograph_header
from pickeropt.io.picks_file import placed, row_place
from pickeropt.io.pixel_size import choose_pixel_size
from pickeropt.prune.frame_check import check_frame
from pickeropt.prune.geometry import check_inside, check_settings, frame_warnings, taught_warnings
from pickeropt.prune.prune_config import MicrographScorer, PruneConfig
from pickeropt.resumable import check_not_input, check_out

HEADER_THREADS = 8


@dataclass(frozen=True)
class Task:
    """One micrograph that has picks.

    name : as the files of picks name it, else its path; no two tasks have the same
    path : real path
    shape : (h, w) px; pixel_size : Å/px
    stamp : size in bytes and time of change in ns
    rows : (m,) int64, its picks among all
    """

    name: str
    path: Path
    shape: tuple[int, int]
    pixel_size: float
    stamp: tuple[int, int]
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """All n picks of all files one after the other, and the micrographs they are on.

    starts : (files + 1,) where each file's picks start
    coordinates : (n, 2) x and y, px, rows as stored
    micrograph : (n,) int64, into `tasks`
    """

    sources: tuple[Source, ...]
    lists: tuple[ListSource, ...]
    starts: NDArray[np.int64]
    coordinates: NDArray[np.float64]
    micrograph: NDArray[np.int64]
    tasks: tuple[Task, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Site:
    """A micrograph while the plan is made.

    names : the best is the largest: whether a file of picks has it, its length, the name
    optics : Å/px by file of picks
    """

    path: Path
    names: set[tuple[bool, int, str]]
    optics: dict[str, float]


def make_plan(inputs: Sequence[Path], config: PruneConfig, scorer: MicrographScorer) -> Plan:
    """Read the picks, find their micrographs, read their headers, check that all fits.

    Raises PickeroptError: settings out of range, FormatError and OutputError as
    `read_inputs` does, MicrographError for what is missing or truncated, GeometryError for
    pixel sizes that are unknown or differ, for picks that are in another frame and for picks
    that lie outside, OutputError for an output folder that exists or would hurt an input.
    """
    check_settings(config, scorer)
    check_out(config.out, config.overwrite)
    found = read_inputs(inputs)
    _check_no_filaments(found.sources)
    sites, micrograph = _find_micrographs(found.sources, config.micrographs)
    _check_out_against_inputs(inputs, found, sites, config)
    starts = np.cumsum([0, *(len(source.file.picks) for source in found.sources)])
    tasks = _make_tasks(sites, micrograph, config.pixel_size)
    heights = np.split(np.array([task.shape[0] for task in tasks])[micrograph], starts[1:-1])
    files = [source.file for source in found.sources]
    coordinates = np.concatenate([placed(file, h) for file, h in zip(files, heights, strict=True)])
    plan = Plan(found.sources, found.lists, starts, coordinates, micrograph, tasks, found.warnings)
    doubts = check_frame(plan, inputs, config, scorer.diameter_angstrom)
    radii = [scorer.diameter_angstrom / task.pixel_size / 2 for task in tasks]
    boxes = [(task.name, task.shape, coordinates[task.rows]) for task in tasks]
    outside = check_inside(boxes, radii)
    if outside:
        task = tasks[outside.micrograph]
        raise _outside(plan, int(task.rows[outside.pick]), int(task.rows.size), outside.count)
    sizes = [task.pixel_size for task in tasks]
    strange = (*frame_warnings(boxes, sizes), *taught_warnings(sizes, config, scorer))
    return replace(plan, warnings=(*found.warnings, *strange, *doubts))


def _check_no_filaments(sources: Sequence[Source]) -> None:
    for source in sources:
        if source.file.format == FILAMENTS:
            path = source.file.path
            remedy = FILAMENT_REMEDY.format(path=path)
            raise FormatError(f"{path}: holds filaments, which cannot lose single segments; {remedy}")


def _find_micrographs(
    sources: Sequence[Source], folders: Sequence[Path]
) -> tuple[list[_Site], NDArray[np.int64]]:
    """The micrographs in order of first mention, and (n,) the index of each pick's."""
    found = MicrographFinder(folders).find_all(source.file for source in sources)
    sites: list[_Site] = []
    known: dict[Path, int] = {}
    parts = []
    for source, paths in zip(sources, found, strict=True):
        picks, places = source.file.picks, []
        for name, path in zip(picks.micrograph_names, paths, strict=True):
            real = path.resolve()
            if real not in known:
                known[real] = len(sites)
                sites.append(_Site(real, set(), {}))
            site = sites[known[real]]
            shown = str(path) if source.file.names_from_stem else name
            site.names.add((not source.file.names_from_stem, len(shown), shown))
            if picks.pixel_size is not None:
                site.optics[str(source.file.path)] = picks.pixel_size
            places.append(known[real])
        parts.append(np.array(places, dtype=np.int64)[picks.micrograph_index])
    return sites, np.concatenate(parts)


def _make_tasks(
    sites: Sequence[_Site], micrograph: NDArray[np.int64], flag: float | None
) -> tuple[Task, ...]:
    order = np.argsort(micrograph, kind="stable")
    rows = np.split(order, np.cumsum(np.bincount(micrograph, minlength=len(sites)))[:-1])
    names = [max(site.names)[2] for site in sites]
    uses = Counter(names)
    tasks = []
    for site, name, (header, stamp), own in zip(sites, names, _headers(sites), rows, strict=True):
        shown = name if uses[name] == 1 else str(site.path)
        size = choose_pixel_size(flag, header, site.optics)
        tasks.append(Task(shown, site.path, header.shape, size, stamp, own))
    return tuple(tasks)


def _headers(sites: Sequence[_Site]) -> list[tuple[MicrographHeader, tuple[int, int]]]:
    """Header, size and time of change of each. Raises MicrographError naming the first fault."""

    def read(site: _Site) -> tuple[MicrographHeader, tuple[int, int]] | MicrographError:
        try:
            header, status = read_micrograph_header(site.path), site.path.stat()
        except MicrographError as error:
            return error
        return header, (status.st_size, status.st_mtime_ns)

    with ThreadPoolExecutor(HEADER_THREADS) as pool:
        results = list(pool.map(read, sites))
    faults = [result for result in results if isinstance(result, MicrographError)]
    if faults:
        more = f" ({len(faults) - 1} more micrographs cannot be read either)" if len(faults) > 1 else ""
        raise MicrographError(f"{faults[0]}{more}")
    return [result for result in results if not isinstance(result, MicrographError)]


def _check_out_against_inputs(
    inputs: Sequence[Path], found: Inputs, sites: Sequence[_Site], config: PruneConfig
) -> None:
    folders = [path for path in inputs if path.is_dir()]
    files = [source.file.path for source in found.sources]
    files += [companion.path for source in found.sources for companion in source.file.companions]
    files += [listed.coordinates.path for listed in found.lists]
    files += [site.path for site in sites]
    files += [*config.micrographs, *(path for path in (config.model, config.picker_shots) if path)]
    check_not_input(config.out, folders, files)


def _outside(plan: Plan, row: int, picks: int, count: int) -> GeometryError:
    """The error for a pick, by its place among all, of which `count` lie outside."""
    source = int(np.searchsorted(plan.starts, row, side="right")) - 1
    where = row_place(plan.sources[source].file, int(row - plan.starts[source]))
    task = plan.tasks[plan.micrograph[row]]
    height, width = task.shape
    x, y = plan.coordinates[row].tolist()
    many = f" ({count} of its {picks} picks do)" if count > 1 else ""
    what = f"{where}: the pick at x {x:g}, y {y:g} lies outside {task.name}"
    hint = "do the coordinates come from a micrograph of another binning, or in another frame?"
    remedy = "give the micrographs that were picked with --micrographs, or scale the coordinates"
    return GeometryError(f"{what}, {width} x {height} px{many}; {hint} {remedy}")
