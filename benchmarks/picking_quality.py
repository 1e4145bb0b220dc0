"""What the picks of a picker are worth against true particles."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pickeropt.evaluate.evaluation import quality
from pickeropt.evaluate.metrics import average_precision, descending, match, precision_recall

Coordinates = NDArray[np.float64]


@dataclass(frozen=True)
class Picked:
    """The candidates of one micrograph and its true particles.

    coordinates : (n, 2) px; scores : (n,); truth : (m, 2) px
    """

    coordinates: Coordinates
    scores: NDArray[np.float64]
    truth: Coordinates

    def inside(self, shape: tuple[int, int], margin: float) -> "Picked":
        """Without candidates and particles less than `margin` px from an edge of the (h, w) micrograph."""
        stays = _inside(self.coordinates, shape, margin)
        truth = self.truth[_inside(self.truth, shape, margin)]
        return Picked(self.coordinates[stays], self.scores[stays], truth)


@dataclass(frozen=True)
class PickingQuality:
    """Picks above a threshold, of several micrographs together.

    picks, truths : their numbers; precision, recall, f1 : one-to-one matches within the radius
    average_precision : of all candidates ranked by score, whatever the threshold
    centre_error : mean distance of a true pick from the nearest particle, px; NaN without true picks
    """

    picks: int
    truths: int
    precision: float
    recall: float
    f1: float
    average_precision: float
    centre_error: float


def picking_quality(picked: Sequence[Picked], threshold: float, radius: float) -> PickingQuality:
    """The quality of picks with a score of `threshold` or more.

    radius : px, inclusive; how far a pick may be from its particle
    Each particle counts for one pick, the best; a second one on it is false.
    """
    scores, true = [np.empty(0)], [np.empty(0, dtype=np.bool_)]
    errors = [np.empty(0)]
    truths = sum(len(one.truth) for one in picked)
    for one in picked:
        scores.append(one.scores)
        true.append(match(one.coordinates, one.truth, descending(one.scores), radius))
        hit = one.coordinates[true[-1] & (one.scores >= threshold)]
        if len(hit):
            errors.append(cKDTree(one.truth).query(hit)[0])
    ranked, is_true = np.concatenate(scores), np.concatenate(true)
    above = ranked >= threshold
    figures = quality(int(above.sum()), int(is_true[above].sum()), truths)
    measurable = len(ranked) > 0 and truths > 0
    curve = precision_recall(ranked, is_true, truths) if measurable else None
    distances = np.concatenate(errors)
    return PickingQuality(
        figures.picks,
        truths,
        figures.precision,
        figures.recall,
        figures.f1,
        average_precision(curve) if curve is not None else 0.0,
        float(distances.mean()) if len(distances) else float("nan"),
    )


def _inside(xy: Coordinates, shape: tuple[int, int], margin: float) -> NDArray[np.bool_]:
    height, width = shape
    inside: NDArray[np.bool_] = (
        (xy >= margin).all(axis=1) & (xy[:, 0] <= width - 1 - margin) & (xy[:, 1] <= height - 1 - margin)
    )
    return inside
