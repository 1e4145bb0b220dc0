"""Labels that `pickeropt label`'s suggestions save, on real micrographs: EMPIAR-10017.

    python benchmarks/suggestions.py --data DIR [--log FILE] [--figure docs/suggestions.png]

As `real.py`: labels come from four of the six micrographs that have all kinds of them, questions are on
the two others. The pool is every labelled point of the four; a label is revealed when it is asked for. The
classifier is `finetune`'s default recipe on all labels so far: of suggestions, of random picks of the pool,
and of so many random shots a class, which only somebody who knows all labels can draw. The level is what 30
of those reach.

Macro-F1 takes the four classes as equally likely; "as named" is that of the classes that `prune` names.
Last, how often the live estimate's interval holds the latter, over the classes that it counts, on the two
other micrographs.
"""

import argparse
import csv
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from methods import Default, Seen
from numpy.typing import NDArray
from real import draw, hand_auc, look, shots_from
from real_data import CLASSES, RADIUS_PX, Labelled, read_all
from sklearn.metrics import f1_score

from pickeropt.label.label_store import UNLABELLED
from pickeropt.label.suggestions import MIN_LABELS_TO_FIT, PickPool, estimate, refit, suggest
from pickeropt.label.suggestions import MIN_LABELS_TO_FIT as COUNTED

DRAWS = 20
BY_TWENTY = "suggestions, first 20 at once"
STEPS = {
    "suggestions": (10, 20, 40, 60, 80, 120),
    BY_TWENTY: (20, 40),
    "random": (20, 40, 60, 80, 120),
}
"""Labels at which a strategy's classifier is measured and its next batch chosen."""
BALANCED = (10, 20, 30)
"""Shots a class; the last is the level."""
ESTIMATED = (40, 80)
"""Numbers of labels at which the live estimate is asked for."""
NOTHING = (float("nan"),) * 3
"""An estimate that says nothing."""
VALUES = ("macro_f1", "as_named", "auc", "labels", *CLASSES)
LINES = (("suggestions", "#0b6aa8", "o"), ("random", "#c2571a", "s"))

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """One draw.

    pool, labels : n picks to choose from, and what each is (n,)
    points : (micrograph, point) of each
    held, features : micrographs of the questions; of each (m, d), labelled points first, then hand points
    """

    number: int
    pool: PickPool
    labels: Rows
    points: list[tuple[int, int]]
    held: list[Labelled]
    features: list[Seen]


@dataclass(frozen=True)
class Figures:
    """What one classifier did.

    estimate, low, high : NaN where the estimate was not asked for or said nothing
    target : what it estimates: macro-F1 as named, over the classes it counts
    """

    strategy: str
    labels: int
    draw: int
    macro_f1: float
    as_named: float
    auc: float
    particle: int
    background: int
    contaminant: int
    carbon: int
    estimate: float
    low: float
    high: float
    target: float


def make_world(labelled: list[Labelled], seen: dict[str, Seen], number: int) -> World:
    """The draw of that number, as `real.py` has it."""
    take, held = draw(labelled, number)
    points = [(i, j) for i in take for j in range(len(labelled[i].labels))]
    pool = PickPool(
        torch.cat([seen[labelled[i].name][: len(labelled[i].labels)] for i in take]),
        np.concatenate([labelled[i].points for i in take]),
        np.array([i for i, _ in points]),
        np.full(len(points), np.nan),
    )
    labels = np.concatenate([labelled[i].labels for i in take])
    return World(number, pool, labels, points, [labelled[i] for i in held], [seen[labelled[i].name] for i in held])


def follow(method: Default, world: World, strategy: str, steps: Sequence[int]) -> list[Figures]:
    """One strategy from no label to the last step, measured at each step."""
    known = np.full(len(world.labels), UNLABELLED)
    order = np.random.default_rng(world.number).permutation(len(known))
    probabilities = ask(method, world, known)[0]
    found = []
    for step in steps:
        have = int((known >= 0).sum())
        rows = order[have:step]
        if strategy != "random":
            rows = suggest(world.pool, probabilities, known, RADIUS_PX, step - have, world.number)
        known[rows] = world.labels[rows]
        guess = guessed(method, world, known) if step in ESTIMATED and strategy != BY_TWENTY else NOTHING
        probabilities, answers = ask(method, world, known)
        found.append(measured(world, strategy, known, answers, guess))
    return found


def balanced(method: Default, world: World, labelled: list[Labelled]) -> list[Figures]:
    """So many random shots a class, as `real.py` draws them."""
    found = []
    take = sorted({i for i, _ in world.points})
    for per_class in BALANCED:
        known = np.full(len(world.labels), UNLABELLED)
        for shot in shots_from(labelled, take, per_class, world.number):
            row = world.points.index(shot)
            known[row] = world.labels[row]
        answers = ask(method, world, known)[1]
        found.append(measured(world, f"{per_class} a class", known, answers, NOTHING))
    return found


