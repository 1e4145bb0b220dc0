"""The DeepEM picker and its training: train, test on other micrographs, add the errors, train again.

Zhu, Ouyang & Mao, BMC Bioinformatics 18, 348 (2017), Fig. 2 and "DeepEM algorithm workflow".
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from pickeropt.errors import CheckpointError, GeometryError, ShotsError
from pickeropt.io.micrographs import read_micrograph
from pickeropt.models.views import ViewFrame, cut_boxes, make_view
from pickeropt.pickers.deepem_network import DeepEMNetwork, DeepEMSettings, initialise, scan, settings_from
from pickeropt.pickers.picker_records import (
    Detections,
    Material,
    PickedMicrograph,
    PickerTrainingJob,
    TrainedPicker,
    fit,
    local_maxima,
)
from pickeropt.records import FloatArray, Micrograph

Coordinates = NDArray[np.float64]
TRIES = 200
"""Places drawn for each that is wanted."""


@dataclass(frozen=True)
class ResampledMicrograph:
    """A micrograph resampled and normalised for the network.

    view : (1, 1, H, W) in units of the micrograph's own noise, nothing added at its edges
    frame : where its pixels lie on the micrograph
    """

    view: Tensor
    frame: ViewFrame

    def windows(self, coordinates: Coordinates, box: int) -> Tensor:
        """(n, 1, box, box) about centres (n, 2) x, y in micrograph px."""
        return cut_boxes(self.view, self.frame, coordinates, box)

    def inside(self, coordinates: Coordinates, box: int) -> NDArray[np.bool_]:
        """Which windows lie inside the micrograph, (n,)."""
        first = self.frame.to_view(coordinates).round() - box // 2
        bounds = torch.tensor(self.view.shape[-2:]) - box
        result: NDArray[np.bool_] = ((first >= 0) & (first <= bounds)).all(dim=1).numpy()
        return result

    def on_micrograph(self, rows_columns: NDArray[np.float64]) -> Coordinates:
        """(n, 2) y, x in view px -> (n, 2) x, y in micrograph px."""
        y, x = rows_columns[:, 0], rows_columns[:, 1]
        frame = self.frame
        return np.column_stack([(x + 0.5) / frame.scale_x - 0.5, (y + 0.5) / frame.scale_y - 0.5])


def resample_micrograph(pixels: FloatArray, diameter_px: float, settings: DeepEMSettings) -> ResampledMicrograph:
    """A micrograph resampled to the size of the box, its grey level 0 and its noise 1.

    By micrograph, not by window: so that all windows are pieces of one image and can pass together.
    Raises GeometryError where particle or box do not fit the micrograph.
    """
    padded, frame = make_view(pixels, diameter_px, settings.diameter())
    rows, columns = (round(frame.scale_y * pixels.shape[0]), round(frame.scale_x * pixels.shape[1]))
    box = settings.layers().box
    if min(rows, columns) < box:
        side = settings.box_diameters * diameter_px
        raise GeometryError(
            f"a box of {side:.0f} px ({settings.box_diameters:g} diameters) does not fit a micrograph of "
            f"{pixels.shape[1]} x {pixels.shape[0]} px; check --diameter (Å) and --pixel-size (Å/px)"
        )
    view = padded[:, :, frame.top : frame.top + rows, frame.left : frame.left + columns].contiguous()
    return ResampledMicrograph(view, ViewFrame(frame.scale_y, frame.scale_x, 0, 0))


def read_resampled(one: PickedMicrograph, settings: DeepEMSettings) -> ResampledMicrograph:
    """The micrograph of labelled particles. Raises MicrographError, GeometryError."""
    return resample_micrograph(read_micrograph(one.path).pixels, one.diameter_px, settings)


def away(
    resampled: ResampledMicrograph,
    particles: Coordinates,
    distance: float,
    box: int,
    count: int,
    rng: np.random.Generator,
) -> Coordinates:
    """Up to `count` centres of windows inside the micrograph, uniform where no particle is near.

    distance : px of the micrograph, least from any of the `particles`
    returns : (n, 2) x, y px; fewer than `count`, or none, where there is too little room
    """
    rows, columns = resampled.view.shape[-2:]
    tries = rng.integers(0, [rows - box + 1, columns - box + 1], (TRIES * count, 2)) + box // 2
    centres = resampled.on_micrograph(tries.astype(np.float64))
    if len(particles) and count:
        centres = centres[cKDTree(particles).query(centres)[0] >= distance]
    return centres[:count]


@dataclass(frozen=True)
class TrainingWindows:
    """particles, others : (n, 1, box, box), windows with a particle in their middle, and without"""

    particles: Tensor
    others: Tensor

    def joined(self, more: "TrainingWindows") -> "TrainingWindows":
        """Both sets as one."""
        return TrainingWindows(torch.cat([self.particles, more.particles]), torch.cat([self.others, more.others]))


def windows_of(one: PickedMicrograph, settings: DeepEMSettings, rng: np.random.Generator) -> TrainingWindows:
    """The particles of a micrograph whose windows lie inside it, and as many windows without."""
    resampled, box = read_resampled(one, settings), settings.layers().box
    centres = one.coordinates[resampled.inside(one.coordinates, box)]
    distance = settings.negative_distance * one.diameter_px
    empty = away(resampled, one.known, distance, box, len(centres), rng)
    return TrainingWindows(resampled.windows(centres, box), resampled.windows(empty, box))


FLOOR = 0.01
"""Local maxima of less are not even candidates."""
STD_WINDOW = "std_window"
"""Name of the least and most standard deviation of a pick's pixels among the weights of a picker."""


