"""The YOLO detector against its paper (Wagner et al., Commun. Biol. 2, 218 (2019)).

    python benchmarks/picker_yolo.py [--data DIR] [--parts time,real,simulated] [--width W] [--epochs N]

real : EMPIAR-10017, trained on five micrographs, a sixth chooses the threshold, measured on four others; with
    all, 50 % and 10 % of the labels, of the sixth micrograph as well. Picks are true one to one within half a
    diameter; the padding along the sides does not count; the centre error is a share of the box
simulated : noise levels k = 1, 4, 6, 8, 10 of its Fig. 6. One training on micrographs of all levels, not one
    a level; "AUC" is the area under precision over recall where a box of IoU above 0.6 is true, as there
time : seconds for a micrograph of 4096 x 4096 px at the full width of Table 2, read from a file, with one
    patch and with as many as the particles of EMPIAR-10017 need

--work DIR keeps simulated micrographs, trainings and pickers there; a run that was stopped goes on.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from picking_quality import Picked, PickingQuality, picking_quality
from real_data import DIAMETER, DIAMETER_PX, PADDING_PX, PIXEL_SIZE, RADIUS_PX, pixels_of, read_all

from pickeropt.datasets.simulate import real_species, simulate_micrograph
from pickeropt.datasets.simulate.simulation_config import CRYOLO_SNR, PRESETS
from pickeropt.files import write_bytes_atomically
from pickeropt.io.micrographs import read_micrograph, write_mrc
from pickeropt.models.fitting import inference_dtype
from pickeropt.pickers.picker_records import (
    Material,
    PickedMicrograph,
    PickerTrainingJob,
    TrainedPicker,
    picker_bytes,
    read_picker,
)
from pickeropt.pickers.yolo_network import STRIDE, YoloNetwork, YoloSettings, matched, weights_of
from pickeropt.pickers.yolo_training import PAPERS_IOU, Yolo, area, labelled_boxes, load, train
from pickeropt.pickers.yolo_view import particle_in_view

CPU = torch.device("cpu")
SHARES = (1.0, 0.5, 0.1)
SPECIES = "rubisco"
"""A compact complex of 540 kDa in place of TRPC4, which is not among the simulator's."""
PAPERS_AUC = {1: "above 0.8", 4: "above 0.8", 6: "above 0.8", 8: "above 0.6", 10: ""}
"""What the text says of Fig. 6 (a)."""


class Bench:
    """Folders and settings."""

    def __init__(self, args: argparse.Namespace, work: Path) -> None:
        self.args, self.work = args, work
        self.initial = read_picker(args.initial).state if args.initial else None

    def train(self, name: str, material: Material, epochs: int) -> TrainedPicker:
        args = self.args
        settings = YoloSettings(width=args.width, input_size=args.input_size, epochs=epochs)
        folder = self.work / name
        folder.mkdir(parents=True, exist_ok=True)
        begun = time.perf_counter(), time.process_time()
        said = [begun[0]]

        def progress(what: str, done: int, total: int) -> None:
            if time.perf_counter() - said[0] > 60:
                said[0] = time.perf_counter()
                print(f"{name}: {what} {done}/{total}", file=sys.stderr, flush=True)

        made = train(material, settings, PickerTrainingJob(args.seed, CPU, folder, progress), self.initial)
        wall, cpu = time.perf_counter() - begun[0], time.process_time() - begun[1]
        figures = ", ".join(f"{key} {value:.3f}" for key, value in made.figures.items())
        print(
            f"{name}: {wall:.0f} s ({cpu:.0f} s of one core); held back: {figures}",
            file=sys.stderr,
            flush=True,
        )
        content = picker_bytes("yolo", made, material.training[0].diameter_angstrom, {"seed": args.seed})
        write_bytes_atomically(self.work / f"{name}.safetensors", content)
        return made


