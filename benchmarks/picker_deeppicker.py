"""DeepPicker against its paper (Wang et al., J. Struct. Biol. 2016).

    python benchmarks/picker_deeppicker.py [--data DIR] [--parts species,real,noise,time] [--micrographs N]

species : recall with one, two, three and four other species in training, as its Fig. 2 and Table 1, on
    simulated micrographs, beside the same number of own particles; after the iteration as well
real : EMPIAR-10017, trained on six micrographs of which one is held back to choose threshold and epochs,
    measured on four others: 400, 1,000 and all own particles, and none (four simulated species, with and
    without the iteration on the six; and 400 own particles from there on)
noise : scores of the picks on micrographs without a particle, as its Fig. 6 (d), of a picker of two species
time : seconds for a micrograph of 4096 x 4096 px

Truth are the curated particles, one to one within half a diameter on real micrographs, where the padding
along the sides does not count, and within 0.2 windows, the paper's radius, on simulated ones. "at 0.5" is at
0.5 of the network's own scores, the paper's threshold. Centre errors are shares of the window.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from picking_quality import Picked, PickingQuality, picking_quality
from real_data import DIAMETER, PADDING_PX, PIXEL_SIZE, RADIUS_PX, pixels_of, read_all

from pickeropt.datasets.simulate import real_species, simulate_micrograph
from pickeropt.datasets.simulate.simulation_config import PRESETS
from pickeropt.errors import ShotsError
from pickeropt.io.micrographs import read_micrograph, write_mrc
from pickeropt.pickers.deeppicker_network import CALIBRATION, DeepPickerSettings, calibrated
from pickeropt.pickers.deeppicker_training import AGREES, iterate, load, train
from pickeropt.pickers.picker_records import Material, PickedMicrograph, PickerTrainingJob, TrainedPicker
from pickeropt.pickers.picking import chosen

CPU = torch.device("cpu")
TARGETS = {
    "spike": ("rubisco", "ribosome_70s", "p97", "catalase"),
    "ribosome_70s": ("spike", "rubisco", "p97", "catalase"),
    "rubisco": ("ribosome_70s", "spike", "p97", "catalase"),
}
"""Species to pick, and the others in the order in which they join. They stand for gamma-secretase,
spliceosome and TRPV1, and for NSF and beta-galactosidase, as the paper's Table 1 has them."""
PAPER = 0.5
LOW = 0.05


class Bench:
    """Folders, settings and a count of the trainings."""

    def __init__(self, args: argparse.Namespace, work: Path) -> None:
        self.args, self.work, self.count = args, work, 0

    def settings(self, particles: int) -> DeepPickerSettings:
        return DeepPickerSettings(particles=particles, epochs=self.args.epochs)

    def job(self) -> PickerTrainingJob:
        self.count += 1
        folder = self.work / f"job{self.count}"
        folder.mkdir()
        return PickerTrainingJob(self.args.seed, CPU, folder, lambda what, done, total: None)

    def train(self, material: Material, particles: int, initial: TrainedPicker | None = None) -> TrainedPicker:
        begun = time.perf_counter()
        made = train(material, self.settings(particles), self.job(), initial and initial.state)
        print(f"{time.perf_counter() - begun:.0f} s, {made.figures}", file=sys.stderr, flush=True)
        return made

    def iterate(self, made: TrainedPicker, micrographs: Sequence[PickedMicrograph], particles: int) -> TrainedPicker:
        return iterate(made, micrographs, self.settings(particles), self.job())

    def simulated(self, name: str, count: int, seed: int, empty: bool = False) -> tuple[PickedMicrograph, ...]:
        """Micrographs of one species, 46 px a diameter; empty ones have no particle, carbon or ice."""
        species = real_species((name,))[0]
        snr = self.args.snr
        config = replace(
            PRESETS["cryolo" if snr else "default"],
            snr=(snr,) if snr else None,
            shape=(self.args.side, self.args.side),
            pixel_size=species.diameter_angstrom / 46,
            occupancy=(0.2, 0.4),
        )
        if empty:
            config = replace(config, occupancy=(0.0, 0.0), contaminants=(0, 0), carbon_probability=0.0)
        made = []
        for number in range(count):
            path = self.work / f"{name}{'_empty' * empty}_{seed}_{number}.mrc"
            one = simulate_micrograph(config, species, np.random.default_rng([self.args.seed, seed, number]))
            write_mrc(path, one.pixels, one.pixel_size)
            made.append(PickedMicrograph(path, one.coordinates, one.pixel_size, one.diameter_angstrom))
        return tuple(made)


