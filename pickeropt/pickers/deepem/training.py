"""The learning process: train, test on other micrographs, add what was wrong, train again.

Zhu, Ouyang & Mao, BMC Bioinformatics 18, 348 (2017), Fig. 2 and "DeepEM algorithm workflow".
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pickeropt.errors import ShotsError
from pickeropt.pickers.deepem.network import DeepEMNetwork, initialise
from pickeropt.pickers.deepem.picker import STD_WINDOW, DeepEM, fill
from pickeropt.pickers.deepem.settings import DeepEMSettings
from pickeropt.pickers.deepem.threshold import best_threshold, found
from pickeropt.pickers.deepem.windows import Windows, sight_of, windows_of
from pickeropt.pickers.fit import fit
from pickeropt.pickers.records import Job, Labelled, Material, Trained

RIGHT = 0.5
"""Scores of this much say particle while it learns (the paper)."""
MATCH_DIAMETERS = 0.5
"""How far a pick may lie from its particle."""
INITIAL_WINDOWS = 64
"""Of either class, to scale the initial weights by."""
BATCH = 128
"""Windows that are judged at once."""


def train(
    material: Material, settings: DeepEMSettings, job: Job, initial: Mapping[str, Tensor] | None
) -> Trained:
    """Train a DeepEM.

    The first half of the training micrographs gives the first windows; each round of the cycle tests on its
    part of the other half, so on micrographs that it has not learnt from, and adds false picks and missed
    particles. Without rounds, or with one micrograph, all give the first windows.
    initial : weights to start from, as `Trained.state` has them
    Raises ShotsError where there are no particles to learn from, or nothing but particles;
    CheckpointError for initial weights of other layers.
    """
    network = DeepEMNetwork(settings.layers()).to(job.device)
    first, parts = _parts(material.training, settings.rounds)
    learnt = _gathered(first, settings, np.random.default_rng([job.seed, 2]))
    if not len(learnt.particles) or not len(learnt.others):
        what = f"{len(learnt.particles)} particles and {len(learnt.others)} places without one"
        raise ShotsError(f"DeepEM found {what} to learn from; give particles farther from the edges, or more")
    if initial is None:
        n = INITIAL_WINDOWS
        windows = torch.cat([learnt.particles[:n], learnt.others[:n]]).to(job.device)
        initialise(network, windows, job.seed, settings.spread)
    else:
        fill(network, initial)
    window = _std_window(learnt.particles, settings.std_range)
    picker = DeepEM(network, settings, RIGHT, *window)
    figures: dict[str, float] = {}
    for number in range(settings.rounds + 1):
        _learn(network, learnt, settings, job, f"round {number}")
        picked = [_judged(picker, one) for one in material.judging]
        figures |= {"rounds": float(number), "learning error": learning_error(picked)}
        if figures["learning error"] < settings.target_error or number == settings.rounds:
            break
        for one in parts[number]:
            learnt = learnt.joined(_wrong(picker, one))
    figures |= {"particles": float(len(learnt.particles)), "other windows": float(len(learnt.others))}
    judged = _gathered(material.judging, settings, np.random.default_rng([job.seed, 3]))
    figures["window error"] = window_error(network, judged)
    threshold, figures["F2"] = best_threshold(
        np.concatenate([one.scores for one in picked]),
        np.concatenate([one.is_true for one in picked]),
        sum(one.particles for one in picked),
    )
    state = {name: value.detach().cpu().float().contiguous() for name, value in network.state_dict().items()}
    state[STD_WINDOW] = torch.tensor(window)
    return Trained(asdict(settings), state, threshold, figures)


@dataclass(frozen=True)
class Judged:
    """All candidates of one micrograph: scores, is_true (n,); particles : known there"""

    scores: NDArray[np.float64]
    is_true: NDArray[np.bool_]
    particles: int


def _judged(picker: DeepEM, one: Labelled) -> Judged:
    detections = picker.detect_in(sight_of(one, picker.settings))
    radius = MATCH_DIAMETERS * one.diameter_px
    return Judged(detections.scores, found(detections.coordinates, one.known, radius)[0], len(one.known))


def learning_error(judged: Sequence[Judged]) -> float:
    """False picks and missed particles, as a share of all picks and missed particles, at 0.5.

    The paper measures single windows. Windows drawn at random are easy: with 4 % of them wrong a quarter
    of the picks can be false.
    """
    picks = sum(int((one.scores >= RIGHT).sum()) for one in judged)
    hits = sum(int((one.is_true & (one.scores >= RIGHT)).sum()) for one in judged)
    all_of_them = picks + sum(one.particles for one in judged) - hits
    return 1.0 - hits / all_of_them if all_of_them else 0.0


@torch.inference_mode()
def window_error(network: DeepEMNetwork, windows: Windows) -> float:
    """Share of windows whose mean score over four turns is on the wrong side of 0.5; NaN without any."""
    device = network.output.weight.device
    wrong = 0
    for some, is_particle in ((windows.particles, True), (windows.others, False)):
        for start in range(0, len(some), BATCH):
            scores = network.turned_scores(some[start : start + BATCH].to(device))
            wrong += int(((scores >= RIGHT) != is_particle).sum())
    count = len(windows.particles) + len(windows.others)
    return wrong / count if count else float("nan")


def _parts(training: Sequence[Labelled], rounds: int) -> tuple[Sequence[Labelled], list[Sequence[Labelled]]]:
    """The micrographs of the first windows, and those that each round tests on."""
    if not rounds or len(training) == 1:
        return training, [training] * rounds
    half = (len(training) + 1) // 2
    later = training[half:]
    # with fewer micrographs than rounds they come round again
    return training[:half], [
        [later[i] for i in range(len(later)) if i % rounds == n] or [later[n % len(later)]]
        for n in range(rounds)
    ]


def _gathered(labelled: Sequence[Labelled], settings: DeepEMSettings, rng: np.random.Generator) -> Windows:
    box = settings.layers().box
    none = torch.empty(0, 1, box, box)
    parts = [Windows(none, none), *(windows_of(one, settings, rng) for one in labelled)]
    return Windows(torch.cat([p.particles for p in parts]), torch.cat([p.others for p in parts]))


def _learn(network: DeepEMNetwork, windows: Windows, settings: DeepEMSettings, job: Job, stage: str) -> None:
    """Gradient descent on half the mean squared error (Eq. 4 and 5), on particles and others in equal number.

    Each class is passed through in an order of its own, every window in its four turns.
    """
    half = settings.batch // 2
    sets = (windows.particles, windows.others)
    per_epoch = -(-4 * max(map(len, sets)) // half)
    steps = max(settings.least_steps, settings.epochs * per_epoch)
    target = torch.cat([torch.ones(half), torch.zeros(half)]).to(job.device)
    optimiser = torch.optim.SGD(network.parameters(), lr=settings.learning_rate)

    def loss_of(step: int) -> Tensor:
        drawn = [_drawn(one, half, step, (job.seed, 4 + label)) for label, one in enumerate(sets)]
        scores: Tensor = network(torch.cat(drawn).to(job.device))
        return 0.5 * (scores - target).square().mean()

    network.train()
    network.to(memory_format=torch.channels_last)  # a third faster on a CPU
    fit(network, optimiser, steps, loss_of, job, stage)
    network.eval()


def _drawn(windows: Tensor, count: int, step: int, seed: tuple[int, int]) -> Tensor:
    """(count, 1, box, box): the windows whose turn it is at a step, from 1, turned."""
    size = 4 * len(windows)
    first, past = (step - 1) * count, step * count
    epochs = range(first // size, (past - 1) // size + 1)
    orders = [np.random.default_rng([*seed, epoch]).permutation(size) for epoch in epochs]
    chosen = np.concatenate(orders)[first - epochs.start * size : past - epochs.start * size]
    return torch.cat([torch.rot90(windows[chosen[chosen % 4 == q] // 4], q, (2, 3)) for q in range(4)])


def _wrong(picker: DeepEM, one: Labelled) -> Windows:
    """The windows of false picks and of missed particles of a micrograph."""
    box = picker.network.geometry.box
    sight = sight_of(one, picker.settings)
    picks = picker.detect_in(sight).above(RIGHT)
    radius = MATCH_DIAMETERS * one.diameter_px
    particles = one.known
    is_true, was_found = found(picks.coordinates, particles, radius)
    missed = one.coordinates[~was_found[: len(one.coordinates)]]
    missed = missed[sight.inside(missed, box)]
    return Windows(sight.windows(missed, box), sight.windows(picks.coordinates[~is_true], box))


def _std_window(particles: Tensor, deviations: float) -> tuple[float, float]:
    """Least and most standard deviation of a pick's pixels, from windows (n, 1, box, box) of particles."""
    if not deviations:
        return 0.0, float("inf")
    each = particles.flatten(1).std(dim=1)
    mean, spread = float(each.mean()), float(each.std(correction=0))
    return mean - deviations * spread, mean + deviations * spread
