"""DeepEM: seconds a micrograph, and picks against true particles, real and simulated.

    python benchmarks/picker_deepem.py [--parts speed,real,snr,klh] [--data DIR] [--steps 1000]

speed: the four published geometries on micrographs of the published sizes, at 20 px, four turns.
real: EMPIAR-10017 by training size. Six micrographs to learn from, of which one is held back for threshold
and learning error; the four others are measured. With and without the learning cycle.
snr: simulated ribosomes at the ratios of the paper's Fig. 6 (the simulator's preset `deepem`).
klh: side and top views of a simulated hollow cylinder of the size of KLH, box 272 px.
Particles nearer to an edge than half a box are not counted where micrographs are simulated; nor the padding
of EMPIAR-10017. Every table is of one seed.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from picking_quality import Picked, PickingQuality, picking_quality
from real_data import DIAMETER, DIAMETER_PX, PADDING_PX, PIXEL_SIZE, RADIUS_PX, pixels_of, read_all

from pickeropt.datasets.simulate import SimulationConfig, Species, real_species, simulate_micrograph
from pickeropt.datasets.simulate.simulation_config import DEEPEM_SNR, PRESETS
from pickeropt.io.micrographs import read_micrograph, write_mrc
from pickeropt.pickers.deepem_network import PUBLISHED, STEP, DeepEMNetwork, DeepEMSettings, scan
from pickeropt.pickers.deepem_training import load, train
from pickeropt.pickers.picker_records import Material, PickedMicrograph, PickerTrainingJob, TrainedPicker
from pickeropt.pickers.picking import chosen

CPU = torch.device("cpu")
HELD_BACK = 4
"""Simulated micrographs that choose the threshold."""
EQUAL = "precision = recall"
"""The paper reads "both ~90 % at the same time" off its curves: the threshold is chosen with the truth."""
PAPER_SECONDS = {"klh": 7300, "19s": 790, "26s": 1160, "inflammasome": 560}
"""On the paper's processor; as it prints them for 19S and inflammasome, perhaps swapped."""
QUALITY = "precision | recall | F1 | average precision | centre error / box"
KLH_PIXEL_SIZE, KLH_SIZE = 2.2, 400.0
"""Å/px and Å; 272 px of it are 1.5 times its size."""
KLH_ROUND = (100.0, 175.0, 200.0)
"""Å: inner and outer radius of the cylinder, half its height."""


def speed() -> None:
    """Seconds on the clock, which other programs lengthen, and of all processors together."""
    threads = torch.get_num_threads()
    print(f"| geometry, step {STEP} px | micrograph | windows, four turns each | seconds, {threads} threads, "
          "float32 | processor seconds | paper, one CPU |")  # fmt: skip
    print("|---" * 6 + "|")
    for name, geometry in sorted(PUBLISHED.items(), key=lambda item: item[1].box):
        height, width = (2048, 2048) if name == "klh" else (1919, 1855)
        network = DeepEMNetwork(geometry).eval().requires_grad_(False)
        view = torch.randn(1, 1, height, width)
        scan(network, view[:, :, : geometry.box + 200], STEP)
        begun, used = time.perf_counter(), time.process_time()
        cells = scan(network, view, STEP).numel()
        seconds, used = time.perf_counter() - begun, time.process_time() - used
        print(f"| {name}, box {geometry.box} | {width} x {height} | {cells} | {seconds:.1f} | {used:.1f} "
              f"| {PAPER_SECONDS[name]} s |", flush=True)  # fmt: skip


