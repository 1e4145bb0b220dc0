"""What a training needs to go on after a kill: its state, written whole or not at all, and its folder."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from pickeropt.errors import OutputError
from pickeropt.io.tables import write_bytes_atomically

OPTIMISER = "optimiser"


def write_state(
    path: Path, step: int, parts: Mapping[str, Mapping[str, Tensor]], optimiser: torch.optim.Optimizer
) -> None:
    """Named sets of tensors and the optimiser's memory after `step` steps."""
    tensors = {f"{part}.{name}": value for part, those in parts.items() for name, value in those.items()}
    for index, memory in optimiser.state_dict()["state"].items():
        tensors |= {f"{OPTIMISER}.{index}.{name}": v for name, v in memory.items() if isinstance(v, Tensor)}
    content = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_bytes_atomically(path, save(content, {"step": str(step)}))


def read_state(path: Path, optimiser: torch.optim.Optimizer) -> tuple[int, dict[str, dict[str, Tensor]]]:
    """The step and the sets of tensors that `write_state` wrote, (0, {}) where no file is.

    optimiser : fresh, of the same parameters; its memory is filled in place
    """
    if not path.is_file():
        return 0, {}
    parts: dict[str, dict[str, Tensor]] = {}
    with safe_open(str(path), framework="pt") as file:
        step = int(file.metadata()["step"])
        for key in file.keys():  # noqa: SIM118
            part, _, name = key.partition(".")
            parts.setdefault(part, {})[name] = file.get_tensor(key)
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for key, value in parts.pop(OPTIMISER, {}).items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        # laid out as the parameter is, or the next step would round otherwise
        same_layout = value.shape == parameter.shape
        optimiser.state[parameter][name] = torch.empty_like(parameter).copy_(value) if same_layout else value
    return step, parts


@dataclass(frozen=True)
class TrainingFolder:
    """The folder beside an output where its training keeps what it needs; gone when the output is there."""

    out: Path

    @property
    def folder(self) -> Path:
        return self.out.with_name(f"{self.out.name}.partial")

    @property
    def settings(self) -> Path:
        return self.folder / "settings.json"

    def check(self, settings: Mapping[str, Any], overwrite: bool) -> bool:
        """Whether an unfinished run of these settings is there to go on with.

        Raises OutputError where the output, or an unfinished run of other settings, is in the way.
        """
        if self.out.is_dir():
            raise OutputError(f"{self.out}: is a folder; give the name of a file with --out")
        old = self._old_settings()
        if old == settings:
            return True
        if overwrite:
            return False
        if old is not None:
            differing = sorted(n for n in {*old, *settings} if old.get(n) != settings.get(n))
            raise OutputError(
                f"{self.folder}: an unfinished run with other settings ({', '.join(differing)}); give its "
                "command again to finish it, or --overwrite to begin anew"
            )
        if self.out.exists():
            raise OutputError(f"{self.out}: exists already; choose another --out, or give --overwrite")
        return False

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Clear away an unfinished run of other settings, and say what this one is."""
        shutil.rmtree(self.folder, ignore_errors=True)
        write_bytes_atomically(self.settings, json.dumps(settings, indent=1, sort_keys=True).encode())

    def publish(self, path: Path, content: bytes) -> None:
        """Write a file beside the folder by way of it, so that a kill leaves nothing else there."""
        waiting = self.folder / path.name
        write_bytes_atomically(waiting, content)
        waiting.replace(path)

    def clear(self) -> None:
        """Remove what a finished run no longer needs; the settings first: half a folder is none."""
        self.settings.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _old_settings(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(self.settings.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found
