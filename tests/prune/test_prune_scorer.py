"""The scorer of a checkpoint: a probability for each pick, wherever it lies."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from model_world import SPEC as DENSE
from model_world import random_model
from prune_world import SHAPE, data_rows, make_project

from pickeropt.errors import CheckpointError, MicrographError, PickeroptError
from pickeropt.prune.prune_config import MicrographScorer, PruneConfig, ScorerConfig
from pickeropt.prune.pruning import prune
from pickeropt.prune.scoring import CheckpointScorer, load_scorer
from pickeropt.records import Micrograph

SPECS = {
    "dense": DENSE,
    "boxed": replace(DENSE, dense=False, centred=False, orientations=1),
    "alone": replace(DENSE, dense=False, centred=False, orientations=1, normalise="box"),
    "paper": replace(
        DENSE,
        dense=False,
        centred=False,
        orientations=1,
        windows=(),
        view_diameters=(22.0,),
        box_diameters=1.5,
    ),
}
DIAMETER, PIXEL_SIZE = 40.0, 2.0
PICKS = np.array(
    [
        [30, 40],
        [0, 0],
        [119, 0],
        [0, 89],
        [119, 89],
        [-9, -9],
        [128, 99],
        [119.6, 45.3],
        [60, 98],
        [61.7, 20.2],
    ]
)


@pytest.fixture(scope="module")
def scorers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CheckpointScorer]:
    folder = tmp_path_factory.mktemp("models")
    models = {name: random_model(folder / name, spec, DIAMETER) for name, spec in SPECS.items()}
    return {name: load_scorer(path, "cpu") for name, path in models.items()}


@pytest.fixture(scope="module")
def micrograph() -> Micrograph:
    pixels = np.random.default_rng(0).standard_normal((90, 120)).astype(np.float32)
    pixels[30:50, 20:40] -= 3
    return Micrograph(Path("there/m.mrc"), pixels, PIXEL_SIZE)


@pytest.mark.parametrize("kind", SPECS)
def test_every_pick_has_a_probability(scorers, micrograph, kind: str) -> None:
    scorer: MicrographScorer = scorers[kind]
    before = micrograph.pixels.copy()
    found = scorer.score(micrograph, PICKS, PIXEL_SIZE)
    assert found.shape == (len(PICKS), 3)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    assert np.ptp(found, axis=0).max() > 0.01
    np.testing.assert_array_equal(micrograph.pixels, before)
    assert scorer.score(micrograph, PICKS[:0], PIXEL_SIZE).shape == (0, 3)


@pytest.mark.parametrize("kind", SPECS)
def test_order_and_company_change_nothing(scorers, micrograph, kind: str) -> None:
    found = scorers[kind].score(micrograph, PICKS, PIXEL_SIZE)
    np.testing.assert_allclose(scorers[kind].score(micrograph, PICKS[::-1], PIXEL_SIZE)[::-1], found, atol=0.02)
    for pick, row in zip(PICKS, found, strict=True):
        alone = scorers[kind].score(micrograph, pick[None], PIXEL_SIZE)[0]
        np.testing.assert_allclose(alone, row, atol=1e-4 if kind == "dense" else 0.02)  # bfloat16 in batches


def test_batches_change_nothing(scorers, micrograph) -> None:
    scorer = scorers["boxed"]
    expected = scorer.score(micrograph, PICKS, PIXEL_SIZE)
    for size in (1, 3, 100):
        found = replace(scorer, config=ScorerConfig(batch_size=size)).score(micrograph, PICKS, PIXEL_SIZE)
        np.testing.assert_allclose(found, expected, atol=0.02)


def test_the_scale_is_diameter_over_pixel_size(scorers, micrograph) -> None:
    scorer = scorers["dense"]
    found = scorer.score(micrograph, PICKS, PIXEL_SIZE)
    doubled = replace(scorer, diameter_angstrom=2 * DIAMETER)
    np.testing.assert_array_equal(doubled.score(micrograph, PICKS, 2 * PIXEL_SIZE), found)
    assert np.abs(doubled.score(micrograph, PICKS, PIXEL_SIZE) - found).max() > 0.01


def test_what_is_loaded(tmp_path: Path) -> None:
    path = random_model(tmp_path / "m", DENSE, DIAMETER)
    scorer = load_scorer(path, "cpu", batch_size=7)
    assert scorer.class_names == ("particle", "ice", "carbon")
    assert scorer.diameter_angstrom == DIAMETER
    assert scorer.config.batch_size == 7
    assert scorer.notes == ()
    assert scorer.digest == scorer.checkpoint.digest
    assert len(scorer.digest) == 64
    scorer = load_scorer(path, "cpu", diameter_angstrom=55.0)
    assert (scorer.diameter_angstrom, scorer.notes) == (55.0, ())
    nanometres = load_scorer(path, "cpu", diameter_angstrom=5.5)
    assert nanometres.notes[0].startswith("--diameter 5.5 is far from the ")
    assert nanometres.notes[0].endswith("is it in Å?")
    with pytest.raises(PickeroptError, match="--device tpu"):
        load_scorer(path, "tpu")
    with pytest.raises(CheckpointError, match="no such model file"):
        load_scorer(tmp_path / "n", "cpu")


def test_a_micrograph_that_cannot_be_seen_is_named(scorers, micrograph) -> None:
    flat = np.full((90, 120), 5.1, np.float32)
    flat[:20] = micrograph.pixels[:20]
    with pytest.raises(MicrographError, match=r"there/m.mrc: more than half of the pixels"):
        scorers["dense"].score(replace(micrograph, pixels=flat), PICKS, PIXEL_SIZE)
    with pytest.raises(MicrographError, match=r"there/m.mrc: a particle of 100 px does not fit"):
        scorers["dense"].score(micrograph, PICKS, 0.4)


@pytest.mark.parametrize("kind", ["dense", "alone"])
def test_pruning_with_a_checkpoint(scorers, tmp_path: Path, kind: str) -> None:
    """Every row of the input is in kept or in rejected, by its own probability."""
    picks = make_project(tmp_path, count=2, picks=8)
    scorer = replace(scorers[kind], diameter_angstrom=20.0)
    config = PruneConfig(micrographs=(tmp_path / "mics",), out=tmp_path / "out", threshold=0.3)
    summary = prune([picks], config, scorer)
    assert summary.picks == 16 == summary.kept + summary.rejected
    assert summary.model_digest == scorer.digest
    rows = [row for path in sorted(picks.rglob("*.star")) for row in data_rows(path)]
    assert len(rows) == 16

    def written(folder: str) -> Sequence[str]:
        return [row for path in sorted((tmp_path / "out" / folder).rglob("*.star")) for row in data_rows(path)]

    assert len(written("kept")) == summary.kept
    assert sorted([*written("kept"), *written("rejected")]) == sorted(rows)
    assert min(SHAPE) >= 10  # px: the particle fits
