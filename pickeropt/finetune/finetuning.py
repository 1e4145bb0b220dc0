"""Fine-tuning: a classifier from a few labelled shots, measured on held-out shots."""

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pickeropt.errors import OutputError, ShotsError
from pickeropt.finetune.finetune_config import MODEL_FILE, FinetuneConfig, FinetuneReport, check_config
from pickeropt.finetune.recipes import ShotBoxes, Trial, ask, fit_measured, fit_paper, make_classifier, set_temperature
from pickeropt.finetune.shot_features import LocatedShots, LooseShots, check_shot_frame, hold_loose, locate
from pickeropt.models.backbone import inference_copy
from pickeropt.models.classifier import Checkpoint, PickClassifier, save_checkpoint
from pickeropt.models.fitting import Quality, choose_device, inference_dtype, seed_everything
from pickeropt.records import OnProgress
from pickeropt.shots import BoxShots, Shots, Split, choose_shots, shortfalls, validation_split

ABOVE_CHANCE = 0.15
"""Macro-F1 that a model must have above that of guessing, or it is warned of."""


def finetune(
    shots: Shots | BoxShots,
    config: FinetuneConfig,
    out: Path,
    *,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> FinetuneReport:
    """Learn a classifier from shots and save it as one safetensors file: `learn`, for those who want the report."""
    return learn(shots, config, out, overwrite=overwrite, on_progress=on_progress)[1]


def learn(
    shots: Shots | BoxShots,
    config: FinetuneConfig,
    out: Path | None = None,
    *,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> tuple[Checkpoint, FinetuneReport]:
    """Learn a classifier from shots; save it where `out` is given.

    Part of the shots, whole micrographs where there are several, is held out to measure. The default
    recipe does so on five splits, takes the temperature of its probabilities from them, and then
    learns from all shots; the paper's recipe trains once, on the rest.

    Raises PickeroptError for settings, shots, micrographs or weights that cannot be used, all before
    the first second of compute, and OutputError where `out` exists and `overwrite` is False.
    """
    begun = time.perf_counter()
    check_config(config)
    if out is not None:
        check_model_out(out, overwrite)
    progress = on_progress or (lambda what, done, of: None)
    device = choose_device(config.device)
    seed_everything(config.seed)
    groups = shots.micrograph_index if isinstance(shots, Shots) else np.zeros(len(shots), dtype=np.int64)
    chosen = choose_shots(shots.labels, groups, config.shots_per_class, config.seed)
    frame_warnings = _check_frame(shots, config)
    source = _source(_taken(shots, chosen), config)
    classifier = make_classifier(
        config, shots.class_names, source.box_diameters if isinstance(source, LooseShots) else None
    )
    fit = _fit_paper if config.recipe == "paper" else _fit_default
    trials = fit(classifier, source, config, (device, progress))
    warnings = shortfalls(shots.labels, shots.class_names, config.shots_per_class)
    report = _report(classifier, source, trials, out)
    report = replace(report, warnings=(*warnings, *frame_warnings, *report.warnings))
    classifier.to("cpu").eval()
    made = config.diameter_angstrom, _provenance(config, source, report)
    checkpoint = Checkpoint(classifier, *made, save_checkpoint(out, classifier, *made))
    return checkpoint, replace(report, seconds=time.perf_counter() - begun)


def check_model_out(out: Path, overwrite: bool) -> None:
    """Raises OutputError for a model file that is there already, or that cannot be written."""
    if out.is_dir():
        raise OutputError(f"{out} is a folder; give the name of the model file to write, such as {out}/{MODEL_FILE}")
    if out.exists() and not overwrite:
        raise OutputError(f"{out} exists; give another --out, or --overwrite to replace it")
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise OutputError(f"{out}: {folder} cannot be written to; give another --out")


def _taken(shots: Shots | BoxShots, chosen: NDArray[np.int64]) -> Shots | BoxShots:
    labels = shots.labels[chosen]
    if isinstance(shots, BoxShots):
        return replace(
            shots,
            labels=labels,
            boxes=tuple(shots.boxes[i] for i in chosen),
            sources=tuple(shots.sources[i] for i in chosen),
        )
    used, index = np.unique(shots.micrograph_index[chosen], return_inverse=True)
    return replace(
        shots,
        labels=labels,
        coordinates=shots.coordinates[chosen],
        micrograph_index=index.astype(np.int64),
        micrographs=tuple(shots.micrographs[i] for i in used),
    )


def _source(shots: Shots | BoxShots, config: FinetuneConfig) -> LocatedShots | LooseShots:
    return locate(shots, config) if isinstance(shots, Shots) else hold_loose(shots, config)


def _check_frame(shots: Shots | BoxShots, config: FinetuneConfig) -> tuple[str, ...]:
    """Of all labelled particles, those that are not learnt from as well."""
    if isinstance(shots, BoxShots):
        return ()
    if config.invert is not None:
        raise ShotsError("--invert turns boxes, and these shots are points on micrographs; leave it out")
    return check_shot_frame(shots, locate(shots, config).diameters_px, config)


def _fit_default(
    classifier: PickClassifier,
    source: LocatedShots | LooseShots,
    config: FinetuneConfig,
    machine: tuple[torch.device, OnProgress],
) -> list[Trial]:
    """Features once; the head on five splits to measure, then on all shots."""
    device, progress = machine
    backbone = inference_copy(classifier.backbone, device, inference_dtype(device))
    features = source.features(backbone, classifier.spec, lambda done, of: progress("looking at shots", done, of))
    return fit_measured(
        classifier,
        features,
        source.groups,
        torch.from_numpy(source.shots.labels),
        config,
        lambda done, of: progress("fitting the classifier", done, of),
    )


def _fit_paper(
    classifier: PickClassifier,
    source: LocatedShots | LooseShots,
    config: FinetuneConfig,
    machine: tuple[torch.device, OnProgress],
) -> list[Trial]:
    """All weights trained once, on the shots that are not held out."""
    device, progress = machine
    boxes = source.boxes(classifier.spec, lambda done, of: progress("looking at shots", done, of))
    labels = torch.from_numpy(source.shots.labels)
    split = validation_split(source.shots.labels, source.groups, config.validation_fraction, config.seed)
    fit_paper(
        classifier,
        ShotBoxes(boxes[split.train], labels[split.train]),
        config,
        device,
        lambda epoch, of: progress("training", epoch, of),
    )
    if not len(split.validation):
        return []
    backbone = inference_copy(classifier.backbone, device, inference_dtype(device))
    features = source.features(backbone, classifier.spec, lambda done, of: None)
    classifier.to("cpu")
    trials = [ask(classifier, features, labels, split)]
    set_temperature(classifier, trials)
    return trials


def _report(
    classifier: PickClassifier, source: LocatedShots | LooseShots, trials: list[Trial], out: Path | None
) -> FinetuneReport:
    names = classifier.spec.class_names
    everything = Split(np.arange(len(source.shots)), np.arange(0), "none")
    split = trials[0].split if trials else everything
    figures = [trial.quality(classifier) for trial in trials]
    macro_f1 = float(np.mean([f.macro_f1 for f in figures])) if figures else None
    return FinetuneReport(
        checkpoint=out,
        class_names=names,
        train_shots=_counted(source.shots.labels[split.train], names),
        validation_shots=_counted(source.shots.labels[split.validation], names),
        validation_by=split.by,
        validation_splits=len(trials),
        accuracy=float(np.mean([f.accuracy for f in figures])) if figures else None,
        macro_f1=macro_f1,
        per_class_f1=_class_means(figures, names),
        passes=classifier.spec.passes,
        seconds=0.0,
        warnings=_quality_warnings(macro_f1, len(names)),
    )


def _quality_warnings(macro_f1: float | None, classes: int) -> tuple[str, ...]:
    """A warning where the figure on held-out shots is poor, or there is none."""
    if macro_f1 is None:
        return ("too few shots to hold any out: nothing says how good this model is",)
    if macro_f1 < 1 / classes + ABOVE_CHANCE:
        what = f"macro-F1 {macro_f1:.2f} on held-out shots is little better than chance"
        return (f"{what}; look at the labels on their micrographs, and check --diameter and --pixel-size",)
    return ()


def _counted(labels: NDArray[np.int64], names: tuple[str, ...]) -> dict[str, int]:
    return {name: int((labels == index).sum()) for index, name in enumerate(names)}


def _class_means(figures: list[Quality], names: tuple[str, ...]) -> dict[str, float]:
    by_name = {name: [f.per_class[i] for f in figures if i in f.per_class] for i, name in enumerate(names)}
    return {name: float(np.mean(values)) for name, values in by_name.items() if values}


def _provenance(config: FinetuneConfig, source: LocatedShots | LooseShots, report: FinetuneReport) -> Mapping[str, Any]:
    settings = {name: str(v) if isinstance(v, Path) else v for name, v in asdict(config).items()}
    shots = source.shots
    return {
        "settings": settings,
        "shots": _counted(shots.labels, shots.class_names),
        "micrographs": len(shots.micrographs) if isinstance(shots, Shots) else None,
        "held_out": {
            "by": report.validation_by,
            "shots": report.validation_shots,
            "splits": report.validation_splits,
            "accuracy": report.accuracy,
            "macro_f1": report.macro_f1,
        },
    }
