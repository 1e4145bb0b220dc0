"""What the three pickers share: records, local maxima, the training loop, and the picker file.

A training that is killed continues from its last saved state and ends with the same weights. Therefore all
random numbers come from the seed and the step, never from a generator that keeps running.

A picker file holds weights, settings, threshold and provenance of one trained picker, in safetensors, never a pickle.

The functions that take a `kind` import the module of that picker only when it is needed.
"""

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, get_type_hints

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from scipy import ndimage
from torch import Tensor, nn

from pickeropt import __version__
from pickeropt.errors import CheckpointError, PickeroptError
from pickeropt.models.classifier import with_sorted_metadata
from pickeropt.models.fitting import read_state, write_state
from pickeropt.pickers.picker_config import KINDS
from pickeropt.records import Micrograph, OnProgress, Picks


@dataclass(frozen=True)
class PickedMicrograph:
    """One micrograph whose particles are known, all or some of them.

    coordinates : (n, 2) float64, x and y of the centres of the particles to learn from, px
    pixel_size : Å/px; diameter_angstrom : of these particles, Å
    others : (m, 2) float64, particles known to be there that are not to be learnt from: no negative lies
        on them
    """

    path: Path
    coordinates: NDArray[np.float64]
    pixel_size: float
    diameter_angstrom: float
    others: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))

    @property
    def known(self) -> NDArray[np.float64]:
        """All particles that are known to be there, (n + m, 2)."""
        return np.concatenate([self.coordinates, self.others])

    @property
    def diameter_px(self) -> float:
        """Particle diameter in px of the micrograph."""
        return self.diameter_angstrom / self.pixel_size


@dataclass(frozen=True)
class Material:
    """What a picker learns from.

    training : at least one micrograph
    testing : held back, by micrograph: chooses the threshold and measures the learning error; empty
        where there is only one micrograph
    """

    training: tuple[PickedMicrograph, ...]
    testing: tuple[PickedMicrograph, ...]

    @property
    def evaluation(self) -> tuple[PickedMicrograph, ...]:
        """The micrographs that choose the threshold: those held back, or where there are none the others."""
        return self.testing or self.training


@dataclass(frozen=True)
class Detections:
    """All that a picker found on one micrograph, best first.

    coordinates : (n, 2) float64, x and y of the centres, px of the micrograph, rows as stored
    scores : (n,) float64 between 0 and 1, never rising
    sizes : (n, 2) float64 px, width and height of the boxes; None where the picker does not measure them
    """

    coordinates: NDArray[np.float64]
    scores: NDArray[np.float64]
    sizes: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, threshold: float) -> "Detections":
        """Those with a score of `threshold` or more."""
        count = int((self.scores >= threshold).sum())
        sizes = None if self.sizes is None else self.sizes[:count]
        return Detections(self.coordinates[:count], self.scores[:count], sizes)

    def as_picks(self, name: str) -> Picks:
        """The same as picks of the micrograph `name`, scores as figure of merit."""
        index = np.zeros(len(self), dtype=np.int64)
        return Picks(self.coordinates, (name,) if len(self) else (), index, self.scores)


@dataclass(frozen=True)
class PickerTrainingJob:
    """One training: its seed, its device, and the folder where it keeps what it needs to go on."""

    seed: int
    device: torch.device
    folder: Path
    on_progress: OnProgress


@dataclass(frozen=True)
class TrainedPicker:
    """What came out of a training.

    settings : of the picker, ready for JSON; state : its weights, float32
    threshold : least score of a pick; figures : measured on `Material.evaluation`, by name
    """

    settings: dict[str, Any]
    state: dict[str, Tensor]
    threshold: float
    figures: dict[str, float]


class Picker(Protocol):
    """A trained picker."""

    @property
    def kind(self) -> str:
        """deepem, deeppicker or yolo."""
        ...

    @property
    def threshold(self) -> float:
        """Least score of a pick, as training chose it."""
        ...

    def detect(self, micrograph: Micrograph, pixel_size: float, diameter_angstrom: float) -> Detections:
        """All candidates, also those below the threshold.

        pixel_size : Å/px of the micrograph
        Raises GeometryError where the particle does not fit the micrograph.
        """
        ...


Indices = NDArray[np.int64]


