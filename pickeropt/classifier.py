"""The whole classifier: backbone, head and the geometry they were made for."""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from pickeropt.models.backbone import Backbone
from pickeropt.models.head import BranchedHead, joint_logits
from pickeropt.models.source_head import CARBON, CONTAMINANT, Opinion, SourceHead, carbon_evidence
from pickeropt.models.spec import ModelSpec
from pickeropt.records import DEFAULT_CLASSES, PARTICLE


class PickClassifier(nn.Module):
    """A backbone, a branched head on its pooled features, and a temperature that makes probabilities honest.

    temperature : logits are divided by it; 1 until it is measured on held-out shots
    """

    def __init__(self, spec: ModelSpec, backbone: Backbone):
        super().__init__()
        self.temperature: Tensor
        self.spec, self.backbone = spec, backbone
        self.head = BranchedHead(spec.layout, len(spec.class_names), len(spec.loss_weights), spec.limit)
        self.opinion = Opinion(spec.layout.width, spec.parents, spec.class_names) if spec.parents else None
        self.register_buffer("temperature", torch.ones(()))

    def leaning(self, features: Tensor) -> Tensor:
        """(n, d) features -> (n, k) logits that stand before any shot has been seen; 0 without an opinion."""
        leaning, film = self._opinions(features)
        return leaning + film

    def logits(self, features: Tensor) -> Tensor:
        """(n, d) features -> (n, k) logits, all branches read.

        The evidence for carbon says in full which kind of reject a pick is, and in part (`carbon_share`)
        whether it is a particle: the other classes are moved together until it is so. A part of it
        (`carbon_alike`) is for a contaminant as well, or those that look like film would be called carbon.
        """
        leaning, film = self._opinions(features)
        logits = joint_logits(self.head(features), self.spec.loss_weights) + leaning
        said = logits + film
        rest = [i for i, name in enumerate(self.spec.class_names) if name != PARTICLE]
        heard = logits[:, rest] + self.spec.carbon_share * film[:, rest]
        said[:, rest] += (heard.logsumexp(1) - said[:, rest].logsumexp(1))[:, None]
        return said

    def _opinions(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """What the opinion counts for, and its evidence for carbon beside that: (n, k) each."""
        names, spec = self.spec.class_names, self.spec
        leaning = film = features.new_zeros(len(features), len(names))
        if self.opinion is not None:
            opinion = self.opinion(features)
            leaning = spec.lean * opinion
            if spec.carbon_lean and CARBON in names:
                film = torch.zeros_like(leaning)
                carbon = names.index(CARBON)
                film[:, carbon] = spec.carbon_lean * carbon_evidence(opinion, carbon, spec.carbon_most)
                if CONTAMINANT in names:
                    film[:, names.index(CONTAMINANT)] = spec.carbon_alike * film[:, carbon]
        return leaning, film

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


def general_classifier(backbone: Backbone, source: SourceHead) -> PickClassifier:
    """A classifier that says its pretraining's opinion and nothing else: no shot has been seen.

    Its classes are `DEFAULT_CLASSES`; the softmax over the source classes is summed by parent.
    """
    spec = replace(
        source.spec, class_names=DEFAULT_CLASSES, parents=source.parents, lean=1.0, loss_weights=(1.0,)
    )
    classifier = PickClassifier(spec, backbone)
    assert classifier.opinion is not None
    classifier.opinion.load(source)
    for parameter in classifier.head.parameters():
        nn.init.zeros_(parameter)
    return classifier.eval()
