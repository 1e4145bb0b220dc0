"""Train the YOLO detector on labelled micrographs: positives only, all of them or a share."""

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
from pickeropt.pickers.fit import fit
from pickeropt.pickers.records import Job, Labelled, Material, Trained
from pickeropt.pickers.yolo.augment import augmented
from pickeropt.pickers.yolo.boxes import Boxes, decoded, targets
from pickeropt.pickers.yolo.judge import judged
from pickeropt.pickers.yolo.loss import yolo_loss
from pickeropt.pickers.yolo.network import YoloNetwork, inference_network, load_weights, weights_of
from pickeropt.pickers.yolo.settings import STRIDE, YoloSettings
from pickeropt.pickers.yolo.view import cut, make_view, particle_in_view, patches_of

WARM_UP = 0.05
"""Share of the steps in which the learning rate rises to its highest; then it falls to 0 as a cosine."""


@dataclass(frozen=True)
class Sample:
    """One micrograph to learn from.

    pixels : (h, w) float16, of its view; boxes : (n, 4) px of the view from its outer edge
    patch : (h, w) of one patch; patches : how many cover the view
    """

    pixels: NDArray[np.float16]
    boxes: Boxes
    patch: tuple[int, int]
    patches: int


def train(
    material: Material, settings: YoloSettings, job: Job, initial: Mapping[str, Tensor] | None
) -> Trained:
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
    threshold, figures = judged(ready, material.judging, settings, job)
    return Trained(asdict(settings), weights_of(network), threshold, figures)


def initial_network(settings: YoloSettings, job: Job, initial: Mapping[str, Tensor] | None) -> YoloNetwork:
    """He's weights from the job's seed, or those given; on the job's device."""
    torch.manual_seed(job.seed)
    network = YoloNetwork(settings.width, settings.dropout)
    if initial is not None:
        load_weights(network, initial)
    return network.to(device=job.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def particle_size(labelled: Sequence[Labelled], settings: YoloSettings) -> float:
    """Diameter of the particle in every view, px: as set, else the median of what patches make of each."""
    shapes = [micrograph_shape(one.path) for one in labelled]
    sizes = [particle_in_view(s, one.diameter_px, settings) for s, one in zip(shapes, labelled, strict=True)]
    return settings.particle_px or float(np.median(sizes))


def sampled(one: Labelled, settings: YoloSettings) -> Sample:
    """A micrograph as the network learns from it; `settings` have the size of the particle."""
    particle = settings.particle_px
    view = make_view(read_micrograph(one.path).pixels, particle / one.diameter_px, settings.low_pass)
    places = view.to_view(one.coordinates)
    side = np.full((len(places), 2), particle * settings.box_diameters)
    shape = (view.pixels.shape[0], view.pixels.shape[1])
    patches = patches_of(shape, settings.input_size, settings.overlap * particle)
    return Sample(
        view.pixels.astype(np.float16), np.column_stack([places, side]), patches.shape, len(patches)
    )


def batch(samples: Sequence[Sample], settings: YoloSettings, seed: int, step: int) -> tuple[Tensor, Tensor]:
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
        top, left = (
            int(rng.integers(0, max(0, h - s) + 1)) for h, s in zip(pixels.shape, shape, strict=True)
        )
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
