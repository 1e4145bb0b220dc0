"""The whole classifier: backbone, head and the geometry they were made for."""

import math

import torch
from torch import Tensor, nn

from pickeropt.models.backbone import Backbone
from pickeropt.models.head import BranchedHead, joint_logits
from pickeropt.models.spec import ModelSpec
from pickeropt.records import PARTICLE


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
        return self.calibrated(self.logits(features), self.temperature)

    def calibrated(self, logits: Tensor, temperature: Tensor | float) -> Tensor:
        """(n, k) logits -> probabilities of picks of which half are particles.

        The shots hold every class alike, so the logits take particles for one in k; a picker's picks are
        particles far more often. Half is the neutral assumption, at which P(particle) = 0.5 means that the
        pick looks as much like a particle as like anything else.
        """
        prior = torch.zeros(logits.shape[1])
        prior[self.spec.class_names.index(PARTICLE)] = math.log(logits.shape[1] - 1)
        return torch.softmax(logits / temperature + prior, 1)
