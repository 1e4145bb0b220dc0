"""A GPU where there is none: tensors that say that they are on cuda:0 and are computed on the CPU.

As on a real one, tensors of two devices in one operation are an error, and numpy sees none of them. What it
does not show: which operations CUDA lacks in which precision, and how fast they are.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU, CPU = torch.device("cuda:0"), torch.device("cpu")
aten = torch.ops.aten
ACROSS = (aten._to_copy, aten.to, aten.copy_, aten.index, aten.index_put, aten.index_put_)
"""Operations that may have tensors of both devices."""
INDEXED = (aten.index, aten.index_put, aten.index_put_)


class OnGpu(Tensor):
    """Says that it is on the GPU; `here` is what it holds. Below Python it is a meta tensor."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> "OnGpu":
        about = {"strides": here.stride(), "storage_offset": here.storage_offset(), "dtype": here.dtype}
        with torch.inference_mode(False):
            made: OnGpu = torch.Tensor._make_wrapper_subclass(cls, here.size(), **about, device="meta")
        made.here = here
        return made

    @classmethod
    def __torch_dispatch__(
        cls, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return computed(operation, args, kwargs or {})

    @property
    def device(self) -> torch.device:
        return GPU

    @property
    def is_meta(self) -> bool:
        return False

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"OnGpu({self.here!r})"

    def tolist(self) -> Any:
        return self.here.tolist()


class PretendedGpu(TorchDispatchMode):
    """While it is entered, `cuda:0` can be given for a device."""

    _mode_key = torch._C._TorchDispatchModeKey.FAKE  # torch looks for no driver

    def __enter__(self) -> "PretendedGpu":
        self._lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(self._lifted)
        super().__exit__(*error)

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return computed(operation, args, kwargs or {})

    @classmethod
    def is_infra_mode(cls) -> bool:
        return True


def computed(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of an operation, on the device where CUDA would leave it."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, OnGpu)]
    _check(operation.overloadpacket, args, tensors, there)
    wanted = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.device)]
    on_gpu = wanted[0].type != "cpu" if wanted else bool(there)
    if operation.overloadpacket is aten.copy_:
        on_gpu = isinstance(args[0], OnGpu)
    args, kwargs = tree_map(_brought_here, (args, kwargs))
    result = operation(*args, **kwargs)
    if not on_gpu:
        return result
    same = {id(tensor.here): tensor for tensor in there}  # what was changed in place stays what it was

    def back(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return same[id(leaf)] if id(leaf) in same else OnGpu(leaf)

    return tree_map(back, result)


def _check(packet: Any, args: tuple[Any, ...], tensors: list[Tensor], there: list[OnGpu]) -> None:
    """Raises RuntimeError where CUDA would."""
    here = [tensor for tensor in tensors if not isinstance(tensor, OnGpu) and tensor.dim() > 0]
    mixed = there and here and packet not in ACROSS
    foreign = there and packet in INDEXED and not isinstance(args[0], OnGpu)
    if mixed or foreign:
        places = [(str(tensor.device), tuple(tensor.shape)) for tensor in tensors]
        raise RuntimeError(f"{packet}: expected all tensors to be on the same device, found {places}")


def _brought_here(leaf: Any) -> Any:
    if isinstance(leaf, torch.device):
        return CPU
    return leaf.here if isinstance(leaf, OnGpu) else leaf
