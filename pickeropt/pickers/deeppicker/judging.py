"""A trained DeepPicker on micrographs whose particles are known: its threshold and its scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from sklearn.linear_model import LogisticRegression

from pickeropt.io.micrographs import read_micrograph
from pickeropt.pickers.deeppicker.scale import UNCALIBRATED, Calibration, log_odds_of
from pickeropt.pickers.deeppicker.settings import DeepPickerSettings
from pickeropt.pickers.records import Detections, Job, Labelled
from pickeropt.records import Micrograph

AGREES = 0.2
"""Windows between a pick and a particle that agree (section 4.4)."""


class Judgeable(Protocol):
    """A picker with the settings of a DeepPicker."""

    @property
    def settings(self) -> DeepPickerSettings: ...

    def detect(self, micrograph: Micrograph, pixel_size: float, diameter_angstrom: float) -> Detections: ...


@dataclass(frozen=True)
class Judged:
    """Candidates of some micrographs: scores, which agree with a particle, (n,) each; number of particles."""

    scores: NDArray[np.float64]
    true: NDArray[np.bool_]
    particles: int


def judge(picker: Judgeable, judging: Sequence[Labelled], job: Job) -> Judged:
    """The candidates of micrographs whose particles are known.

    A pick agrees with a particle 0.2 windows away or less. Picks are 0.4 windows apart, so no two of them
    agree with one particle.
    """
    scores, true, particles = [np.empty(0)], [np.empty(0, dtype=np.bool_)], 0
    for index, one in enumerate(judging):
        job.on_progress("judge", index, len(judging))
        found = picker.detect(read_micrograph(one.path), one.pixel_size, one.diameter_angstrom)
        reach = AGREES * picker.settings.box_diameters * one.diameter_px
        near = cKDTree(one.known).query(found.coordinates)[0] if len(found) and len(one.known) else np.inf
        scores.append(found.scores)
        true.append(np.broadcast_to(near, found.scores.shape) <= reach)
        particles += len(one.known)
    job.on_progress("judge", len(judging), len(judging))
    return Judged(np.concatenate(scores), np.concatenate(true), particles)


def best_threshold(judged: Judged) -> tuple[float, dict[str, float]]:
    """The threshold with the greatest F1, and what it gives; 0.5, the paper's, where no pick agrees."""
    order = np.argsort(-judged.scores, kind="stable")
    ranked, hits = judged.scores[order], np.cumsum(judged.true[order])
    if not len(ranked) or not hits[-1]:
        return 0.5, {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + judged.particles)
    f1[:-1][ranked[:-1] == ranked[1:]] = 0  # equal scores stand or fall together
    at = int(f1.argmax())
    quality = {"precision": hits[at] / (at + 1), "recall": hits[at] / judged.particles, "f1": f1[at]}
    return float(ranked[at]), {name: float(value) for name, value in quality.items()}


def calibration(judged: Judged) -> Calibration:
    """Slope and offset of the log odds that make a score the share of such candidates that are particles.

    Platt's scaling (1999), his targets included: n true candidates count as (n + 1) / (n + 2) true, false
    ones likewise. The network learnt from as many windows without a particle as with one; on a micrograph
    they are many more.
    returns : `UNCALIBRATED` where all candidates are true or none is, or where better ones score less
    """
    true, false = int(judged.true.sum()), int((~judged.true).sum())
    if not true or not false:
        return UNCALIBRATED
    odds = log_odds_of(judged.scores)[:, None]
    target = np.where(judged.true, (true + 1) / (true + 2), 1 / (false + 2))
    model = LogisticRegression(C=1e6, max_iter=1000)
    labels = np.repeat([1, 0], len(odds))
    model.fit(np.concatenate([odds, odds]), labels, sample_weight=np.concatenate([target, 1 - target]))
    slope, offset = float(model.coef_[0, 0]), float(model.intercept_[0])
    return (slope, offset) if slope > 0 else UNCALIBRATED