def picked(made: TrainedPicker, micrographs: Sequence[PickedMicrograph], margin: float = 0.0) -> list[Picked]:
    """All candidates of each micrograph beside its particles."""
    picker = load(made.settings, made.state, made.threshold, CPU)
    found = []
    for one in micrographs:
        micrograph = read_micrograph(one.path)
        picks = picker.detect(micrograph, one.pixel_size, one.diameter_angstrom)
        here = Picked(picks.coordinates, picks.scores, one.coordinates)
        height, width = micrograph.pixels.shape
        found.append(here.inside((height, width), margin))
    return found


def species_table(bench: Bench) -> TrainedPicker:
    """Print the cross-molecule table; return the picker of two species."""
    args = bench.args
    names = sorted({name for target, others in TARGETS.items() for name in (target, *others)})
    seen = {name: bench.simulated(name, args.micrographs, 1) for name in names}
    held = {name: bench.simulated(name, 1, 2) for name in names}
    fresh = {name: bench.simulated(name, args.test_micrographs, 3) for name in TARGETS}
    counts = ", ".join(f"{name} {sum(len(one.coordinates) for one in seen[name])}" for name in names)
    print(f"{args.particles} particles in each training, of {counts}\n")
    print("| target | training | recall at 0.5 | precision at 0.5 | recall, as many picks as particles "
          "| average precision | centre error |\n|---|---|---|---|---|---|---|")  # fmt: skip
    two: TrainedPicker | None = None
    for target, others in TARGETS.items():
        for count in (1, 2, 3, 4, 0):
            kinds = others[:count] or (target,)
            material = Material(
                tuple(one for kind in kinds for one in seen[kind]),
                tuple(one for kind in kinds for one in held[kind]),
            )
            made = bench.train(material, args.particles)
            species_row(target, made, fresh[target], ", ".join(kinds) if count else "its own")
            if count == 2:
                two = two or made
                try:
                    again = bench.iterate(made, [*seen[target], *held[target]], args.particles)
                except ShotsError as error:
                    print(f"{target}, {kinds}: {error}", file=sys.stderr)
                    continue
                species_row(target, again, fresh[target], f"{', '.join(kinds)}, and the iteration")
    assert two is not None
    return two


def half_of(made: TrainedPicker) -> float:
    """The score that stands for 0.5 of the network's own, the paper's threshold."""
    return calibrated(PAPER, tuple(made.state[CALIBRATION].tolist()))


def two_species(bench: Bench) -> TrainedPicker:
    """A picker of the first two species that stand beside the first target."""
    kinds = next(iter(TARGETS.values()))[:2]
    seen = tuple(one for kind in kinds for one in bench.simulated(kind, bench.args.micrographs, 1))
    held = tuple(one for kind in kinds for one in bench.simulated(kind, 1, 2))
    print(f"{', '.join(kinds)}: {sum(len(one.coordinates) for one in seen)} particles\n")
    return bench.train(Material(seen, held), bench.args.particles)


def species_row(target: str, made: TrainedPicker, fresh: Sequence[PickedMicrograph], name: str) -> None:
    box = DeepPickerSettings().box_diameters * fresh[0].diameter_px
    here = picked(made, fresh, box / 2)
    at = picking_quality(here, half_of(made), AGREES * box)
    scores = np.sort(np.concatenate([one.scores for one in here]))[::-1]
    as_many = picking_quality(here, float(scores[: at.truths][-1]), AGREES * box)
    numbers = (at.recall, at.precision, as_many.recall, at.average_precision, at.centre_error / box)
    print(f"| {target} | {name} | {' | '.join(f'{n:.3f}' for n in numbers)} |", flush=True)


