"""What is to be scored where: every check, before any compute.

Pixel sizes, diameters and coordinates held against the micrographs.

The frame doctor on a sample of what is to be pruned, before any forward pass.
"""

import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import CheckpointError, FormatError, GeometryError, MicrographError, PickeroptError
from pickeropt.frame.evidence import judge_frame
from pickeropt.frame.findings import describe
from pickeropt.frame.frame_config import WRONG, FrameConfig, Site, Verdict
from pickeropt.io.cbox import FILAMENT_REMEDY, FILAMENTS
from pickeropt.io.find import MicrographFinder
from pickeropt.io.inputs import Inputs, ListSource, Source, read_inputs
from pickeropt.io.micrographs import AGREE, MicrographHeader, choose_pixel_size, read_micrograph_header
from pickeropt.io.picks_file import placed, row_place
from pickeropt.prune.prune_config import Filters, MicrographScorer, PruneConfig
from pickeropt.records import PARTICLE
from pickeropt.resumable import check_not_input, check_out

SMALLEST_DIAMETER = 4
"""px; what is smaller holds no image."""
FRAME_PICKS, FRAME_SHARE = 100, 0.55
"""So many picks that all lie in so small a share of width and height are a binning's."""

Placed = tuple[str, tuple[int, int], NDArray[np.float64]]
"""A micrograph's name, its (h, w) px, and its picks (m, 2) x, y px."""


@dataclass(frozen=True)
class Outside:
    """The first pick that lies outside: which micrograph, which of its picks, how many there."""

    micrograph: int
    pick: int
    count: int


def check_settings(config: PruneConfig, scorer: MicrographScorer) -> None:
    """Raises PickeroptError where a number is out of range or the model has no `particle`."""
    if not 0 <= config.threshold <= 1:
        raise PickeroptError(f"the threshold is {config.threshold:g}; give one from 0 to 1")
    if config.prior != "auto" and not 0 < config.prior < 1:
        raise PickeroptError(f"--prior is {config.prior:g}; give auto, or a share between 0 and 1")
    _check_filters(config.filters)
    for value, flag in ((config.pixel_size, "--pixel-size"), (scorer.diameter_angstrom, "--diameter")):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise GeometryError(f"{flag} is {value:g}; give a number of Å above 0")
    if PARTICLE not in scorer.class_names:
        named = ", ".join(scorer.class_names)
        raise CheckpointError(f"the model has no class {PARTICLE!r} ({named}); fine-tune one that has")


def _check_filters(filters: Filters) -> None:
    for name, value in asdict(filters).items():
        flag = f"--{name.replace('_', '-')}"
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise PickeroptError(f"{flag} is {value:g}; give a number from 0 on")
    if filters.max_extreme is not None and filters.max_extreme > 1:
        raise PickeroptError(f"--max-extreme is {filters.max_extreme:g}; give a share of the pixels, 0 to 1")
    if filters.min_std is not None and filters.max_std is not None and filters.min_std > filters.max_std:
        raise PickeroptError(f"--min-std {filters.min_std:g} is above --max-std {filters.max_std:g}")


def check_inside(boxes: Sequence[Placed], radii: Sequence[float]) -> Outside | None:
    """The first micrograph with picks whose box of the diameter does not touch it, or None.

    radii : half the diameter on each, px
    Raises GeometryError where the particle is larger than a micrograph, or a few px small.
    """
    for (name, (height, width), _), radius in zip(boxes, radii, strict=True):
        if not SMALLEST_DIAMETER <= 2 * radius <= min(height, width):
            what = f"{name}: the particle is {2 * radius:.3g} px across on {width} x {height} px"
            raise GeometryError(f"{what}; give its size in Å with --diameter, and check --pixel-size")
    for i, ((_, (height, width), xy), radius) in enumerate(zip(boxes, radii, strict=True)):
        away = ((xy < -radius) | (xy > np.array([width, height]) + radius)).any(axis=1)
        if away.any():
            return Outside(i, int(away.argmax()), int(away.sum()))
    return None