@dataclass(frozen=True)
class DeepEM:
    """A trained DeepEM.

    threshold : least score of a pick
    least_std, most_std : of the pixels of a pick's window, in units of the micrograph's noise
    """

    network: DeepEMNetwork
    settings: DeepEMSettings
    threshold: float
    least_std: float = 0.0
    most_std: float = float("inf")

    kind: str = "deepem"

    def detect(self, micrograph: Micrograph, pixel_size: float, diameter_angstrom: float) -> Detections:
        """Local maxima of at least `FLOOR` whose windows lie inside the micrograph, best first.

        pixel_size : Å/px of the micrograph
        Raises GeometryError where particle or box do not fit the micrograph.
        """
        resampled = resample_micrograph(micrograph.pixels, diameter_angstrom / pixel_size, self.settings)
        return self.detect_resampled(resampled)

    def detect_resampled(self, resampled: ResampledMicrograph) -> Detections:
        """The same of a micrograph that is resampled and normalised already."""
        step, box = self.settings.scan_step(), self.network.geometry.box
        device = self.network.output.weight.device
        scores = scan(self.network, resampled.view.to(device), step).numpy()
        radius = self.settings.separation * self.settings.diameter() / step
        rows, columns, values = local_maxima(scores, radius, FLOOR)
        first = np.column_stack([rows, columns]) * step
        kept = self._plausible(resampled.view, first)
        # the middle of a window, about which it is turned: between two pixels where the box is even
        centres = resampled.on_micrograph(first[kept] + (box - 1) / 2)
        return Detections(centres, values[kept])

    def _plausible(self, view: Tensor, first: np.ndarray) -> np.ndarray:
        """Which windows, from the view pixels (n, 2) they start at, deviate as particles do, (n,) bool."""
        box = self.network.geometry.box
        deviations = [float(view[0, 0, y : y + box, x : x + box].std()) for y, x in first.tolist()]
        inside = [self.least_std <= deviation <= self.most_std for deviation in deviations]
        return np.array(inside, dtype=np.bool_)


def load(settings: Mapping[str, object], state: Mapping[str, Tensor], threshold: float, device: torch.device) -> DeepEM:
    """A trained picker from what `training.train` returned.

    Raises CheckpointError where weights and settings do not belong together.
    """
    chosen = settings_from(settings)
    network = DeepEMNetwork(chosen.layers())
    fill(network, state)
    window = state.get(STD_WINDOW, torch.tensor([0.0, float("inf")])).tolist()
    network.to(device).eval().requires_grad_(False)
    return DeepEM(network, chosen, threshold, window[0], window[1])


