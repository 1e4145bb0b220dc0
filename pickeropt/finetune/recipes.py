"""The two recipes: what the network looks at, and how its classifier is trained.

`default` was chosen by cross-validation on real micrographs (docs/figures.md has the figures);
`paper` is that of PickerOptimizer, section 3.2.

Classifiers measured on shots that they had not seen, and probabilities set by what came out.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pickeropt.finetune.finetune_config import FinetuneConfig
from pickeropt.models.backbone import Backbone, initial_backbone, initial_head, unfold_batch_norm
from pickeropt.models.classifier import PickClassifier
from pickeropt.models.features import box_features
from pickeropt.models.fitting import (
    Quality,
    SgdSchedule,
    fit_head,
    fit_temperature,
    inference_dtype,
    quality,
    train_sgd,
)
from pickeropt.models.head import LIMIT, ModelSpec, multi_loss
from pickeropt.models.source_head import SourceHead, fits
from pickeropt.records import PARTICLE
from pickeropt.shots import Split, validation_split

PENALTY = 500.0
"""Weight of |weights|²/2 against the summed loss of all shots; divided by their number in the mean."""

PRIOR_WEIGHT = 0.15
"""Weight of the source prior of the pretraining beside what is fitted to the shots."""

CARBON_WEIGHT = 1.0
CARBON_LIMIT = 4.0
CONTAMINANT_SHARE = 0.5
CARBON_SHARE = 0.5
"""Weight of the prior's evidence for carbon, its upper limit, the share that a contaminant gets too, and the share
that P(particle) is subject to. The evidence starts at even odds. Contaminants get half of it: on grids whose
contaminant resembles film, the shots could not outweigh more."""

STAGES = ("layer2", "layer3")
VIEW_DIAMETERS = (62.0,)
WINDOWS = (0.5, 1.2, 2.7)
ORIENTATIONS = 1
PAPER_BOX_DIAMETERS = 1.5
PAPER_VIEW_DIAMETER = 224 / PAPER_BOX_DIAMETERS
"""Of weights that were not pretrained here: their boxes are 224 px, as ImageNet's images are. The paper says
nothing of size."""


@dataclass(frozen=True)
class ShotBoxes:
    """Boxes of the shots for a recipe that trains the backbone: (n, 1, s, s) normalised, and labels (n,)."""

    boxes: Tensor
    labels: Tensor


def make_classifier(
    config: FinetuneConfig, class_names: tuple[str, ...], box_diameters: float | None
) -> PickClassifier:
    """A backbone with its first weights and a fresh classifier.

    box_diameters : width of the shots' boxes in particle diameters where they came without micrographs
    """
    paper = config.recipe == "paper"
    backbone = initial_backbone(config.backbone, config.init, config.weights, None if paper else STAGES)
    on_micrographs = box_diameters is None
    widest = PAPER_BOX_DIAMETERS if paper else max(WINDOWS)
    head = initial_head(config.init)
    spec = ModelSpec(
        backbone=config.backbone,
        stages=backbone.stages,
        channels=backbone.channels,
        view_diameters=_paper_views(head) if paper else VIEW_DIAMETERS,
        windows=() if paper else WINDOWS,
        orientations=1 if paper else ORIENTATIONS,
        dense=on_micrographs and not paper,
        box_diameters=widest if box_diameters is None else min(widest, box_diameters),
        centred=on_micrographs and not paper,
        normalise="micrograph" if on_micrographs else "box",
        loss_weights=config.loss_weights,
        class_names=class_names,
        limit=None if paper else LIMIT,
    )
    return with_opinion(spec, backbone, head if spec.dense else None)


def _paper_views(head: SourceHead | None) -> tuple[float, ...]:
    """Px that a particle is across where all weights are trained: as many as where they were pretrained."""
    return (PAPER_VIEW_DIAMETER,) if head is None else head.spec.view_diameters


def with_opinion(spec: ModelSpec, backbone: Backbone, head: SourceHead | None) -> PickClassifier:
    """A classifier that hears the pretraining's head, where there is one and it sees the same."""
    if head is None or not fits(head, spec):
        return PickClassifier(spec, backbone)
    spec = replace(
        spec,
        parents=head.parents,
        prior_weight=PRIOR_WEIGHT,
        carbon_weight=CARBON_WEIGHT,
        carbon_limit=CARBON_LIMIT,
        contaminant_share=CONTAMINANT_SHARE,
        carbon_share=CARBON_SHARE,
    )
    classifier = PickClassifier(spec, backbone)
    assert classifier.source_prior is not None
    classifier.source_prior.load(head)
    return classifier


def fit_default(classifier: PickClassifier, features: Tensor, labels: Tensor) -> None:
    """Fit a fresh head to the fixed features (n, d) of the shots, labels (n,)."""
    with torch.no_grad():
        prior = classifier.prior_logits(features)
    fit_head(classifier.head, features, labels, classifier.spec.loss_weights, PENALTY / len(labels), prior)


