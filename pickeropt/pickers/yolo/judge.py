"""How a trained detector does on micrographs whose particles are known, and the threshold that follows."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pickeropt.io.micrographs import read_micrograph
from pickeropt.pickers.records import Job, Labelled
from pickeropt.pickers.yolo.boxes import Boxes, matched
from pickeropt.pickers.yolo.detect import detect
from pickeropt.pickers.yolo.network import YoloNetwork
from pickeropt.pickers.yolo.settings import YoloSettings

PAPERS_IOU = 0.6
"""A picked box of greater IoU with a labelled one is true (Wagner et al. 2019, Results)."""

THRESHOLD_IOU = 1.0 / 3.0
"""The same for the choice of the threshold: that of two equal boxes half a side apart."""

UNKNOWN = 0.5
"""The threshold where nothing true was found to choose it by."""


def judged(
    network: YoloNetwork, labelled: Sequence[Labelled], settings: YoloSettings, job: Job
) -> tuple[float, dict[str, float]]:
    """The threshold, and at it precision, recall, F1 and mean IoU of the true picks, and the AUC.

    AUC is the area under precision over recall at the paper's IoU. All of them count what is not labelled
    as false.
    """
    scores, true, precise, shared = (
        [np.empty(0)],
        [np.empty(0, np.bool_)],
        [np.empty(0, np.bool_)],
        [np.empty(0)],
    )
    truths = 0
    for number, one in enumerate(labelled, 1):
        found = detect(network, read_micrograph(one.path).pixels, one.diameter_px, settings)
        assert found.sizes is not None
        boxes = np.column_stack([found.coordinates, found.sizes])
        truth = labelled_boxes(one, settings)
        truths += len(truth)
        scores.append(found.scores)
        true.append(matched(boxes, truth, THRESHOLD_IOU)[0])
        hit, overlap = matched(boxes, truth, PAPERS_IOU)
        precise.append(hit)
        shared.append(overlap)
        job.on_progress("judging", number, len(labelled))
    ranked, is_true = np.concatenate(scores), np.concatenate(true)
    threshold = best_threshold(ranked, is_true)
    above = ranked >= threshold
    hits = float(is_true[above].sum())
    overlaps = np.concatenate(shared)[above & np.concatenate(precise)]
    return threshold, {
        "precision": hits / max(1, int(above.sum())),
        "recall": hits / max(1, truths),
        "f1": 2 * hits / max(1, int(above.sum()) + truths),
        "auc": area(ranked, np.concatenate(precise), truths),
        "mean_iou": float(overlaps.mean()) if len(overlaps) else 0.0,
    }


def labelled_boxes(one: Labelled, settings: YoloSettings) -> Boxes:
    """The boxes of labelled particles in px of the micrograph."""
    side = np.full((len(one.coordinates), 2), one.diameter_px * settings.box_diameters)
    return np.column_stack([one.coordinates, side])


def best_threshold(scores: NDArray[np.float64], true: NDArray[np.bool_]) -> float:
    """The score at which precision times recall is greatest, the highest such; `UNKNOWN` where none is true.

    Labels that miss a share of the particles at random lower both precision and the number of true picks
    by that share, wherever the threshold is: their product is greatest at the same score as if all were
    labelled (Lee & Liu, ICML 2003). F1 has not that property.
    """
    if not true.any():
        return UNKNOWN
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(true[order])
    product = hits.astype(np.float64) ** 2 / np.arange(1, len(order) + 1)
    last_of_equals = np.append(np.diff(scores[order]) != 0, True)
    product[~last_of_equals] = -1.0
    return float(scores[order][np.argmax(product)])


def area(scores: NDArray[np.float64], true: NDArray[np.bool_], truths: int) -> float:
    """Sum of (recall step) x (precision there), without interpolation; particles never found count."""
    if not truths:
        return 0.0
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(true[order])
    return float((true[order] * hits / np.arange(1, len(order) + 1)).sum() / truths)
