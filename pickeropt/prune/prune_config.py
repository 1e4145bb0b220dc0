"""Records of a pruning: its settings, the classifier that it needs, what it reports."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pickeropt.records import FloatArray, Micrograph


GENERAL_MODEL = "general"
"""What `--model` calls the general model of the package."""
Finish = Callable[[Path], tuple[str, ...]]
"""Adds to the finished output of a run, in the folder; returns warnings, a sentence each."""


@dataclass(frozen=True)
class ScorerConfig:
    """What a classifier of picks was loaded with.

    model : its file; None: the general model of the package
    diameter_angstrom : of the particle, Å; None: the model's
    batch_size : boxes, or pieces of a micrograph, computed at once; None: by the device
    device : auto, cpu, cuda or cuda:N
    """

    model: Path | None = None
    diameter_angstrom: float | None = None
    batch_size: int | None = None
    device: str = "auto"


class MicrographScorer(Protocol):
    """A classifier of picks.

    class_names : k names, `particle` first
    digest : sha256 of the model file, hexadecimal
    diameter_angstrom : of the particle, Å
    config : what it was loaded with, for the record
    notes : what the user of this model should know, a sentence each
    taught_pixel_size : Å/px that the user gave where it was taught on micrographs, None where files said it
    """

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def digest(self) -> str: ...

    @property
    def diameter_angstrom(self) -> float: ...

    @property
    def config(self) -> ScorerConfig: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    @property
    def taught_pixel_size(self) -> float | None: ...

    def score(self, micrograph: "Micrograph", coordinates: "NDArray[np.float64]", pixel_size: float) -> "FloatArray":
        """(m, k) probabilities, rows sum to 1, of picks at (m, 2) x, y px; pixel_size in Å/px."""


@dataclass(frozen=True)
class Filters:
    """Bounds that a pick must keep whatever its score; None: off (`prune/filters.py`).

    min_std, max_std : standard deviation of the pixels of the pick's box, in the micrograph's noise units
    max_extreme : share of its pixels that are beyond three noise units
    max_domain : size of the domain of the score map that the pick is in, in average domains
    min_distance : to a pick with a higher score, Å
    """

    min_std: float | None = None
    max_std: float | None = None
    max_extreme: float | None = None
    max_domain: float | None = None
    min_distance: float | None = None


REASONS = ("", *(bound.name.replace("_", "-") for bound in fields(Filters)))
"""Why a filter rejects a pick, as the command line calls it; the first is no reason."""


@dataclass(frozen=True)
class PruneConfig:
    """The settings of a pruning, apart from its classifier (`ScorerConfig`).

    micrographs : folders to look for micrographs in
    out : the folder that is made, with `kept/`, `rejected/`, `scores.csv`, `summary.json`
    threshold : a pick is kept where P(particle) is at least this
    pixel_size : Å/px; None: from optics block and MRC header
    overwrite : replace `out`, and an unfinished run of other settings
    write_score : put P(particle) into the files of picks as well (`io/scores.py`)
    prior : share of the picks that are particles, "auto" to estimate it (`prune/prior.py`)
    picker_shots : labelled STAR file that teaches what the picker's score is worth; None: that is not used
    trust_frame : do not look whether the picks are in the frame of the micrographs (`frame/`)
    """

    micrographs: tuple[Path, ...] = ()
    out: Path = Path("pruned")
    threshold: float = 0.5
    pixel_size: float | None = None
    overwrite: bool = False
    write_score: bool = False
    filters: Filters = Filters()
    prior: float | Literal["auto"] = 0.5
    picker_shots: Path | None = None
    trust_frame: bool = False


RECORDED = (
    *("model", "micrographs", "out", "threshold", "diameter_angstrom", "pixel_size", "batch_size", "device"),
    *("overwrite", "write_score", "filters", "prior", "picker_shots", "trust_frame"),
)
"""The settings in `summary.json`, in their order."""


def recorded_settings(config: PruneConfig, scorer: ScorerConfig) -> dict[str, Any]:
    """The settings of a pruning and of its classifier as `summary.json` has them."""
    known = {**asdict(config), **asdict(scorer)}
    return {name: known[name] for name in RECORDED}


@dataclass(frozen=True)
class PruneSummary:
    """What came of a pruning.

    by_class, rejected_by_class : number of picks by most probable class, all and those below the threshold
    micrographs : that have picks
    worst : up to five micrographs that lost most: name, picks, rejected
    diameter_angstrom, pixel_sizes : what the picks were looked at with, Å and Å/px (each one once)
    resumed : micrographs taken over from an earlier run that was killed
    filtered : number of picks above the threshold that a filter rejected, by its name
    prior : share of the picks that the scores take for particles
    notes : what was learnt on the way, a sentence each
    """

    picks: int
    kept: int
    rejected: int
    by_class: dict[str, int]
    rejected_by_class: dict[str, int]
    micrographs: int
    worst: tuple[tuple[str, int, int], ...]
    threshold: float
    diameter_angstrom: float
    pixel_sizes: tuple[float, ...]
    seconds: float
    model_digest: str
    out: Path
    warnings: tuple[str, ...]
    resumed: int
    filtered: dict[str, int] = field(default_factory=dict)
    prior: float = 0.5
    notes: tuple[str, ...] = ()