def fit_paper(
    classifier: PickClassifier,
    shots: ShotBoxes,
    config: FinetuneConfig,
    device: torch.device,
    on_epoch: Callable[[int, int], None],
) -> None:
    """Train all weights as the paper does: the schedule's epochs, no early stop."""
    schedule = SgdSchedule()
    backbone, head = classifier.backbone.to(device), classifier.head.to(device)
    if config.init != "none":
        some = shots.boxes[:: max(1, len(shots.boxes) // 64)].to(device)
        unfold_batch_norm(backbone, some)
        if backbone.stages[-1] != "layer4":
            head.scale.fill_(_to_unit(backbone, classifier.spec, some))
    classifier.train()
    class_weights = torch.ones(len(classifier.spec.class_names), device=device)
    rng = np.random.default_rng(config.seed)
    autocast = inference_dtype(device) == torch.bfloat16

    def loss_of(batch: NDArray[np.int64]) -> Tensor:
        boxes = augment(shots.boxes[batch], rng).to(device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            features = box_features(backbone, classifier.spec, boxes, 0)
        labels = shots.labels[batch].to(device)
        return multi_loss(head(features.float()), labels, classifier.spec.loss_weights, class_weights)

    train_sgd(
        classifier,
        loss_of,
        len(shots.labels),
        schedule,
        config.seed,
        lambda epoch, _: on_epoch(epoch, schedule.epochs),
    )
    classifier.eval()


def _to_unit(backbone: Backbone, spec: ModelSpec, boxes: Tensor) -> float:
    """What brings the mean pooled feature of (n, 1, s, s) boxes to 1, as it is behind layer4.

    Earlier stages end near 0.1: at the paper's learning rate a classifier on those would not leave its
    random start in ten shots' worth of steps.
    """
    with torch.no_grad():
        mean = torch.cat([box_features(backbone.eval(), spec, part, 0) for part in torch.split(boxes, 16)]).mean()
    return 1 / max(float(mean), 1e-6)


def augment(boxes: Tensor, rng: np.random.Generator) -> Tensor:
    """Random flips and rotation by any angle, edges replicated, as in the paper: (n, 1, s, s)."""
    angle = rng.uniform(0, 2 * np.pi, len(boxes))
    flip_x, flip_y = (rng.choice([-1.0, 1.0], len(boxes)) for _ in range(2))
    cos, sin, zero = np.cos(angle), np.sin(angle), np.zeros(len(boxes))
    theta = np.stack(
        [np.stack([flip_x * cos, -flip_x * sin, zero], 1), np.stack([flip_y * sin, flip_y * cos, zero], 1)], 1
    )
    grid = functional.affine_grid(torch.from_numpy(theta).to(boxes.dtype), list(boxes.shape), align_corners=False)
    return functional.grid_sample(boxes, grid, mode="bilinear", padding_mode="border", align_corners=False)


SPLITS = 5
"""Splits that the default recipe is measured on; its classifier is fitted in a second."""


@dataclass(frozen=True)
class Trial:
    """One classifier measured on the shots it had not seen: logits (m, k) and labels (m,) of those."""

    split: Split
    logits: Tensor
    labels: Tensor

    def quality(self, classifier: PickClassifier) -> Quality:
        """Accuracy and F1 of the classes that `prune` would name."""
        said = classifier.calibrated(self.logits, classifier.temperature).argmax(1)
        return quality(self.labels.numpy(), said.numpy())


def ask(classifier: PickClassifier, features: Tensor, labels: Tensor, split: Split) -> Trial:
    """The fitted classifier's answers on the split's held-out shots; features and labels are of all shots."""
    held = torch.from_numpy(split.validation)
    with torch.no_grad():
        return Trial(split, classifier.logits(features[held]), labels[held])


def fresh_head(classifier: PickClassifier, seed: int) -> None:
    """Draw the classifier anew, from uniform distributions."""
    torch.manual_seed(seed)
    for module in classifier.head.modules():
        if isinstance(module, torch.nn.Linear):
            module.reset_parameters()


def fit_measured(
    classifier: PickClassifier,
    features: Tensor,
    groups: NDArray[np.int64],
    labels: Tensor,
    config: FinetuneConfig,
    on_fit: Callable[[int, int], None],
) -> list[Trial]:
    """The default recipe on fixed features: fitted on five splits to measure, then on all shots.

    features : (n, d); groups : (n,) micrograph of each shot; labels : (n,) int
    on_fit : called with the number of fits done and of all
    The classifier's temperature is taken from the held-out shots of all splits.
    """
    trials: list[Trial] = []
    for number in range(SPLITS):
        split = validation_split(labels.numpy(), groups, config.validation_fraction, config.seed + number)
        if len(split.validation):
            fresh_head(classifier, config.seed)
            fit_default(classifier, features[split.train], labels[split.train])
            trials.append(ask(classifier, features, labels, split))
        on_fit(number + 1, SPLITS + 1)
    fresh_head(classifier, config.seed)
    fit_default(classifier, features, labels)
    set_temperature(classifier, trials)
    on_fit(SPLITS + 1, SPLITS + 1)
    return trials


def set_temperature(classifier: PickClassifier, trials: list[Trial]) -> None:
    """Make P(particle) as sure as the held-out shots allow; 1 where there are none."""
    if not trials:
        classifier.temperature.fill_(1.0)
        return
    particle = classifier.spec.class_names.index(PARTICLE)
    logits = torch.cat([trial.logits for trial in trials])
    is_particle = torch.cat([trial.labels for trial in trials]) == particle
    found = fit_temperature(lambda t: classifier.calibrated(logits, t)[:, particle], is_particle)
    classifier.temperature.fill_(found)
