"""The source head: the pretraining's classifier of source classes, and the prior that it gives on the user's classes.

The source head is linear and classifies pooled windows into source classes (species, contaminants, carbons, empty
ice, or only their parents). Its softmax, summed by parent, gives the probabilities of particle, background,
contaminant and carbon. This is a classifier by itself (`prune` without a model); in few-shot learning a share of its
logits is added to what the shots teach.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from pickeropt.errors import CheckpointError
from pickeropt.models.head import ModelSpec, spec_of
from pickeropt.records import DEFAULT_CLASSES, PARTICLE

CARBON, CONTAMINANT = "carbon", "contaminant"
"""Of `DEFAULT_CLASSES`: the support film, and all else that is neither particle nor background."""

CARBON_ONSET = 4.0
"""Log-odds against carbon below which there is evidence for it: a probability of 1 in 55."""

ABSENT = -20.0
"""Log probability of a parent without source classes."""


@dataclass(frozen=True)
class SourceHead:
    """A pretraining's head with the standardisation folded in.

    parents : (s,) the parent of each source class, one of `DEFAULT_CLASSES`
    weight, bias : (s, d) and (s,), of features as `dense_features` gives them
    spec : of those features
    """

    parents: tuple[str, ...]
    weight: Tensor
    bias: Tensor
    spec: ModelSpec


class SourcePrior(nn.Module):
    """forward : (n, d) features -> (n, k) log probabilities of the user's classes by the source head.

    width : d; parents : (s,), as `SourceHead` has them
    class_names : the k classes. One that is named as a parent has the logit of that parent; any other has that of
        the parents, besides particle, that no class is named after, or of all of them where none is left
    """

    def __init__(self, width: int, parents: tuple[str, ...], class_names: tuple[str, ...]):
        super().__init__()
        self.linear = nn.Linear(width, len(parents)).requires_grad_(False)
        others = [name for name in DEFAULT_CLASSES if name != PARTICLE]
        unnamed = [name for name in others if name not in class_names] or others
        self._rows = [
            [i for i, p in enumerate(parents) if p in ([name] if name in DEFAULT_CLASSES else unnamed)]
            for name in class_names
        ]

    def forward(self, features: Tensor) -> Tensor:
        source = torch.log_softmax(self.linear(features), 1)
        sums = [
            torch.logsumexp(source[:, rows], 1) if rows else torch.full_like(source[:, 0], ABSENT)
            for rows in self._rows
        ]
        return torch.stack(sums, 1)

    def load(self, head: SourceHead) -> None:
        """Copy the weights of a source head."""
        with torch.no_grad():
            self.linear.weight.copy_(head.weight)
            self.linear.bias.copy_(head.bias)


def carbon_evidence(prior: Tensor, carbon: int, most: float) -> Tensor:
    """Evidence for class `carbon` in the prior, (n, k) logits: (n,), 0 to `most`.

    The log-odds of carbon against all other classes, counted from `-CARBON_ONSET`. Support films differ from square to
    square more than a few shots of one edge can show, and pretraining has many of them.
    """
    others = [i for i in range(prior.shape[1]) if i != carbon]
    odds = prior[:, carbon] - torch.logsumexp(prior[:, others], 1)
    return (odds + CARBON_ONSET).clamp(0.0, most)


def read_source_head(path: Path) -> SourceHead | None:
    """The head in a file of `pickeropt pretrain`; None where the file holds none.

    Raises CheckpointError for a file that cannot be read or whose head is damaged.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            described = json.loads((file.metadata() or {}).get("pickeropt", "{}"))
            if "parents" not in described:
                return None
            names = ("mean", "scale", "branches.0.linear.weight", "branches.0.linear.bias")
            mean, scale, weight, bias = (file.get_tensor(f"head.{name}").float() for name in names)
        parents = tuple(described["parents"])
        spec = spec_of(dict(described["spec"]))
        if not set(parents) <= set(DEFAULT_CLASSES):
            raise ValueError(f"parents {sorted(set(parents))}")
        shapes = [tuple(tensor.shape) for tensor in (mean, scale, weight, bias)]
        s, d = len(parents), spec.layout.width
        if shapes != [(d,), (d,), (s, d), (s,)]:
            raise ValueError(f"{s} parents and {d} features, but tensors of {shapes}")
        folded = weight * scale
        return SourceHead(parents, folded, bias - folded @ mean, spec)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: its head cannot be read ({error}); pretrain again") from error


def fits(head: SourceHead, spec: ModelSpec) -> bool:
    """Whether the head and a classifier of this spec use the same features."""
    alike = ("stages", "channels", "windows", "dense", "centred", "normalise")
    return len(spec.view_diameters) == 1 and all(getattr(head.spec, n) == getattr(spec, n) for n in alike)
