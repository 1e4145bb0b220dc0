"""What a training needs to go on after a kill, in one safetensors file, written whole or not at all."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

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
