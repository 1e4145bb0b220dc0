"""The frame doctor on a sample of what is to be pruned, before any forward pass."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pickeropt.errors import GeometryError
from pickeropt.frame.frame_config import WRONG, FrameConfig, Site, Verdict
from pickeropt.frame.look import judge_frame
from pickeropt.frame.remedy import describe
from pickeropt.prune.prune_config import PruneConfig

if TYPE_CHECKING:
    from pickeropt.prune.plan import Plan

TRUST = "or, if you know that it is right, go on with --trust-frame"


def check_frame(
    plan: "Plan", inputs: Sequence[Path], config: PruneConfig, diameter_angstrom: float
) -> tuple[str, ...]:
    """Warnings, where something speaks against the frame of the picks; nothing with `trust_frame`.

    Raises GeometryError with the remedy where the picks are in another frame beyond doubt.
    """
    if config.trust_frame:
        return ()
    verdict = judge_frame(_sites(plan, diameter_angstrom), FrameConfig())
    text, remedy = describe(verdict, inputs, config.micrographs)
    if verdict.opinion.answer == WRONG:
        given = " and ".join(map(str, inputs[:2])) + (" ..." if len(inputs) > 2 else "")
        raise GeometryError(f"{given}: the frame of the picks is {text}; {remedy}; {TRUST}")
    return _warnings(verdict, text, remedy)


def _warnings(verdict: Verdict, text: str, remedy: str) -> tuple[str, ...]:
    if verdict.opinion.doubtful:
        return (f"the frame of the picks is {text}; {remedy} (`pickeropt check` says more)",)
    if verdict.odd:
        named = ", ".join(f"{name} ({frame.name})" for name, frame in verdict.odd)
        return (f"the picks of some micrographs are in another frame than the others: {named}",)
    return ()


def _sites(plan: "Plan", diameter_angstrom: float) -> list[Site]:
    merit = np.concatenate([source.file.picks.figure_of_merit for source in plan.sources])
    return [
        Site(
            task.name,
            task.path,
            task.shape,
            diameter_angstrom / task.pixel_size,
            task.pixel_size,
            plan.coordinates[task.rows],
            merit[task.rows],
        )
        for task in plan.tasks
    ]
