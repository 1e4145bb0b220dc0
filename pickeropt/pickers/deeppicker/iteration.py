"""The iteration step: a DeepPicker trained on other species learns from its own best picks."""

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np

from pickeropt.errors import ShotsError
from pickeropt.io.micrographs import read_micrograph
from pickeropt.pickers.deeppicker.picker import DeepPicker, filled, load
from pickeropt.pickers.deeppicker.scale import calibrated
from pickeropt.pickers.deeppicker.settings import DeepPickerSettings
from pickeropt.pickers.deeppicker.training import fit_network, gather, state_of
from pickeropt.pickers.records import Job, Labelled, Material, Trained

CERTAIN = 0.5
"""Least score of the network's own, before calibration, of a pick to learn from or to keep negatives off."""


def iterate(
    trained: Trained, micrographs: Sequence[Labelled], settings: DeepPickerSettings, job: Job
) -> Trained:
    """Train once more, on the best picks of micrographs whose particles nobody marked.

    micrographs : with pixel size and diameter; their coordinates are not looked at
    settings : `particles` is the number of best picks, over all micrographs; the window stays that of
        the first training
    The threshold stays: there is no truth to choose it by. Raises ShotsError where too few picks have
    a score of 0.5.
    """
    picker = load(trained.settings, trained.state, trained.threshold, job.device)
    settings = replace(settings, box_diameters=picker.settings.box_diameters)
    own = best_picks(picker, micrographs, settings.particles, job)
    if not any(len(one.coordinates) for one in own):
        raise ShotsError("no pick on these micrographs has a score of 0.5; train on some of their particles")
    training, validation = gather(Material(own, ()), settings, job)
    network = filled(settings.dropout, trained.state)
    figures = fit_network(network, training, validation, settings, job, "iteration")
    state = {**trained.state, **state_of(network)}  # what a score means stays too
    return Trained(asdict(settings), state, trained.threshold, figures)


def best_picks(
    picker: DeepPicker, micrographs: Sequence[Labelled], count: int, job: Job
) -> tuple[Labelled, ...]:
    """The micrographs with the `count` best picks as their particles, the other likely ones as `others`."""
    found = []
    for index, one in enumerate(micrographs):
        job.on_progress("pick", index, len(micrographs))
        detected = picker.detect(read_micrograph(one.path), one.pixel_size, one.diameter_angstrom)
        found.append(detected.above(calibrated(CERTAIN, picker.scale)))
    job.on_progress("pick", len(micrographs), len(micrographs))
    scores = np.concatenate([np.empty(0), *(one.scores for one in found)])
    least = np.sort(scores)[::-1][min(count, len(scores)) - 1] if len(scores) else 1.0
    return tuple(
        replace(
            one,
            coordinates=all_.coordinates[all_.scores >= least],
            others=all_.coordinates[all_.scores < least],
        )
        for one, all_ in zip(micrographs, found, strict=True)
    )