def ask(method: Default, world: World, known: Rows) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """What the live model says of the pool, and what `finetune` would say of the questions.

    They are one classifier as soon as every class has two labels.
    """
    lengths = [len(known), *(len(part) for part in world.features)]
    everything = torch.cat([world.pool.features, *world.features])
    labels = np.full(len(everything), UNLABELLED)
    groups = np.full(len(everything), -1)
    labels[: len(known)], groups[: len(known)] = known, world.pool.micrograph
    live = np.split(refit(method.classifier, everything, labels, groups, world.number), np.cumsum(lengths)[:-1])
    rows = np.flatnonzero(known >= 0)
    if len(rows) == 0 or (np.bincount(known[rows], minlength=len(CLASSES)) >= MIN_LABELS_TO_FIT).all():
        return live[0], live[1:]
    predict = method.fit(world.pool.features[rows], known[rows], world.pool.micrograph[rows], world.number)
    return live[0], [predict(part) for part in world.features]


def guessed(method: Default, world: World, known: Rows) -> tuple[float, float, float]:
    """The live estimate and the ends of its interval."""
    now = estimate(method.classifier, world.pool.features, known, world.pool.micrograph, world.number)
    if now.macro_f1 is None or now.low is None or now.high is None:
        return NOTHING
    return now.macro_f1, now.low, now.high


def measured(
    world: World,
    strategy: str,
    known: Rows,
    answers: list[NDArray[np.float64]],
    guess: tuple[float, float, float],
) -> Figures:
    """Answers against the truth of the two other micrographs."""
    truth = np.concatenate([m.labels for m in world.held])
    named = np.concatenate([a[: len(m.labels)] for a, m in zip(answers, world.held, strict=True)])
    alike = named / [len(CLASSES) - 1, 1, 1, 1]
    macro, as_named = (
        float(f1_score(truth, p.argmax(1), labels=range(len(CLASSES)), average="macro", zero_division=0))
        for p in (alike, named)
    )
    counts = np.bincount(known[known >= 0], minlength=len(CLASSES)).tolist()
    learnt = [k for k, count in enumerate(counts) if count >= COUNTED] or [0]
    told = np.isin(truth, learnt)
    target = float(f1_score(truth[told], named[told].argmax(1), labels=learnt, average="macro", zero_division=0))
    auc = hand_auc(world.held, answers)
    return Figures(strategy, sum(counts), world.number, macro, as_named, auc, *counts, *guess, target)


def one_draw(method: Default, labelled: list[Labelled], seen: dict[str, Seen], number: int) -> list[Figures]:
    """All strategies."""
    world = make_world(labelled, seen, number)
    return [
        *balanced(method, world, labelled),
        *(f for name, steps in STEPS.items() for f in follow(method, world, name, steps)),
    ]


def read_log(path: Path | None) -> list[Figures]:
    """All figures in the file; none where there is none."""
    if path is None or not path.is_file():
        return []
    with path.open(newline="") as file:
        return [
            Figures(r[0], int(r[1]), int(r[2]), *map(float, r[3:6]), *map(int, r[6:10]), *map(float, r[10:]))
            for r in csv.reader(file)
        ]


def write_log(path: Path | None, figures: list[Figures]) -> None:
    """The figures of one draw, in one piece."""
    if path is not None:
        with path.open("a", newline="") as file:
            csv.writer(file).writerows(astuple(f) for f in figures)


def curve(figures: list[Figures], strategy: str, value: str) -> dict[int, NDArray[np.float64]]:
    """By number of labels, the value of each draw in the draws' order."""
    found: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for one in figures:
        if one.strategy == strategy:
            found[one.labels].append((one.draw, getattr(one, value)))
    return {labels: np.array([v for _, v in sorted(rows)]) for labels, rows in sorted(found.items())}


def first_at(curve: dict[int, float], level: float) -> float:
    """The number of labels at which a curve first reaches the level; infinite where it does not."""
    return min((float(labels) for labels, value in curve.items() if value >= level), default=float("inf"))


def kept_from(curve: dict[int, float], level: float) -> float:
    """The number of labels from which on a curve is never below the level again."""
    below = [labels for labels, value in curve.items() if value < level]
    return min((float(n) for n in curve if n > max(below, default=-1)), default=float("inf"))


def of_class(figures: list[Figures], per_class: int, value: str) -> NDArray[np.float64]:
    """The value of so many random shots a class, each draw; their number of labels differs with the draw."""
    rows = sorted((f.draw, getattr(f, value)) for f in figures if f.strategy == f"{per_class} a class")
    return np.array([v for _, v in rows])


def print_tables(figures: list[Figures]) -> None:
    """The curves, the labels that each strategy needs, and how honest the estimate is."""
    print("| strategy | labels | macro-F1 | as named | AUC | particle | background | contaminant | carbon |")
    print("|---|---|---|---|---|---|---|---|---|")
    for per_class in BALANCED:
        columns = {v: of_class(figures, per_class, v) for v in VALUES}
        print_row(f"{per_class} random shots a class", f"{columns['labels'].mean():.0f}", columns)
    for name in STEPS:
        by = {v: curve(figures, name, v) for v in VALUES}
        for labels in by["labels"]:
            print_row(name, str(labels), {v: by[v][labels] for v in VALUES})
    for value in VALUES[:3]:
        print_needed(figures, value)
    print_honesty(figures)


