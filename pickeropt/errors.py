"""Errors that are the user's to mend.

::

    PickeroptError
    ├── FormatError       a coordinate file, table or class folder cannot be read
    ├── MicrographError   a micrograph is missing, truncated, constant or not finite
    ├── GeometryError     pixel size, diameter or coordinates do not fit the micrograph
    ├── ShotsError        the labelled shots cannot train a classifier
    ├── CheckpointError   a model file is not one of ours, or lacks something
    ├── DownloadError     a file cannot be had from the network
    └── OutputError       the output is in the way, or a resumed run does not match

Every message names the file, the row where there is one, the value and the remedy.
The command line turns each into one line on standard error and exit code 2; anything
else that escapes is a bug of ours and keeps its traceback.
"""

from pathlib import Path


class PickeroptError(Exception):
    """Base of all errors that the user can mend."""


class FormatError(PickeroptError):
    """A coordinate file, table or class folder cannot be read as what it should be."""

    @classmethod
    def missing(cls, path: Path) -> "FormatError":
        """There is no such file."""
        return cls(f"{path}: no such file; check the path")


class MicrographError(PickeroptError):
    """A micrograph is missing, truncated, constant or holds values that are not finite."""


class GeometryError(PickeroptError):
    """Pixel size, diameter or coordinates do not fit the micrograph."""


class ShotsError(PickeroptError):
    """The labelled shots cannot train a classifier: no particle class, or too few."""


class CheckpointError(PickeroptError):
    """A model file is not a pickeropt checkpoint, or lacks something it must hold."""

    @classmethod
    def missing_model(cls, path: Path) -> "CheckpointError":
        """There is no such model file."""
        return cls(f"{path}: no such model file; make one with `pickeropt finetune`")


class DownloadError(PickeroptError):
    """A file cannot be had from the network, or is not what it should be."""


class OutputError(PickeroptError):
    """The output exists already, or an unfinished run in it does not match this one."""
