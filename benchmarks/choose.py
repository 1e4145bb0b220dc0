"""How `--recipe default` was chosen: leave one micrograph out, on the six that have all kinds of labels.

    python benchmarks/choose.py --data DIR [--draws 6] [--init shipped|imagenet]

Every micrograph is asked about by classifiers that took their shots from the five others; predictions are
pooled over the six before macro-F1 (four classes, and three without carbon, which has only four points
outside one micrograph) and AUC on the hand labels are taken. The four micrographs of `real.py`'s
last AUC column and of its pruning table are never read.
"""

import argparse
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from methods import DEVICE
from real_data import CLASSES, DIAMETER, DIAMETER_PX, Labelled, pixels_of, read_all
from sklearn.metrics import f1_score, roc_auc_score

from pickeropt.finetune.finetune_config import FinetuneConfig
from pickeropt.finetune.recipes import PENALTY, fresh_head, make_classifier
from pickeropt.models.backbone import inference_copy
from pickeropt.models.classifier import PickClassifier
from pickeropt.models.features import describe_micrograph
from pickeropt.models.fitting import fit_head, inference_dtype
from pickeropt.shots import choose_shots

WINDOWS = ((0.5, 1.2, 2.7), (0.5, 0.8, 1.2, 1.8, 2.7), (0.5, 1.2), (1.8,))


@dataclass(frozen=True)
class Variant:
    """What is set beside the default."""

    views: tuple[float, ...] = (62.0,)
    orientations: int = 2
    windows: tuple[float, ...] = WINDOWS[0]
    centred: bool = True
    penalty: float = PENALTY
    loss_weights: tuple[float, ...] = (1.0, 0.3)


VARIANTS = (
    Variant(),
    Variant(orientations=1),
    Variant(orientations=4),
    Variant(views=(41.0,)),
    Variant(views=(62.0, 41.0)),
    *(Variant(windows=w) for w in WINDOWS[1:]),
    Variant(centred=False),
    Variant(penalty=100.0),
    Variant(penalty=2000.0),
    Variant(loss_weights=(1.0, 0.0)),
)


def measure(variant: Variant, seen: list[torch.Tensor], micrographs: list[Labelled], args: argparse.Namespace) -> str:
    """One row of the table."""
    config = FinetuneConfig(DIAMETER, init=args.init, weights=args.weights, loss_weights=variant.loss_weights)
    plain = make_classifier(config, CLASSES, None)
    # without the pretraining's opinion, which is of one geometry only
    spec = replace(plain.spec, view_diameters=variant.views, windows=variant.windows, parents=(), prior_weight=0.0)
    classifier = PickClassifier(spec, plain.backbone)
    cells = []
    for per_class in (10, 30):
        figures = [_draw(classifier, variant, seen, micrographs, (per_class, number)) for number in range(args.draws)]
        cells += [f"{np.mean(column):.3f} ± {np.std(column):.3f}" for column in zip(*figures, strict=True)]
    return " | ".join(cells)


def _draw(
    classifier: PickClassifier,
    variant: Variant,
    seen: list[torch.Tensor],
    micrographs: list[Labelled],
    which: tuple[int, int],
) -> tuple[float, float, float]:
    per_class, number = which
    truth, said, score, particle = [], [], [], []
    for held, micrograph in enumerate(micrographs):
        rows = [(i, j) for i, m in enumerate(micrographs) if i != held for j in range(len(m.labels))]
        labels = np.array([micrographs[i].labels[j] for i, j in rows])
        chosen = choose_shots(labels, np.array([i for i, _ in rows]), per_class, number)
        features = torch.stack([seen[rows[c][0]][rows[c][1]] for c in chosen])
        fresh_head(classifier, number)
        fit_head(
            classifier.head,
            features,
            torch.from_numpy(labels[chosen]),
            variant.loss_weights,
            variant.penalty / len(chosen),
        )
        with torch.no_grad():
            answer = torch.softmax(classifier.logits(seen[held]), 1).numpy()
        points = len(micrograph.labels)
        truth.append(micrograph.labels)
        said.append(answer[:points].argmax(1))
        score.append(answer[points:, 0])
        particle.append(micrograph.is_particle)
    each = f1_score(np.concatenate(truth), np.concatenate(said), labels=range(4), average=None, zero_division=0)
    auc = roc_auc_score(np.concatenate(particle), np.concatenate(score))
    return float(each.mean()), float(each[:3].mean()), float(auc)


def look(variant: Variant, micrographs: list[Labelled], args: argparse.Namespace) -> list[torch.Tensor]:
    """Features of the labelled and of the hand-labelled points of each micrograph."""
    config = FinetuneConfig(DIAMETER, init=args.init, weights=args.weights)
    classifier = make_classifier(config, CLASSES, None)
    spec = replace(
        classifier.spec,
        view_diameters=variant.views,
        windows=variant.windows,
        orientations=variant.orientations,
        centred=variant.centred,
    )
    backbone = inference_copy(classifier.backbone, DEVICE, inference_dtype(DEVICE))
    data = Path(args.data)
    return [
        describe_micrograph(backbone, spec, pixels_of(data, m.name), DIAMETER_PX, np.concatenate([m.points, m.hand]))
        for m in micrographs
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("PICKEROPT_DATA"))
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--init", default="shipped")
    parser.add_argument("--weights", type=Path, help="ImageNet weights for --init imagenet")
    args = parser.parse_args()
    if args.data is None or not (Path(args.data) / "empiar10017").is_dir():
        sys.exit("choose.py: give the folder that holds empiar10017/ with --data or $PICKEROPT_DATA")
    micrographs = [m for m in read_all(Path(args.data)) if len(set(m.labels)) > 1]
    print("| variant | 10 shots: macro-F1 | without carbon | AUC | 30 shots: macro-F1 | without carbon | AUC |")
    print("|---|---|---|---|---|---|---|")
    for variant in VARIANTS:
        seen = look(variant, micrographs, args)
        changed = [f"{k} {v}" for k, v in vars(variant).items() if v != getattr(VARIANTS[0], k)]
        print(f"| {', '.join(changed) or 'default'} | {measure(variant, seen, micrographs, args)} |", flush=True)


if __name__ == "__main__":
    main()
