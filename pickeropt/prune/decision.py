"""From what was seen of the picks to which of them stay."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pickeropt.prune.adjust import at_prior, with_picker_score
from pickeropt.prune.filters import Measure, out_of_bounds, too_close
from pickeropt.prune.picker_score import Labelled
from pickeropt.prune.plan import Plan
from pickeropt.prune.prior import NEUTRAL
from pickeropt.prune.prune_config import REASONS, Filters, PruneConfig
from pickeropt.prune.scoring import Sight
from pickeropt.prune.summary import Judged
from pickeropt.records import FloatArray, Scores


@dataclass(frozen=True)
class Decision:
    """n picks decided.

    scores : those that decide, by `prior` and, where it was asked, with the picker's score
    measures : (n,) each, what filters held against their bounds, by name
    filtered : whether any filter is on
    notes : what was learnt on the way, a sentence each
    """

    scores: Scores
    judged: Judged
    measures: Mapping[str, FloatArray]
    filtered: bool
    prior: float
    notes: tuple[str, ...]


def decide(
    plan: Plan, config: PruneConfig, sight: Sight, values: FloatArray, labelled: Labelled | None
) -> Decision:
    """Judge the picks by what `score_all` saw, (n, k + q).

    labelled : picks that have a label, where the picker's own score is used
    """
    names = tuple(sight.scorer.class_names)
    scores = Scores(names, values[:, : len(names)])
    notes: tuple[str, ...] = ()
    if labelled is not None:
        merits = np.concatenate([source.file.picks.figure_of_merit for source in plan.sources])
        scores, note = with_picker_score(scores, merits, labelled)
        notes = (note,)
    scores, prior = at_prior(scores, config.prior)
    if prior != NEUTRAL:
        notes = (*notes, f"the scores take {100 * prior:.1f} % of the picks for particles")
    measured = values[:, len(names) :]
    judged = Judged(
        class_names=names,
        best=scores.probabilities.argmax(axis=1),
        micrographs=tuple(task.name for task in plan.tasks),
        micrograph=plan.micrograph,
        above=scores.particle >= np.float32(config.threshold),
        reasons=_reasons(plan, (config.filters, sight.measures), measured, scores.particle),
    )
    measures = {m.name: measured[:, i] for i, m in enumerate(sight.measures)}
    return Decision(scores, judged, measures, config.filters != Filters(), prior, notes)


def _reasons(
    plan: Plan, bounds: tuple[Filters, Sequence[Measure]], measured: FloatArray, particle: FloatArray
) -> NDArray[np.int64]:
    """(n,) index into `REASONS`. Picks that another filter drops push no neighbour out."""
    filters, measures = bounds
    reasons = out_of_bounds(measures, measured)
    if filters.min_distance is not None:
        for task in plan.tasks:
            rows = task.rows[reasons[task.rows] == 0]
            close = too_close(plan.coordinates[rows], particle[rows], filters.min_distance / task.pixel_size)
            reasons[rows[close]] = REASONS.index("min-distance")
    return reasons
