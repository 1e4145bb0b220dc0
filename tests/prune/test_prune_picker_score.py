"""The picker's own score as one more input, learnt on shots that lie on picks."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prune_world import FakeScorer, coordinates_of, make_project, tree
from scipy.optimize import minimize
from sklearn.metrics import roc_auc_score

from pickeropt.errors import FormatError, ShotsError
from pickeropt.io.micrographs import MicrographHeader
from pickeropt.io.relion_star import write_labelled_star
from pickeropt.prune.picker_score import LIMIT, SPREAD, ShotsOnPicks, combine, match_shots
from pickeropt.prune.plan import PrunePlan
from pickeropt.prune.prune_config import PruneConfig
from pickeropt.prune.pruning import prune
from pickeropt.shots import Shots
from pickeropt.sites import Site, SitedPicks


def drawn(count: int, of_picker: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """P(particle), figures of merit that know `of_picker` standard deviations, and the truth."""
    random = np.random.default_rng(seed)
    particle = random.random(count) < 0.5
    evidence = random.normal(np.where(particle, 0.75, -0.75), 1)
    merit = 40 + 7 * random.normal(np.where(particle, of_picker / 2, -of_picker / 2), 1)
    return 1 / (1 + np.exp(-1.5 * evidence)), merit, particle


def plain_loss(coefficients: np.ndarray, odds: np.ndarray, merit: np.ndarray, particle: np.ndarray) -> float:
    """What `combine` minimises, row by row."""
    found = 0.0
    share = particle.mean()
    for o, m, p in zip(odds, merit, particle, strict=True):
        value = coefficients[0] * min(max(o, -LIMIT), LIMIT) + coefficients[1] * m + coefficients[2]
        found += np.log1p(np.exp(-value if p else value)) * (0.5 / share if p else 0.5 / (1 - share))
    return float(found + (((coefficients - [1, 0, 0]) / SPREAD) ** 2).sum() / 2)


def test_the_fit_against_another_optimiser() -> None:
    p, merit, particle = drawn(40, 1.5, 1)
    particle[:5] = False
    found, coefficients = combine(p, merit, ShotsOnPicks(p[:30], merit[:30], particle[:30]))
    odds, standard = np.log(p / (1 - p)), (merit - merit.mean()) / merit.std()
    reference = minimize(
        plain_loss,
        [0, 0, 0],
        args=(odds[:30], standard[:30], particle[:30]),
        method="Nelder-Mead",
        options={"xatol": 1e-8, "fatol": 1e-12, "maxiter": 5000},
    ).x
    np.testing.assert_allclose(coefficients, reference, atol=1e-4)
    value = coefficients[0] * odds + coefficients[1] * standard + coefficients[2]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-value)), rtol=1e-6)


def test_a_picker_that_knows_something_helps_and_one_that_does_not_hurts_little() -> None:
    gains = {0.0: [], 1.5: []}
    for of_picker, found in gains.items():
        for seed in range(8):
            p, merit, particle = drawn(4000, of_picker, seed)
            both, coefficients = combine(p, merit, ShotsOnPicks(p[:60], merit[:60], particle[:60]))
            found.append(roc_auc_score(particle[60:], both[60:]) - roc_auc_score(particle[60:], p[60:]))
            assert 0.5 < coefficients[0] < 1.6
    assert np.mean(gains[1.5]) > 0.04
    assert np.mean(gains[0.0]) > -0.01


def test_a_picker_that_is_wrong_way_round_is_understood() -> None:
    p, merit, particle = drawn(200, 2.0, 3)
    _, coefficients = combine(p, -merit, ShotsOnPicks(p[:60], -merit[:60], particle[:60]))
    assert coefficients[1] < -0.5


def test_shots_that_trained_the_classifier_leave_the_picker_some_say() -> None:
    p, merit, particle = drawn(400, 1.5, 5)
    fitted = np.where(particle[:60], 0.9999999, 1e-9)  # what a model says of its own shots
    _, coefficients = combine(p, merit, ShotsOnPicks(fitted, merit[:60], particle[:60]))
    assert 0.05 < coefficients[1] < 1.5
    assert 0.9 < coefficients[0] < 1.5


def test_figures_that_are_not_set_count_as_the_average() -> None:
    p, merit, particle = drawn(100, 2.0, 7)
    merit[[90, 91, 92]] = [-999, np.nan, np.inf]
    found, coefficients = combine(p, merit, ShotsOnPicks(p[:80], merit[:80], particle[:80]))
    odds = np.log(p / (1 - p))[90:93]
    expected = 1 / (1 + np.exp(-coefficients[0] * odds - coefficients[2]))
    np.testing.assert_allclose(found[90:93], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("merit", "message"),
    [
        (np.full(20, np.nan), "have no score of the picker"),
        (np.full(20, 3.0), "all have the picker's score 3"),
    ],
)
def test_scores_that_decide_nothing(merit: np.ndarray, message: str) -> None:
    p, labels = np.full(20, 0.6), np.arange(20) % 2 == 0
    with pytest.raises(ShotsError, match=f"{message}.*--use-picker-score"):
        combine(p, merit, ShotsOnPicks(p, merit, labels))


def test_matching_by_hand(tmp_path: Path) -> None:
    one, two = tmp_path / "1.mrc", tmp_path / "2.mrc"
    places = np.array([[10.0, 10], [30, 10], [50, 10], [70, 10], [10, 10]] + [[x, 90.0] for x in range(0, 200, 20)])
    rows = np.array([0, 1, 2, 3, *range(5, 15)])
    sites = tuple(
        Site(path.stem, path, path, MicrographHeader(path, (100, 200), None), 2.0, (0, 0), own)
        for path, own in ((one, rows), (two, np.array([4])))
    )
    micrograph = np.array([0, 0, 0, 0, 1] + [0] * 10)
    picks = SitedPicks((), np.array([0, 15]), places, micrograph, np.full(15, np.nan), sites)
    plan = PrunePlan((), (), picks, ())
    points = [
        [13.0, 10],
        [14, 10],  # farther from the same
        [30, 14.9],
        [50, 15.1],  # too far
        [70, 12],
        *([float(x), 91.0] for x in range(0, 200, 20)),
        [11.0, 11],
        [1.0, 1],
    ]
    labels = np.array([0, 1, 1, 1, 0, *([0, 1] * 5), 2, 0])
    index = np.array([0] * 15 + [1, 2])
    shots = Shots(("particle", "ice", "carbon"), labels, np.array(points), index, (one, two, tmp_path / "3.mrc"), None)
    found, is_particle = match_shots(plan, shots, 30.0)  # a third of 30 Å is 5 px
    assert found.tolist() == [0, 1, 3, 4, *range(5, 15)]
    assert is_particle.tolist() == [True, False, True, False] + [True, False] * 5
    with pytest.raises(ShotsError, match=r"^0 shots of particles and 14 of other classes lie on picks; at least 5"):
        match_shots(plan, replace(shots, labels=np.ones_like(labels)), 30.0)


def labels_on(root: Path, count: int) -> Path:
    """Shots on the first picks of two micrographs, particles and ice by turns."""
    names, points, classes = [], [], []
    for name in ("m0.mrc", "m1.mrc"):
        xy = coordinates_of(name, 12)
        inside = [tuple(p) for p in xy.tolist() if 0 <= p[0] < 80 and 0 <= p[1] < 60][:count]
        names += [f"mics/{name}"] * len(inside)
        points += inside
        classes += ["particle" if i % 2 == 0 else "ice" for i in range(len(inside))]
    write_labelled_star(root / "labels.star", names, np.array(points), classes)
    return root / "labels.star"


def config_for(root: Path, **changes: object) -> PruneConfig:
    return replace(PruneConfig(micrographs=(root / "mics",), out=root / "out"), **changes)  # type: ignore[arg-type]


def columns(out: Path, *names: str) -> list[np.ndarray]:
    with (out / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [np.array([float(row[name]) for row in rows]) for name in names]


def test_a_pruning_with_the_pickers_score(tmp_path: Path) -> None:
    picks = make_project(tmp_path)
    shots = labels_on(tmp_path, 10)
    prune([picks], config_for(tmp_path, out=tmp_path / "alone"), FakeScorer())
    summary = prune([picks], config_for(tmp_path, picker_shots=shots), FakeScorer())
    (alone,) = columns(tmp_path / "alone", "score")
    score, merit, kept, ice, carbon = columns(tmp_path / "out", "score", "figure_of_merit", "kept", "p_ice", "p_carbon")
    (note,) = summary.notes
    words = note.split()
    of_picker = float(words[words.index("counts") + 1])
    of_odds = float(words[words.index("times;") - 1])
    assert "learnt from 10 shots of particles and 9 others on picks" in note
    standard = (merit - merit.mean()) / merit.std()
    rest = np.log(score / (1 - score)) - of_odds * np.log(alone / (1 - alone)) - of_picker * standard
    assert np.ptp(rest) < 0.1  # the constant, up to two decimals of the coefficients
    np.testing.assert_array_equal(kept == 1, score >= 0.5)
    np.testing.assert_allclose(score + ice + carbon, 1, atol=2e-6)


def test_it_comes_before_the_prior_and_a_killed_run_goes_on(tmp_path: Path) -> None:
    picks = make_project(tmp_path)
    shots = labels_on(tmp_path, 10)
    scorer = FakeScorer()

    def stop(micrograph: object, found: np.ndarray) -> np.ndarray:
        if len(scorer.calls) > 2:
            raise KeyboardInterrupt
        return found

    scorer.fault = stop
    config = config_for(tmp_path, picker_shots=shots, prior=0.2)
    with pytest.raises(KeyboardInterrupt):
        prune([picks], config, scorer)
    assert prune([picks], config, FakeScorer()).resumed == 2
    fresh = replace(config, out=tmp_path / "fresh")
    prune([picks], fresh, FakeScorer())
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")
    prune([picks], replace(config, out=tmp_path / "half", prior=0.5), FakeScorer())
    (half,), (fifth,) = columns(tmp_path / "half", "score"), columns(tmp_path / "out", "score")
    np.testing.assert_allclose(fifth, 0.2 * half / (0.2 * half + 0.8 * (1 - half)), atol=3e-6)


@pytest.mark.parametrize("count", [2, 6])
def test_too_few_shots_on_picks_are_refused_before_any_compute(tmp_path: Path, count: int) -> None:
    picks = make_project(tmp_path)
    scorer = FakeScorer()
    config = config_for(tmp_path, picker_shots=labels_on(tmp_path, count))
    if count == 2:
        with pytest.raises(ShotsError, match="2 shots of particles and 2 of other classes lie on picks"):
            prune([picks], config, scorer)
        assert not scorer.calls
        assert not (tmp_path / "out").exists()
    else:
        assert prune([picks], config, scorer).notes


def test_shots_without_labels(tmp_path: Path) -> None:
    picks = make_project(tmp_path)
    with pytest.raises(FormatError, match="_pickeroptClass"):
        prune([picks], config_for(tmp_path, picker_shots=picks / "m0_autopick.star"), FakeScorer())


def test_scores_of_an_earlier_pruning_are_not_the_pickers(tmp_path: Path) -> None:
    picks = make_project(tmp_path)
    shots = labels_on(tmp_path, 10)
    for written in (False, True):
        earlier = tmp_path / f"earlier_{written}"
        prune([picks], config_for(tmp_path, out=earlier, write_score=written, threshold=0.0), FakeScorer())
        again = config_for(tmp_path, out=tmp_path / f"out_{written}", picker_shots=shots)
        if written:
            with pytest.raises(ShotsError, match=r"kept/.*its own scores in place of the picker's; give the"):
                prune([earlier / "kept"], again, FakeScorer())
        else:
            assert prune([earlier / "kept"], again, FakeScorer()).notes