def taught_warnings(pixel_sizes: Sequence[float], config: PruneConfig, scorer: MicrographScorer) -> tuple[str, ...]:
    """Where the model was taught at a pixel size that the user had to give, and the files say another."""
    taught = scorer.taught_pixel_size
    if taught is None or config.pixel_size is not None:
        return ()
    other = next((size for size in pixel_sizes if not 1 / (1 + AGREE) <= size / taught <= 1 + AGREE), None)
    if other is None:
        return ()
    what = f"the model was taught with --pixel-size {taught:g}, and the micrographs say {other:.6g} Å/px"
    return (f"{what}: give --pixel-size where they are of the same kind",)


def frame_warnings(boxes: Sequence[Placed], pixel_sizes: Sequence[float]) -> tuple[str, ...]:
    """What is possible but seldom meant: several pixel sizes, picks in one corner only."""
    found = []
    low, high = min(pixel_sizes), max(pixel_sizes)
    if high > low * (1 + AGREE):
        found.append(f"the micrographs have pixel sizes from {low:.6g} to {high:.6g} Å/px")
    share = max(float((xy / shape[::-1]).max()) for _, shape, xy in boxes)
    if sum(len(xy) for _, _, xy in boxes) >= FRAME_PICKS and share < FRAME_SHARE:
        where = f"all picks lie in the first {100 * share:.0f} % of width and height"
        found.append(f"{where}; are they coordinates of binned micrographs?")
    return tuple(found)


TRUST = "or, if you know that it is right, go on with --trust-frame"


def check_frame(plan: "Plan", inputs: Sequence[Path], config: PruneConfig, diameter_angstrom: float) -> tuple[str, ...]:
    """Warnings, where something speaks against the frame of the picks; nothing with `trust_frame`.

    Raises GeometryError with the remedy where the picks are in another frame beyond doubt.
    """
    if config.trust_frame:
        return ()
    verdict = judge_frame(_sites(plan, diameter_angstrom), FrameConfig())
    text, remedy = describe(verdict, inputs, config.micrographs)
    if verdict.opinion.answer == WRONG:
        given = " and ".join(map(str, inputs[:2])) + (" ..." if len(inputs) > 2 else "")
        raise GeometryError(f"{given}: the frame of the picks is {text}; {remedy}; {TRUST}")
    return _warnings(verdict, text, remedy)


def _warnings(verdict: Verdict, text: str, remedy: str) -> tuple[str, ...]:
    if verdict.opinion.doubtful:
        return (f"the frame of the picks is {text}; {remedy} (`pickeropt check` says more)",)
    if verdict.odd:
        named = ", ".join(f"{name} ({frame.name})" for name, frame in verdict.odd)
        return (f"the picks of some micrographs are in another frame than the others: {named}",)
    return ()


def _sites(plan: "Plan", diameter_angstrom: float) -> list[Site]:
    merit = np.concatenate([source.file.picks.figure_of_merit for source in plan.sources])
    return [
        Site(
            task.name,
            task.path,
            task.shape,
            diameter_angstrom / task.pixel_size,
            task.pixel_size,
            plan.coordinates[task.rows],
            merit[task.rows],
        )
        for task in plan.tasks
    ]


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
    _check_out_against_inputs(inputs, found, sites, config, scorer.config.model)
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


def _find_micrographs(sources: Sequence[Source], folders: Sequence[Path]) -> tuple[list[_Site], NDArray[np.int64]]:
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


def _make_tasks(sites: Sequence[_Site], micrograph: NDArray[np.int64], flag: float | None) -> tuple[Task, ...]:
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
    inputs: Sequence[Path], found: Inputs, sites: Sequence[_Site], config: PruneConfig, model: Path | None
) -> None:
    folders = [path for path in inputs if path.is_dir()]
    files = [source.file.path for source in found.sources]
    files += [companion.path for source in found.sources for companion in source.file.companions]
    files += [listed.coordinates.path for listed in found.lists]
    files += [site.path for site in sites]
    files += [*config.micrographs, *(path for path in (model, config.picker_shots) if path)]
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
