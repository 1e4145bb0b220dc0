"""The only calls that a pickle of picks may ask for, worked out without looking anything up.

NumPy's scalars pickle as `numpy.core.multiarray.scalar(numpy.dtype('f4', 0, 1), b'....')`, and Python 3
writes bytes for Python 2 as `_codecs.encode('....', 'latin1')`. Every other name is refused.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

_SCALARS = ("numpy.core.multiarray scalar", "numpy._core.multiarray scalar")
_DTYPE = "numpy dtype"
_ENCODE = "_codecs encode"
_KIND = re.compile(r"b1|[iu][1248]|f[248]")


class ValuesError(Exception):
    """What is wrong at the current opcode."""


@dataclass(frozen=True)
class Global:
    """The name of something that a pickle wants, "module name"; never the thing."""

    name: str


@dataclass
class Dtype:
    """A NumPy scalar type; a later opcode sets its byte order, when it is in the memo already."""

    kind: str
    order: str = "="


def wanted(name: str) -> Global:
    """The global, if it is one of the three kinds. Raises ValuesError naming it otherwise."""
    if name not in (*_SCALARS, _DTYPE, _ENCODE):
        raise ValuesError(f"it wants {name.replace(' ', '.')[:100]!r}, which picks do not need")
    return Global(name)


def call(name: str, arguments: tuple[Any, ...]) -> Any:
    """The value of one of the allowed calls."""
    first, second = (*arguments, None, None)[:2]
    if name == _DTYPE and isinstance(first, str) and _KIND.fullmatch(first):
        return Dtype(first)
    if name == _ENCODE and isinstance(first, str) and second == "latin1":
        return first.encode("latin-1")
    if name in _SCALARS and isinstance(first, Dtype):
        raw = second.encode("latin-1") if isinstance(second, str) else second
        dtype = np.dtype(f"{first.order}{first.kind}")
        if isinstance(raw, bytes) and len(raw) == dtype.itemsize:
            return np.frombuffer(raw, dtype)[0].item()
    raise ValuesError(f"{name.replace(' ', '.')!r} is called with values that are no NumPy scalar")