def local_maxima(
    scores: NDArray[np.floating], radius: float, floor: float = 0.0
) -> tuple[Indices, Indices, NDArray[np.float64]]:
    """Where a map is highest within `radius`, best first.

    scores : (h, w); NaN is nowhere a maximum
    radius : cells, inclusive; no two maxima are that close to each other or closer
    floor : maxima of less are left out
    returns : rows, columns and scores of the maxima, (n,) each; of equal scores the first by row and column

    A cell is a candidate where no cell within `radius` is higher; of candidates with equal scores that lie
    so close the first stays.
    """
    known = np.where(np.isnan(scores), -np.inf, scores).astype(np.float64)
    reach = int(radius)
    down, across = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    highest = ndimage.maximum_filter(known, footprint=down**2 + across**2 <= radius**2, mode="constant", cval=-np.inf)
    rows, columns = np.nonzero((known == highest) & (known >= floor) & np.isfinite(known))
    values = known[rows, columns]
    order = np.argsort(-values, kind="stable")
    rows, columns, values = rows[order], columns[order], values[order]
    kept = _apart(np.column_stack([rows, columns]).astype(np.float64), radius)
    return rows[kept].astype(np.int64), columns[kept].astype(np.int64), values[kept]


def _apart(points: NDArray[np.float64], radius: float) -> NDArray[np.bool_]:
    """Which points, (n, 2) best first, are farther than `radius` from all better ones that stay."""
    from scipy.spatial import cKDTree

    kept = np.ones(len(points), dtype=np.bool_)
    pairs = cKDTree(points).query_pairs(radius, output_type="ndarray") if len(points) else np.empty((0, 2))
    for better, worse in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].astype(np.int64).tolist():
        if kept[better]:
            kept[worse] = False
    return kept


SAVES = 20
"""How often the state of a training is saved."""


