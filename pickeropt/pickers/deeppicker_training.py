"""The DeepPicker picker and its training, on a user's own particles, on other species, or on its own best picks.

Wang et al. (2016), sections 2.1, 4.3 and 4.4.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional

from pickeropt.errors import CheckpointError, PickeroptError, ShotsError
from pickeropt.io.micrographs import read_micrograph
from pickeropt.models.features import EIGHT, turn
from pickeropt.pickers.deeppicker_network import (
    CALIBRATION,
    UNCALIBRATED,
    Calibration,
    DeepPickerNetwork,
    DeepPickerSettings,
    Samples,
    calibrated,
    choose,
    cleaned,
    cut_samples,
    extreme_counts,
    log_odds_of,
    peaks,
    score_of,
    usual,
    window_centres,
    window_view,
)
from pickeropt.pickers.picker_records import (
    Detections,
    Material,
    PickedMicrograph,
    PickerTrainingJob,
    TrainedPicker,
    fit,
)
from pickeropt.records import Micrograph


@dataclass(frozen=True)
class DeepPicker:
    """A picker.

    network : in evaluation mode, on `device`
    scale : from the network's log odds to those of a score
    """

    settings: DeepPickerSettings
    network: DeepPickerNetwork
    threshold: float
    device: torch.device
    scale: Calibration = UNCALIBRATED
    kind: str = "deeppicker"

    def detect(self, micrograph: Micrograph, pixel_size: float, diameter_angstrom: float) -> Detections:
        """All local maxima of the score map that cleaning and filtering leave, down to a score of 0.

        pixel_size : Å/px of the micrograph
        Windows lie wholly on the micrograph: no particle within half a window of an edge is found.
        Raises GeometryError where the window does not fit the micrograph, or its noise cannot be measured.
        """
        own = self.settings
        view, frame = window_view(micrograph.pixels, diameter_angstrom / pixel_size, own.box_diameters)
        log_odds = self.score_map(view)
        rows, columns, best = peaks(cleaned(log_odds, own.large_domain), own.peak_window)
        if own.extreme:
            kept = usual(extreme_counts(view, own.extreme)[rows, columns], own.extreme)
            rows, columns, best = rows[kept], columns[kept], best[kept]
        return Detections(window_centres(frame, rows, columns), score_of(best, self.scale))

    def score_map(self, view: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Log odds of every window of a view (1, 1, h, w), 4 px apart: (rows, columns)."""
        with torch.inference_mode():
            return self.network.log_odds(view.to(self.device)).cpu().numpy()


def load(
    settings: Mapping[str, Any], state: Mapping[str, Tensor], threshold: float, device: torch.device
) -> DeepPicker:
    """A picker from what training returned. Raises CheckpointError for what another picker's left."""
    try:
        own = DeepPickerSettings(**settings)
    except TypeError as error:
        raise CheckpointError(f"not the settings of a DeepPicker ({error}); train it again") from None
    scale = state[CALIBRATION].tolist() if CALIBRATION in state else UNCALIBRATED
    return picker_of(own, filled(own.dropout, state), threshold, device, (scale[0], scale[1]))


def filled(dropout: float, state: Mapping[str, Tensor]) -> DeepPickerNetwork:
    """A network with given weights. Raises CheckpointError where they are not a DeepPicker's."""
    network = DeepPickerNetwork(dropout)
    try:
        network.load_state_dict({name: value for name, value in state.items() if name != CALIBRATION})
    except RuntimeError as error:
        what = str(error).splitlines()[-1].strip()
        raise CheckpointError(f"not the weights of a DeepPicker ({what}); give one as --init") from None
    return network


def picker_of(
    settings: DeepPickerSettings,
    network: DeepPickerNetwork,
    threshold: float,
    device: torch.device,
    scale: Calibration = UNCALIBRATED,
) -> DeepPicker:
    """A picker with a copy of the network.

    In float32: on a CPU spread-out convolutions take twice as long in bfloat16.
    """
    ready = deepcopy(network).eval().requires_grad_(False).to(device)
    return DeepPicker(settings, ready, threshold, device, scale)


AGREES = 0.2
"""Windows between a pick and a particle that agree (section 4.4)."""


