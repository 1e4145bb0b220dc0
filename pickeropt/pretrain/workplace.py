"""Where a run keeps what it needs to go on: a folder beside its output, gone when the output is there."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pickeropt.pretrain.pretrain_config import PretrainConfig
from pickeropt.pretrain.training_set import DataSet
from pickeropt.training_state import TrainingFolder

UNIMPORTANT = ("device", "tensorboard", "log_every", "save_every")
"""Settings that change no weights but for rounding."""


class Workplace(TrainingFolder):
    """Files of a run; `folder` holds what only the run itself needs."""

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

    def begin(self, settings: Mapping[str, Any]) -> None:
        """The same, less an earlier TensorBoard log."""
        shutil.rmtree(self.tensorboard, ignore_errors=True)
        super().begin(settings)


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
