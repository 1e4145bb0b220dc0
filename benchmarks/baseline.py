"""The frozen baseline: ImageNet features of crops at three views, and a logistic regression.

For each pick and view the layer2 and layer3 means over the crop, the spread of layer2, and the
centre of layer3, averaged over four rotations: twelve passes a pick.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pickeropt.models.backbone import Backbone
from pickeropt.models.views import cut_boxes, make_view

VIEWS = ((1.2, 96), (1.8, 112), (2.7, 112))
"""Width of a crop in particle diameters, and in network px."""
C = 0.02
PASSES = "12 passes a pick"
Predictor = Callable[[NDArray[np.float32]], NDArray[np.float64]]


def crop_features(
    backbone: Backbone, pixels: NDArray[np.float32], diameter_px: float, coordinates: NDArray[np.float64]
) -> NDArray[np.float32]:
    """(n, 3 * 768) features of picks at (n, 2) x, y px. `backbone` gives layer2 and layer3."""
    dtype = next(backbone.parameters()).dtype
    views = []
    for width, size in VIEWS:
        view, frame = make_view(pixels, diameter_px, size / width)
        boxes = cut_boxes(view, frame, coordinates, size)
        turned = [_pooled(backbone, torch.rot90(boxes, turns, (2, 3)), dtype) for turns in range(4)]
        views.append(torch.stack(turned).mean(0))
    return torch.cat(views, 1).numpy()


def _pooled(backbone: Backbone, boxes: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    parts = []
    for batch in torch.split(boxes.contiguous(), 64):
        with torch.inference_mode():
            second, third = backbone(batch.to(dtype=dtype, memory_format=torch.channels_last))
        second, third = second.float(), third.float()
        margin = (third.shape[-1] - 3) // 2
        centre = third[:, :, margin : margin + 3, margin : margin + 3]
        parts.append(torch.cat([second.mean((2, 3)), second.std((2, 3)), third.mean((2, 3)), centre.mean((2, 3))], 1))
    return torch.cat(parts)


def logistic_regression(features: NDArray[np.float32], labels: NDArray[np.int64], classes: int) -> Predictor:
    """Class-balanced, on standardised features."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=C, class_weight="balanced", max_iter=500))
    model.fit(features, labels)

    def predict(queries: NDArray[np.float32]) -> NDArray[np.float64]:
        found = np.zeros((len(queries), classes))
        found[:, model[-1].classes_] = model.predict_proba(queries)
        return found

    return predict
