"""The general model, which has seen no shot, on real micrographs of contaminated and of empty grids.

    python benchmarks/zero_shot.py --data DIR [--diameters 12 18] [--picks N]

DIR holds contaminants/KIND/*.png: 22 micrographs of many specimens, 8 times binned or so, sorted by what is
on them (MicAssess). A blob finder of a few lines stands for a picker without judgement: the darkest
blobs of the assumed diameter, spread out. On the kinds that hold no particles every one of its picks is
wrong, and the table says how many of them the model removes, at P(particle) 0.5 and at the threshold
that keeps 95 % of the curated particles of EMPIAR-10017. On the kinds that do hold particles most picks
are particles, but nobody has counted: what is removed there is no error rate. The micrographs took
part in the shipped backbone's pretraining without labels (rotation term only).
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import torch
from methods import DEVICE
from numpy.typing import NDArray
from PIL import Image
from real_data import DIAMETER_PX, pixels_of, read_all
from scipy.ndimage import gaussian_laplace, maximum_filter

from pickeropt.models.backbone import inference_copy
from pickeropt.models.classifier import general_checkpoint
from pickeropt.models.features import describe_micrograph
from pickeropt.models.fitting import inference_dtype

PARTICLES = ("0Great", "1Decent")
"""Kinds that hold particles, as their curators say."""


def blobs(pixels: NDArray[np.float32], diameter: float, count: int) -> NDArray[np.float64]:
    """(m, 2) x, y of the darkest blobs of a diameter in px, at most `count`, half a diameter apart."""
    response = gaussian_laplace(pixels, diameter / 2 / np.sqrt(2))
    peak = response == maximum_filter(response, size=max(3, round(diameter)))
    peak[: round(diameter / 2)] = peak[-round(diameter / 2) :] = False
    peak[:, : round(diameter / 2)] = peak[:, -round(diameter / 2) :] = False
    y, x = np.nonzero(peak)
    order = np.argsort(-response[y, x], kind="stable")[:count]
    return np.stack([x[order], y[order]], 1).astype(np.float64)


class General:
    """P(particle) and the class named, of points of a micrograph."""

    def __init__(self) -> None:
        self.classifier = general_checkpoint().classifier
        self.backbone = inference_copy(self.classifier.backbone, DEVICE, inference_dtype(DEVICE))

    def ask(self, pixels: NDArray[np.float32], diameter: float, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(m, k) probabilities of points (m, 2), x and y px."""
        features = describe_micrograph(self.backbone, self.classifier.spec, pixels, diameter, points)
        with torch.no_grad():
            found: NDArray[np.float64] = self.classifier.probabilities(features).double().numpy()
        return found


def strict_threshold(general: General, data: Path) -> float:
    """What keeps 95 % of the curated particles of the ten micrographs of EMPIAR-10017."""
    scores = [general.ask(pixels_of(data, m.name), DIAMETER_PX, m.truth)[:, 0] for m in read_all(data)]
    return float(np.quantile(np.concatenate(scores), 0.05))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("PICKEROPT_DATA"))
    parser.add_argument("--diameters", type=float, nargs="+", default=[12.0, 18.0], help="px")
    parser.add_argument("--picks", type=int, default=150, help="a micrograph, at most")
    args = parser.parse_args()
    if args.data is None or not (Path(args.data) / "contaminants").is_dir():
        sys.exit("zero_shot.py: give the folder that holds contaminants/ with --data or $PICKEROPT_DATA")
    general, data = General(), Path(args.data)
    names = general.classifier.spec.class_names
    strict = strict_threshold(general, data)
    print(f"threshold that keeps 95 % of the curated particles of EMPIAR-10017: {strict:.3f}\n")
    print(f"| kind | diameter, px | micrographs | picks | removed at 0.5 | at {strict:.3f} | named |")
    print("|---|---|---|---|---|---|---|")
    for diameter in args.diameters:
        wrong = []
        for folder in sorted(p for p in (data / "contaminants").iterdir() if p.is_dir()):
            files = sorted(folder.glob("*.png"))
            answers = []
            for file in files:
                with Image.open(file) as image:
                    pixels = np.asarray(image.convert("L"), dtype=np.float32)
                answers.append(general.ask(pixels, diameter, blobs(pixels, diameter, args.picks)))
            told = np.concatenate(answers)
            if folder.name not in PARTICLES:
                wrong.append(told)
            print_row(folder.name, (diameter, len(files)), told, names, strict)
        print_row("all without particles", (diameter, 0), np.concatenate(wrong), names, strict)


def print_row(
    kind: str, of: tuple[float, int], told: NDArray[np.float64], names: tuple[str, ...], strict: float
) -> None:
    """of : diameter, micrographs; told : (m, k) probabilities."""
    said = np.bincount(told.argmax(1), minlength=len(names))
    named = ", ".join(f"{name} {count}" for name, count in zip(names, said.tolist(), strict=True) if count)
    half, less = (float((told[:, 0] < threshold).mean()) for threshold in (0.5, strict))
    print(f"| {kind} | {of[0]:g} | {of[1] or ''} | {len(told)} | {half:.1%} | {less:.1%} | {named} |")


if __name__ == "__main__":
    main()
