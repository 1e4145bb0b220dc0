"""Source classes by parent: what the head is told wrong for, by class and by parent."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pickeropt.records import DEFAULT_CLASSES


@dataclass(frozen=True)
class Parents:
    """The p parents that k source classes have.

    names : (p,) of `DEFAULT_CLASSES`, in that order
    counts : (p,) how many source classes each has, one parent's after the other's
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, parents: Sequence[str]) -> "Parents":
        """Of source classes in the order of `material.SourceClasses`; parents is (k,)."""
        names = tuple(name for name in DEFAULT_CLASSES if name in parents)
        return cls(names, tuple(list(parents).count(name) for name in names))

    def logits(self, source: Tensor) -> Tensor:
        """(n, k) logits of source classes -> (n, p): softmax of these is the summed softmax of those."""
        return torch.stack(
            [torch.logsumexp(part, 1) for part in torch.split(source, list(self.counts), 1)], 1
        )

    def labels(self, labels: Tensor) -> Tensor:
        """(n,) source classes -> (n,) number of the parent of each."""
        counts = torch.tensor(self.counts, device=labels.device)
        return torch.repeat_interleave(counts)[labels]

    def losses(self, source: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the source classes and of the parents, weighted means.

        source : (n, k) logits; labels : (n,) source classes; weights : (n,), sum 1
        """
        by_class = functional.cross_entropy(source, labels, reduction="none")
        by_parent = functional.cross_entropy(self.logits(source), self.labels(labels), reduction="none")
        return (by_class * weights).sum(), (by_parent * weights).sum()


def even_weights(parent_labels: Tensor, least: int) -> Tensor:
    """(n,) weights, sum 1, with which all parents count the same; one with fewer points than `least` less."""
    counts = torch.bincount(parent_labels).clamp(min=least)
    weights = 1 / counts[parent_labels].float()
    return weights / weights.sum()
