"""A trained picker in one safetensors file: weights, settings, threshold, provenance. Never a pickle."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pickeropt import __version__
from pickeropt.errors import CheckpointError
from pickeropt.models.classifier import with_sorted_metadata
from pickeropt.pickers import kinds
from pickeropt.pickers.config import KINDS
from pickeropt.pickers.records import Picker, Trained

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
        return kinds.load(self.kind, self.settings, self.state, self.threshold, device)


def picker_bytes(
    kind: str, trained: Trained, diameter_angstrom: float, provenance: Mapping[str, Any]
) -> bytes:
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
