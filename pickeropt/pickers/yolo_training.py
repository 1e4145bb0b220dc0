"""The YOLO picker and its training on labelled micrographs, from positives only, all of them or a share."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pickeropt.errors import ShotsError
from pickeropt.io.micrographs import micrograph_shape, read_micrograph
from pickeropt.models.fitting import inference_dtype
from pickeropt.models.views import check_fits
from pickeropt.pickers.picker_records import (
    Detections,
    Material,
    PickedMicrograph,
    PickerTrainingJob,
    TrainedPicker,
    fit,
)
from pickeropt.pickers.yolo_network import (
    STRIDE,
    Boxes,
    YoloNetwork,
    YoloSettings,
    apart,
    boxes_of,
    decoded,
    inference_network,
    load_weights,
    matched,
    read_settings,
    targets,
    weights_of,
    yolo_loss,
)
from pickeropt.pickers.yolo_view import Patches, YoloView, augmented, cut, make_view, particle_in_view, patches_of
from pickeropt.records import FloatArray, Micrograph

FLOOR = 0.01
"""Boxes of less confidence are not even candidates."""

AT_ONCE = 4 * 1024 * 1024
"""px of patches in one pass through the network."""


def detect(network: YoloNetwork, pixels: FloatArray, diameter_px: float, settings: YoloSettings) -> Detections:
    """All boxes with a confidence of `FLOOR` or more, best first.

    network : of `inference_network`; pixels : (h, w) of the micrograph
    diameter_px : of the particle in the micrograph; it fixes how far the micrograph is downsized
    Raises GeometryError where the particle does not fit the micrograph.
    """
    check_fits((pixels.shape[0], pixels.shape[1]), diameter_px)
    view = make_view(pixels, settings.particle_px / diameter_px, settings.low_pass)
    overlap = settings.overlap * settings.particle_px
    patches = patches_of((view.pixels.shape[0], view.pixels.shape[1]), settings.input_size, overlap)
    grids = predicted(network, view.pixels, patches, settings.anchor)
    boxes, scores = assembled(grids, patches, settings.particle_px / 4)
    kept = apart(boxes, scores, settings.merged)
    return as_detections(view, boxes[kept], scores[kept], (pixels.shape[0], pixels.shape[1]))


def predicted(
    network: YoloNetwork, pixels: FloatArray, patches: Patches, anchor: float, at_once: int = AT_ONCE
) -> NDArray[np.float32]:
    """The decoded grid of each patch, (n, 5, rows, columns) of `boxes.decoded`, in the order of its corner.

    at_once : px in one pass; changes speed and memory, nothing else
    """
    first = next(network.parameters())
    corners = patches.corners()
    count = max(1, at_once // (patches.shape[0] * patches.shape[1]))
    grids: list[Tensor] = []
    with torch.inference_mode():
        for start in range(0, len(corners), count):
            cuts = np.stack([patches.cut(pixels, corner) for corner in corners[start : start + count]])
            x = torch.from_numpy(cuts)[:, None].to(first.device, first.dtype)
            output = network(x.contiguous(memory_format=torch.channels_last))
            grids.append(decoded(output, anchor).cpu())
    together: NDArray[np.float32] = torch.cat(grids).numpy()
    return together


def assembled(grids: NDArray[np.float32], patches: Patches, margin: float) -> tuple[Boxes, NDArray[np.float64]]:
    """Boxes of all patches in px of the view, each from the patch that answers for its place.

    margin : px behind the middle of an overlap up to which both patches answer
    """
    found, confidences = [np.empty((0, 4))], [np.empty(0)]
    for grid, corner in zip(grids, patches.corners(), strict=True):
        boxes, scores = boxes_of(grid)
        boxes[:, :2] += (corner[1], corner[0])
        stays = (scores >= FLOOR) & patches.own(boxes, corner, margin)
        found.append(boxes[stays])
        confidences.append(scores[stays])
    return np.concatenate(found), np.concatenate(confidences)


def as_detections(view: YoloView, boxes: Boxes, scores: NDArray[np.float64], shape: tuple[int, int]) -> Detections:
    """Boxes of a view, best first, as boxes of its (h, w) micrograph, less those centred outside it."""
    places = view.to_micrograph(boxes[:, :2])
    inside = ((places >= 0) & (places <= np.array([shape[1], shape[0]]) - 1)).all(axis=1)
    sizes = boxes[:, 2:] / np.array(view.scale)
    return Detections(places[inside], scores[inside], sizes[inside])


PAPERS_IOU = 0.6
"""A picked box of greater IoU with a labelled one is true (Wagner et al. 2019, Results)."""

THRESHOLD_IOU = 1.0 / 3.0
"""The same for the choice of the threshold: that of two equal boxes half a side apart."""

UNKNOWN = 0.5
"""The threshold where nothing true was found to choose it by."""


def evaluate_detector(
    network: YoloNetwork, labelled: Sequence[PickedMicrograph], settings: YoloSettings, job: PickerTrainingJob
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
        job.on_progress("evaluating", number, len(labelled))
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


def labelled_boxes(one: PickedMicrograph, settings: YoloSettings) -> Boxes:
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


WARM_UP = 0.05
"""Share of the steps in which the learning rate rises to its highest; then it falls to 0 as a cosine."""


@dataclass(frozen=True)
class YoloSample:
    """One micrograph to learn from.

    pixels : (h, w) float16, of its view; boxes : (n, 4) px of the view from its outer edge
    patch : (h, w) of one patch; patches : how many cover the view
    """

    pixels: NDArray[np.float16]
    boxes: Boxes
    patch: tuple[int, int]
    patches: int


def train(
    material: Material, settings: YoloSettings, job: PickerTrainingJob, initial: Mapping[str, Tensor] | None
) -> TrainedPicker:
    """Train a detector; what is not labelled counts as background, for less than what is.

    initial : weights of a picker of the same width, of these or of other particles ("general model")
    Raises ShotsError where no particle is labelled, GeometryError where one does not fit its micrograph,
    CheckpointError where the initial weights do not fit.
    """
    if not sum(len(one.coordinates) for one in material.training):
        raise ShotsError("no labelled particle on the micrographs to train on; give coordinates of particles")
    network = initial_network(settings, job, initial)
    particle = particle_size(material.training, settings)
    settings = settings.fixed(particle, particle * settings.box_diameters / STRIDE)
    samples = []
    for number, one in enumerate(material.training, 1):
        samples.append(sampled(one, settings))
        job.on_progress("reading", number, len(material.training))
    per_epoch = math.ceil(sum(sample.patches for sample in samples) / settings.batch_size)
    steps = settings.epochs * per_epoch
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)

    def loss_of(step: int) -> Tensor:
        images, grids = batch(samples, settings, job.seed, step)
        return _loss(network, images.to(job.device), grids.to(job.device), settings)

    fit(network.train(), optimiser, steps, loss_of, job, "training", lambda step: rate(step, steps))
    ready = inference_network(network, job.device, inference_dtype(job.device))
    threshold, figures = evaluate_detector(ready, material.evaluation, settings, job)
    return TrainedPicker(asdict(settings), weights_of(network), threshold, figures)


def initial_network(
    settings: YoloSettings, job: PickerTrainingJob, initial: Mapping[str, Tensor] | None
) -> YoloNetwork:
    """He's weights from the job's seed, or those given; on the job's device."""
    torch.manual_seed(job.seed)
    network = YoloNetwork(settings.width, settings.dropout)
    if initial is not None:
        load_weights(network, initial)
    return network.to(device=job.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def particle_size(labelled: Sequence[PickedMicrograph], settings: YoloSettings) -> float:
    """Diameter of the particle in every view, px: as set, else the median of what patches make of each."""
    shapes = [micrograph_shape(one.path) for one in labelled]
    sizes = [particle_in_view(s, one.diameter_px, settings) for s, one in zip(shapes, labelled, strict=True)]
    return settings.particle_px or float(np.median(sizes))


def sampled(one: PickedMicrograph, settings: YoloSettings) -> YoloSample:
    """A micrograph as the network learns from it; `settings` have the size of the particle."""
    particle = settings.particle_px
    view = make_view(read_micrograph(one.path).pixels, particle / one.diameter_px, settings.low_pass)
    places = view.to_view(one.coordinates)
    side = np.full((len(places), 2), particle * settings.box_diameters)
    shape = (view.pixels.shape[0], view.pixels.shape[1])
    patches = patches_of(shape, settings.input_size, settings.overlap * particle)
    return YoloSample(view.pixels.astype(np.float16), np.column_stack([places, side]), patches.shape, len(patches))


def batch(samples: Sequence[YoloSample], settings: YoloSettings, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """The images (b, 1, h, w) and their grids (b, 5, h/32, w/32) of a step, from 1.

    An epoch draws as many patches from each micrograph as cover it, anywhere on it, in random order.
    """
    slots = [i for i, sample in enumerate(samples) for _ in range(sample.patches)]
    epoch, number = divmod(step - 1, math.ceil(len(slots) / settings.batch_size))
    order = np.random.default_rng([seed, epoch, 0]).permutation(slots)
    shape = tuple(np.max([sample.patch for sample in samples], axis=0).tolist())
    rng = np.random.default_rng([seed, step])
    images, grids = [], []
    for index in order[number * settings.batch_size : (number + 1) * settings.batch_size]:
        pixels, boxes = samples[index].pixels, samples[index].boxes
        top, left = (int(rng.integers(0, max(0, h - s) + 1)) for h, s in zip(pixels.shape, shape, strict=True))
        image = cut(pixels, (top, left), (shape[0], shape[1]))
        moved = boxes - np.array([left, top, 0, 0])
        image, moved = augmented(image, moved, settings.augmented, rng)
        images.append(image)
        grids.append(targets(moved, shape[0] // STRIDE, shape[1] // STRIDE))
    return torch.from_numpy(np.stack(images))[:, None], torch.from_numpy(np.stack(grids))


def rate(step: int, steps: int) -> float:
    """What the learning rate is multiplied by."""
    rising = max(1, round(WARM_UP * steps))
    if step <= rising:
        return step / rising
    return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def _loss(network: YoloNetwork, images: Tensor, grids: Tensor, settings: YoloSettings) -> Tensor:
    dtype = inference_dtype(images.device)
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, dtype=dtype, enabled=dtype != torch.float32):
        features = network.features(images)
    output = network.detected(features)
    weights = (settings.coordinate_weight, settings.object_weight, settings.no_object_weight)
    return yolo_loss(decoded(output, settings.anchor), grids, weights)


class Yolo:
    """Boxes with a confidence; see `pickeropt.pickers.picker_records.Picker`."""

    kind = "yolo"

    def __init__(self, network: YoloNetwork, settings: YoloSettings, threshold: float):
        self.network, self.settings, self.threshold = network, settings, threshold

    def detect(self, micrograph: Micrograph, pixel_size: float, diameter_angstrom: float) -> Detections:
        """All boxes of confidence 0.01 or more, with their sizes.

        Raises GeometryError where the particle does not fit the micrograph, or where nearly all pixels
        have one value.
        """
        return detect(self.network, micrograph.pixels, diameter_angstrom / pixel_size, self.settings)


def load(settings: Mapping[str, object], state: Mapping[str, Tensor], threshold: float, device: torch.device) -> Yolo:
    """A trained picker, in bfloat16 where the device is made for it. Raises CheckpointError."""
    read = read_settings(settings)
    network = YoloNetwork(read.width, read.dropout)
    load_weights(network, state)
    return Yolo(inference_network(network, device, inference_dtype(device)), read, threshold)