def print_row(name: str, labels: str, columns: dict[str, NDArray[np.float64]]) -> None:
    """Mean and spread over the draws of the two figures, mean of the counts."""
    figures = " | ".join(f"{columns[v].mean():.3f} ± {columns[v].std():.3f}" for v in VALUES[:3])
    counts = " | ".join(f"{columns[v].mean():.1f}" for v in CLASSES)
    print(f"| {name} | {labels} | {figures} | {counts} |")


def print_needed(figures: list[Figures], value: str) -> None:
    """Labels until the level: on the mean curve, and the median of all draws with a level of their own."""
    levels = of_class(figures, BALANCED[-1], value)
    print(f"\n{value}: {levels.mean():.3f} by {BALANCED[-1]} random shots a class, ", end="")
    print(f"{of_class(figures, BALANCED[-1], 'labels').mean():.0f} labels")
    print("| strategy | labels, mean curve | and from then on | each draw's own level, median | never |")
    print("|---|---|---|---|---|")
    for name in STEPS:
        by = curve(figures, name, value)
        mean = {labels: float(v.mean()) for labels, v in by.items()}
        each = [first_at({n: float(v[d]) for n, v in by.items()}, level) for d, level in enumerate(levels)]
        first, stays = first_at(mean, levels.mean()), kept_from(mean, levels.mean())
        print(f"| {name} | {first:.0f} | {stays:.0f} | {np.median(each):.0f} | {np.isinf(each).sum()} |")


def print_honesty(figures: list[Figures]) -> None:
    """How often the interval of the live estimate holds the macro-F1 on the questions."""
    print("\n| live estimate | labels | says something | mean | true mean | interval holds | its width |")
    print("|---|---|---|---|---|---|---|")
    for name in STEPS:
        for labels in ESTIMATED:
            asked = [f for f in figures if (f.strategy, f.labels) == (name, labels)]
            told = [f for f in asked if not np.isnan(f.estimate)]
            if told:
                holds = np.mean([f.low <= f.target <= f.high for f in told])
                means = [np.mean([getattr(f, v) for f in told]) for v in ("estimate", "target")]
                width = np.mean([f.high - f.low for f in told])
                print(f"| {name} | {labels} | {len(told)} of {len(asked)} | {means[0]:.3f} ", end="")
                print(f"| {means[1]:.3f} | {holds:.0%} | {width:.2f} |")


def draw_figure(figures: list[Figures], path: Path) -> None:
    """Macro-F1 and AUC over the number of labels: mean, and its standard error as a band."""
    figure = Figure(figsize=(9, 3.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, value, label in zip(
        figure.subplots(1, 2),
        ("macro_f1", "auc"),
        ("macro-F1, four classes", "AUC, hand labels"),
        strict=True,
    ):
        for name, colour, mark in LINES:
            by = curve(figures, name, value)
            x, y = np.array(list(by)), np.array([v.mean() for v in by.values()])
            error = np.array([v.std() / np.sqrt(len(v)) for v in by.values()])
            axes.plot(x, y, color=colour, marker=mark, markersize=4, label=name)
            axes.fill_between(x, y - error, y + error, color=colour, alpha=0.2, linewidth=0)
        levels = [of_class(figures, n, value).mean() for n in BALANCED]
        sizes = [of_class(figures, n, "labels").mean() for n in BALANCED]
        axes.plot(
            sizes,
            levels,
            color="#444444",
            linestyle="--",
            marker="^",
            markersize=4,
            label="random, a class alike",
        )
        axes.axhline(levels[-1], color="#444444", linewidth=0.8, linestyle=":")
        axes.set_xlabel("labels")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("PICKEROPT_DATA"))
    parser.add_argument("--draws", type=int, nargs=2, default=(0, DRAWS), help="first, and one past the last")
    parser.add_argument("--log", type=Path, help="CSV of all draws; a stopped run goes on from it")
    parser.add_argument("--figure", type=Path, help="PNG of the curves")
    args = parser.parse_args()
    if args.data is None or not (Path(args.data) / "empiar10017").is_dir():
        sys.exit("suggestions.py: give the folder that holds empiar10017/ with --data or $PICKEROPT_DATA")
    labelled = [m for m in read_all(Path(args.data)) if len(set(m.labels)) > 1]
    method = Default("recipe default, shipped", "shipped", None)
    figures = read_log(args.log)
    left = [n for n in range(*args.draws) if n not in {f.draw for f in figures}]
    seen = look(method, Path(args.data), labelled, []) if left else {}
    for number in left:
        found = one_draw(method, labelled, seen, number)
        write_log(args.log, found)
        figures += found
    print_tables(figures)
    if args.figure:
        draw_figure(figures, args.figure)


if __name__ == "__main__":
    main()
