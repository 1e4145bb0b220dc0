"""The share of particles among the picks, and scores re-weighted to it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prune_world import FakeScorer, make_project, tree

from pickeropt.errors import PickeroptError
from pickeropt.evaluate.evaluation import read_scored_picks as read_scores
from pickeropt.prune.decision import LEAST, estimate_prior, reweighted, with_particle
from pickeropt.prune.prune_config import PruneConfig
from pickeropt.prune.pruning import prune
from pickeropt.records import Scores

probabilities = st.lists(st.floats(0.001, 0.999), min_size=1, max_size=30).map(np.array)


def drawn(count: int, share: float, apart: float, seed: int = 0) -> np.ndarray:
    """Calibrated P(particle) at even odds of picks of which a share are particles."""
    random = np.random.default_rng(seed)
    particle = random.random(count) < share
    evidence = random.normal(np.where(particle, apart / 2, -apart / 2), 1)
    return 1 / (1 + np.exp(-apart * evidence))


def test_reweighting_by_hand() -> None:
    np.testing.assert_allclose(reweighted(np.array([0.5, 0.8, 0, 1]), 0.2), [0.2, 0.5, 0, 1])
    np.testing.assert_allclose(reweighted(np.array([0.2]), 0.8), [0.5])


@given(values=probabilities, prior=st.floats(0.01, 0.99))
def test_reweighting_keeps_the_order_and_goes_back(values: np.ndarray, prior: float) -> None:
    np.testing.assert_allclose(reweighted(reweighted(values, prior), 1 - prior), values, rtol=1e-9)
    np.testing.assert_allclose(reweighted(values, 0.5), values)
    there = reweighted(np.sort(values), prior)
    assert (np.diff(there) >= 0).all()


@pytest.mark.parametrize(("values", "share"), [([1, 1, 0, 0, 0], 0.4), ([1, 1], 1 - LEAST), ([0], LEAST)])
def test_certain_scores_are_counted(values: list[float], share: float) -> None:
    assert estimate_prior(np.array(values)) == pytest.approx(share, abs=1e-6)


def test_scores_that_say_nothing_leave_it_at_half() -> None:
    assert estimate_prior(np.full(50, 0.5)) == 0.5
    assert estimate_prior(np.array([])) == 0.5


@given(values=probabilities)
def test_it_is_the_share_of_highest_likelihood(values: np.ndarray) -> None:
    shares = np.linspace(LEAST, 1 - LEAST, 4901)
    likelihood = np.log(np.outer(shares, values) + np.outer(1 - shares, 1 - values)).sum(1)
    found = estimate_prior(values)
    mine = np.log(found * values + (1 - found) * (1 - values)).sum()
    assert mine >= likelihood.max() - 1e-3


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
def test_the_true_share_is_found(share: float) -> None:
    assert estimate_prior(drawn(20_000, share, 2.0)) == pytest.approx(share, abs=0.015)


def test_the_other_classes_share_what_is_left() -> None:
    scores = Scores(
        ("ice", "particle", "carbon"), np.array([[0.1, 0.6, 0.3], [0, 1, 0], [0.5, 0, 0.5]], dtype=np.float32)
    )
    found = with_particle(scores, np.array([0.2, 0.4, 1.0]))
    np.testing.assert_allclose(found.particle, [0.2, 0.4, 1])
    np.testing.assert_allclose(found.probabilities, [[0.2, 0.2, 0.6], [0.3, 0.4, 0.3], [0, 1, 0]], rtol=1e-6, atol=1e-9)
    assert scores.particle.tolist() == pytest.approx([0.6, 1, 0])  # untouched


def config_for(root: Path, **changes: object) -> PruneConfig:
    return replace(PruneConfig(micrographs=(root / "mics",), out=root / "out"), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("prior", [0.2, "auto"])
def test_a_pruning_at_another_share(tmp_path: Path, prior: float | str) -> None:
    picks = make_project(tmp_path)
    prune([picks], config_for(tmp_path, out=tmp_path / "half"), FakeScorer())
    summary = prune([picks], config_for(tmp_path, prior=prior), FakeScorer())
    half = read_scores(tmp_path / "half/scores.csv").score
    share = estimate_prior(half) if prior == "auto" else prior
    assert summary.prior == pytest.approx(share, abs=1e-5)
    found = read_scores(tmp_path / "out/scores.csv")
    np.testing.assert_allclose(found.score, reweighted(half, summary.prior), atol=2e-6)
    np.testing.assert_array_equal(found.kept, found.score >= 0.5)
    written = json.loads((tmp_path / "out/summary.json").read_text())
    assert written["prior"] == summary.prior
    assert written["settings"]["prior"] == prior
    assert [note for note in summary.notes if f"{100 * summary.prior:.1f} % of the picks" in note]


def test_a_killed_run_goes_on_at_any_share(tmp_path: Path) -> None:
    picks = make_project(tmp_path)
    scorer = FakeScorer()

    def stop(micrograph: object, found: np.ndarray) -> np.ndarray:
        if len(scorer.calls) > 2:
            raise KeyboardInterrupt
        return found

    scorer.fault = stop
    with pytest.raises(KeyboardInterrupt):
        prune([picks], config_for(tmp_path), scorer)
    again = FakeScorer()
    assert prune([picks], config_for(tmp_path, prior="auto"), again).resumed == 2
    assert len(again.calls) == 2
    prune([picks], config_for(tmp_path, prior="auto", out=tmp_path / "fresh"), FakeScorer())
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


@pytest.mark.parametrize("prior", [0.0, 1.0, float("nan")])
def test_shares_that_are_none(tmp_path: Path, prior: float) -> None:
    with pytest.raises(PickeroptError, match="--prior is"):
        prune([make_project(tmp_path)], config_for(tmp_path, prior=prior), FakeScorer())