def measured(
    picker: Yolo, micrographs: Sequence[PickedMicrograph], margin: float, radius: float
) -> tuple[PickingQuality, float]:
    """The quality of the picks, true within `radius` px, and the paper's AUC; the margin left out."""
    here, scores, true, truths = [], [], [], 0
    for one in micrographs:
        micrograph = read_micrograph(one.path)
        found = picker.detect(micrograph, one.pixel_size, one.diameter_angstrom)
        height, width = micrograph.pixels.shape
        here.append(Picked(found.coordinates, found.scores, one.coordinates).inside((height, width), margin))
        assert found.sizes is not None
        boxes = inside(np.column_stack([found.coordinates, found.sizes, found.scores]), (height, width), margin)
        truth = inside(labelled_boxes(one, picker.settings), (height, width), margin)
        scores.append(boxes[:, 4])
        true.append(matched(boxes[:, :4], truth, PAPERS_IOU)[0])
        truths += len(truth)
    auc = area(np.concatenate(scores), np.concatenate(true), truths)
    return picking_quality(here, picker.threshold, radius), auc


def inside(boxes: np.ndarray, shape: tuple[int, int], margin: float) -> np.ndarray:
    limits = np.array(shape[::-1]) - 1 - margin
    return boxes[((boxes[:, :2] >= margin) & (boxes[:, :2] <= limits)).all(axis=1)]


def cells(at: PickingQuality, box: float) -> str:
    numbers = (at.precision, at.recall, at.f1, at.average_precision, at.centre_error / box)
    return " | ".join(f"{n:.3f}" for n in numbers)


def thinned(labelled: Sequence[PickedMicrograph], share: float, seed: int) -> tuple[PickedMicrograph, ...]:
    """A share of the labels of each micrograph, drawn at random."""
    rng = np.random.default_rng([seed, 9])
    kept = []
    for one in labelled:
        order = rng.permutation(len(one.coordinates))
        kept.append(replace(one, coordinates=one.coordinates[order[: round(share * len(order))]]))
    return tuple(kept)


