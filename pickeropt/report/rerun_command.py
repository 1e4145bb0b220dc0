"""The command line that makes a run again, from the settings that its summary holds.

What a report can be told; its defaults stand here only.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pickeropt.prune.prune_config import GENERAL_MODEL, Filters, PruneConfig, ScorerConfig, recorded_settings

FLAGS = {
    "model": "--model",
    "out": "--out",
    "threshold": "--threshold",
    "diameter_angstrom": "--diameter",
    "pixel_size": "--pixel-size",
    "batch_size": "--batch-size",
    "device": "--device",
    "prior": "--prior",
}
"""Settings with one value, in the order of the command line."""
ALWAYS = ("model", "out", "threshold")
"""Said even where they are the defaults, so that the command does not depend on those."""


def command_of(summary: Mapping[str, Any]) -> str:
    """`cd FOLDER` and the `pickeropt prune …` that gives the run again, quoted for a shell.

    It has `--overwrite`, because it writes the same folder; other settings only where they are not the
    defaults.
    """
    settings = {**summary["settings"], "model": summary["settings"].get("model") or GENERAL_MODEL}
    words = ["pickeropt", "prune", *(_path(text) for text in summary.get("inputs", ()))]
    for folder in settings.get("micrographs") or ():
        words += ["--micrographs", str(folder)]
    default = recorded_settings(PruneConfig(), ScorerConfig())
    for name, flag in FLAGS.items():
        value = settings.get(name)
        if value is not None and (name in ALWAYS or value != default[name]):
            words += [flag, _number(value)]
    if settings.get("picker_shots"):
        words += ["--use-picker-score", "--shots", str(settings["picker_shots"])]
    bounds = settings.get("filters") or {}
    for field in fields(Filters):
        if bounds.get(field.name) is not None:
            words += [f"--{field.name.replace('_', '-')}", _number(bounds[field.name])]
    words += [f"--{name.replace('_', '-')}" for name in ("write_score", "trust_frame") if settings.get(name)]
    folder = summary.get("folder")
    start = f"cd {shlex.quote(str(folder))}\n" if folder else ""
    return f"{start}{shlex.join([*words, '--overwrite'])}"


def another_threshold(summary: Mapping[str, Any], threshold: float) -> str:
    """The command that writes the run with another threshold."""
    run = str(Path(str(summary.get("folder") or ""), str(summary["settings"].get("out") or summary["out"])))
    return shlex.join(["pickeropt", "prune", "--rethreshold", run, "--threshold", f"{threshold:g}"])


def _path(text: object) -> str:
    """A path that no option can be mistaken for."""
    path = str(text)
    return f"./{path}" if path.startswith("-") else path


def _number(value: object) -> str:
    return repr(value) if isinstance(value, float) and value != int(value) else f"{value}".removesuffix(".0")


@dataclass(frozen=True)
class ReportConfig:
    """The settings of `pickeropt report`.

    overlays : pictures of whole micrographs, so many that lost most and so many that lost least
    stars : STAR files of micrographs with ice and defocus, beside the files that the run read
    """

    overlays: int = 3
    stars: tuple[Path, ...] = ()