def fill(network: DeepEMNetwork, state: Mapping[str, Tensor]) -> None:
    """Put weights into a network. Raises CheckpointError where they are of other layers."""
    weights = {name: value for name, value in state.items() if name != STD_WINDOW}
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    for name in sorted(shapes.keys() | weights.keys()):
        given = tuple(weights[name].shape) if name in weights else None
        if given != shapes.get(name):
            raise CheckpointError(
                f"DeepEM's {name} has the shape {given} where its layers ask for {shapes.get(name)}; "
                "give the box, kernels and pools that the picker was trained with"
            )
    network.load_state_dict(weights)


Flags = NDArray[np.bool_]
BETA = 2.0
"""Recall weighs so many times as much as precision."""


def match_picks(picks: Coordinates, particles: Coordinates, radius: float) -> tuple[Flags, Flags]:
    """Which picks, (n, 2) best first, are true, and which particles, (m, 2), were found.

    radius : px, inclusive. Each pick takes the nearest particle that no better one took.
    """
    true, taken = np.zeros(len(picks), dtype=np.bool_), np.zeros(len(particles), dtype=np.bool_)
    if not len(picks) or not len(particles):
        return true, taken
    for number, near in enumerate(cKDTree(particles).query_ball_point(picks, radius)):
        free = [index for index in near if not taken[index]]
        if free:
            distances = np.hypot(*(particles[free] - picks[number]).T)
            taken[free[int(distances.argmin())]] = true[number] = True
    return true, taken


def best_threshold(scores: NDArray[np.float64], true: Flags, particles: int) -> tuple[float, float]:
    """The threshold with the highest F2, and that F2; of equal ones the highest threshold.

    scores, true : (n,) of all candidates; particles : how many there are, found or not
    returns : threshold 0.5 where there is no true candidate
    """
    if not true.any():
        return 0.5, 0.0
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.diff(ranked) != 0, True)  # equal scores stand or fall together
    hits, kept = np.cumsum(true[order])[last], np.flatnonzero(last) + 1
    f_beta = (1 + BETA**2) * hits / (BETA**2 * particles + kept)
    best = int(np.argmax(f_beta))
    return float(ranked[last][best]), float(f_beta[best])


RIGHT = 0.5
"""Least score of a particle during training (the paper)."""
MATCH_DIAMETERS = 0.5
"""How far a pick may lie from its particle."""
INITIAL_WINDOWS = 64
"""Of either class, to scale the initial weights by."""
BATCH = 128
"""Windows that are scored at once."""


