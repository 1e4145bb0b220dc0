"""Where a run keeps what it needs to go on: a folder beside its output, gone when the output is there."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pickeropt.errors import OutputError
from pickeropt.io.tables import write_bytes_atomically
from pickeropt.pretrain.config import PretrainConfig
from pickeropt.pretrain.material import DataSet

UNIMPORTANT = ("device", "tensorboard", "log_every", "save_every")
"""Settings that change no weights but for rounding."""


@dataclass(frozen=True)
class Workplace:
    """Files of a run; `folder` holds what only the run itself needs."""

    out: Path

    @property
    def folder(self) -> Path:
        return self.out.with_name(f"{self.out.name}.partial")

    @property
    def settings(self) -> Path:
        return self.folder / "settings.json"

    @property
    def views(self) -> Path:
        return self.folder / "views"

    @property
    def features(self) -> Path:
        return self.folder / "features"

    @property
    def state(self) -> Path:
        return self.folder / "state.safetensors"

    @property
    def log(self) -> Path:
        return self.out.with_suffix(".log.csv")

    @property
    def curves(self) -> Path:
        return self.out.with_suffix(".curves.png")

    @property
    def tensorboard(self) -> Path:
        return self.out.with_suffix(".tensorboard")

    def publish(self, path: Path, content: bytes) -> None:
        """Write one of the files beside the folder by way of it, so that a kill leaves nothing else there."""
        waiting = self.folder / path.name
        write_bytes_atomically(waiting, content)
        waiting.replace(path)


def run_settings(data: DataSet, config: PretrainConfig, unlabelled: tuple[Path, ...]) -> dict[str, Any]:
    """All that decides the result, for JSON."""
    settings: dict[str, Any] = {n: v for n, v in asdict(config).items() if n not in UNIMPORTANT}
    settings |= {"exclude": sorted(config.exclude), "ignore": sorted(config.ignore)}
    settings["data"] = data.fingerprint
    settings["unlabelled"] = [[path.name, path.stat().st_size] for path in unlabelled]
    for name in ("weights", "init"):
        path = Path(settings[name]) if settings[name] else None
        settings[name] = [str(path), path.stat().st_size if path.is_file() else 0] if path else None
    loaded: dict[str, Any] = json.loads(json.dumps(settings))
    return loaded


def check_workplace(place: Workplace, settings: Mapping[str, Any], overwrite: bool) -> bool:
    """Whether an unfinished run of these settings is there to go on with.

    Raises OutputError where the output, or an unfinished run of other settings, is in the way.
    """
    old = _read(place.settings)
    if old == settings:
        return True
    if overwrite:
        return False
    if old is not None:
        differing = sorted(n for n in {*old, *settings} if old.get(n) != settings.get(n))
        raise OutputError(
            f"{place.folder}: an unfinished run with other settings ({', '.join(differing)}); give its "
            "command again to finish it, or --overwrite to begin anew"
        )
    if place.out.exists():
        raise OutputError(f"{place.out}: exists already; choose another --out, or give --overwrite")
    return False


def begin(place: Workplace, settings: Mapping[str, Any]) -> None:
    """Clear away an unfinished run of other settings, and say what this one is."""
    shutil.rmtree(place.folder, ignore_errors=True)
    shutil.rmtree(place.tensorboard, ignore_errors=True)
    write_bytes_atomically(place.settings, json.dumps(settings, indent=1, sort_keys=True).encode())


def clear(place: Workplace) -> None:
    """Remove what a finished run no longer needs; the settings first: half a folder is none."""
    place.settings.unlink(missing_ok=True)
    shutil.rmtree(place.folder, ignore_errors=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found