class DeepPickerDetector(Protocol):
    """A picker with the settings of a DeepPicker."""

    @property
    def settings(self) -> DeepPickerSettings: ...

    def detect(self, micrograph: Micrograph, pixel_size: float, diameter_angstrom: float) -> Detections: ...


@dataclass(frozen=True)
class DeepPickerMatches:
    """Candidates of some micrographs: scores, which agree with a particle, (n,) each; number of particles."""

    scores: NDArray[np.float64]
    true: NDArray[np.bool_]
    particles: int


def match_candidates(
    picker: DeepPickerDetector, evaluation: Sequence[PickedMicrograph], job: PickerTrainingJob
) -> DeepPickerMatches:
    """The candidates of micrographs whose particles are known.

    A pick agrees with a particle 0.2 windows away or less. Picks are 0.4 windows apart, so no two of them
    agree with one particle.
    """
    scores, true, particles = [np.empty(0)], [np.empty(0, dtype=np.bool_)], 0
    for index, one in enumerate(evaluation):
        job.on_progress("evaluate", index, len(evaluation))
        found = picker.detect(read_micrograph(one.path), one.pixel_size, one.diameter_angstrom)
        reach = AGREES * picker.settings.box_diameters * one.diameter_px
        near = cKDTree(one.known).query(found.coordinates)[0] if len(found) and len(one.known) else np.inf
        scores.append(found.scores)
        true.append(np.broadcast_to(near, found.scores.shape) <= reach)
        particles += len(one.known)
    job.on_progress("evaluate", len(evaluation), len(evaluation))
    return DeepPickerMatches(np.concatenate(scores), np.concatenate(true), particles)


def best_threshold(matches: DeepPickerMatches) -> tuple[float, dict[str, float]]:
    """The threshold with the greatest F1, and what it gives; 0.5, the paper's, where no pick agrees."""
    order = np.argsort(-matches.scores, kind="stable")
    ranked, hits = matches.scores[order], np.cumsum(matches.true[order])
    if not len(ranked) or not hits[-1]:
        return 0.5, {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + matches.particles)
    f1[:-1][ranked[:-1] == ranked[1:]] = 0  # equal scores stand or fall together
    at = int(f1.argmax())
    quality = {"precision": hits[at] / (at + 1), "recall": hits[at] / matches.particles, "f1": f1[at]}
    return float(ranked[at]), {name: float(value) for name, value in quality.items()}


def calibration(matches: DeepPickerMatches) -> Calibration:
    """Slope and offset of the log odds that make a score the share of such candidates that are particles.

    Platt's scaling (1999), his targets included: n true candidates count as (n + 1) / (n + 2) true, false
    ones likewise. The network learnt from as many windows without a particle as with one; on a micrograph
    they are many more.
    returns : `UNCALIBRATED` where all candidates are true or none is, or where better ones score less
    """
    true, false = int(matches.true.sum()), int((~matches.true).sum())
    if not true or not false:
        return UNCALIBRATED
    odds = log_odds_of(matches.scores)[:, None]
    target = np.where(matches.true, (true + 1) / (true + 2), 1 / (false + 2))
    model = LogisticRegression(C=1e6, max_iter=1000)
    labels = np.repeat([1, 0], len(odds))
    model.fit(np.concatenate([odds, odds]), labels, sample_weight=np.concatenate([target, 1 - target]))
    slope, offset = float(model.coef_[0, 0]), float(model.intercept_[0])
    return (slope, offset) if slope > 0 else UNCALIBRATED


HELD_BACK = 1 / 9
"""Size of the validation data over that of the training data (section 4.3)."""
LEAST_HELD_BACK = 200
"""Particles of the validation data where there are so many: a ninth of 400 tells epochs apart by chance."""
MOST_NEGATIVES = 20_000
"""Negatives that are kept in memory, 330 MB, where there are no more particles."""
FEWEST = 10
"""Particles that a training needs."""
CHUNK = 512
"""Patches of one pass of the validation."""


