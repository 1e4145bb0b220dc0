"""Accuracy on real micrographs: EMPIAR-10017, shots and queries on different micrographs.

    python benchmarks/real.py --data DIR [--imagenet FILE] [--picks DIR] [--rows default,crops]

First table. Six micrographs have all kinds of labels; each draw takes its shots from four of them and is
asked about the other two, one of which always has carbon. Macro-F1 over the four classes, AUC on the hand
labels of those two, and AUC on the hand labels of four more micrographs that no choice was ever made on.
Only two micrographs have carbon, one of them four points of it; where the draw holds out the other one,
those four are all the carbon there is to learn from: the column "carbon learnt" leaves such draws out.
Macro-F1 takes the four classes as equally likely, as the shots are and as the baselines answer; "as named"
is that of the classes `prune` names, which takes half of the picks for particles.

Second table. 20 shots a class from the six; the picks of the four others are pruned. Best F1 of the picker's
own threshold and of P(particle), both thresholds chosen with the truth in hand; and the share of the false
picks that goes when 95 % of the true ones stay. Where a folder has picks on the six as well, "and picker's
score" is `prune --use-picker-score`: what the shots that lie on picks teach is one more input.
"""

import argparse
import csv
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from methods import Method, Seen, all_methods
from numpy.typing import NDArray
from real_data import CLASSES, DIAMETER_PX, PADDING_PX, RADIUS_PX, Labelled, picks_of, pixels_of, read_all
from sklearn.metrics import f1_score, roc_auc_score

from pickeropt.evaluate.metrics import best_f1, descending, false_removed_at_recall, match, precision_recall
from pickeropt.prune.picker_score import NEAR, ShotsOnPicks, combine
from pickeropt.shots import choose_shots

DRAWS = 20
ROWS = "crops,dense,paper,imagenet,general,default"
SHOTS = (10, 20, 30)


