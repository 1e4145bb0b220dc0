"""Cross-validation on real micrographs: EMPIAR-10017, one micrograph asked about at a time.

    python benchmarks/leave_one_out.py --data DIR [--rows default,imagenet,crops,general] [--draws 20]

Each of the six micrographs that have all kinds of labels is asked about by a classifier that took its
shots from the five others. What they say is pooled over the six before F1 is taken, so that carbon is all of
its 124 points and not, as in half of the draws of `real.py`, the four of one micrograph; AUC on the hand
labels is taken on each micrograph, then averaged. Classes count as equally likely. Probabilities keep their
temperature of 1, which moves no class and hardly a rank. `--recipe default` was chosen on these six, mostly
in this very way, so its figures flatter it.
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from methods import Default, General, Method, Seen, all_methods
from numpy.typing import NDArray
from real import DRAWS, SHOTS, fitted, hand_auc, look, shots_from
from real_data import CLASSES, Labelled, read_all
from sklearn.metrics import f1_score


def cross_validated(
    method: Method, micrographs: list[Labelled], seen: dict[str, Seen], per_class: int, number: int
) -> NDArray[np.float64]:
    """(6,) macro-F1, F1 of each class, AUC, of one draw of shots for each micrograph."""
    truth, said, aucs = [], [], []
    for held, m in enumerate(micrographs):
        others = [i for i in range(len(micrographs)) if i != held]
        shots = shots_from(micrographs, others, per_class, number)
        answer = fitted(method, micrographs, seen, shots, number)(seen[m.name])
        truth.append(m.labels)
        said.append((answer[: len(m.labels)] / [method.odds, 1, 1, 1]).argmax(1))
        aucs.append(hand_auc([m], [answer]))
    each = f1_score(np.concatenate(truth), np.concatenate(said), labels=range(4), average=None, zero_division=0)
    return np.array([each.mean(), *each, np.mean(aucs)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("PICKEROPT_DATA"))
    parser.add_argument("--rows", default="crops,imagenet,general,default")
    parser.add_argument("--shots", type=int, nargs="+", default=SHOTS, help="a class")
    parser.add_argument("--draws", type=int, default=DRAWS)
    args = parser.parse_args()
    if args.data is None or not (Path(args.data) / "empiar10017").is_dir():
        sys.exit("leave_one_out.py: give the folder that holds empiar10017/ with --data or $PICKEROPT_DATA")
    data = Path(args.data)
    weights = next((data / "weights").glob("resnet18_imagenet*.safetensors"), None)
    micrographs = [m for m in read_all(data) if len(set(m.labels)) > 1]
    print(f"| method | shots | macro-F1 | {' | '.join(CLASSES)} | AUC |")
    print("|---" * (4 + len(CLASSES)) + "|")
    for method in all_methods(weights, args.rows.split(",")):
        if isinstance(method, Default) and not isinstance(method, General):
            method.config = replace(method.config, validation_fraction=0.0)
        seen = look(method, data, micrographs, [])
        for per_class in args.shots:
            draws = [cross_validated(method, micrographs, seen, per_class, number) for number in range(args.draws)]
            cells = [
                f"{mean:.3f} ± {spread:.3f}" for mean, spread in zip(np.mean(draws, 0), np.std(draws, 0), strict=True)
            ]
            print(f"| {method.name} | {per_class} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