def train(
    material: Material, settings: DeepPickerSettings, job: PickerTrainingJob, initial: Mapping[str, Tensor] | None
) -> TrainedPicker:
    """Train on the particles of `material`, of the molecule to pick or of any mix of others.

    initial : weights of a DeepPicker trained before, to go on from
    The number of epochs, the threshold, which is that of the greatest F1, and what the scores mean come from
    what is held back.
    Raises ShotsError for too few particles, CheckpointError for `initial` of another kind, GeometryError
    where a window does not fit its micrograph.
    """
    network = _start(settings, job.seed, initial)
    training, validation = gather(material, settings, job)
    figures = fit_network(network, training, validation, settings, job, "epoch")
    matches = match_candidates(picker_of(settings, network, 0.5, job.device), material.evaluation, job)
    threshold, quality = best_threshold(matches)
    scale = calibration(matches) if settings.calibrated else UNCALIBRATED
    state = {**state_of(network), CALIBRATION: torch.tensor(scale, dtype=torch.float64)}
    return TrainedPicker(asdict(settings), state, calibrated(threshold, scale), {**figures, **quality})


def _start(settings: DeepPickerSettings, seed: int, initial: Mapping[str, Tensor] | None) -> DeepPickerNetwork:
    if initial is not None:
        return filled(settings.dropout, initial)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DeepPickerNetwork(settings.dropout)