def real_table(bench: Bench) -> None:
    """Print precision, recall, F1, average precision and centre error on four micrographs of EMPIAR-10017."""
    data = Path(bench.args.data)
    test = {path.stem for path in (data / "empiar10017" / "picks" / "topaz").glob("*.box")}
    own, unseen = [], []
    for one in read_all(data):
        path = bench.work / f"{one.name}.mrc"
        write_mrc(path, pixels_of(data, one.name), PIXEL_SIZE)
        (unseen if one.name in test else own).append(PickedMicrograph(path, one.truth, PIXEL_SIZE, DIAMETER))
    held = (own.pop(),)
    everything = sum(len(one.coordinates) for one in own)
    print("| training | threshold | picks | precision | recall | F1 | average precision | centre error "
          "| recall at 0.5 |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip

    def row(name: str, made: TrainedPicker) -> None:
        at, half = (_real_quality(made, unseen, t) for t in (made.threshold, half_of(made)))
        box = DeepPickerSettings().box_diameters * DIAMETER / PIXEL_SIZE
        numbers = (at.precision, at.recall, at.f1, at.average_precision, at.centre_error / box, half.recall)
        cells = " | ".join(f"{n:.3f}" for n in numbers)
        print(f"| {name} | {made.threshold:.2f} | {at.picks} | {cells} |", flush=True)

    def semi(count: int, initial: TrainedPicker | None = None) -> TrainedPicker:
        return bench.train(Material(chosen(own, count, bench.args.seed), held), count, initial)

    for count in (400, 1000, everything):
        row(f"{count} own particles", semi(count))
    names = TARGETS["spike"]
    cross = bench.train(
        Material(
            tuple(one for name in names for one in bench.simulated(name, bench.args.micrographs, 1)),
            tuple(one for name in names for one in bench.simulated(name, 1, 2)),
        ),
        bench.args.particles,
    )
    row(f"{bench.args.particles} of {len(names)} simulated species", cross)
    row("the same, and the iteration", bench.iterate(cross, [*own, *held], everything))
    row("the same without the iteration, then 400 own particles", semi(400, cross))


def _real_quality(made: TrainedPicker, unseen: Sequence[PickedMicrograph], threshold: float) -> PickingQuality:
    return picking_quality(picked(made, unseen, PADDING_PX), threshold, RADIUS_PX)


def noise_table(bench: Bench, made: TrainedPicker) -> None:
    """Print where the scores of picks lie on micrographs of nothing."""
    side, count = bench.args.side, bench.args.test_micrographs
    like = bench.simulated("spike", count, 3)
    empty = bench.simulated("spike", count, 4, empty=True)
    white = []
    for number in range(count):
        path = bench.work / f"white{number}.mrc"
        pixels = np.random.default_rng([bench.args.seed, 5, number]).poisson(20, (side, side))
        write_mrc(path, pixels.astype(np.float32), like[0].pixel_size)
        white.append(replace(like[0], path=path))
    print("| micrographs | candidates | above 0.05 | above 0.5 | above the picker's threshold, "
          f"{made.threshold:.2f} |\n|---|---|---|---|---|")  # fmt: skip
    kinds = (("with particles", like), ("empty ice", empty), ("electrons without a specimen", white))
    for name, micrographs in kinds:
        scores = np.concatenate([one.scores for one in picked(made, micrographs)])
        shares = " | ".join(f"{(scores > bound).mean():.1%}" for bound in (LOW, PAPER, made.threshold))
        print(f"| {name} | {len(scores)} | {shares} |", flush=True)


def time_table(bench: Bench) -> None:
    """Print seconds a micrograph, on all threads."""
    from pickeropt.pickers.deeppicker_network import DeepPickerNetwork

    side = 4096
    path = bench.work / "large.mrc"
    write_mrc(path, np.random.default_rng(0).normal(size=(side, side)).astype(np.float32), PIXEL_SIZE)
    torch.manual_seed(0)
    settings = {"box_diameters": DeepPickerSettings().box_diameters}
    picker = load(settings, DeepPickerNetwork().state_dict(), PAPER, CPU)

    def middle(work: Callable[[], object]) -> tuple[float, float]:
        """Median of the seconds by the clock and of those of all threads."""
        taken = []
        for _ in range(9):
            begun = time.perf_counter(), time.process_time()
            work()
            taken.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
        clock, cores = np.median(taken, axis=0)
        return float(clock), float(cores)

    micrograph = read_micrograph(path)
    reading, _ = middle(lambda: read_micrograph(path))
    picking, cores = middle(lambda: picker.detect(micrograph, PIXEL_SIZE, DIAMETER))
    window = settings["box_diameters"] * DIAMETER / PIXEL_SIZE
    print(f"{side} x {side} px, window {window:.0f} px, {torch.get_num_threads()} threads: {picking:.2f} s a "
          f"micrograph ({cores:.2f} s of all threads together), and {reading:.2f} s to read it")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("PICKEROPT_DATA"), metavar="DIR")
    parser.add_argument("--parts", default="species,real,noise,time")
    parser.add_argument("--micrographs", type=int, default=7, help="simulated for each species (7)")
    parser.add_argument("--test-micrographs", type=int, default=3, help="simulated, for each target (3)")
    parser.add_argument("--side", type=int, default=1024, help="of a simulated micrograph, px (1024)")
    parser.add_argument("--snr", type=float, help="noise of the crYOLO paper; else counted electrons")
    parser.add_argument("--particles", type=int, default=800, help="of a training on species (800)")
    parser.add_argument("--epochs", type=int, default=DeepPickerSettings().epochs, help="at most")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    parts = args.parts.split(",")
    if "real" in parts and args.data is None:
        sys.exit("picker_deeppicker.py: give the folder that holds empiar10017/ with --data or $PICKEROPT_DATA")
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(args, Path(work))
        two: TrainedPicker | None = None
        if "species" in parts:
            two = species_table(bench)
        if "noise" in parts:
            print()
            noise_table(bench, two or two_species(bench))
        if "real" in parts:
            print()
            real_table(bench)
        if "time" in parts:
            print()
            time_table(bench)


if __name__ == "__main__":
    main()
