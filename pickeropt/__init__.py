"""pickeropt: prune the picks of any cryo-EM particle picker with a few-shot classifier.

The names below are imported on first use, so that `import pickeropt` loads neither NumPy nor PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pickeropt.api import Model as Model
    from pickeropt.api import check as check
    from pickeropt.api import convert as convert
    from pickeropt.api import evaluate as evaluate
    from pickeropt.api import finetune as finetune
    from pickeropt.api import prune as prune
    from pickeropt.api import read_labels as read_labels
    from pickeropt.api import rethreshold as rethreshold
    from pickeropt.errors import PickeroptError as PickeroptError
    from pickeropt.records import Scores as Scores

__version__ = "0.1.0"

_MODULES = {
    "Model": "api",
    "PickeroptError": "errors",
    "Scores": "records",
    "check": "api",
    "convert": "api",
    "evaluate": "api",
    "finetune": "api",
    "prune": "api",
    "read_labels": "api",
    "rethreshold": "api",
}
"""The module of each public name."""

__all__ = [
    "Model",
    "PickeroptError",
    "Scores",
    "check",
    "convert",
    "evaluate",
    "finetune",
    "prune",
    "read_labels",
    "rethreshold",
]

# Importing a package binds its name here. These four are also functions, so they are imported first and their
# names removed: nothing binds them again, and `pickeropt.prune` is the function from the first use on.
for _room in ("convert", "evaluate", "finetune", "prune"):
    import_module(f"pickeropt.{_room}")
    del globals()[_room]
del _room


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'pickeropt' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"pickeropt.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