def gather(material: Material, settings: DeepPickerSettings, job: PickerTrainingJob) -> tuple[Samples, Samples]:
    """Patches to train on, and those that say when to stop: of other micrographs where there are any."""
    shape = settings.box_diameters, settings.apart
    own = choose(material.training, settings.box_diameters, settings.particles, job.seed)
    particles = sum(len(one.coordinates) for one in own)
    if particles < FEWEST:
        what = f"{particles} particles have their whole window on the micrograph"
        raise ShotsError(f"{what}; DeepPicker needs {FEWEST} at least, its paper has 400")
    negatives = max(1, min(settings.negatives, MOST_NEGATIVES // particles))
    training = cut_samples(own, *shape, negatives, job.seed, job.on_progress)
    held = max(LEAST_HELD_BACK, round(particles * HELD_BACK))
    other = choose(material.testing, settings.box_diameters, held, job.seed) if material.testing else []
    validation = cut_samples(other, *shape, 1, job.seed, job.on_progress)
    return (training, validation) if len(validation) else parted(training)


def parted(samples: Samples) -> tuple[Samples, Samples]:
    """Every tenth sample apart, particles and others alike."""
    apart = torch.zeros(len(samples), dtype=torch.bool)
    apart[::10] = True
    train, held = (Samples(samples.patches[rows], samples.labels[rows]) for rows in (~apart, apart))
    return train, held


def fit_network(
    network: DeepPickerNetwork,
    training: Samples,
    validation: Samples,
    settings: DeepPickerSettings,
    job: PickerTrainingJob,
    stage: str,
) -> dict[str, float]:
    """Train until the validation error stops falling; the network is left as it was best.

    stage : before the number of the epoch, the name of its state in the job's folder
    Raises PickeroptError where the training diverges.
    """
    network.to(memory_format=torch.channels_last).to(job.device)  # twice as fast on a CPU
    optimiser = torch.optim.SGD(network.parameters(), settings.learning_rate, settings.momentum)
    best, epoch_of_best, kept, right = float("inf"), 0, state_of(network), 0.0
    steps = max(1, 2 * int(training.labels.sum()) // settings.batch_size)
    epoch = 0
    while epoch < settings.epochs and epoch - epoch_of_best < settings.patience:
        epoch += 1
        network.train()
        loss_of = _loss(network, training, settings, job, epoch)
        fit(network, optimiser, steps, loss_of, job, f"{stage}{epoch:03d}")
        loss, accuracy = validate(network, validation, job.device)
        if loss < best:
            best, epoch_of_best, kept, right = loss, epoch, state_of(network), accuracy
    if not epoch_of_best:
        what = f"the validation error is no number in {epoch} epochs"
        raise PickeroptError(f"{what}; lower learning_rate, now {settings.learning_rate:g}")
    network.load_state_dict(kept)
    return {"validation_loss": best, "validation_accuracy": right, "epochs": float(epoch_of_best)}


def _loss(
    network: DeepPickerNetwork, training: Samples, settings: DeepPickerSettings, job: PickerTrainingJob, epoch: int
) -> Callable[[int], Tensor]:
    """From the step of an epoch to its loss: each particle once an epoch, and as many of the negatives.

    A batch is in one orientation.
    """
    rng = np.random.default_rng([job.seed, 13, epoch])
    particles, negatives = (np.flatnonzero(training.labels.numpy() == label) for label in (1, 0))
    drawn = rng.permutation(negatives)[: len(particles)]
    order, size = torch.from_numpy(rng.permutation(np.concatenate([particles, drawn]))), settings.batch_size
    turns = rng.integers(len(EIGHT) if settings.turns else 1, size=len(order) // size + 1)

    def loss_of(step: int) -> Tensor:
        rows = order[(step - 1) * size : step * size]
        patches = turn(training.patches[rows], EIGHT[turns[step - 1]])
        logits = network(patches.to(job.device).contiguous(memory_format=torch.channels_last))
        return functional.cross_entropy(logits, training.labels[rows].to(job.device))

    return loss_of


def validate(network: DeepPickerNetwork, samples: Samples, device: torch.device) -> tuple[float, float]:
    """Mean cross-entropy, and share of samples classified correctly."""
    network.eval()
    with torch.inference_mode():
        parts = torch.split(samples.patches, CHUNK)
        logits = torch.cat([network(part.to(device)).cpu() for part in parts])
    loss = functional.cross_entropy(logits, samples.labels)
    return loss.item(), (logits.argmax(1) == samples.labels).double().mean().item()


def state_of(network: DeepPickerNetwork) -> dict[str, Tensor]:
    """A copy of the weights, on the CPU."""
    return {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in network.state_dict().items()
    }


CERTAIN = 0.5
"""Least score of the network's own, before calibration, of a pick to learn from or to keep negatives off."""


def iterate(
    trained: TrainedPicker,
    micrographs: Sequence[PickedMicrograph],
    settings: DeepPickerSettings,
    job: PickerTrainingJob,
) -> TrainedPicker:
    """Train once more, on the best picks of micrographs whose particles nobody marked.

    micrographs : with pixel size and diameter; their coordinates are not used
    settings : `particles` is the number of best picks, over all micrographs; the window stays that of
        the first training
    The threshold stays: there is no truth to choose it by. Raises ShotsError where too few picks have
    a score of 0.5.
    """
    picker = load(trained.settings, trained.state, trained.threshold, job.device)
    settings = replace(settings, box_diameters=picker.settings.box_diameters)
    own = best_picks(picker, micrographs, settings.particles, job)
    if not any(len(one.coordinates) for one in own):
        raise ShotsError("no pick on these micrographs has a score of 0.5; train on some of their particles")
    training, validation = gather(Material(own, ()), settings, job)
    network = filled(settings.dropout, trained.state)
    figures = fit_network(network, training, validation, settings, job, "iteration")
    state = {**trained.state, **state_of(network)}  # what a score means stays too
    return TrainedPicker(asdict(settings), state, trained.threshold, figures)


def best_picks(
    picker: DeepPicker, micrographs: Sequence[PickedMicrograph], count: int, job: PickerTrainingJob
) -> tuple[PickedMicrograph, ...]:
    """The micrographs with the `count` best picks as their particles, the other likely ones as `others`."""
    found = []
    for index, one in enumerate(micrographs):
        job.on_progress("pick", index, len(micrographs))
        detected = picker.detect(read_micrograph(one.path), one.pixel_size, one.diameter_angstrom)
        found.append(detected.above(calibrated(CERTAIN, picker.scale)))
    job.on_progress("pick", len(micrographs), len(micrographs))
    scores = np.concatenate([np.empty(0), *(one.scores for one in found)])
    least = np.sort(scores)[::-1][min(count, len(scores)) - 1] if len(scores) else 1.0
    return tuple(
        replace(
            one,
            coordinates=all_.coordinates[all_.scores >= least],
            others=all_.coordinates[all_.scores < least],
        )
        for one, all_ in zip(micrographs, found, strict=True)
    )
