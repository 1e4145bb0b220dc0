"""Whether labelled shots are what they are taken for: the contrast of boxes, the frame of points."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pickeropt.errors import GeometryError, ShotsError
from pickeropt.finetune.finetune_config import FinetuneConfig
from pickeropt.frame.frame_config import WRONG, FrameConfig, Site
from pickeropt.frame.look import judge_frame
from pickeropt.frame.remedy import describe
from pickeropt.io.micrographs import read_micrograph_header
from pickeropt.records import PARTICLE, FloatArray
from pickeropt.shots import BoxShots, Shots

MIDDLE, WHOLE, AROUND = 0.3, 0.45, (0.5, 0.75)
"""Radii in particle diameters. The fringe of defocus is brightest just inside the longest diameter, and a
shell is darkest there: the middle and the whole must agree."""
LEAST_AROUND = 0.05
"""Share of a box that must lie around the particle, or its contrast is not asked for."""
LOOK = FrameConfig(micrographs=8, pixels=150_000_000, least_picks=15)
"""Labels are few, and spread over micrographs."""
FEWEST, SURE = 5, 4.0
"""Boxes, and standard errors of their mean, from which on the contrast is beyond doubt."""


def with_contrast(shots: BoxShots, diameter_px: float, invert: bool | None) -> BoxShots:
    """The boxes as micrographs show them; `invert` turns all of them, None asks for no more than a look.

    Raises ShotsError where the particles are brighter than what is around them and nobody has said why:
    RELION's extraction inverts boxes, and a model of such boxes rejects particles of micrographs.
    """
    if invert:
        return BoxShots(shots.class_names, shots.labels, tuple(-box for box in shots.boxes), shots.sources)
    particles = [
        box
        for box, label in zip(shots.boxes, shots.labels, strict=True)
        if shots.class_names[label] == PARTICLE
    ]
    if invert is None and are_bright(particles, diameter_px):
        what = "particles are brighter than what is around them, as in boxes that RELION has inverted"
        raise ShotsError(
            f"{shots.sources[0]} and the other boxes: {what}; give --invert, or --no-invert where they are "
            "bright in the micrographs as well"
        )
    return shots


def are_bright(boxes: Sequence[FloatArray], diameter_px: float) -> bool:
    """Whether what (s, s) boxes show is brighter than the ring around it: the middle or the whole of it
    beyond doubt, the other at least as a mean."""
    found = [pair for box in boxes if (pair := _contrasts(box, diameter_px)) is not None]
    if len(found) < FEWEST:
        return False
    means = np.mean(found, axis=0)
    errors = np.std(found, axis=0, ddof=1) / np.sqrt(len(found))
    return bool((means > 0).all() and (means > SURE * errors).any())


def _contrasts(box: FloatArray, diameter_px: float) -> tuple[float, float] | None:
    """Means of the middle and of the whole less that of the ring around, in deviations of the box."""
    rows, columns = np.ogrid[: box.shape[0], : box.shape[1]]
    radius = np.hypot(rows - box.shape[0] // 2, columns - box.shape[1] // 2) / diameter_px
    around = (radius > AROUND[0]) & (radius < AROUND[1])
    deviation = float(box.std())
    if around.mean() < LEAST_AROUND or deviation == 0:
        return None
    ground = box[around].mean()
    middle, whole = (float(box[radius < edge].mean() - ground) / deviation for edge in (MIDDLE, WHOLE))
    return middle, whole


def check_shot_frame(shots: Shots, diameters_px: Sequence[float], config: FinetuneConfig) -> tuple[str, ...]:
    """A warning, where something speaks against the frame of the labelled particles.

    diameters_px : of the particle, on each micrograph
    Raises GeometryError where they are in another frame beyond doubt; nothing with `trust_frame`.
    """
    if config.trust_frame:
        return ()
    verdict = judge_frame(_sites(shots, diameters_px), LOOK)
    text, _ = describe(verdict, [Path("SHOTS")], ())
    what = f"the frame of the labelled particles is {text}"
    if verdict.opinion.answer == WRONG:
        remedy = "bring them into that of the micrographs (`pickeropt convert` does for a file a class)"
        raise GeometryError(f"{what}; {remedy}, or, if you know that it is right, go on with --trust-frame")
    return (f"{what}; look at some of them on their micrograph",) * verdict.opinion.doubtful


def _sites(shots: Shots, diameters_px: Sequence[float]) -> list[Site]:
    of_particles = shots.labels == shots.class_names.index(PARTICLE)
    sites = []
    for index, (path, diameter) in enumerate(zip(shots.micrographs, diameters_px, strict=True)):
        here = shots.coordinates[of_particles & (shots.micrograph_index == index)]
        shape = read_micrograph_header(path).shape
        sites.append(Site(path.name, path, shape, diameter, None, here, np.full(len(here), np.nan)))
    return sites