def draw(labelled: list[Labelled], number: int) -> tuple[list[int], list[int]]:
    """Micrographs to take shots from and to ask about, by index into `labelled`."""
    carbon = [i for i, m in enumerate(labelled) if (m.labels == CLASSES.index("carbon")).any()]
    others = [i for i in range(len(labelled)) if i not in carbon]
    held = [carbon[number % len(carbon)], others[number // len(carbon) % len(others)]]
    return [i for i in range(len(labelled)) if i not in held], held


def shots_from(labelled: list[Labelled], take: list[int], per_class: int, seed: int) -> list[tuple[int, int]]:
    """(micrograph, point) of the chosen shots."""
    rows = [(i, j) for i in take for j in range(len(labelled[i].labels))]
    labels = np.array([labelled[i].labels[j] for i, j in rows])
    chosen = choose_shots(labels, np.array([i for i, _ in rows]), per_class, seed)
    return [rows[c] for c in chosen]


def fitted(
    method: Method,
    labelled: list[Labelled],
    seen: dict[str, Seen],
    shots: list[tuple[int, int]],
    seed: int,
) -> Callable[[Seen], NDArray[np.float64]]:
    """The method fitted to shots; it answers until it is fitted again."""
    labels = np.array([labelled[i].labels[j] for i, j in shots])
    groups = np.array([i for i, _ in shots])
    return method.fit(torch.stack([seen[labelled[i].name][j] for i, j in shots]), labels, groups, seed)


def measure(
    method: Method,
    labelled: list[Labelled],
    unseen: list[Labelled],
    seen: dict[str, Seen],
    args: argparse.Namespace,
) -> None:
    """Print a row a shot count. With --log, draws that a stopped run has done are not done again."""
    draws = args.paper_draws if method.slow else args.draws
    done = read_log(args.log)
    for per_class in args.shots:
        rows = []
        for number in range(draws):
            key = (method.name, per_class, number)
            if key not in done:
                done[key] = one_draw(method, labelled, unseen, seen, (per_class, number))
                write_log(args.log, key, done[key])
            rows.append(done[key])
        columns = [f"{np.nanmean(v):.3f} ± {np.nanstd(v):.3f}" for v in np.array(rows).T]
        print(f"| {method.name} | {per_class} | {' | '.join(columns)} | {method.passes} | {draws} |", flush=True)


def one_draw(
    method: Method,
    labelled: list[Labelled],
    unseen: list[Labelled],
    seen: dict[str, Seen],
    which: tuple[int, int],
) -> list[float]:
    """Macro-F1, the same where there was carbon enough to learn (else NaN), macro-F1 of the classes that
    `prune` names, AUC, AUC on four more.

    which : shots a class, number of the draw
    """
    per_class, number = which
    take, held = draw(labelled, number)
    shots = shots_from(labelled, take, per_class, number)
    predict = fitted(method, labelled, seen, shots, number)
    answers = [predict(seen[labelled[i].name]) for i in held]
    truth = np.concatenate([labelled[i].labels for i in held])
    named = np.concatenate([a[: len(labelled[i].labels)] for a, i in zip(answers, held, strict=True)])
    macro, as_named = (
        float(f1_score(truth, p.argmax(1), labels=range(4), average="macro", zero_division=0))
        for p in (named / [method.odds, 1, 1, 1], named)
    )
    carbon = [labelled[i].labels[j] == CLASSES.index("carbon") for i, j in shots]
    learnt = sum(carbon) == per_class
    more = [predict(seen[m.name]) for m in unseen]
    return [
        macro,
        macro if learnt else float("nan"),
        as_named,
        hand_auc([labelled[i] for i in held], answers),
        hand_auc(unseen, more),
    ]


def read_log(path: Path | None) -> dict[tuple[str, int, int], list[float]]:
    """Figures by method, shots a class and draw."""
    if path is None or not path.is_file():
        return {}
    with path.open(newline="") as file:
        return {(r[0], int(r[1]), int(r[2])): [float(v) for v in r[3:]] for r in csv.reader(file)}


def write_log(path: Path | None, key: tuple[str, int, int], figures: list[float]) -> None:
    """One line more."""
    if path is not None:
        with path.open("a", newline="") as file:
            csv.writer(file).writerow([*key, *figures])


def hand_auc(micrographs: list[Labelled], answers: list[NDArray[np.float64]]) -> float:
    """AUC of P(particle) on the hand labels, which stand behind the labelled points."""
    scores = [a[len(m.labels) : len(m.labels) + len(m.hand), 0] for m, a in zip(micrographs, answers, strict=True)]
    return float(roc_auc_score(np.concatenate([m.is_particle for m in micrographs]), np.concatenate(scores)))


def prune_table(
    method: Method,
    labelled: list[Labelled],
    unseen: list[Labelled],
    seen: dict[str, Seen],
    args: argparse.Namespace,
) -> None:
    """Print before and after for each folder of picks, mean and spread over draws of shots."""
    for folder in args.picks:
        for inside in (False, True):
            rows = []
            for number in range(args.prune_draws):
                shots = shots_from(labelled, list(range(len(labelled))), 20, number)
                predict = fitted(method, labelled, seen, shots, number)
                rows.append([before_after(m, folder, predict, seen, inside) for m in unseen])
            print_row(f"{folder.parent.name}/{folder.name}", where(inside), np.array(rows))
        if all(f"{folder}/{m.name}" in seen for m in labelled):
            found = [combined(method, labelled, unseen, seen, (folder, n)) for n in range(args.prune_draws)]
            print_row(f"{folder.parent.name}/{folder.name}", "and picker's score", np.array(found))


def where(inside: bool) -> str:
    """Which picks a row is of."""
    return "without padding" if inside else "all picks"


def print_row(name: str, which: str, table: NDArray[np.float64]) -> None:
    """Of (draws, micrographs, 5) figures of `before_after`."""
    before, after, spread = table[..., 0].mean(), table[..., 1].mean(), table[..., 1].mean(1).std()
    own, ours, half = table[..., 2].mean(), table[..., 3].mean(), table[..., 4].mean()
    print(
        f"| {name} | {which} | {before:.3f} | {after:.3f} ± {spread:.3f} "
        f"| {after - before:+.3f} | {half:.3f} | {own:.1%} | {ours:.1%} |",
        flush=True,
    )


def combined(
    method: Method,
    labelled: list[Labelled],
    unseen: list[Labelled],
    seen: dict[str, Seen],
    which: tuple[Path, int],
) -> list[list[float]]:
    """`before_after` of each unseen micrograph where the picker's own score counts too.

    which : folder of the picks, number of the draw
    """
    folder, number = which
    shots = shots_from(labelled, list(range(len(labelled))), 20, number)
    predict = fitted(method, labelled, seen, shots, number)
    rows = []
    for i, j in shots:
        xy, merit = known_picks(folder, labelled[i].name)
        apart = np.linalg.norm(xy - labelled[i].points[j], axis=1)
        if apart.min() < NEAR * DIAMETER_PX:
            k = int(apart.argmin())
            probability = predict(seen[f"{folder}/{labelled[i].name}"][k : k + 1])[0, 0]
            rows.append((probability, merit[k], labelled[i].labels[j] == 0))
    on_picks = ShotsOnPicks(*(np.array(column) for column in zip(*rows, strict=True)))
    alone = [predict(seen[f"{folder}/{m.name}"])[:, 0] for m in unseen]
    merits = [known_picks(folder, m.name)[1] for m in unseen]
    both, _ = combine(np.concatenate(alone), np.concatenate(merits), on_picks)
    parts = np.split(both, np.cumsum([len(a) for a in alone])[:-1])
    return [
        before_after(m, folder, lambda _, part=part: part[:, None], seen, False)
        for m, part in zip(unseen, parts, strict=True)
    ]


def known_picks(folder: Path, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Picks of a micrograph that has some."""
    found = picks_of(folder, name)
    assert found is not None
    return found


def before_after(m: Labelled, folder: Path, predict, seen: dict[str, Seen], inside: bool) -> list[float]:  # type: ignore[no-untyped-def]
    """Best F1 of picker and classifier, false picks removed at 95 % of the true kept by each, F1 at 0.5."""
    xy, merit = known_picks(folder, m.name)
    score = predict(seen[f"{folder}/{m.name}"])[:, 0]
    if inside:
        rows = ((xy > PADDING_PX) & (xy < 4096 - PADDING_PX)).all(1)
        xy, merit, score = xy[rows], merit[rows], score[rows]
    best, removed = [], []
    fixed = match(xy, m.truth, descending(merit), RADIUS_PX)
    for value in (merit, score):
        is_true = match(xy, m.truth, descending(value), RADIUS_PX)
        best.append(best_f1(precision_recall(value, is_true, len(m.truth)))[0])
        removed.append(false_removed_at_recall(value, fixed) or 0.0)
    kept = score >= 0.5
    hits = match(xy[kept], m.truth, descending(score[kept]), RADIUS_PX).sum()
    return [*best, *removed, 2 * hits / (kept.sum() + len(m.truth))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("PICKEROPT_DATA"))
    parser.add_argument("--imagenet", type=Path, help="ImageNet ResNet-18 weights (default: the data's, else timm's)")
    parser.add_argument("--picks", type=Path, nargs="*", default=[], help="more folders of picks")
    parser.add_argument("--rows", default=ROWS)
    parser.add_argument("--shots", type=int, nargs="+", default=SHOTS, help="a class")
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--paper-draws", type=int, default=DRAWS)
    parser.add_argument("--prune-draws", type=int, default=5)
    parser.add_argument("--log", type=Path, help="CSV of all draws; a stopped run goes on from it")
    parser.add_argument("--no-picks", action="store_true", help="the first table only")
    parser.add_argument("--no-shots", action="store_true", help="the second table only")
    args = parser.parse_args()
    if args.data is None or not (Path(args.data) / "empiar10017").is_dir():
        sys.exit("real.py: give the folder that holds empiar10017/ with --data or $PICKEROPT_DATA")
    data = Path(args.data)
    weights = next((data / "weights").glob("resnet18_imagenet*.safetensors"), None)
    micrographs = read_all(data)
    labelled = [m for m in micrographs if len(set(m.labels)) > 1]
    unseen = [m for m in micrographs if len(set(m.labels)) == 1]
    args.picks = [*sorted(p for p in (data / "empiar10017" / "picks").iterdir() if p.is_dir()), *args.picks]
    if args.no_picks:
        args.picks = []
    for method in all_methods(args.imagenet or weights, args.rows.split(",")):
        begun = time.perf_counter()
        seen = look(method, data, micrographs, args.picks)
        if not args.no_shots:
            print(
                "\n| method | shots | macro-F1 | macro-F1, carbon learnt | macro-F1 as named "
                "| AUC | AUC, four more | cost | draws |"
            )
            print("|---|---|---|---|---|---|---|---|---|")
            measure(method, labelled, unseen, seen, args)
        if args.picks and not method.slow:
            print(f"\n{method.name}, 20 shots a class, {args.prune_draws} draws, four micrographs")
            print(
                "| picks | which | best F1, picker | best F1, ours | gain | F1 at 0.5 | false removed, picker | ours |"
            )
            print("|---|---|---|---|---|---|---|---|")
            prune_table(method, labelled, unseen, seen, args)
        print(f"({time.perf_counter() - begun:.0f} s)", flush=True)


def look(method: Method, data: Path, micrographs: list[Labelled], folders: list[Path]) -> dict[str, Seen]:
    """Each micrograph once: its labelled points, then its hand points, and the picks of each folder."""
    seen: dict[str, Seen] = {}
    for m in micrographs:
        sets = {m.name: np.concatenate([m.points, m.hand])}
        for folder in folders:
            found = None if method.slow else picks_of(folder, m.name)
            if found is not None:
                sets[f"{folder}/{m.name}"] = found[0]
        everything = method.look(pixels_of(data, m.name), np.concatenate(list(sets.values())))
        parts = torch.split(everything, [len(points) for points in sets.values()])
        seen |= dict(zip(sets, parts, strict=True))
    return seen


if __name__ == "__main__":
    main()