def fit(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    steps: int,
    loss_of: Callable[[int], Tensor],
    job: PickerTrainingJob,
    stage: str,
    rate: Callable[[int], float] | None = None,
) -> float:
    """Train `network` in place for `steps` steps.

    loss_of : from the step, from 1, to its loss; whatever is random in it comes from the seed and the step
    stage : names the state of this training in the job's folder, and says what is done; a stage that is
        finished already is loaded, not trained again
    rate : from the step to what the optimiser's learning rates are multiplied by
    returns : the mean loss of the last twentieth of the steps that were done here, NaN where none was
    """
    path = job.folder / f"{stage}.safetensors"
    first = [group["lr"] for group in optimiser.param_groups]
    done, saved = read_state(path, optimiser)
    if done:
        network.load_state_dict(saved["network"])
    losses: list[float] = []
    every = max(1, steps // SAVES)
    for step in range(done + 1, steps + 1):
        for group, base in zip(optimiser.param_groups, first, strict=True):
            group["lr"] = base * (rate(step) if rate is not None else 1.0)
        torch.manual_seed((job.seed * 1_000_003 + step) % 2**63)  # dropout
        optimiser.zero_grad()
        loss = loss_of(step)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
        job.on_progress(stage, step, steps)
        if step % every == 0 or step == steps:
            write_state(path, step, {"network": network.state_dict()}, optimiser)
    last = losses[-every:]
    return sum(last) / len(last) if last else float("nan")


ITERATES = ("deeppicker",)
"""Those that can go on from their own picks (Wang et al. 2016, section 2.1)."""
_SETTINGS = {"deepem": "DeepEMSettings", "deeppicker": "DeepPickerSettings", "yolo": "YoloSettings"}


def default_settings(kind: str) -> dict[str, Any]:
    """The names of a picker's settings and their defaults."""
    return asdict(_settings_class(kind)())


def make_settings(kind: str, given: Mapping[str, str], base: Mapping[str, Any] | None = None) -> Any:
    """A picker's settings, those that were given as text in place of those of `base`, else of the defaults.

    base : settings as the file of a picker has them
    Raises PickeroptError for a name that is none and for a value of the wrong kind.
    """
    known = _settings_class(kind)
    hints = get_type_hints(known)
    values = {n: tuple(v) if isinstance(v, list) else v for n, v in (base or {}).items() if n in hints}
    for name, text in given.items():
        if name not in hints:
            names = ", ".join(f"{n}={v}" for n, v in default_settings(kind).items())
            raise PickeroptError(f"--set {name}={text}: {kind} has no setting {name!r}; it has {names}")
        values[name] = _value(name, text, getattr(known(), name))
    return known(**values)


def _value(name: str, text: str, default: Any) -> Any:
    """The text as what the default is: a number, a truth value, text, or numbers with commas."""
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        if isinstance(default, tuple):
            kind = type(default[0]) if default else float
            return tuple(kind(part) for part in text.split(","))
        if default is None:
            return float(text)
        return type(default)(text)
    except (KeyError, ValueError):
        what = f"--set {name}={text}: {text!r} cannot stand for {default!r}"
        raise PickeroptError(f"{what}; give a value of that kind") from None


def train(
    kind: str, material: Material, settings: Any, job: PickerTrainingJob, initial: Mapping[str, Tensor] | None
) -> TrainedPicker:
    """Train a picker; `initial` are the weights to start from."""
    trained: TrainedPicker = _module(kind, "training").train(material, settings, job, initial)
    return trained


def iterate(
    kind: str, trained: TrainedPicker, micrographs: Sequence[PickedMicrograph], settings: Any, job: PickerTrainingJob
) -> TrainedPicker:
    """Train a picker on the best of its own picks. Raises PickeroptError for a kind that cannot."""
    if kind not in ITERATES:
        what = f"{kind} learns from coordinates only, {', '.join(ITERATES)} from its own picks too"
        raise PickeroptError(f"{what}; give --coords")
    again: TrainedPicker = _module(kind, "training").iterate(trained, micrographs, settings, job)
    return again


def load(
    kind: str,
    settings: Mapping[str, object],
    state: Mapping[str, Tensor],
    threshold: float,
    device: torch.device,
) -> Picker:
    """A trained picker, ready to detect."""
    picker: Picker = _module(kind, "training").load(settings, state, threshold, device)
    return picker


def _settings_class(kind: str) -> Any:
    found = getattr(_module(kind, "network"), _SETTINGS[kind])
    assert all(f.default is not MISSING or f.default_factory is not MISSING for f in fields(found))
    return found


def _module(kind: str, part: str) -> Any:
    """Imported when it is needed: the command line loads one picker, not three."""
    return importlib.import_module(f"pickeropt.pickers.{kind}_{part}")


FORMAT = "pickeropt picker 1"


@dataclass(frozen=True)
class PickerFile:
    """What a file of a picker holds.

    kind : deepem, deeppicker or yolo; settings : of it; state : its weights
    threshold : least score of a pick; diameter_angstrom : of the particles it was trained for, Å
    provenance : seed, particles, figures, versions; digest : sha256 of the file
    """

    kind: str
    settings: Mapping[str, Any]
    state: Mapping[str, Tensor]
    threshold: float
    diameter_angstrom: float
    provenance: Mapping[str, Any]
    digest: str

    def load(self, device: torch.device) -> Picker:
        """The picker, ready to detect."""
        return load(self.kind, self.settings, self.state, self.threshold, device)


def picker_bytes(kind: str, trained: TrainedPicker, diameter_angstrom: float, provenance: Mapping[str, Any]) -> bytes:
    """The content of a picker's file; the same picker gives the same bytes."""
    versions = {name: version(name) for name in ("torch", "numpy")}
    described = {
        "kind": kind,
        "settings": trained.settings,
        "threshold": trained.threshold,
        "diameter_angstrom": diameter_angstrom,
        "provenance": {**provenance, "versions": {"pickeropt": __version__, **versions}},
    }
    state = {name: value.detach().contiguous().cpu() for name, value in trained.state.items()}
    return with_sorted_metadata(save(state, {"format": FORMAT, "pickeropt": json.dumps(described)}))


def read_picker(path: Path) -> PickerFile:
    """Read a picker's file.

    Raises CheckpointError for a missing file, one that is no safetensors file, and one of another kind.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such picker file; make one with `pickeropt pick train`")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        what = f"{path}: not a safetensors file, or a truncated one"
        raise CheckpointError(f"{what}; make a picker with `pickeropt pick train`") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: a safetensors file, but not a {FORMAT!r}: it says {metadata.get('format')!r}; "
            "models of `pickeropt finetune` prune, they do not pick"
        )
    try:
        described = json.loads(metadata["pickeropt"])
        kind, settings = described["kind"], described["settings"]
        threshold, diameter = float(described["threshold"]), float(described["diameter_angstrom"])
        if kind not in KINDS:
            raise KeyError(kind)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: a damaged picker ({error}); train it again") from error
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return PickerFile(kind, settings, state, threshold, diameter, described.get("provenance", {}), digest)


def load_picker(file: PickerFile, path: Path, device: torch.device) -> Picker:
    """The picker of a file. Raises CheckpointError where weights are missing or settings unknown."""
    try:
        return file.load(device)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: a damaged picker ({error}); train it again") from error