def real_table(bench: Bench) -> None:
    """Print precision, recall, F1, average precision and centre error on four micrographs of EMPIAR-10017."""
    data = Path(bench.args.data)
    test = {path.stem for path in (data / "empiar10017" / "picks" / "topaz").glob("*.box")}
    own, unseen = [], []
    for one in read_all(data):
        path = bench.work / "micrographs" / f"{one.name}.mrc"
        if not path.exists():
            write_mrc(path, pixels_of(data, one.name), PIXEL_SIZE)
        (unseen if one.name in test else own).append(PickedMicrograph(path, one.truth, PIXEL_SIZE, DIAMETER))
    training, held = own[:-1], own[-1:]
    print("| labels | particles | threshold | picks | precision | recall | F1 | average precision "
          "| centre error | IoU > 0.6: AUC |\n|---|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for share in bench.args.shares:
        part = thinned(training, share, bench.args.seed)
        material = Material(part, thinned(held, share, bench.args.seed))
        made = bench.train(f"real{share:g}", material, bench.args.epochs)
        picker = load(made.settings, made.state, made.threshold, CPU)
        at, auc = measured(picker, unseen, PADDING_PX, RADIUS_PX)
        count = sum(len(one.coordinates) for one in part)
        row = cells(at, DIAMETER_PX * picker.settings.box_diameters)
        print(f"| {share:.0%} | {count} | {picker.threshold:.2f} | {at.picks} | {row} | {auc:.3f} |", flush=True)


def simulated(bench: Bench, k: int, count: int, use: int) -> tuple[PickedMicrograph, ...]:
    """Micrographs of one noise level; nothing on them but particles, as in the paper."""
    species = real_species((SPECIES,))[0]
    config = replace(
        PRESETS["cryolo"],
        shape=(bench.args.side, bench.args.side),
        pixel_size=bench.args.pixel_size,
        snr=(CRYOLO_SNR[k],),
        occupancy=(0.35, 0.35),
        contaminants=(0, 0),
        carbon_probability=0.0,
    )
    made = []
    for number in range(count):
        path = bench.work / "simulated" / f"k{k}_{use}_{number}.mrc"
        truth = path.with_suffix(".csv")
        if not truth.exists():
            one = simulate_micrograph(config, species, np.random.default_rng([bench.args.seed, k, use, number]))
            write_mrc(path, one.pixels, one.pixel_size)
            np.savetxt(truth, one.coordinates, delimiter=",")
        xy = np.loadtxt(truth, delimiter=",", ndmin=2)
        made.append(PickedMicrograph(path, xy, config.pixel_size, species.diameter_angstrom))
    return tuple(made)


def simulated_table(bench: Bench) -> None:
    """Print the quality at each noise level."""
    args = bench.args
    levels = tuple(CRYOLO_SNR)
    seen = tuple(one for k in levels for one in simulated(bench, k, args.micrographs, 1))
    held = tuple(one for k in levels for one in simulated(bench, k, 1, 2))
    diameter = seen[0].diameter_px
    count = sum(len(one.coordinates) for one in seen)
    print(f"{SPECIES}, {diameter:.0f} px a diameter, {args.side} px, {args.micrographs} micrographs a level, "
          f"{count} particles in all\n")  # fmt: skip
    made = bench.train("mixed", Material(seen, held), args.simulated_epochs)
    picker = load(made.settings, made.state, made.threshold, CPU)
    print("| k | SNR | IoU > 0.6: AUC | paper's AUC | within half a diameter: precision | recall | F1 "
          "| average precision | centre error |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for k in levels:
        fresh = simulated(bench, k, args.test_micrographs, 3)
        at, auc = measured(picker, fresh, 0.0, diameter / 2)
        box = diameter * picker.settings.box_diameters
        print(f"| {k} | {CRYOLO_SNR[k]} | {auc:.3f} | {PAPERS_AUC[k]} | {cells(at, box)} |", flush=True)


def time_table(bench: Bench) -> None:
    """Print seconds a micrograph at full width; what the network knows makes no difference."""
    side = 4096
    path = bench.work / "large.mrc"
    write_mrc(path, np.random.default_rng(0).normal(size=(side, side)).astype(np.float32), PIXEL_SIZE)
    torch.manual_seed(0)
    state = weights_of(YoloNetwork(1.0))
    print(f"{side} x {side} px, diameter {DIAMETER_PX:.0f} px, width 1, {torch.get_num_threads()} threads, "
          f"{str(inference_dtype(CPU)).removeprefix('torch.')}\n")  # fmt: skip
    print("| patches of 1024 px | particle there | s a micrograph | s of one core | paper, its CPU |")
    print("|---|---|---|---|---|")
    for patches in (1, 2):
        settings = YoloSettings(patches=patches)
        particle = particle_in_view((side, side), DIAMETER_PX, settings)
        settings = settings.fixed(particle, particle / STRIDE)
        picker = load(vars(settings), state, 0.5, CPU)
        taken, used = [], []
        for _ in range(bench.args.rounds):
            begun = time.perf_counter(), time.process_time()
            picker.detect(read_micrograph(path), PIXEL_SIZE, DIAMETER)
            taken.append(time.perf_counter() - begun[0])
            used.append(time.process_time() - begun[1])
        wall, cpu = np.median(taken), np.median(used)
        print(f"| {patches} x {patches} | {particle:.0f} px | {wall:.2f} | {cpu:.2f} | 1 |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("PICKEROPT_DATA"), metavar="DIR")
    parser.add_argument("--parts", default="time,real,simulated")
    parser.add_argument("--work", type=Path, metavar="DIR", help="else a temporary folder")
    parser.add_argument("--initial", type=Path, metavar="FILE", help="a yolo picker to start from")
    parser.add_argument("--width", type=float, default=0.25, help="of the trainings; Table 2 is 1 (0.25)")
    parser.add_argument("--input-size", type=int, default=512, help="of the trainings, px (512)")
    parser.add_argument("--epochs", type=int, default=40, help="on real micrographs (40)")
    parser.add_argument("--simulated-epochs", type=int, default=40, help="on simulated ones (40)")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of the labels (1 0.5 0.1)")
    parser.add_argument("--micrographs", type=int, default=8, help="simulated a level, to learn (8)")
    parser.add_argument("--test-micrographs", type=int, default=3, help="simulated a level, to measure (3)")
    parser.add_argument("--side", type=int, default=2048, help="of a simulated micrograph, px (2048)")
    parser.add_argument("--pixel-size", type=float, default=1.2, help="of a simulated micrograph, Å/px (1.2)")
    parser.add_argument("--rounds", type=int, default=5, help="of the timing (5)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    parts = args.parts.split(",")
    if "real" in parts and args.data is None:
        sys.exit("picker_yolo.py: give the folder that holds empiar10017/ with --data or $PICKEROPT_DATA")
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(args, args.work or Path(temporary))
        for part, table in (("time", time_table), ("real", real_table), ("simulated", simulated_table)):
            if part in parts:
                table(bench)
                print()


if __name__ == "__main__":
    main()