def train(
    material: Material, settings: DeepEMSettings, job: PickerTrainingJob, initial: Mapping[str, Tensor] | None
) -> TrainedPicker:
    """Train a DeepEM.

    The first half of the training micrographs gives the first windows; each round of the cycle tests on its
    part of the other half, so on micrographs that it has not learnt from, and adds false picks and missed
    particles. Without rounds, or with one micrograph, all give the first windows.
    initial : weights to start from, as `TrainedPicker.state` has them
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
        picked = [_matched_picks(picker, one) for one in material.evaluation]
        figures |= {"rounds": float(number), "learning error": learning_error(picked)}
        if figures["learning error"] < settings.target_error or number == settings.rounds:
            break
        for one in parts[number]:
            learnt = learnt.joined(_wrong(picker, one))
    figures |= {"particles": float(len(learnt.particles)), "other windows": float(len(learnt.others))}
    matches = _gathered(material.evaluation, settings, np.random.default_rng([job.seed, 3]))
    figures["window error"] = window_error(network, matches)
    threshold, figures["F2"] = best_threshold(
        np.concatenate([one.scores for one in picked]),
        np.concatenate([one.is_true for one in picked]),
        sum(one.particles for one in picked),
    )
    state = {name: value.detach().cpu().float().contiguous() for name, value in network.state_dict().items()}
    state[STD_WINDOW] = torch.tensor(window)
    return TrainedPicker(asdict(settings), state, threshold, figures)


@dataclass(frozen=True)
class DeepEMMatches:
    """All candidates of one micrograph: scores, is_true (n,); particles : known there"""

    scores: NDArray[np.float64]
    is_true: NDArray[np.bool_]
    particles: int


def _matched_picks(picker: DeepEM, one: PickedMicrograph) -> DeepEMMatches:
    detections = picker.detect_resampled(read_resampled(one, picker.settings))
    radius = MATCH_DIAMETERS * one.diameter_px
    return DeepEMMatches(detections.scores, match_picks(detections.coordinates, one.known, radius)[0], len(one.known))


def learning_error(matches: Sequence[DeepEMMatches]) -> float:
    """False picks and missed particles, as a share of all picks and missed particles, at 0.5.

    The paper measures single windows. Windows drawn at random are easy: with 4 % of them wrong a quarter
    of the picks can be false.
    """
    picks = sum(int((one.scores >= RIGHT).sum()) for one in matches)
    hits = sum(int((one.is_true & (one.scores >= RIGHT)).sum()) for one in matches)
    all_of_them = picks + sum(one.particles for one in matches) - hits
    return 1.0 - hits / all_of_them if all_of_them else 0.0


@torch.inference_mode()
def window_error(network: DeepEMNetwork, windows: TrainingWindows) -> float:
    """Share of windows whose mean score over four turns is on the wrong side of 0.5; NaN without any."""
    device = network.output.weight.device
    wrong = 0
    for some, is_particle in ((windows.particles, True), (windows.others, False)):
        for start in range(0, len(some), BATCH):
            scores = network.turned_scores(some[start : start + BATCH].to(device))
            wrong += int(((scores >= RIGHT) != is_particle).sum())
    count = len(windows.particles) + len(windows.others)
    return wrong / count if count else float("nan")


def _parts(
    training: Sequence[PickedMicrograph], rounds: int
) -> tuple[Sequence[PickedMicrograph], list[Sequence[PickedMicrograph]]]:
    """The micrographs of the first windows, and those that each round tests on."""
    if not rounds or len(training) == 1:
        return training, [training] * rounds
    half = (len(training) + 1) // 2
    later = training[half:]
    # with fewer micrographs than rounds they come round again
    return training[:half], [
        [later[i] for i in range(len(later)) if i % rounds == n] or [later[n % len(later)]] for n in range(rounds)
    ]


def _gathered(
    labelled: Sequence[PickedMicrograph], settings: DeepEMSettings, rng: np.random.Generator
) -> TrainingWindows:
    box = settings.layers().box
    none = torch.empty(0, 1, box, box)
    parts = [TrainingWindows(none, none), *(windows_of(one, settings, rng) for one in labelled)]
    return TrainingWindows(torch.cat([p.particles for p in parts]), torch.cat([p.others for p in parts]))


def _learn(
    network: DeepEMNetwork, windows: TrainingWindows, settings: DeepEMSettings, job: PickerTrainingJob, stage: str
) -> None:
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


def _wrong(picker: DeepEM, one: PickedMicrograph) -> TrainingWindows:
    """The windows of false picks and of missed particles of a micrograph."""
    box = picker.network.geometry.box
    resampled = read_resampled(one, picker.settings)
    picks = picker.detect_resampled(resampled).above(RIGHT)
    radius = MATCH_DIAMETERS * one.diameter_px
    particles = one.known
    is_true, was_found = match_picks(picks.coordinates, particles, radius)
    missed = one.coordinates[~was_found[: len(one.coordinates)]]
    missed = missed[resampled.inside(missed, box)]
    return TrainingWindows(resampled.windows(missed, box), resampled.windows(picks.coordinates[~is_true], box))


def _std_window(particles: Tensor, deviations: float) -> tuple[float, float]:
    """Least and most standard deviation of a pick's pixels, from windows (n, 1, box, box) of particles."""
    if not deviations:
        return 0.0, float("inf")
    each = particles.flatten(1).std(dim=1)
    mean, spread = float(each.mean()), float(each.std(correction=0))
    return mean - deviations * spread, mean + deviations * spread
