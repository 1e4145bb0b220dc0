"""The loss of Wagner et al. 2019, Methods: that of Redmon et al. 2016, one class, one reference box."""

import torch
from torch import Tensor


def yolo_loss(found: Tensor, target: Tensor, weights: tuple[float, float, float]) -> Tensor:
    """Squared errors summed over the cells of an image, mean over images.

    found : (b, 5, rows, columns) of `boxes.decoded`: confidence, x, y, width, height
    target : (b, 5, rows, columns) of `boxes.targets`
    weights : of the places and sizes of boxes where a particle is, of the confidence there, which should
        be 1, and of the confidence where no particle is, which should be 0

    As in Redmon et al. 2016 (equation 3) the square roots of width and height are compared.
    """
    at_coordinates, at_object, at_none = weights
    is_object = target[:, :1]
    place = is_object * (found[:, 1:3] - target[:, 1:3]).square()
    size = is_object * (found[:, 3:5].sqrt() - target[:, 3:5].sqrt()).square()
    confidence = is_object * (1.0 - found[:, :1]).square()
    background = (1.0 - is_object) * found[:, :1].square()
    terms = at_coordinates * (place.sum() + size.sum()) + at_object * confidence.sum()
    total: Tensor = (terms + at_none * background.sum()) / torch.tensor(float(len(found)))
    return total
