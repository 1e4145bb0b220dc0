"""Files that pickeropt writes itself, whole or not at all."""

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickeropt.errors import OutputError
from pickeropt.io.relion_star import CLASS, MICROGRAPH, SCORE, X, Y


def partial_name(path: Path) -> Path:
    """A name beside the file, to write under before renaming."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Write under a temporary name beside the file, then rename; makes missing folders.

    Raises OutputError where the folder cannot be written to; the file is then as before.
    """
    partial = partial_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error


def write_labelled_star(
    path: Path, names: Sequence[str], xy: NDArray[np.float64], class_names: Sequence[str]
) -> None:
    """Labelled points: a micrograph name, a centre (n, 2) px and a class a row.

    Raises OutputError for a name or class that no STAR token can hold.
    """
    for name in {*names, *class_names}:
        if not name or name[0] in "_'\"" or any(c.isspace() or c == "#" for c in name):
            raise OutputError(f"{path}: {name!r} cannot stand in a STAR file; remove blanks, quotes and #")
    columns = {MICROGRAPH: list(names), X: xy[:, 0], Y: xy[:, 1], CLASS: list(class_names)}
    _write_star(path, "labels", columns)


def write_coordinate_star(path: Path, xy: NDArray[np.float64], figure_of_merit: NDArray[np.float64]) -> None:
    """The picks of one micrograph, as RELION 3.0 wrote them: centres (n, 2) px and scores (n,)."""
    _write_star(path, "", {X: xy[:, 0], Y: xy[:, 1], SCORE: figure_of_merit})


def _write_star(path: Path, block: str, columns: Mapping[str, Any]) -> None:
    """One loop, numbers with six decimals, through starfile."""
    import pandas  # slow to import
    import starfile

    table = pandas.DataFrame({label.removeprefix("_"): values for label, values in columns.items()})
    text = starfile.to_string({block: table}, float_format="%.6f")
    text = text[text.index("data_") :]  # without starfile's comment, which holds the time
    write_bytes_atomically(path, text.encode())
