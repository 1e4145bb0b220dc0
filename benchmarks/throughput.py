"""Speed and memory of `prune`, against bounds measured in the same run.

    python benchmarks/throughput.py [--micrographs 4] [--side 4096] [--memory]

End to end (read, check the frame, resample, forward passes, pool, classify, write) against the bare forward
passes of the same network on tensors of the same size in the same precision: timm's network as it is, and
with its stem in bands of rows as pickeropt runs it; at 300 and at 2,500 picks a micrograph; and against
the way of the published scripts: one .mrc a pick, one pick a batch, 224 px, cutting them out included.
With --memory also the peak memory of the whole command for one micrograph, for all of them, and with ten
times the picks.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from pickeropt.datasets.simulate import SimulationConfig, make_species, simulate_micrograph
from pickeropt.finetune.finetune_config import FinetuneConfig
from pickeropt.finetune.recipes import make_classifier
from pickeropt.io.micrographs import read_micrograph, write_mrc
from pickeropt.io.relion_star import write_coordinate_star
from pickeropt.models.backbone import fuse_batch_norm, inference_copy
from pickeropt.models.classifier import PickClassifier, save_checkpoint
from pickeropt.models.features import EIGHT, strip_maps, turn
from pickeropt.models.fitting import choose_device, inference_dtype
from pickeropt.models.views import make_view
from pickeropt.prune.prune_config import PruneConfig
from pickeropt.prune.pruning import prune
from pickeropt.prune.scoring import load_scorer

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


def forward_seconds(classifier: PickClassifier, pixels: np.ndarray, plain: bool = True) -> float:
    """The bare forward passes of one micrograph: same tensors, same order, same precision, nothing else.

    plain : by timm's network with batch norm folded in; else by the same with its stem in bands
    """
    spec, device = classifier.spec, choose_device("auto")
    dtype = inference_dtype(device)
    backbone = inference_copy(classifier.backbone, device, dtype)
    if plain:
        backbone = deepcopy(classifier.backbone).eval().requires_grad_(False)
        fuse_batch_norm(backbone)
        backbone = backbone.to(device=device, dtype=dtype, memory_format=torch.channels_last)
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


def cut_seconds(folder: Path, pixels: np.ndarray) -> float:
    """Seconds a pick to cut it out as an .mrc file of its own, into `boxes/`."""
    rng = np.random.default_rng(2)
    side = round(1.5 * DIAMETER / PIXEL_SIZE)
    begun = time.perf_counter()
    for number in range(FEW):
        top, left = rng.integers(0, pixels.shape[0] - side, 2)
        box = pixels[top : top + side, left : left + side].copy()
        write_mrc(folder / "boxes" / f"{number}.mrc", box, PIXEL_SIZE)
    return (time.perf_counter() - begun) / FEW


def published_seconds(folder: Path, workers: int) -> float:
    """Seconds a pick to classify the files of `boxes/` as PickerOptimizer's predict.py (2022) does.

    torchvision's ResNet-18 in float32, 224 px, one pick a batch. It has four loader processes; none is
    faster on two cores.
    """
    network = torchvision.models.resnet18(num_classes=len(CLASSES)).eval()
    files = sorted((folder / "boxes").iterdir())
    begun = time.perf_counter()
    with torch.inference_mode():
        for box, _ in DataLoader(OneBoxAFile(files), batch_size=1, num_workers=workers):
            network(box).argmax(1)
    return (time.perf_counter() - begun) / len(files)


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
        shares, own, few, many = [], [], [], []
        for _ in range(args.rounds):
            before = forward_seconds(classifier, pixels)
            few.append(prune_seconds(folder, FEW))
            shares.append((before + forward_seconds(classifier, pixels)) / 2 / few[-1])
            own.append(forward_seconds(classifier, pixels, plain=False) / few[-1])
            many.append(prune_seconds(folder, MANY))
        middle, crowded = statistics.median(few), statistics.median(many)
        print(f"{FEW} picks: {middle:.2f} s a micrograph, {FEW / middle:.0f} picks/s")
        print(f"{MANY} picks: {crowded:.2f} s a micrograph, {MANY / crowded:.0f} picks/s, "
              f"{crowded / middle:.2f} x the time of {FEW}")  # fmt: skip
        cut = cut_seconds(folder, pixels)
        for workers in (4, 0):
            slow = cut + published_seconds(folder, workers)
            print(f"one .mrc a pick, one pick a batch, 224 px, {workers or 'no'} loader processes: "
                  f"{1 / slow:.0f} picks/s; ours is {FEW / middle * slow:.1f} x that at {FEW} picks, "
                  f"{MANY / crowded * slow:.1f} x at {MANY}")  # fmt: skip
        if args.memory:
            one = [folder / f"picks{FEW}" / "m0000.star"]
            print(f"peak memory: {peak_memory(folder, one, 'a'):.0f} MB for 1 micrograph with {FEW} picks, "
                  f"{peak_memory(folder, [folder / f'picks{FEW}'], 'b'):.0f} MB for {args.micrographs}, "
                  f"{peak_memory(folder, [folder / f'picks{TENFOLD}'], 'c'):.0f} MB for "
                  f"{args.micrographs} with {TENFOLD} picks each")  # fmt: skip
        print(f"share of the forward rate with the stem in bands: {statistics.median(own):.2f}")
        print(f"end-to-end share of the forward rate: {statistics.median(shares):.2f}")


if __name__ == "__main__":
    main()
