"""Training: semi-automatic on own particles, or on other species' (Wang et al. 2016, section 4.3)."""

from collections.abc import Callable, Mapping
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pickeropt.errors import PickeroptError, ShotsError
from pickeropt.models.orientations import EIGHT, turn
from pickeropt.pickers.deeppicker.judging import best_threshold, calibration, judge
from pickeropt.pickers.deeppicker.network import DeepPickerNetwork
from pickeropt.pickers.deeppicker.picker import filled, picker_of
from pickeropt.pickers.deeppicker.scale import CALIBRATION, UNCALIBRATED, calibrated
from pickeropt.pickers.deeppicker.settings import DeepPickerSettings
from pickeropt.pickers.deeppicker.windows import Samples, choose, cut_samples
from pickeropt.pickers.fit import fit
from pickeropt.pickers.records import Job, Material, Trained

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
    material: Material, settings: DeepPickerSettings, job: Job, initial: Mapping[str, Tensor] | None
) -> Trained:
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
    judged = judge(picker_of(settings, network, 0.5, job.device), material.judging, job)
    threshold, quality = best_threshold(judged)
    scale = calibration(judged) if settings.calibrated else UNCALIBRATED
    state = {**state_of(network), CALIBRATION: torch.tensor(scale, dtype=torch.float64)}
    return Trained(asdict(settings), state, calibrated(threshold, scale), {**figures, **quality})


def _start(
    settings: DeepPickerSettings, seed: int, initial: Mapping[str, Tensor] | None
) -> DeepPickerNetwork:
    if initial is not None:
        return filled(settings.dropout, initial)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DeepPickerNetwork(settings.dropout)


def gather(material: Material, settings: DeepPickerSettings, job: Job) -> tuple[Samples, Samples]:
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
    job: Job,
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
    network: DeepPickerNetwork, training: Samples, settings: DeepPickerSettings, job: Job, epoch: int
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
    """Mean cross-entropy, and share of samples told right."""
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
