"""The filters of the seed papers: arrays by hand, then in a pruning."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prune_world import PIXEL_SIZE, FakeScorer, coordinates_of, make_project, tree

from pickeropt.errors import MicrographError, OutputError, PickeroptError
from pickeropt.io.micrographs import read_micrograph
from pickeropt.prune import scoring
from pickeropt.prune.filters import domain_sizes, grid_of, measures_of, out_of_bounds, pixel_measures, too_close
from pickeropt.prune.prune_config import REASONS, Filters, PruneConfig
from pickeropt.prune.pruning import prune
from pickeropt.records import Micrograph

NOISE = 1.4826


def checkerboard() -> Micrograph:
    """+1 and -1: median 0, median absolute deviation 1, standard deviation 1."""
    y, x = np.mgrid[:12, :16]
    return Micrograph(Path("m.mrc"), np.where((x + y) % 2, 1, -1).astype(np.float32), 1.0)


def test_deviation_and_extreme_pixels_of_a_box() -> None:
    micrograph = checkerboard()
    micrograph.pixels[4:6, 8] = 9  # of a box of 4 x 4: 9 9 and seven each of 1 and -1
    micrograph.pixels[4:6, 9] = -9
    xy = np.array([[2.9, 3.0], [8.0, 6.99], [9.5, 5.5]])
    deviations, extremes = pixel_measures(micrograph, xy, 4.2)
    # boxes: columns 0-3, rows 1-4; columns 6-9, rows 4-7; columns 7-10, rows 3-6
    of_nine = np.sqrt((4 * 81 + 12) / 16)
    np.testing.assert_allclose(deviations, np.array([1, of_nine, of_nine]) / NOISE, rtol=1e-6)
    assert extremes.tolist() == [0, 0.25, 0.25]


def test_three_times_the_noise_is_not_extreme() -> None:
    micrograph = checkerboard()
    micrograph.pixels[0, :2] = 3 * NOISE * 0.9999, -3 * NOISE * 1.0001
    _, extremes = pixel_measures(micrograph, np.array([[1.0, 1.0]]), 2.0)
    assert extremes.tolist() == [0.25]


def test_over_the_border_what_lies_on_the_micrograph_counts() -> None:
    micrograph = checkerboard()
    micrograph.pixels[0, 0] = 9
    micrograph.pixels[-1, -1] = -9
    deviations, extremes = pixel_measures(micrograph, np.array([[-3.0, -8], [99, 99], [0, 0]]), 4.0)
    np.testing.assert_allclose(extremes, [1 / 4, 1 / 9, 1 / 4])  # of 2 x 2 and 3 x 3 px
    np.testing.assert_allclose(deviations[0] * NOISE, np.std([9, 1, 1, -1]), rtol=1e-6)
    assert pixel_measures(micrograph, np.empty((0, 2)), 4.0)[0].shape == (0,)


def test_no_noise() -> None:
    flat = replace(checkerboard(), pixels=np.ones((12, 16), dtype=np.float32))
    with pytest.raises(MicrographError, match=r"^m\.mrc: more than half of the pixels have one value"):
        pixel_measures(flat, np.array([[1.0, 1.0]]), 4.0)


def test_the_grid_covers_the_micrograph() -> None:
    grid, step = grid_of((20, 30), 16)
    assert step == 4
    assert grid[0, :, 0].tolist() == [2, 6, 10, 14, 18, 22, 26]
    assert grid[:, 0, 1].tolist() == [2, 6, 10, 14, 18]
    assert grid_of((3, 2), 100)[0].shape == (1, 1, 2)


def test_domains_by_hand() -> None:
    score_map = np.array(
        [
            [0.9, 0.9, 0.1, 0.6],
            [0.9, 0.5, 0.9, 0.1],
            [0.1, 0.1, 0.9, 0.9],
        ]
    )  # domains of 3, 1 (a corner is no side) and 3: average 7 / 3
    xy = np.array([[5.0, 5], [15, 15], [35, 9.9], [25, 15], [-3, 4], [99, 99]])
    sizes = domain_sizes(score_map, xy, 10.0)
    np.testing.assert_allclose(sizes, [9 / 7, 0, 3 / 7, 9 / 7, 9 / 7, 9 / 7], rtol=1e-6)
    assert domain_sizes(np.zeros((3, 4)), xy, 10.0).tolist() == [0] * 6


def test_bounds_are_inclusive_and_the_first_broken_one_is_named() -> None:
    measures = measures_of(Filters(min_std=0.5, max_std=1.5, max_extreme=0.1, max_domain=4, min_distance=9))
    assert [measure.name for measure in measures] == ["std", "extreme", "domain"]
    values = np.array(
        [[0.5, 0.1, 4], [0.49, 0.2, 5], [1.5, 0, 0], [1.51, 0, 0], [1, 0.11, 9], [1, 0, 4.01]], np.float32
    )
    reasons = [REASONS[i] for i in out_of_bounds(measures, values)]
    assert reasons == ["", "min-std", "", "max-std", "max-extreme", "max-domain"]
    assert measures_of(Filters(min_distance=9)) == ()
    assert out_of_bounds((), np.empty((3, 0), np.float32)).tolist() == [0, 0, 0]


def test_of_two_that_are_close_the_worse_goes() -> None:
    xy = np.array([[0.0, 0], [6, 0], [12, 0], [12, 10], [50, 50], [50, 50]])
    scores = np.array([0.9, 0.8, 0.7, 0.1, 0.4, 0.4])
    # the second goes for the first, so the third stays; ten px are not closer than ten
    assert too_close(xy, scores, 10).tolist() == [False, True, False, False, False, True]
    assert too_close(xy, scores, 10.001).tolist() == [False, True, False, True, False, True]
    assert too_close(xy[:0], scores[:0], 10).tolist() == []


@given(
    points=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 5)), max_size=12),
    distance=st.integers(1, 12),
)
def test_close_ones_against_plain_loops(points: list[tuple[int, int, int]], distance: int) -> None:
    xy = np.array([point[:2] for point in points], dtype=np.float64).reshape(-1, 2)
    scores = np.array([point[2] for point in points]) / 5
    stay: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (-scores[i], i)):
        if all((xy[i] - xy[j]) @ (xy[i] - xy[j]) >= distance**2 for j in stay):
            stay.append(i)
    assert np.flatnonzero(~too_close(xy, scores, distance)).tolist() == sorted(stay)


def config_for(root: Path, filters: Filters, **changes: object) -> PruneConfig:
    config = PruneConfig(micrographs=(root / "mics",), out=root / "out", filters=filters)
    return replace(config, **changes)  # type: ignore[arg-type]


def table(out: Path) -> list[dict[str, str]]:
    with (out / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


ALL = Filters(min_std=0.94, max_std=1.07, max_extreme=0.015, max_domain=2.5, min_distance=20)


def test_a_pruning_with_every_filter(tmp_path: Path) -> None:
    picks = make_project(tmp_path, picks=30)
    summary = prune([picks], config_for(tmp_path, ALL, threshold=0.4), FakeScorer())
    rows = table(tmp_path / "out")
    assert list(rows[0])[-6:] == ["p_carbon", "std", "extreme", "domain", "filter", "kept"]
    found = {row["filter"] for row in rows}
    assert found == set(REASONS)  # each of them bites here
    for i in range(4):
        own = [row for row in rows if Path(row["micrograph"]).name == f"m{i}.mrc"]
        micrograph = read_micrograph(tmp_path / f"mics/m{i}.mrc")
        deviations, extremes = pixel_measures(micrograph, coordinates_of(f"m{i}.mrc", 30), 20 / PIXEL_SIZE)
        np.testing.assert_allclose([float(row["std"]) for row in own], deviations, rtol=1e-5)
        np.testing.assert_allclose([float(row["extreme"]) for row in own], extremes, rtol=1e-5)
        alive = [row for row in own if row["filter"] in ("", "min-distance")]
        xy = np.array([[float(row["x"]), float(row["y"])] for row in alive])
        gone = too_close(xy, np.array([float(row["score"]) for row in alive]), 20 / PIXEL_SIZE)
        assert [row["filter"] == "min-distance" for row in alive] == gone.tolist()
    for row in rows:
        score, std, extreme, domain = (float(row[name]) for name in ("score", "std", "extreme", "domain"))
        broken = [std < 0.94, std > 1.07, extreme > 0.015, domain > 2.5]
        reason = REASONS[broken.index(True) + 1] if any(broken) else ""
        assert row["filter"] in ({reason} if reason else {"", "min-distance"})
        assert row["kept"] == str(int(score >= 0.4 and row["filter"] == ""))
    above = [row for row in rows if float(row["score"]) >= 0.4]
    counted = {name: sum(row["filter"] == name for row in above) for name in REASONS[1:]}
    assert summary.filtered == {name: count for name, count in counted.items() if count}
    assert summary.rejected == sum(summary.filtered.values()) + sum(summary.rejected_by_class.values())
    assert summary.kept == sum(row["kept"] == "1" for row in rows)


def test_without_filters_the_scores_are_the_same(tmp_path: Path) -> None:
    picks = make_project(tmp_path)
    prune([picks], config_for(tmp_path, ALL), FakeScorer())
    prune([picks], config_for(tmp_path, Filters(), out=tmp_path / "plain"), FakeScorer())
    plain = table(tmp_path / "plain")
    assert "filter" not in plain[0]
    assert [row["score"] for row in table(tmp_path / "out")] == [row["score"] for row in plain]


def test_bounds_may_change_in_a_resumed_run_but_not_what_is_measured(tmp_path: Path) -> None:
    picks = make_project(tmp_path)
    scorer = FakeScorer()

    def stop(micrograph: Micrograph, found: np.ndarray) -> np.ndarray:
        if len(scorer.calls) > 2:
            raise KeyboardInterrupt
        return found

    scorer.fault = stop
    with pytest.raises(KeyboardInterrupt):
        prune([picks], config_for(tmp_path, ALL), scorer)
    with pytest.raises(OutputError, match=r"differs in the filters \(std, extreme, do, now none\)"):
        prune([picks], config_for(tmp_path, Filters()), FakeScorer())
    other = replace(ALL, max_std=1.2, min_distance=None)
    again = FakeScorer()
    assert prune([picks], config_for(tmp_path, other), again).resumed == 2
    assert len(again.calls) == 2
    prune([picks], config_for(tmp_path, other, out=tmp_path / "fresh"), FakeScorer())
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_a_grid_of_many_points_is_scored_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picks = make_project(tmp_path, count=1)
    filters = Filters(max_domain=2)
    prune([picks], config_for(tmp_path, filters), FakeScorer())
    monkeypatch.setattr(scoring, "PIECE", 50)
    scorer = FakeScorer()
    prune([picks], config_for(tmp_path, filters, out=tmp_path / "pieces"), scorer)
    points = 12 + np.prod(grid_of((60, 80), 10)[0].shape[:2])
    assert len(scorer.calls) == -(-points // 50) > 3
    assert tree(tmp_path / "out") == tree(tmp_path / "pieces")


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (Filters(min_std=-1), "--min-std is -1; give a number from 0 on"),
        (Filters(min_distance=float("nan")), "--min-distance is nan"),
        (Filters(max_extreme=1.5), "--max-extreme is 1.5; give a share of the pixels"),
        (Filters(min_std=2, max_std=1), "--min-std 2 is above --max-std 1"),
    ],
)
def test_bounds_that_are_none(tmp_path: Path, filters: Filters, message: str) -> None:
    scorer = FakeScorer()
    with pytest.raises(PickeroptError, match=message):
        prune([make_project(tmp_path)], config_for(tmp_path, filters), scorer)
    assert not scorer.calls
