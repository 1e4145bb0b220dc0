"""The three pickers by name: settings from text, training, loading."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from typing import Any, get_type_hints

import torch
from torch import Tensor

from pickeropt.errors import PickeroptError
from pickeropt.pickers.records import Job, Labelled, Material, Picker, Trained

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
    kind: str, material: Material, settings: Any, job: Job, initial: Mapping[str, Tensor] | None
) -> Trained:
    """Train a picker; `initial` are the weights to start from."""
    trained: Trained = _module(kind, "training").train(material, settings, job, initial)
    return trained


def iterate(kind: str, trained: Trained, micrographs: Sequence[Labelled], settings: Any, job: Job) -> Trained:
    """Train a picker on the best of its own picks. Raises PickeroptError for a kind that cannot."""
    if kind not in ITERATES:
        what = f"{kind} learns from coordinates only, {', '.join(ITERATES)} from its own picks too"
        raise PickeroptError(f"{what}; give --coords")
    again: Trained = _module(kind, "iteration").iterate(trained, micrographs, settings, job)
    return again


def load(
    kind: str,
    settings: Mapping[str, object],
    state: Mapping[str, Tensor],
    threshold: float,
    device: torch.device,
) -> Picker:
    """A trained picker, ready to detect."""
    picker: Picker = _module(kind, "picker").load(settings, state, threshold, device)
    return picker


def _settings_class(kind: str) -> Any:
    found = getattr(_module(kind, "settings"), _SETTINGS[kind])
    assert all(f.default is not MISSING or f.default_factory is not MISSING for f in fields(found))
    return found


def _module(kind: str, part: str) -> Any:
    """Imported when it is needed: the command line loads one picker, not three."""
    return importlib.import_module(f"pickeropt.pickers.{kind}.{part}")
