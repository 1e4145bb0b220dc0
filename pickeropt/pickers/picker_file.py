"""The picker file: weights, settings, threshold and provenance of one trained picker, in safetensors, never a pickle.

The functions that take a `kind` import the module of that picker only when it is needed.
"""

import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pickeropt import __version__
from pickeropt.errors import CheckpointError, PickeroptError
from pickeropt.models.classifier import with_sorted_metadata
from pickeropt.pickers.picker_config import KINDS
from pickeropt.pickers.picker_records import Material, PickedMicrograph, Picker, PickerTrainingJob, TrainedPicker

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