def learnt(material: Material, settings: DeepEMSettings, seed: int) -> tuple[TrainedPicker, float]:
    """A training in a folder of its own, and its seconds."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        job = PickerTrainingJob(seed, CPU, Path(folder), lambda what, done, total: None)
        trained = train(material, settings, job, None)
    return trained, time.perf_counter() - begun


def measured(
    trained: TrainedPicker, test: Sequence[PickedMicrograph], radius: float, margin: float
) -> tuple[PickingQuality, float, float]:
    """On micrographs that were not learnt from.

    returns : quality; where precision and recall are the same, at a threshold chosen with the truth in
        hand; seconds a micrograph without reading it
    """
    picker = load(trained.settings, trained.state, trained.threshold, CPU)
    picked, seconds = [], 0.0
    for one in test:
        micrograph = read_micrograph(one.path)
        begun = time.perf_counter()
        found = picker.detect(micrograph, one.pixel_size, one.diameter_angstrom)
        seconds += time.perf_counter() - begun
        here = Picked(found.coordinates, found.scores, one.coordinates)
        picked.append(here.inside(micrograph.pixels.shape, margin))
    curve = [picking_quality(picked, t, radius) for t in np.linspace(0.02, 0.98, 49)]
    even = min(curve, key=lambda q: abs(q.precision - q.recall) if q.recall else 1.0)
    equal = (even.precision + even.recall) / 2
    return picking_quality(picked, trained.threshold, radius), equal, seconds / len(test)


def words(q: PickingQuality, box: float) -> str:
    return (f"{q.precision:.3f} | {q.recall:.3f} | {q.f1:.3f} | {q.average_precision:.3f} "
            f"| {q.centre_error / box:.3f}")  # fmt: skip


def real(args: argparse.Namespace, settings: DeepEMSettings, folder: Path) -> None:
    labelled = []
    for one in read_all(args.data):
        path = (args.mrc or folder) / f"{one.name}.mrc"
        if not path.is_file():
            write_mrc(path, pixels_of(args.data, one.name), PIXEL_SIZE)
        labelled.append(PickedMicrograph(path, one.truth, PIXEL_SIZE, DIAMETER))
    picks = {path.stem for path in (args.data / "empiar10017" / "picks" / "crYOLO").glob("*.box")}
    test = [one for one in labelled if one.path.stem in picks]
    rest = [one for one in labelled if one.path.stem not in picks]
    box = settings.box_diameters * DIAMETER_PX
    print(f"EMPIAR-10017, {len(rest) - 1} micrographs to learn from, 1 held back, {len(test)} measured\n")
    print(f"| particles | rounds | windows learnt from | threshold | {QUALITY} | training, s | s a micrograph |")
    print("|---" * 11 + "|")
    for rounds in args.rounds:
        for size in args.sizes:
            material = Material(chosen(rest[:-1], size, args.seed), (rest[-1],))
            trained, seconds = learnt(material, replace(settings, rounds=rounds), args.seed)
            quality, _, each = measured(trained, test, RADIUS_PX, PADDING_PX)
            f = trained.figures
            windows = f"{f['particles']:.0f} + {f['other windows']:.0f}"
            print(f"| {size} | {f['rounds']:.0f} | {windows} | {trained.threshold:.2f} "
                  f"| {words(quality, box)} | {seconds:.0f} | {each:.1f} |", flush=True)  # fmt: skip


def simulated(
    folder: Path, config: SimulationConfig, species: Species, diameter: float, count: int, seed: int
) -> list[PickedMicrograph]:
    """Micrographs with their truth. diameter : Å, as it is given to the picker"""
    folder.mkdir()
    made = []
    for number in range(count):
        one = simulate_micrograph(config, species, np.random.default_rng([seed, number]))
        path = folder / f"{number:03d}.mrc"
        write_mrc(path, one.pixels, one.pixel_size)
        made.append(PickedMicrograph(path, one.coordinates, one.pixel_size, diameter))
    return made


def on_simulated(
    made: list[PickedMicrograph], test: int, settings: DeepEMSettings, seed: int
) -> tuple[TrainedPicker, PickingQuality, float, int]:
    """Learnt from all but the last `test` micrographs (some held back), measured on those."""
    material = Material(tuple(made[: -test - HELD_BACK]), tuple(made[-test - HELD_BACK : -test]))
    trained, _ = learnt(material, settings, seed)
    diameter = made[0].diameter_px
    margin = 0.5 * settings.box_diameters * diameter + settings.scan_step() / settings.diameter() * diameter
    quality, equal, _ = measured(trained, made[-test:], 0.5 * diameter, margin)
    return trained, quality, equal, sum(len(one.coordinates) for one in material.training)


def snr(args: argparse.Namespace, settings: DeepEMSettings, folder: Path) -> None:
    species = real_species(("ribosome_70s",))[0]
    pixel_size, side = 3.0, 1024
    print(f"70S ribosome, {side} px micrographs of {pixel_size:g} Å/px, {args.micrographs} to learn from\n")
    print(f"| SNR | particles to learn from | measured on | threshold | {QUALITY} | {EQUAL} |")
    print("|---" * 10 + "|")
    for ratio in args.ratios:
        config = replace(
            PRESETS["deepem"], shape=(side, side), pixel_size=pixel_size, snr=(ratio,), occupancy=(0.4, 0.4)
        )
        count = args.micrographs + HELD_BACK + args.test
        made = simulated(folder / f"snr{ratio}", config, species, species.diameter_angstrom, count, args.seed)
        trained, quality, equal, n = on_simulated(made, args.test, settings, args.seed)
        box = settings.box_diameters * made[0].diameter_px
        print(f"| {ratio:g} | {n} | {quality.truths} | {trained.threshold:.2f} | {words(quality, box)} "
              f"| {equal:.3f} |", flush=True)  # fmt: skip


def cylinder() -> Species:
    """A hollow cylinder of the size of KLH: six tiers, notched ten times around."""
    rng = np.random.default_rng(8)
    inner, outer, half = KLH_ROUND
    count = 8_000
    radius = np.sqrt(rng.uniform(inner**2, outer**2, count))
    turn, z = rng.uniform(0, 2 * np.pi, count), rng.uniform(-half, half, count)
    tier = np.cos(2 * np.pi * 6 * (z + half) / (2 * half)) < 0.4
    notch = np.cos(10 * turn) < 0.7
    points = np.stack([radius * np.cos(turn), radius * np.sin(turn), z], axis=1)[tier & notch]
    volume = np.pi * (outer**2 - inner**2) * 2 * half / len(points) * 0.6
    return Species("klh_like", points, np.full(len(points), volume), 2 * float(np.hypot(outer, half)))


def klh(args: argparse.Namespace, settings: DeepEMSettings, folder: Path) -> None:
    config = SimulationConfig(
        shape=(2048, 2048), pixel_size=KLH_PIXEL_SIZE, occupancy=(1.2, 1.2), preferred=(1.0, 1.0),
        contaminants=(1, 4), carbon_probability=0.3,
        voltage_kv=120.0, defocus_um=(1.5, 2.5), dose=(6.0, 12.0), filtered_probability=0.0,
    )  # fmt: skip
    count = args.micrographs + HELD_BACK + args.test
    made = simulated(folder / "klh", config, cylinder(), KLH_SIZE, count, args.seed)
    print(f"KLH-like side and top views, 2048 px micrographs of {KLH_PIXEL_SIZE} Å/px, box 272 px\n")
    columns = "box learnt at, px | rounds | particles to learn from | measured on | threshold"
    print(f"| {columns} | {QUALITY} | {EQUAL} |")
    print("|---" * 11 + "|")
    for rounds in args.rounds:
        trained, quality, equal, n = on_simulated(made, args.test, replace(settings, rounds=rounds), args.seed)
        box = settings.box_diameters * made[0].diameter_px
        print(f"| {settings.layers().box} | {trained.figures['rounds']:.0f} | {n} | {quality.truths} "
              f"| {trained.threshold:.2f} | {words(quality, box)} "
              f"| {equal:.3f} |", flush=True)  # fmt: skip


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="speed,real,snr,klh")
    parser.add_argument("--data", type=Path, default=os.environ.get("PICKEROPT_DATA"))
    parser.add_argument("--mrc", type=Path, help="the same micrographs as MRC files; else they are written")
    parser.add_argument("--sizes", type=numbers, default="100,400,800,1200")
    parser.add_argument("--rounds", type=numbers, default="0,2")
    parser.add_argument("--ratios", type=lambda t: [float(r) for r in t.split(",")], default=DEEPEM_SNR)
    parser.add_argument("--micrographs", type=int, default=12, help="simulated ones to learn from")
    parser.add_argument("--test", type=int, default=6, help="simulated ones to measure")
    parser.add_argument("--box", type=int, default=DeepEMSettings.box)
    parser.add_argument("--steps", type=int, default=DeepEMSettings.least_steps, help="least_steps of a round")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.data is None and "real" in args.parts:
        parser.error("give --data DIR or set PICKEROPT_DATA")
    settings = DeepEMSettings(box=args.box, least_steps=args.steps, epochs=1)
    with tempfile.TemporaryDirectory() as name:
        for part in args.parts.split(","):
            print(f"\n## {part}\n")
            if part == "speed":
                speed()
            else:
                {"real": real, "snr": snr, "klh": klh}[part](args, settings, Path(name))


if __name__ == "__main__":
    main()
