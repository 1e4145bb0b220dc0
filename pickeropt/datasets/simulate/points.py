"""Labelled points and a picker's picks, drawn from the truth of a simulated micrograph."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

from pickeropt.datasets.simulate.simulation_config import MASK_CLASSES, SOURCE_NAMES, SimulatedMicrograph

Where = NDArray[np.bool_]
PARTICLE, CONTAMINANT, CARBON = (MASK_CLASSES.index(name) for name in ("particle", "contaminant", "carbon"))


@dataclass(frozen=True)
class LabelledPoints:
    """coordinates (m, 2) float64 x, y px; class and source class of each, (m,)."""

    coordinates: NDArray[np.float64]
    class_names: tuple[str, ...]
    source_class: tuple[str, ...]


@dataclass(frozen=True)
class SimulatedPicks:
    """A picker's picks with the truth about each, best figure of merit first.

    coordinates (m, 2) float64 x, y px; figure_of_merit (m,) float64 in 0 to 1;
    class_names and source_class (m,): to evaluate a pruner with, never its input
    """

    coordinates: NDArray[np.float64]
    figure_of_merit: NDArray[np.float64]
    class_names: tuple[str, ...]
    source_class: tuple[str, ...]


@dataclass(frozen=True)
class PickerConfig:
    """How the picker errs.

    recall : share of the particles it finds
    jitter : standard deviation of a pick's centre, in diameters; no pick is off by over 0.3
    false_fraction : share of wrong picks
    shares : contaminant, carbon, background among the wrong picks, where there are any
    auc : area under the curve of the figure of merit, particle against not
    """

    recall: float = 0.9
    jitter: float = 0.06
    false_fraction: float = 0.4
    shares: tuple[float, float, float] = (0.4, 0.25, 0.35)
    auc: float = 0.75


def labelled_points(
    sim: SimulatedMicrograph, per_class: int, rng: np.random.Generator, margin: float = 0.5
) -> LabelledPoints:
    """At most `per_class` points of each class, `margin` diameters or more inside the frame.

    Contaminants and carbon are shared out evenly over the kinds present, and lie anywhere
    on them; background keeps 0.4 diameter off every particle disc and all junk.
    """
    h, w = sim.mask.shape
    inside = np.zeros((h, w), dtype=bool)
    edge = int(np.ceil(margin * sim.diameter_px))
    inside[edge : h - edge, edge : w - edge] = True
    column, row = sim.coordinates.astype(np.int64).T
    whole = np.flatnonzero(inside[row, column])
    chosen = rng.permutation(whole)[:per_class]
    empty = _spread(_empty(sim) & inside, per_class, 0.3 * sim.diameter_px, rng)
    junk = [_on_kinds(sim, (sim.mask == index) & inside, per_class, 0.2, rng) for index in (CONTAMINANT, CARBON)]
    points = np.concatenate([empty, *junk])
    names, sources = _names_at(sim, points)
    return LabelledPoints(
        coordinates=np.concatenate([sim.coordinates[chosen], points]),
        class_names=("particle",) * len(chosen) + names,
        source_class=tuple(sim.source_class[i] for i in chosen) + sources,
    )


def simulate_picks(
    sim: SimulatedMicrograph, rng: np.random.Generator, config: PickerConfig | None = None
) -> SimulatedPicks:
    """What a picker would return: jittered particles, and wrong picks of every kind present.

    There are fewer wrong picks than asked for only where the micrograph has no room left
    for them at a quarter of a diameter from each other.
    """
    config = config or PickerConfig()
    found = np.flatnonzero(rng.uniform(size=len(sim.coordinates)) < config.recall)
    jitter = rng.normal(0.0, config.jitter, (len(found), 2))
    jitter *= np.minimum(1.0, 0.3 / np.maximum(np.linalg.norm(jitter, axis=1, keepdims=True), 1e-9))
    h, w = sim.mask.shape
    true = np.clip(sim.coordinates[found] + jitter * sim.diameter_px, 0, [w - 1, h - 1])
    wanted = round(len(found) * config.false_fraction / (1.0 - config.false_fraction))
    wrong = _wrong_picks(sim, wanted, config.shares, rng)
    names, sources = _names_at(sim, wrong)
    names = ("particle",) * len(true) + names
    sources = tuple(sim.source_class[i] for i in found) + sources
    merit = _figure_of_merit(len(true), sources, config.auc, rng)
    order = np.argsort(-merit, kind="stable")
    return SimulatedPicks(
        coordinates=np.concatenate([true, wrong])[order],
        figure_of_merit=merit[order],
        class_names=tuple(names[i] for i in order),
        source_class=tuple(sources[i] for i in order),
    )


def _wrong_picks(
    sim: SimulatedMicrograph, wanted: int, shares: tuple[float, float, float], rng: np.random.Generator
) -> NDArray[np.float64]:
    """(m, 2) points off the particles: on contaminants, on carbon, then on empty ice."""
    areas = (sim.mask == CONTAMINANT, sim.mask == CARBON, _empty(sim))
    weights = np.array(shares) * [bool(area.any()) for area in areas]
    counts = np.floor(wanted * weights / max(weights.sum(), 1e-9)).astype(int)
    parts = [_on_kinds(sim, areas[i], int(counts[i]), 0.5, rng) for i in (0, 1)]
    short = wanted - sum(map(len, parts))
    parts.append(_spread(areas[2], short, 0.5 * sim.diameter_px, rng))
    short = wanted - sum(map(len, parts))
    parts.append(_spread(sim.mask != PARTICLE, short, 0.25 * sim.diameter_px, rng))
    return np.concatenate(parts)


def _empty(sim: SimulatedMicrograph) -> Where:
    """Where a point is 0.4 diameter or more from every particle disc and all junk; (h, w)."""
    away: Where = ndimage.distance_transform_edt(sim.mask == 0) >= 0.4 * sim.diameter_px
    return away


def _on_kinds(
    sim: SimulatedMicrograph, area: Where, count: int, spacing: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """At most `count` points of the area, shared out over its source classes; (m, 2) x, y px.

    Half of those on carbon are within 0.75 diameter of its edge, where pickers err.
    """
    kinds = np.flatnonzero(np.bincount(sim.source_map[area], minlength=len(SOURCE_NAMES)))
    parts = [np.zeros((0, 2))]
    for left, kind in zip(range(len(kinds), 0, -1), rng.permutation(kinds), strict=True):
        where = area & (sim.source_map == kind)
        quota = (count - sum(map(len, parts))) // left
        if sim.mask[where][0] == CARBON:
            rim = where & (ndimage.distance_transform_edt(sim.mask == CARBON) < 0.75 * sim.diameter_px)
            parts.append(_spread(rim, quota // 2, spacing * sim.diameter_px, rng))
            quota -= len(parts[-1])
        parts.append(_spread(where, quota, spacing * sim.diameter_px, rng))
    return np.concatenate(parts)


def _spread(where: Where, count: int, spacing: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """At most `count` random pixels of `where`, `spacing` px or more apart; (m, 2) x, y."""
    candidates = np.flatnonzero(where)
    count = max(count, 0)
    tries = rng.choice(candidates, min(len(candidates), 20 * count), replace=False)
    chosen = np.zeros((count, 2))
    taken = 0
    for flat in tries:
        point = np.array([flat % where.shape[1], flat // where.shape[1]], dtype=np.float64)
        if taken == count:
            break
        if taken == 0 or np.min(np.sum((chosen[:taken] - point) ** 2, axis=1)) >= spacing**2:
            chosen[taken] = point
            taken += 1
    return chosen[:taken]


def _names_at(sim: SimulatedMicrograph, points: NDArray[np.float64]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Class and source class under each point of whole px."""
    column, row = points.astype(np.int64).T
    classes = tuple(MASK_CLASSES[i] for i in sim.mask[row, column])
    return classes, tuple(SOURCE_NAMES[i] for i in sim.source_map[row, column])


def _figure_of_merit(true: int, sources: tuple[str, ...], auc: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Scores in 0 to 1; the first `true` are the particles'. Two normals d' apart have AUC
    Phi(d'/√2); kinds that look like particles score above empty ice by as much on average."""
    likeness = np.array([LIKENESS.get(source, 0.0) for source in sources])
    likeness[:true] = 0.0
    if len(sources) > true:
        likeness[true:] -= likeness[true:].mean()
    spread = np.sqrt(1.0 + np.mean(likeness[true:] ** 2) / 2.0) if len(sources) > true else 1.0
    distance = np.sqrt(2.0) * special.ndtri(auc) * spread
    merit = rng.normal(likeness, 1.0)
    merit[:true] += distance
    result: NDArray[np.float64] = special.expit(merit)
    return result


LIKENESS = {"aggregate": 0.4, "fragment": 0.5, "denatured": 0.3, "gold_bead": 0.3, "empty_ice": -0.4}
"""How much more a picker likes a wrong source than the mean wrong one, in standard deviations."""
