"""The evaluation of a pruning against true particles: its numbers, JSON and precision-recall figure."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pickeropt.errors import GeometryError, OutputError
from pickeropt.evaluate.metrics import (
    Calibration,
    Coordinates,
    Curve,
    Flags,
    Order,
    average_precision,
    best_f1,
    calibration,
    descending,
    false_removed_at_recall,
    match_micrographs,
    point_at_recall,
    precision_recall,
)
from pickeropt.evaluate.truth import micrograph_stems, read_truth
from pickeropt.pruned_run import read_scores

CURVE_POINTS = 1000
"""The most points of a curve that the JSON and the figure hold."""


@dataclass(frozen=True)
class ScoredPicks:
    """n scored picks in the order of the file.

    coordinates : (n, 2) float64, x and y, px
    files : the distinct coordinate files; file_index : (n,) into them
    micrographs : the distinct micrographs by stem; micrograph_index : (n,) into them
    score : (n,) P(particle)
    figure_of_merit : (n,) the picker's score, NaN where it gave none
    kept : (n,) bool
    """

    coordinates: NDArray[np.float64]
    files: tuple[str, ...]
    file_index: NDArray[np.int64]
    micrographs: tuple[str, ...]
    micrograph_index: NDArray[np.int64]
    score: NDArray[np.float64]
    figure_of_merit: NDArray[np.float64]
    kept: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.score)

    def take(self, rows: NDArray[np.bool_]) -> "ScoredPicks":
        """The picks of some rows; files and micrographs keep their indices."""
        return ScoredPicks(
            self.coordinates[rows],
            self.files,
            self.file_index[rows],
            self.micrographs,
            self.micrograph_index[rows],
            self.score[rows],
            self.figure_of_merit[rows],
            self.kept[rows],
        )


def read_scored_picks(path: Path) -> ScoredPicks:
    """Read `scores.csv`.

    Raises FormatError as `pickeropt.pruned_run.read_scores` does, and for two different micrographs of one name.
    """
    table = read_scores(path, ("file", "micrograph", "x", "y", "figure_of_merit", "score", "kept"))
    stems = micrograph_stems(path, table.micrographs)
    places: dict[str, int] = {}
    stem_index = np.array([places.setdefault(stem, len(places)) for stem in stems], dtype=np.int64)
    return ScoredPicks(
        coordinates=table.coordinates,
        files=table.files,
        file_index=table["file"].astype(np.int64),
        micrographs=tuple(places),
        micrograph_index=stem_index[table["micrograph"]],
        score=table["score"],
        figure_of_merit=table["figure_of_merit"],
        kept=table["kept"],
    )


@dataclass(frozen=True)
class PickQuality:
    """One set of picks against the truth. Precision is 0 where there are no picks, recall
    where there are no particles, F1 where either is so."""

    picks: int
    true_picks: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Ranking:
    """All picks ranked by one score; the fields are those of `pickeropt.evaluate.metrics`.

    false_removed : share of the false picks below the threshold that keeps 95 % of the true
        ones, None where there are no true or no false picks
    """

    average_precision: float
    best_f1: float
    best_f1_threshold: float
    false_removed: float | None
    curve: Curve


@dataclass(frozen=True)
class EqualRecall:
    """The kept picks against the picker's own score, cut at its highest threshold that
    recalls as much as the kept picks or more."""

    recall: float
    precision: float
    picker_recall: float
    picker_precision: float
    picker_threshold: float


@dataclass(frozen=True)
class Part:
    """One coordinate file or one micrograph by itself; truths counts its micrographs' particles."""

    name: str
    truths: int
    before: PickQuality
    after: PickQuality


