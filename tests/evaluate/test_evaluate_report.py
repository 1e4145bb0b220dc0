"""`evaluate_scores` on cases worked by hand, and its two files."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score

from pickeropt.errors import GeometryError, OutputError
from pickeropt.evaluate.evaluation import evaluate_scores, write_evaluation

HEADER = "file,row,micrograph,x,y,figure_of_merit,class,score,p_particle,kept\n"


def scores_csv(folder, rows):
    """rows: (file, micrograph, x, y, figure of merit, score, kept)."""
    lines = [f"{f},{i},{m},{x},{y},{fom},c,{s},{s},{k}\n" for i, (f, m, x, y, fom, s, k) in enumerate(rows)]
    path = folder / "scores.csv"
    path.write_text(HEADER + "".join(lines))
    return path


def truth_folder(folder, **micrographs):
    folder = folder / "truth"
    folder.mkdir()
    for name, points in micrographs.items():
        (folder / f"{name}.csv").write_text("x,y\n" + "".join(f"{x},{y}\n" for x, y in points))
    return folder


@pytest.fixture
def small(tmp_path):
    """Micrograph a: 3 particles; picks true, false, duplicate of the first, true.
    Micrograph b: 1 particle, one false pick. Micrograph c: no truth."""
    rows = [
        ("p.star", "M/a.mrc", 10, 10, 0.9, 0.8, 1),
        ("p.star", "M/a.mrc", 50, 50, 0.8, 0.1, 0),
        ("p.star", "M/a.mrc", 12, 10, 0.7, 0.9, 1),
        ("p.star", "M/a.mrc", 90, 90, 0.2, 0.7, 1),
        ("p.star", "M/b.mrc", 10, 10, 0.6, 0.2, 0),
        ("p.star", "M/c.mrc", 10, 10, 0.5, 0.5, 1),
    ]
    truth = truth_folder(tmp_path, a=[(11, 10), (90, 91), (200, 200)], b=[(70, 70)], d=[(1, 1)])
    return scores_csv(tmp_path, rows), truth


def test_counts_by_hand(small):
    result = evaluate_scores(*small, 5)
    assert (result.picks, result.truths, result.micrographs) == (5, 4, 2)
    before, after = result.before, result.after
    assert (before.picks, before.true_picks) == (5, 2)
    assert (before.precision, before.recall, before.f1) == pytest.approx((2 / 5, 2 / 4, 4 / 9))
    assert (after.picks, after.true_picks) == (3, 2)
    assert (after.precision, after.recall, after.f1) == pytest.approx((2 / 3, 2 / 4, 4 / 7))


def test_rankings_by_hand(small):
    result = evaluate_scores(*small, 5)
    # by P(particle): duplicate first and so true, then its twin false, true, false, false
    ours = result.ranking
    assert ours.curve.recall == pytest.approx([1 / 4, 1 / 4, 2 / 4, 2 / 4, 2 / 4])
    assert ours.average_precision == pytest.approx(1 / 4 * 1 + 1 / 4 * 2 / 3)
    assert (ours.best_f1, ours.best_f1_threshold) == pytest.approx((2 * 2 / (3 + 4), 0.7))
    # by the picker: true, false, false (twin), false, true
    picker = result.picker_ranking
    assert picker.average_precision == pytest.approx(1 / 4 * 1 + 1 / 4 * 2 / 5)
    # in the picker's matching the true picks score 0.8 and 0.7, the false 0.1, 0.9, 0.2
    assert ours.false_removed == pytest.approx(2 / 3)
    assert picker.false_removed == 0
    equal = result.at_equal_recall
    assert (equal.recall, equal.precision) == pytest.approx((2 / 4, 2 / 3))
    assert (equal.picker_recall, equal.picker_precision) == pytest.approx((2 / 4, 2 / 5))
    assert equal.picker_threshold == 0.2


def test_calibration_is_over_all_evaluated_picks(small):
    result = evaluate_scores(*small, 5).calibration
    squares = [0.2**2, 0.1**2, 0.9**2, 0.3**2, 0.2**2]
    assert result.brier_score == pytest.approx(np.mean(squares))
    assert sum(result.counts) == 5


def test_warnings_say_what_is_left_out(small):
    warnings = evaluate_scores(*small, 5).warnings
    assert len(warnings) == 2
    assert "1 of 3 micrographs have no truth; their 1 picks" in warnings[0]
    assert "1 micrographs of the truth have no picks" in warnings[1]


def test_parts(small):
    result = evaluate_scores(*small, 5)
    assert [part.name for part in result.by_micrograph] == ["a", "b"]
    a, b = result.by_micrograph
    assert (a.truths, a.before.picks, a.before.true_picks, a.after.picks) == (3, 4, 2, 3)
    assert (b.truths, b.before.precision, b.after.picks, b.after.f1) == (1, 0, 0, 0)
    (file,) = result.by_file
    assert (file.before, file.after, file.truths) == (result.before, result.after, 4)


def test_two_pickers_compete_overall_and_not_by_file(tmp_path):
    rows = [
        ("x.box", "a.mrc", 10, 10, 0.9, 0.9, 1),
        ("y.box", "a.mrc", 11, 10, 3.0, 0.8, 1),
        ("y.box", "b.mrc", 99, 99, 4.0, 0.1, 0),
    ]
    truth = truth_folder(tmp_path, a=[(10, 10)], b=[(5, 5)])
    result = evaluate_scores(scores_csv(tmp_path, rows), truth, 5)
    assert (result.before.picks, result.before.true_picks) == (3, 1)
    x, y = result.by_file
    assert (x.truths, x.before.true_picks, x.before.recall) == (1, 1, 1)
    assert (y.truths, y.before.true_picks, y.after.precision) == (2, 1, 1)
    assert "1 micrographs have picks from several files" in result.warnings[-1]


def test_kept_picks_are_matched_in_the_order_of_the_picker(tmp_path):
    # the pick at (1, 0) reaches only (3, 0); if (0, 0) goes first it takes that one
    truth = truth_folder(tmp_path, a=[(3, 0), (-4, 0)])
    for merits, expected in (((0.1, 0.2, 0.9), 2), ((0.2, 0.1, 0.9), 1)):
        rows = [("p", "a", x, 0, m, 0.5, k) for x, m, k in zip((0, 1, 99), merits, (1, 1, 0), strict=True)]
        result = evaluate_scores(scores_csv(tmp_path, rows), truth, 4)
        assert (result.before.true_picks, result.after.true_picks) == (expected, expected)


@pytest.mark.parametrize(
    ("merits", "message"),
    [((0.5, ""), "1 of 2 picks have no"), ((-999, -999), "all figures of merit are eq")],
)
def test_picker_that_does_not_rank_is_left_out(tmp_path, merits, message):
    rows = [("p", "a", 10 * k, 10, merit, 0.5, 1) for k, merit in enumerate(merits)]
    result = evaluate_scores(scores_csv(tmp_path, rows), truth_folder(tmp_path, a=[(0, 10)]), 3)
    assert result.picker_ranking is None
    assert result.at_equal_recall is None
    assert message in result.warnings[-1]


def test_nothing_kept_is_zero_and_not_a_fault(tmp_path):
    rows = [("p", "a", 0, 10, 0.5, 0.2, 0), ("p", "a", 50, 10, 0.4, 0.1, 0)]
    result = evaluate_scores(scores_csv(tmp_path, rows), truth_folder(tmp_path, a=[(0, 10)]), 3)
    assert (result.after.precision, result.after.recall, result.after.f1) == (0, 0, 0)
    assert result.at_equal_recall is None
    json.dumps(result.as_dict(), allow_nan=False)


def test_radius_comes_from_the_diameter_or_is_asked_for(small):
    assert evaluate_scores(*small, diameter_px=10).before == evaluate_scores(*small, 5).before
    assert evaluate_scores(*small, 1, diameter_px=10).radius_px == 1
    with pytest.raises(GeometryError, match="give --radius in px"):
        evaluate_scores(*small)
    for bad in (0.0, -3.0, float("nan"), float("inf")):
        with pytest.raises(GeometryError, match="not above 0"):
            evaluate_scores(*small, bad)


def random_case(folder, seed=0, count=400):
    """Picks around a grid of particles, or far from all; scores that half know which."""
    rng = np.random.default_rng(seed)
    grid = [(100.0 * i, 100.0 * j) for i in range(15) for j in range(15)]
    rows = []
    is_near = []
    for k, place in enumerate(rng.choice(225, size=count // 2, replace=False).repeat(2)):
        near = k % 2 == 0
        x, y = np.array(grid[place]) + (rng.normal(0, 2, 2) if near else (50, 50))
        score = np.clip(0.5 + (0.2 if near else -0.2) + rng.normal(0, 0.2), 0, 1)
        rows.append(("p", "a.mrc", x, y, rng.normal(near), score, int(score >= 0.5)))
        is_near.append(near)
    return scores_csv(folder, rows), truth_folder(folder, a=grid), rows, np.array(is_near)


def test_without_rivals_it_agrees_with_scikit_learn(tmp_path):
    scores, truth, rows, is_near = random_case(tmp_path)
    result = evaluate_scores(scores, truth, 20)
    recall = is_near.sum() / 225
    for ranking, column in ((result.ranking, 5), (result.picker_ranking, 4)):
        expected = average_precision_score(is_near, [row[column] for row in rows]) * recall
        assert ranking.average_precision == pytest.approx(expected)
    # the kept picks are those from 0.5 on: a point of the curve
    point = np.flatnonzero(result.ranking.curve.thresholds >= 0.5)[-1]
    assert result.after.precision == result.ranking.curve.precision[point]
    assert result.after.recall == result.ranking.curve.recall[point]
    assert result.at_equal_recall.picker_recall >= result.after.recall


def test_order_of_the_rows_changes_nothing_where_scores_differ(tmp_path):
    scores, truth, rows, _ = random_case(tmp_path)
    first = evaluate_scores(scores, truth, 20)
    second = evaluate_scores(scores_csv(tmp_path, rows[::-1]), truth, 20)
    for one, other in ((first, second),):
        assert (one.before, one.after, one.by_file) == (other.before, other.after, other.by_file)
        assert one.ranking.average_precision == other.ranking.average_precision
        assert one.at_equal_recall == other.at_equal_recall


def test_files_are_written_whole_and_replaced(small, tmp_path):
    result = evaluate_scores(*small, 5)
    out = tmp_path / "new" / "out"
    for _ in range(2):
        json_path, png_path = write_evaluation(result, out)
    assert sorted(path.name for path in out.iterdir()) == ["evaluation.json", "pr_curve.png"]
    report = json.loads(json_path.read_text())
    assert report["before"]["precision"] == pytest.approx(0.4)
    assert report["ranking"]["curve"]["recall"] == pytest.approx([0.25, 0.25, 0.5, 0.5, 0.5])
    assert report["picker_ranking"]["curve"]["kept"] == [1, 2, 3, 4, 5]
    assert report["by_micrograph"][1]["name"] == "b"
    with Image.open(png_path) as image:
        assert image.size == (1200, 900)
        assert len(image.convert("RGB").getcolors(maxcolors=2**24)) > 10


def test_long_curves_are_thinned_in_json_and_keep_their_ends(tmp_path):
    _, truth, rows, _ = random_case(tmp_path)
    rows = [(*row[:5], k / 4000, 1) for k, row in enumerate(rows * 8)]
    result = evaluate_scores(scores_csv(tmp_path, rows), truth, 20)
    assert len(result.ranking.curve.thresholds) == 3200
    curve = result.as_dict()["ranking"]["curve"]
    assert len(curve["thresholds"]) == len(curve["precision"]) == 1000
    assert (curve["thresholds"][0], curve["thresholds"][-1]) == (3199 / 4000, 0)


def test_out_that_is_a_file(small, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="cannot be written"):
        write_evaluation(evaluate_scores(*small, 5), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"
