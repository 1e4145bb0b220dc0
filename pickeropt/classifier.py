"""The whole classifier: backbone, head and the geometry they were made for."""

import torch
from torch import Tensor, nn

from pickeropt.models.backbone import Backbone
from pickeropt.models.head import BranchedHead, joint_logits
from pickeropt.models.spec import ModelSpec


class PickClassifier(nn.Module):
    """A backbone, a branched head on its pooled features, and a temperature that makes probabilities honest.

    temperature : logits are divided by it; 1 until it is measured on held-out shots
    """

    def __init__(self, spec: ModelSpec, backbone: Backbone):
        super().__init__()
        self.temperature: Tensor
        self.spec, self.backbone = spec, backbone
        self.head = BranchedHead(spec.layout, len(spec.class_names), len(spec.loss_weights))
        self.register_buffer("temperature", torch.ones(()))

    def logits(self, features: Tensor) -> Tensor:
        """(n, d) features -> (n, k) logits, all branches read."""
        return joint_logits(self.head(features), self.spec.loss_weights)

    def probabilities(self, features: Tensor) -> Tensor:
        """(n, d) features -> (n, k) probabilities, rows sum to 1."""
        return torch.softmax(self.logits(features) / self.temperature, 1)