@dataclass(frozen=True)
class Evaluation:
    """What `pickeropt evaluate` reports, on the micrographs that have both picks and truth.

    before, after : all picks and the kept picks, each matched as a set, best picker's score
        first (row order where there is none): so `before` does not depend on the
        classifier, and recall never rises by pruning
    ranking : by P(particle); picker_ranking : by the picker's score, None where it does not
        rank. Each curve is matched in the order of its own score; `false_removed` of both
        is read from the matching of `before`
    at_equal_recall : None where the picker does not rank or no true pick is kept
    calibration : of P(particle) against the matching of `before`
    by_file : each file matched without the others
    """

    scores_file: str
    truth: str
    radius_px: float
    micrographs: int
    picks: int
    truths: int
    before: PickQuality
    after: PickQuality
    ranking: Ranking
    picker_ranking: Ranking | None
    at_equal_recall: EqualRecall | None
    calibration: Calibration
    by_file: tuple[Part, ...]
    by_micrograph: tuple[Part, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain lists, numbers and None, curves thinned: ready for `json`."""
        plain = asdict(self)
        for name, ranking in (("ranking", self.ranking), ("picker_ranking", self.picker_ranking)):
            if ranking is not None:
                arrays = vars(thinned(ranking.curve))
                plain[name]["curve"] = {key: values.tolist() for key, values in arrays.items()}
        return plain


def quality(picks: int, true_picks: int, truths: int) -> PickQuality:
    """Precision, recall and F1 from counts; F1 = 2 TP / (picks + particles)."""
    return PickQuality(
        picks=picks,
        true_picks=true_picks,
        precision=true_picks / picks if picks else 0.0,
        recall=true_picks / truths if truths else 0.0,
        f1=2 * true_picks / (picks + truths) if picks and truths else 0.0,
    )


def thinned(curve: Curve, points: int = CURVE_POINTS) -> Curve:
    """At most `points` of a curve, evenly by index, first and last among them."""
    if len(curve.thresholds) <= points:
        return curve
    chosen = np.round(np.linspace(0, len(curve.thresholds) - 1, points)).astype(np.int64)
    return replace(curve, **{name: values[chosen] for name, values in vars(curve).items()})


KEEP_FRACTION = 0.95
"""Share of the true picks that stay where the share of false picks removed is read."""


@dataclass(frozen=True)
class _Case:
    """Picks to match: coordinates (n, 2) px, index (n,) into truths, order (n,) best first."""

    coordinates: Coordinates
    index: NDArray[np.int64]
    truths: Sequence[Coordinates]
    order: Order
    radius: float

    def matched(self, rows: Flags | None = None) -> Flags:
        """(n,) bool: the true picks among `rows` (n,), matched as if there were no others."""
        if rows is None:
            return match_micrographs(self.coordinates, self.index, self.truths, self.order, self.radius)
        order = (np.cumsum(rows) - 1)[self.order[rows[self.order]]]
        is_true = np.zeros(len(rows), dtype=np.bool_)
        is_true[rows] = match_micrographs(self.coordinates[rows], self.index[rows], self.truths, order, self.radius)
        return is_true

    def truth_counts(self) -> NDArray[np.int64]:
        return np.array([len(xy) for xy in self.truths], dtype=np.int64)


def evaluate_scores(
    scores_csv: Path, truth: Path, radius: float | None = None, *, diameter_px: float | None = None
) -> Evaluation:
    """Measure the picks of a `scores.csv` against true particles.

    scores_csv : as `pickeropt prune` writes it
    truth : folder or file, see `pickeropt.evaluate.truth.read_truth`
    radius : how far a pick may be from its particle, px of the micrograph, inclusive;
        without it, half of `diameter_px`

    Raises FormatError for the two inputs, GeometryError for the radius.
    """
    scored = read_scored_picks(scores_csv)
    radius = _radius(radius, diameter_px)
    found = read_truth(truth, scored.micrographs)
    truths = [found.particles.get(name, np.empty((0, 2))) for name in scored.micrographs]
    has_truth = np.array([name in found.particles for name in scored.micrographs], dtype=np.bool_)
    picks = scored.take(has_truth[scored.micrograph_index])
    order = descending(picks.figure_of_merit)
    case = _Case(picks.coordinates, picks.micrograph_index, truths, order, radius)
    is_true, kept_true = case.matched(), case.matched(picks.kept)
    count = int(case.truth_counts().sum())
    after = quality(int(picks.kept.sum()), int(kept_true.sum()), count)
    picker = _ranking(case, picks.figure_of_merit, is_true) if _ranks(picks.figure_of_merit) else None
    return Evaluation(
        scores_file=str(scores_csv),
        truth=str(truth),
        radius_px=radius,
        micrographs=len(found.particles),
        picks=len(picks),
        truths=count,
        before=quality(len(picks), int(is_true.sum()), count),
        after=after,
        ranking=_ranking(case, picks.score, is_true),
        picker_ranking=picker,
        at_equal_recall=_at_equal_recall(after, picker),
        calibration=calibration(picks.score, is_true),
        by_file=_by_file(picks, case),
        by_micrograph=_parts(picks.micrographs, case, picks.kept, case.index, np.arange(len(truths))),
        warnings=_warnings(scored, picks, has_truth, found.unused),
    )


def write_evaluation(evaluation: Evaluation, out: Path) -> tuple[Path, Path]:
    """Write `evaluation.json` and `pr_curve.png` into the folder `out`, made if need be.

    Each appears whole or not at all and replaces one of that name. Returns their paths.
    Raises OutputError where the folder cannot be written.
    """

    json_path, png_path = out / "evaluation.json", out / "pr_curve.png"
    text = json.dumps(evaluation.as_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    try:
        out.mkdir(parents=True, exist_ok=True)
        _replace(json_path, text.encode())
        _replace(png_path, pr_curve_png(evaluation))
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); give another --out") from error
    return json_path, png_path


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _radius(radius: float | None, diameter_px: float | None) -> float:
    if radius is None:
        if diameter_px is None:
            raise GeometryError(
                "no matching radius; give --radius in px of the micrograph, usually half a particle diameter"
            )
        radius = diameter_px / 2
    if not math.isfinite(radius) or radius <= 0:
        raise GeometryError(f"matching radius {radius} px is not above 0; give --radius in px")
    return float(radius)


def _ranks(figure_of_merit: NDArray[np.float64]) -> bool:
    """Whether the picker's score ranks: every pick has one, and they are not all the same."""
    return not np.isnan(figure_of_merit).any() and bool(np.ptp(figure_of_merit) > 0)


def _ranking(case: _Case, scores: NDArray[np.float64], is_true: Flags) -> Ranking:
    matched = replace(case, order=descending(scores)).matched()
    curve = precision_recall(scores, matched, int(case.truth_counts().sum()))
    f1, threshold = best_f1(curve)
    removed = false_removed_at_recall(scores, is_true, KEEP_FRACTION)
    return Ranking(average_precision(curve), f1, threshold, removed, curve)


def _at_equal_recall(after: PickQuality, picker: Ranking | None) -> EqualRecall | None:
    if picker is None or not after.true_picks:
        return None
    curve = picker.curve
    point = point_at_recall(curve, after.recall)
    if point is None:
        return None
    return EqualRecall(
        recall=after.recall,
        precision=after.precision,
        picker_recall=float(curve.recall[point]),
        picker_precision=float(curve.precision[point]),
        picker_threshold=float(curve.thresholds[point]),
    )


def _by_file(picks: ScoredPicks, case: _Case) -> tuple[Part, ...]:
    """Each file by itself: one cell for each file and micrograph that go together."""
    pairs = np.column_stack([picks.file_index, picks.micrograph_index])
    cells, cell_index = np.unique(pairs, axis=0, return_inverse=True)
    by_cell = replace(case, index=cell_index.reshape(-1), truths=[case.truths[k] for k in cells[:, 1]])
    return _parts(picks.files, by_cell, picks.kept, picks.file_index, cells[:, 0])


def _parts(
    names: Sequence[str],
    case: _Case,
    kept: Flags,
    pick_part: NDArray[np.int64],
    truth_part: NDArray[np.int64],
) -> tuple[Part, ...]:
    """The quality of each name that has picks; pick_part (n,) and truth_part (len(truths),) into names."""

    def count(rows: Flags) -> list[int]:
        counts: list[int] = np.bincount(pick_part[rows], minlength=len(names)).tolist()
        return counts

    picks, hits = count(np.ones_like(kept)), count(case.matched())
    kept_picks, kept_hits = count(kept), count(case.matched(kept))
    truths = np.bincount(truth_part, weights=case.truth_counts(), minlength=len(names)).astype(int).tolist()
    return tuple(
        Part(
            name,
            truths[k],
            quality(picks[k], hits[k], truths[k]),
            quality(kept_picks[k], kept_hits[k], truths[k]),
        )
        for k, name in enumerate(names)
        if picks[k]
    )


def _warnings(scored: ScoredPicks, picks: ScoredPicks, has_truth: NDArray[np.bool_], unused: int) -> tuple[str, ...]:
    """What was left out or limits the numbers, a sentence each."""
    warnings = []
    without = int((~has_truth).sum())
    if without:
        left_out = len(scored) - len(picks)
        warnings.append(f"{without} of {len(has_truth)} micrographs have no truth; their {left_out} picks are left out")
    if unused:
        warnings.append(f"{unused} micrographs of the truth have no picks here; their particles do not count as missed")
    missing = int(np.isnan(picks.figure_of_merit).sum())
    if missing:
        warnings.append(f"{missing} of {len(picks)} picks have no figure of merit; the picker's ranking is left out")
    elif not _ranks(picks.figure_of_merit):
        warnings.append("all figures of merit are equal; the picker's ranking is left out")
    pairs = np.unique(np.column_stack([picks.micrograph_index, picks.file_index]), axis=0)
    shared = int((np.bincount(pairs[:, 0]) > 1).sum())
    if shared:
        warnings.append(
            f"{shared} micrographs have picks from several files; overall they are one set, in which a"
            " particle picked twice is one true and one false pick (by_file has each file alone)"
        )
    return tuple(warnings)


OURS, PICKER = "#0b6aa8", "#c2571a"


def pr_curve_png(evaluation: Evaluation) -> bytes:
    """A PNG, 1200 x 900 px: precision over recall by P(particle) and by the picker's score,
    with the points of all picks and of the kept picks."""
    figure = Figure(figsize=(8, 6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if evaluation.picker_ranking is not None:
        _draw_curve(axes, evaluation.picker_ranking, "by the picker's score", PICKER)
    _draw_curve(axes, evaluation.ranking, "by P(particle)", OURS)
    _draw_point(axes, evaluation.before, "all picks", "s", PICKER)
    _draw_point(axes, evaluation.after, "kept picks", "o", OURS)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("recall (share of the true particles found)")
    axes.set_ylabel("precision (share of the picks that are true)")
    axes.set_title(
        f"{evaluation.picks} picks, {evaluation.truths} particles, {evaluation.micrographs} micrographs,"
        f" radius {evaluation.radius_px:g} px",
        fontsize=11,
    )
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_curve(axes: Axes, ranking: Ranking, label: str, color: str) -> None:
    curve = thinned(ranking.curve)
    # steps, as average precision sums them
    recall = np.concatenate([[0.0], curve.recall])
    precision = np.concatenate([curve.precision[:1], curve.precision])
    label = f"{label}: average precision {ranking.average_precision:.3f}"
    axes.plot(recall, precision, drawstyle="steps-pre", color=color, linewidth=1.8, label=label)


def _draw_point(axes: Axes, quality: PickQuality, label: str, marker: str, color: str) -> None:
    label = f"{label}: precision {quality.precision:.3f}, recall {quality.recall:.3f}, F1 {quality.f1:.3f}"
    axes.plot(
        [quality.recall],
        [quality.precision],
        marker=marker,
        color=color,
        markeredgecolor="black",
        markersize=9,
        linestyle="none",
        clip_on=False,
        zorder=5,
        label=label,
    )
