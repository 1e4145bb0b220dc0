"""The plan of a pruning: which picks are scored on which micrographs. Holds every check before any compute."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import CheckpointError, FormatError, GeometryError, PickeroptError
from pickeropt.frame.checking import describe
from pickeropt.frame.evidence import judge_frame
from pickeropt.frame.frame_config import WRONG, FrameConfig, FrameSite, Verdict
from pickeropt.io.cbox import FILAMENT_REMEDY, FILAMENTS
from pickeropt.io.inputs import Inputs, ListSource, Source, read_inputs
from pickeropt.io.micrographs import AGREE
from pickeropt.prune.prune_config import Filters, MicrographScorer, PruneConfig
from pickeropt.records import PARTICLE
from pickeropt.resumable import check_not_input, check_out
from pickeropt.sites import PickSet, Site, SitedPicks, locate

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


def check_frame(
    plan: "PrunePlan", inputs: Sequence[Path], config: PruneConfig, diameter_angstrom: float
) -> tuple[str, ...]:
    """Warnings, where something speaks against the frame of the picks; nothing with `trust_frame`.

    Raises GeometryError with the remedy where the picks are in another frame beyond doubt.
    """
    if config.trust_frame:
        return ()
    verdict = judge_frame(_samples(plan, diameter_angstrom), FrameConfig())
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


def _samples(plan: "PrunePlan", diameter_angstrom: float) -> list[FrameSite]:
    picks = plan.picks
    return [
        FrameSite(
            site.name,
            site.header,
            diameter_angstrom / site.pixel_size,
            site.pixel_size,
            picks.coordinates[site.rows],
            picks.figure_of_merit[site.rows],
        )
        for site in picks.sites
    ]


@dataclass(frozen=True)
class PrunePlan:
    """The picks on their micrographs, and the files that are to be written again."""

    sources: tuple[Source, ...]
    lists: tuple[ListSource, ...]
    picks: SitedPicks
    warnings: tuple[str, ...]


def make_plan(given: Sequence[Path] | PickSet, config: PruneConfig, scorer: MicrographScorer) -> PrunePlan:
    """Read the picks, find their micrographs, read their headers, check that all fits.

    given : files, lists or folders; or what was read of them

    Raises PickeroptError: settings out of range, FormatError and OutputError as
    `read_inputs` does, MicrographError for what is missing or truncated, GeometryError for
    pixel sizes that are unknown or differ, for picks that are in another frame and for picks
    that lie outside, OutputError for an output folder that exists or would hurt an input.
    """
    check_settings(config, scorer)
    check_out(config.out, config.overwrite)
    read, inputs = (given, given.paths) if isinstance(given, PickSet) else (None, given)
    found = read.inputs if read else read_inputs(inputs)
    _check_no_filaments(found.sources)
    files = [source.file for source in found.sources]
    picks = read.sited if read else locate(files, config.micrographs, config.pixel_size)
    _check_out_against_inputs(inputs, found, picks, config, scorer.config.model)
    plan = PrunePlan(found.sources, found.lists, picks, found.warnings)
    doubts = check_frame(plan, inputs, config, scorer.diameter_angstrom)
    radii = [scorer.diameter_angstrom / site.pixel_size / 2 for site in picks.sites]
    boxes = [(site.name, site.shape, picks.coordinates[site.rows]) for site in picks.sites]
    outside = check_inside(boxes, radii)
    if outside:
        site = picks.sites[outside.micrograph]
        raise _outside(picks, int(site.rows[outside.pick]), site, outside.count)
    sizes = [site.pixel_size for site in picks.sites]
    strange = (*frame_warnings(boxes, sizes), *taught_warnings(sizes, config, scorer))
    return replace(plan, warnings=(*found.warnings, *strange, *doubts))


def _check_no_filaments(sources: Sequence[Source]) -> None:
    for source in sources:
        if source.file.format == FILAMENTS:
            path = source.file.path
            remedy = FILAMENT_REMEDY.format(path=path)
            raise FormatError(f"{path}: holds filaments, which cannot lose single segments; {remedy}")


def _check_out_against_inputs(
    inputs: Sequence[Path], found: Inputs, picks: SitedPicks, config: PruneConfig, model: Path | None
) -> None:
    folders = [path for path in inputs if path.is_dir()]
    files = [source.file.path for source in found.sources]
    files += [companion.path for source in found.sources for companion in source.file.companions]
    files += [listed.coordinates.path for listed in found.lists]
    files += [site.path for site in picks.sites]
    files += [*config.micrographs, *(path for path in (model, config.picker_shots) if path)]
    check_not_input(config.out, folders, files)


def _outside(picks: SitedPicks, row: int, site: Site, count: int) -> GeometryError:
    """The error for a pick, by its place among all, of which `count` lie outside."""
    height, width = site.shape
    x, y = picks.coordinates[row].tolist()
    many = f" ({count} of its {len(site.rows)} picks do)" if count > 1 else ""
    what = f"{picks.place(row)}: the pick at x {x:g}, y {y:g} lies outside {site.name}"
    hint = "do the coordinates come from a micrograph of another binning, or in another frame?"
    remedy = "give the micrographs that were picked with --micrographs, or scale the coordinates"
    return GeometryError(f"{what}, {width} x {height} px{many}; {hint} {remedy}")
