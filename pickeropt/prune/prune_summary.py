"""The summary of a pruned run: what came of n picks, in numbers. It needs no network, and so has a file of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickeropt.prune.prune_config import REASONS

WORST = 5
NOTHING_KEPT = "every pick is rejected; is the model of this particle, and is the threshold right?"


@dataclass(frozen=True)
class JudgedPicks:
    """n picks judged.

    class_names : of `best`, (n,), each pick's most probable class
    micrographs : by name, of `micrograph`, (n,)
    above : (n,) bool, whether the score reaches the threshold
    reasons : (n,) index into `REASONS`, why a filter is against a pick whatever its score
    """

    class_names: tuple[str, ...]
    best: NDArray[np.int64]
    micrographs: tuple[str, ...]
    micrograph: NDArray[np.int64]
    above: NDArray[np.bool_]
    reasons: NDArray[np.int64]

    @property
    def keep(self) -> NDArray[np.bool_]:
        """(n,): which picks stay."""
        kept: NDArray[np.bool_] = self.above & (self.reasons == 0)
        return kept


def counts(judged: JudgedPicks) -> dict[str, Any]:
    """The fields of a `PruneSummary` that count; what is rejected is below the threshold or filtered."""
    keep = judged.keep
    kept = int(keep.sum())
    lost = np.bincount(judged.micrograph[~keep], minlength=len(judged.micrographs))
    picks = np.bincount(judged.micrograph, minlength=len(judged.micrographs))
    order = sorted(range(len(lost)), key=lambda i: (-int(lost[i]), judged.micrographs[i]))[:WORST]
    filtered = _by_name(REASONS, judged.reasons[judged.above])
    return {
        "picks": len(keep),
        "kept": kept,
        "rejected": len(keep) - kept,
        "by_class": _by_name(judged.class_names, judged.best),
        "rejected_by_class": _by_name(judged.class_names, judged.best[~judged.above]),
        "filtered": {name: count for name, count in filtered.items() if name and count},
        "micrographs": len(judged.micrographs),
        "worst": tuple((judged.micrographs[i], int(picks[i]), int(lost[i])) for i in order if lost[i]),
    }


def _by_name(names: Sequence[str], index: NDArray[np.int64]) -> dict[str, int]:
    found = np.bincount(index, minlength=len(names)).tolist()
    return dict(zip(names, found, strict=True))
