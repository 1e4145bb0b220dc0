"""Train a picker from coordinates on micrographs."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pickeropt.errors import CheckpointError, PickeroptError
from pickeropt.models.fitting import choose_device, seed_everything
from pickeropt.pickers import kinds
from pickeropt.pickers.checkpoint import PickerFile, picker_bytes, read_picker
from pickeropt.pickers.config import PickTrainConfig, PickTrainReport
from pickeropt.pickers.material import read_material, read_unlabelled
from pickeropt.pickers.records import Job, Labelled, Material, OnProgress, Trained
from pickeropt.training_state import TrainingFolder


def train_picker(
    coords: Sequence[Path],
    micrographs: Sequence[Path],
    out: Path,
    config: PickTrainConfig,
    *,
    overwrite: bool = False,
    on_progress: OnProgress = lambda what, done, total: None,
) -> PickTrainReport:
    """Train a picker and write it to `out`.

    coords, micrographs : as `material.read_material` takes them. Without coordinates a picker that can
        (`kinds.ITERATES`) goes on from `config.init` on its best picks on all micrographs
    A training that was killed goes on from `OUT.partial` when it is called with the same arguments again,
    to the identical file on a CPU with as many threads.

    Raises PickeroptError before anything is computed: settings, coordinates, micrographs, device, a picker
    to start from that is of another kind, output in the way.
    """
    begun = time.perf_counter()
    config.check()
    start = _start(config)
    chosen = kinds.make_settings(config.picker, config.settings, start.settings if start else None)
    device = choose_device(config.device)
    material, warnings = _material(coords, micrographs, config, start)
    place, settings = TrainingFolder(out), _settings(material, config, asdict(chosen), start)
    if not place.check(settings, overwrite):
        place.begin(settings)
    seed_everything(config.seed)
    job = Job(config.seed, device, place.folder, on_progress)
    if start is not None and not coords:
        before = Trained(dict(start.settings), dict(start.state), start.threshold, {})
        trained = kinds.iterate(config.picker, before, material.training, chosen, job)
    else:
        trained = kinds.train(config.picker, material, chosen, job, start.state if start else None)
    diameter = float(np.median([one.diameter_angstrom for one in (*material.training, *material.testing)]))
    counts = {
        "micrographs": len(material.training),
        "held_back": len(material.testing),
        "particles": sum(len(one.coordinates) for one in material.training),
    }
    provenance = {
        **counts,
        "seed": config.seed,
        "init": start.digest if start else None,
        "figures": trained.figures,
    }
    place.publish(out, picker_bytes(config.picker, trained, diameter, provenance))
    place.clear()
    return PickTrainReport(
        out=out,
        picker=config.picker,
        threshold=trained.threshold,
        figures=trained.figures,
        seconds=time.perf_counter() - begun,
        warnings=warnings,
        **counts,
    )


def _material(
    coords: Sequence[Path], micrographs: Sequence[Path], config: PickTrainConfig, start: PickerFile | None
) -> tuple[Material, tuple[str, ...]]:
    if coords:
        return read_material(coords, micrographs, config)
    if start is None or config.picker not in kinds.ITERATES:
        what = "no coordinates to learn from; give --coords"
        raise PickeroptError(f"{what}, or with --picker {'|'.join(kinds.ITERATES)} a trained one with --init")
    return read_unlabelled(micrographs, config, start.diameter_angstrom), ()


def _start(config: PickTrainConfig) -> PickerFile | None:
    """The picker to start from. Raises CheckpointError where it is of another kind."""
    if config.init is None:
        return None
    start = read_picker(config.init)
    if start.kind != config.picker:
        what = f"--init {config.init}: a {start.kind} picker, where --picker is {config.picker}"
        raise CheckpointError(f"{what}; give one of the same kind")
    return start


def _settings(
    material: Material, config: PickTrainConfig, chosen: Mapping[str, Any], start: PickerFile | None
) -> dict[str, Any]:
    """All that decides the result, for JSON."""
    settings = {
        "picker": config.picker,
        "seed": config.seed,
        "settings": chosen,
        "init": start.digest if start else None,
        "training": [_fingerprint(one) for one in material.training],
        "testing": [_fingerprint(one) for one in material.testing],
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def _fingerprint(one: Labelled) -> list[Any]:
    status = one.path.stat()
    numbers = [len(one.known), float(one.coordinates.sum()), one.pixel_size, one.diameter_angstrom]
    return [str(one.path), status.st_size, status.st_mtime_ns, *numbers]
