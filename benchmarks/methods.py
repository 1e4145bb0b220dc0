"""The methods that `benchmarks/real.py` sets beside each other.

A method sees each micrograph's points once (`look`), then is fitted to any shots and asked about any points.
`odds` is how much likelier than any other class its probabilities take a particle to be beforehand.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baseline import PASSES, crop_features, logistic_regression
from numpy.typing import NDArray
from real_data import CLASSES, DIAMETER, DIAMETER_PX

from pickeropt.finetune.finetune_config import FinetuneConfig
from pickeropt.finetune.recipes import VIEW_DIAMETERS, ShotBoxes, fit_measured, fit_paper, make_classifier
from pickeropt.models.backbone import inference_copy, initial_backbone
from pickeropt.models.classifier import PickClassifier, general_checkpoint
from pickeropt.models.features import box_features, boxes_of, describe_micrograph
from pickeropt.models.fitting import choose_device, inference_dtype, seed_everything

Pixels = NDArray[np.float32]
Points = NDArray[np.float64]
Labels = NDArray[np.int64]
Seen = torch.Tensor
EIGHT_PASSES: dict[str, Any] = {
    "view_diameters": (62.0, 41.0),
    "orientations": 4,
    "windows": (0.5, 1.2, 2.7),
    "centred": False,
}
"""The dense baseline: two scales, four rotations, windows of several sizes."""
DEVICE = choose_device("auto")


class FrozenCrops:
    """Frozen ImageNet features of crops + logistic regression (`baseline.py`)."""

    name, passes, slow, odds = "frozen ImageNet crops + LR", PASSES, False, 1.0

    def __init__(self, imagenet: Path | None):
        backbone = initial_backbone("resnet18", "imagenet", imagenet, ("layer2", "layer3"))
        self.backbone = inference_copy(backbone, DEVICE, inference_dtype(DEVICE))

    def look(self, pixels: Pixels, points: Points) -> Seen:
        return torch.from_numpy(crop_features(self.backbone, pixels, DIAMETER_PX, points))

    def fit(self, seen: Seen, labels: Labels, groups: Labels, seed: int) -> Callable[[Seen], NDArray[np.float64]]:
        predict = logistic_regression(seen.numpy(), labels, len(CLASSES))
        return lambda queries: predict(queries.numpy())


class Default:
    """`--recipe default` from given weights, or its features with the baseline's logistic regression."""

    slow = False

    def __init__(self, name: str, init: str, imagenet: Path | None, regression: bool = False):
        self.name, self.regression = name, regression
        self.odds = 1.0 if regression else len(CLASSES) - 1.0
        weights = imagenet if init == "imagenet" else None
        self.config = FinetuneConfig(DIAMETER, init=init, weights=weights)
        made = make_classifier(self.config, CLASSES, None)
        spec = replace(made.spec, **EIGHT_PASSES, parents=())
        self.classifier = PickClassifier(spec, made.backbone) if regression else made
        self.passes = self.classifier.spec.passes
        self.backbone = inference_copy(self.classifier.backbone, DEVICE, inference_dtype(DEVICE))

    def look(self, pixels: Pixels, points: Points) -> Seen:
        return describe_micrograph(self.backbone, self.classifier.spec, pixels, DIAMETER_PX, points)

    def fit(self, seen: Seen, labels: Labels, groups: Labels, seed: int) -> Callable[[Seen], NDArray[np.float64]]:
        if self.regression:
            predict = logistic_regression(seen.numpy(), labels, len(CLASSES))
            return lambda queries: predict(queries.numpy())
        config = replace(self.config, seed=seed)
        fit_measured(self.classifier, seen, groups, torch.from_numpy(labels), config, lambda done, of: None)

        def ask(queries: Seen) -> NDArray[np.float64]:
            with torch.no_grad():
                answer: NDArray[np.float64] = self.classifier.probabilities(queries).numpy().astype(np.float64)
            return answer

        return ask


class Paper:
    """`--recipe paper` from given weights: trained whole for 30 epochs, boxes of 1.5 diameters; softmax.

    view : px that a particle is across, in place of the recipe's
    """

    slow, odds = True, 1.0

    def __init__(self, name: str, init: str, imagenet: Path | None, view: float | None = None):
        self.name = name
        weights = imagenet if init == "imagenet" else None
        self.config = FinetuneConfig(DIAMETER, init=init, weights=weights, recipe="paper")
        self.spec = make_classifier(self.config, CLASSES, None).spec
        if view is not None:
            self.spec = replace(self.spec, view_diameters=(view,))
        self.passes = self.spec.passes

    def look(self, pixels: Pixels, points: Points) -> Seen:
        view = self.spec.view_diameters[0]
        return torch.cat([b.half() for b in boxes_of(self.spec, pixels, DIAMETER_PX, points, view)])

    def fit(self, seen: Seen, labels: Labels, groups: Labels, seed: int) -> Callable[[Seen], NDArray[np.float64]]:
        seed_everything(seed)
        classifier = make_classifier(self.config, CLASSES, None)
        shots = ShotBoxes(seen.float(), torch.from_numpy(labels))
        fit_paper(classifier, shots, replace(self.config, seed=seed), DEVICE, lambda epoch, of: None)
        dtype = inference_dtype(DEVICE)
        backbone = inference_copy(classifier.backbone, DEVICE, dtype)
        classifier.to("cpu")

        def ask(queries: Seen) -> NDArray[np.float64]:
            with torch.inference_mode():
                features = [
                    box_features(backbone, self.spec, batch.to(DEVICE, dtype), 0).cpu()
                    for batch in torch.split(queries, 64)
                ]
                logits = classifier.logits(torch.cat(features))
                answer: NDArray[np.float64] = torch.softmax(logits, 1).double().numpy()
            return answer

        return ask


class General(Default):
    """The general model of the package: no shot is looked at."""

    def __init__(self) -> None:
        self.name, self.classifier = "general model, no shots", general_checkpoint().classifier
        self.odds = len(CLASSES) - 1.0
        self.passes = self.classifier.spec.passes
        self.backbone = inference_copy(self.classifier.backbone, DEVICE, inference_dtype(DEVICE))

    def fit(self, seen: Seen, labels: Labels, groups: Labels, seed: int) -> Callable[[Seen], NDArray[np.float64]]:
        order = [self.classifier.spec.class_names.index(name) for name in CLASSES]

        def ask(queries: Seen) -> NDArray[np.float64]:
            with torch.no_grad():
                answer: NDArray[np.float64] = self.classifier.probabilities(queries).double().numpy()[:, order]
            return answer

        return ask


Method = FrozenCrops | Default | Paper | General


def all_methods(imagenet: Path | None, wanted: Sequence[str]) -> list[Method]:
    """The rows of the table, of the names in `wanted`."""
    makers: dict[str, Callable[[], Method]] = {
        "crops": lambda: FrozenCrops(imagenet),
        "dense": lambda: Default("frozen ImageNet dense + LR", "imagenet", imagenet, regression=True),
        "paper": lambda: Paper("recipe paper, ImageNet", "imagenet", imagenet),
        "paper-small": lambda: Paper("recipe paper, ImageNet, 62 px", "imagenet", imagenet, *VIEW_DIAMETERS),
        "paper-shipped": lambda: Paper("recipe paper, shipped", "shipped", None),
        "imagenet": lambda: Default("recipe default, ImageNet", "imagenet", imagenet),
        "general": General,
        "default": lambda: Default("recipe default, shipped", "shipped", None),
    }
    return [makers[name]() for name in wanted]
