"""One classifier of one draw: learnt from the shots, asked about the queries.

The predicted class is the most probable one, as in the paper: every row answers by the same rule, without
the temperature and the share of particles that `prune` reckons with.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from pickeropt.classifier import PickClassifier
from pickeropt.evaluate.benchmark.data_set import BenchmarkSet
from pickeropt.evaluate.benchmark.draws import Draw
from pickeropt.evaluate.benchmark.rows import FROZEN, Method
from pickeropt.evaluate.benchmark.starts import Start, finetuning
from pickeropt.finetune.recipes import ShotBoxes, fit_default, fit_paper, make_classifier
from pickeropt.finetune.shot_features import LooseShots
from pickeropt.finetune.trials import fresh_head
from pickeropt.models.backbone import inference_copy
from pickeropt.models.features import box_features
from pickeropt.models.fitting import inference_dtype, seed_everything

REGULARISATION = 0.02
"""C of the logistic regression on standardised features."""
BATCH = 64

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


class Bench:
    """One data set, seen once for all its fits.

    starts : by the start of a method
    The features of frozen backbones and the boxes of the paper's recipe are kept as long as this lives.
    """

    def __init__(
        self, data: BenchmarkSet, starts: Mapping[str, Start], device: torch.device, on_progress: OnProgress
    ) -> None:
        self._data, self._starts, self._device, self._on_progress = data, starts, device, on_progress
        self._seen: dict[str, tuple[PickClassifier, Tensor]] = {}
        self._boxes: dict[str, Tensor] = {}

    def answer(self, method: Method, draw: Draw) -> NDArray[np.float64]:
        """Probabilities (m, k) of the draw's queries, by a classifier that learnt from its shots."""
        if method.recipe == "paper":
            return self._paper(method, draw)
        made, features = self._look(method.start)
        shots, queries = features[draw.shots], features[draw.queries]
        labels = self._data.labels[draw.shots]
        if method.recipe == FROZEN:
            return logistic_regression(shots.numpy(), labels, queries.numpy(), len(self._data.class_names))
        classifier = with_losses(made, method.loss_weights)
        fresh_head(classifier, draw.seed)
        fit_default(classifier, shots, torch.from_numpy(labels))
        return _probabilities(classifier, queries)

    def _make(self, method: Method, seed: int = 0) -> PickClassifier:
        source = self._data.source
        config = finetuning(self._starts[method.start], method.recipe, method.loss_weights, seed)
        box_diameters = source.box_diameters if isinstance(source, LooseShots) else None
        return make_classifier(config, self._data.class_names, box_diameters)

    def _look(self, start: str) -> tuple[PickClassifier, Tensor]:
        """The default recipe's features (n, d) of all boxes, computed at the first call."""
        if start not in self._seen:
            made = self._make(Method(start, "default", (1.0,)))
            backbone = inference_copy(made.backbone, self._device, inference_dtype(self._device))
            features = self._data.source.features(backbone, made.spec, self._looking)
            self._seen[start] = made, features.clone()  # no longer an inference tensor
        return self._seen[start]

    def _paper(self, method: Method, draw: Draw) -> NDArray[np.float64]:
        config = finetuning(self._starts[method.start], method.recipe, method.loss_weights, draw.seed)
        seed_everything(draw.seed)
        classifier = self._make(method, draw.seed)
        if method.start not in self._boxes:
            self._boxes[method.start] = self._data.source.boxes(classifier.spec, self._looking)
        boxes = self._boxes[method.start]
        shots = ShotBoxes(boxes[draw.shots], torch.from_numpy(self._data.labels[draw.shots]))
        fit_paper(classifier, shots, config, self._device, lambda epoch, of: None)
        dtype = inference_dtype(self._device)
        backbone = inference_copy(classifier.backbone, self._device, dtype)
        with torch.inference_mode():
            features = [
                box_features(backbone, classifier.spec, batch.to(self._device, dtype), 0).cpu()
                for batch in torch.split(boxes[draw.queries], BATCH)
            ]
        return _probabilities(classifier.to("cpu"), torch.cat(features))

    def _looking(self, done: int, total: int) -> None:
        self._on_progress(f"looking at {self._data.name}", done, total)


def with_losses(made: PickClassifier, loss_weights: tuple[float, ...]) -> PickClassifier:
    """The same backbone and opinion with a fresh head of other branches."""
    classifier = PickClassifier(replace(made.spec, loss_weights=loss_weights), made.backbone)
    if made.opinion is not None and classifier.opinion is not None:
        classifier.opinion.load_state_dict(made.opinion.state_dict())
    return classifier


def _probabilities(classifier: PickClassifier, features: Tensor) -> NDArray[np.float64]:
    with torch.inference_mode():
        found: NDArray[np.float64] = torch.softmax(classifier.logits(features).double(), 1).numpy()
    return found


def logistic_regression(
    shots: NDArray[np.float32], labels: NDArray[np.int64], queries: NDArray[np.float32], classes: int
) -> NDArray[np.float64]:
    """Class-balanced, on standardised features (n, d) of the shots: probabilities (m, classes) of queries."""
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=REGULARISATION, class_weight="balanced", max_iter=2000)
    )
    model.fit(shots, labels)
    found = np.zeros((len(queries), classes))
    found[:, model[-1].classes_] = model.predict_proba(queries)
    return found
