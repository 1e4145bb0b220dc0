"""Speed and memory of `prune`, against bounds measured in the same run.

    python benchmarks/throughput.py [--micrographs 4] [--side 4096] [--memory]

End to end (read, resample, forward passes, pool, classify, write) against the bare forward passes of the same
network on tensors of the same size in the same precision; at 300 and at 2,500 picks a micrograph; and
against the way of the published scripts: one .mrc a pick, one pick a batch, 224 px. With --memory also the
peak memory of the whole command for one micrograph, for all of them, and with ten times the picks.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from pickeropt.checkpoint import save_checkpoint
from pickeropt.classifier import PickClassifier
from pickeropt.datasets.simulate import SimulationConfig, make_species, simulate_micrograph
from pickeropt.datasets.views import make_view
from pickeropt.finetune.config import FinetuneConfig
from pickeropt.finetune.recipes import make_classifier
from pickeropt.io.micrographs import read_micrograph, write_mrc
from pickeropt.io.tables import write_coordinate_star
from pickeropt.models.backbone import inference_copy
from pickeropt.models.features import strip_maps
from pickeropt.models.orientations import EIGHT, turn
from pickeropt.prune.config import PruneConfig
from pickeropt.prune.run import prune
from pickeropt.prune.scorer import load_scorer
from pickeropt.training import choose_device, inference_dtype

PIXEL_SIZE, DIAMETER = 1.77, 191.0
CLASSES = ("particle", "background", "contaminant", "carbon")
FEW, MANY = 300, 2500
TENFOLD = 10 * FEW


def make_material(folder: Path, count: int, side: int) -> np.ndarray:
    """`count` files of one simulated micrograph (hard links), three folders of picks, and a model."""
    tile = min(side, 1024)
    config = SimulationConfig(shape=(tile, tile), pixel_size=PIXEL_SIZE, diameter_angstrom=DIAMETER)
    made = simulate_micrograph(config, make_species()[0], np.random.default_rng(0))
    pixels = np.tile(made.pixels, (side // tile, side // tile)).astype(np.float32)
    rng = np.random.default_rng(1)
    (folder / "micrographs").mkdir()
    first = folder / "micrographs" / "m0000.mrc"
    write_mrc(first, pixels, PIXEL_SIZE)
    for number in range(count):
        path = folder / "micrographs" / f"m{number:04d}.mrc"
        if number:
            os.link(first, path)
        for picks in (FEW, MANY, TENFOLD):
            xy = rng.uniform(0, side - 1, (picks, 2))
            write_coordinate_star(folder / f"picks{picks}" / f"{path.stem}.star", xy, rng.normal(size=picks))
    classifier = make_classifier(FinetuneConfig(DIAMETER), CLASSES, None)
    save_checkpoint(folder / "model.safetensors", classifier.eval(), DIAMETER, {})
    return pixels


def forward_seconds(classifier: PickClassifier, pixels: np.ndarray) -> float:
    """The bare forward passes of one micrograph: same tensors, same order, same precision, nothing else."""
    spec, device = classifier.spec, choose_device("auto")
    dtype = inference_dtype(device)
    backbone = inference_copy(classifier.backbone, device, dtype)
    views = [make_view(pixels, DIAMETER / PIXEL_SIZE, d)[0].to(device, dtype) for d in spec.view_diameters]
    inputs = [turn(view, o).contiguous() for view in views for o in EIGHT[: spec.orientations]]
    with torch.inference_mode():
        strip_maps(backbone, inputs[-1])
        begun = time.perf_counter()
        for x in inputs:
            strip_maps(backbone, x)
        if device.type == "cuda":
            torch.cuda.synchronize()
    return time.perf_counter() - begun


def prune_seconds(folder: Path, picks: int) -> float:
    """Seconds a micrograph of a whole `prune`, the model already loaded."""
    scorer = load_scorer(folder / "model.safetensors")
    config = PruneConfig(micrographs=(folder / "micrographs",), out=folder / f"pruned{picks}", overwrite=True)
    begun = time.perf_counter()
    summary = prune([folder / f"picks{picks}"], config, scorer)
    seconds = (time.perf_counter() - begun) / summary.micrographs
    config.out.rename(folder / f"done{picks}_{time.monotonic_ns()}")
    return seconds


class OneBoxAFile(Dataset[tuple[torch.Tensor, str]]):
    """Boxes as the published scripts read them: a file each, 8-bit, 224 px, three channels."""

    def __init__(self, files: list[Path]):
        self.files = files
        self.transform = transforms.Compose(
            [
                transforms.ToPILImage(),
                transforms.Resize(224),
                transforms.ToTensor(),
                transforms.Lambda(lambda x: x.repeat(3, 1, 1)),
                transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, str]:
        return self.transform(read_micrograph(self.files[index]).pixels), self.files[index].name


def published_seconds(folder: Path, pixels: np.ndarray, picks: int = 100) -> tuple[float, float]:
    """Seconds a pick to cut it out as an .mrc file, and to classify that file by the published way.

    PickerOptimizer's predict.py (2022): torchvision's ResNet-18 in float32, 224 px, one pick a batch. Its
    four loader processes are left out, since on two cores they make it slower.
    """
    network = torchvision.models.resnet18(num_classes=len(CLASSES)).eval()
    rng = np.random.default_rng(2)
    side = round(1.5 * DIAMETER / PIXEL_SIZE)
    files = [folder / "boxes" / f"{number}.mrc" for number in range(picks)]
    begun = time.perf_counter()
    for file in files:
        top, left = rng.integers(0, pixels.shape[0] - side, 2)
        write_mrc(file, pixels[top : top + side, left : left + side].copy(), PIXEL_SIZE)
    cut = time.perf_counter() - begun
    begun = time.perf_counter()
    with torch.inference_mode():
        for box, _ in DataLoader(OneBoxAFile(files), batch_size=1):
            network(box).argmax(1)
    return cut / picks, (time.perf_counter() - begun) / picks


def peak_memory(folder: Path, picks: list[Path], out: str) -> float:
    """Peak resident memory of `pickeropt prune` as a process of its own, MB."""
    command = [sys.executable, "-m", "pickeropt", "prune", *map(str, picks)]
    command += ["--micrographs", str(folder / "micrographs"), "--model", str(folder / "model.safetensors")]
    child = subprocess.Popen([*command, "--out", str(folder / out)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = status
    if status:
        sys.exit(f"throughput.py: {' '.join(command)} failed")
    return usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--micrographs", type=int, default=4)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pixels = make_material(folder, args.micrographs, args.side)
        classifier = load_scorer(folder / "model.safetensors").checkpoint.classifier
        print(f"{args.micrographs} micrographs of {args.side} x {args.side} px, {classifier.spec.passes}, "
              f"{inference_dtype(choose_device('auto'))}, {torch.get_num_threads()} threads")  # fmt: skip
        shares, few, many = [], [], []
        for _ in range(args.rounds):
            before = forward_seconds(classifier, pixels)
            few.append(prune_seconds(folder, FEW))
            shares.append((before + forward_seconds(classifier, pixels)) / 2 / few[-1])
            many.append(prune_seconds(folder, MANY))
        middle, crowded = statistics.median(few), statistics.median(many)
        print(f"{FEW} picks: {middle:.2f} s a micrograph, {FEW / middle:.0f} picks/s")
        print(f"{MANY} picks: {crowded:.2f} s a micrograph, {MANY / crowded:.0f} picks/s, "
              f"{crowded / middle:.2f} x the time of {FEW}")  # fmt: skip
        cut, slow = published_seconds(folder, pixels)
        for what, seconds in (("classifying", slow), ("cutting and classifying", cut + slow)):
            print(f"one .mrc a pick, one pick a batch, 224 px, {what}: {1 / seconds:.0f} picks/s; "
                  f"ours is {FEW / middle * seconds:.1f} x that at {FEW} picks, "
                  f"{MANY / crowded * seconds:.1f} x at {MANY}")  # fmt: skip
        if args.memory:
            one = [folder / f"picks{FEW}" / "m0000.star"]
            print(f"peak memory: {peak_memory(folder, one, 'a'):.0f} MB for 1 micrograph with {FEW} picks, "
                  f"{peak_memory(folder, [folder / f'picks{FEW}'], 'b'):.0f} MB for {args.micrographs}, "
                  f"{peak_memory(folder, [folder / f'picks{TENFOLD}'], 'c'):.0f} MB for "
                  f"{args.micrographs} with {TENFOLD} picks each")  # fmt: skip
        print(f"end-to-end share of the forward rate: {statistics.median(shares):.2f}")


if __name__ == "__main__":
    main()
