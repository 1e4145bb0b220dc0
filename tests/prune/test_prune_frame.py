"""`prune` looks at the frame before it scores: it stops, warns, or goes on when told."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from frame_world import DIAMETER, PIXEL_SIZE, SHAPE, write
from numpy.typing import NDArray
from prune_world import FakeScorer, coordinate_star, tree

from pickeropt.errors import GeometryError
from pickeropt.prune.prune_config import PruneConfig
from pickeropt.prune.pruning import prune

HEIGHT, WIDTH = SHAPE


def project(root: Path, count: int = 2) -> list[NDArray[np.float64]]:
    """Bright particles, which the scorer of these tests takes for particles."""
    return [write(root / "mics", f"m{i}.mrc", i, sign=1.0)[1] for i in range(count)]


def config_of(root: Path, **changes: object) -> PruneConfig:
    config = PruneConfig(micrographs=(root / "mics",), out=root / "out")
    return replace(config, **changes)  # type: ignore[arg-type]


def scorer() -> FakeScorer:
    return FakeScorer(diameter_angstrom=DIAMETER * PIXEL_SIZE)


def star(root: Path, i: int, xy: NDArray[np.float64]) -> Path:
    return coordinate_star(root / "picks" / f"m{i}_autopick.star", xy)


def refused(root: Path, inputs: list[Path]) -> str:
    """The message; nothing is scored and nothing is left behind."""
    before, judge = tree(root), scorer()
    with pytest.raises(GeometryError) as caught:
        prune(inputs, config_of(root), judge)
    assert not judge.calls
    assert tree(root) == before
    assert not (root / "out").exists()
    assert not (root / "out.partial").exists()
    return str(caught.value)


def test_the_right_frame_goes_through(tmp_path: Path) -> None:
    for i, xy in enumerate(project(tmp_path)):
        star(tmp_path, i, xy)
    summary = prune([tmp_path / "picks"], config_of(tmp_path), scorer())
    assert (summary.picks, summary.warnings) == (120, ())


def test_flipped_picks_are_refused_with_the_remedy(tmp_path: Path) -> None:
    for i, xy in enumerate(project(tmp_path)):
        star(tmp_path, i, np.column_stack([xy[:, 0], HEIGHT - xy[:, 1]]))
    message = refused(tmp_path, [tmp_path / "picks"])
    picks, mics = tmp_path / "picks", tmp_path / "mics"
    assert f"pickeropt convert {picks} mended --to star --flip-y --micrographs {mics}" in message
    assert "count y from the last stored row" in message
    assert "--trust-frame" in message


def test_what_says_so_goes_on(tmp_path: Path) -> None:
    xy = project(tmp_path, 1)[0]
    path = star(tmp_path, 0, np.column_stack([xy[:, 0], HEIGHT - xy[:, 1]]))
    summary = prune([path], config_of(tmp_path, trust_frame=True), scorer())
    assert (summary.picks, summary.warnings) == (60, ())
    settings = json.loads((tmp_path / "out/summary.json").read_text())["settings"]
    assert settings["trust_frame"] is True


def test_binned_picks_are_refused_with_the_factor(tmp_path: Path) -> None:
    xy = project(tmp_path, 1)[0]
    message = refused(tmp_path, [star(tmp_path, 0, xy / 2)])
    assert f"--scale 2 --micrographs {tmp_path / 'mics'};" in message
    assert "binned 2 times more" in message


def test_picks_of_finer_micrographs_lie_outside_and_are_named_all_the_same(tmp_path: Path) -> None:
    xy = project(tmp_path, 1)[0]
    message = refused(tmp_path, [star(tmp_path, 0, xy * 2)])
    assert "--scale 0.5 --micrographs" in message


def test_few_picks_are_not_judged(tmp_path: Path) -> None:
    xy = project(tmp_path, 1)[0][:25]
    path = star(tmp_path, 0, np.column_stack([xy[:, 0], HEIGHT - xy[:, 1]]))
    assert prune([path], config_of(tmp_path), scorer()).warnings == ()


def test_one_micrograph_that_differs_is_a_warning(tmp_path: Path) -> None:
    for i, xy in enumerate(project(tmp_path, 3)):
        star(tmp_path, i, np.column_stack([xy[:, 0], HEIGHT - xy[:, 1]]) if i == 1 else xy)
    (warning,) = prune([tmp_path / "picks"], config_of(tmp_path), scorer()).warnings
    assert warning.startswith("the picks of some micrographs are in another frame than the others: ")
    assert "m1.mrc (y flipped)" in warning


def test_a_doubt_is_a_warning(tmp_path: Path) -> None:
    """18 of 60 picks are flipped, the others drawn at random: likely flipped, but not for sure."""
    xy = project(tmp_path, 1)[0]
    flipped = np.column_stack([xy[:18, 0], HEIGHT - xy[:18, 1]])
    anywhere = np.random.default_rng(100).uniform([0, 0], [WIDTH, HEIGHT], size=(42, 2))
    path = star(tmp_path, 0, np.concatenate([flipped, anywhere]))
    (warning,) = prune([path], config_of(tmp_path), scorer()).warnings
    assert "unsure: y flipped" in warning
    assert "fits better, but not clearly" in warning
    assert "pickeropt check" in warning
