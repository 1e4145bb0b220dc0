"""What the report of a large pruning costs: seconds of one core, memory, and the size of the page.

    python benchmarks/report_cost.py --out DIR [--micrographs 1000] [--picks 1000] [--size 4096] [--seed 0]

Makes the folder of a pruning in DIR: micrographs of noise, of which all but ten are sparse files that hold
a strip of it, and a `scores.csv` of random picks, classes and scores. Then it makes the report of it twice,
in a process of its own each time, and prints a row of the second.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from pickeropt.io.micrographs import write_mrc

CLASSES = ("particle", "background", "contaminant", "carbon")
PIXEL_SIZE, DIAMETER = 1.77, 191.0
WHOLE, STRIP = 10, 64
"""Micrographs that are no sparse files; rows of noise that the others hold."""
HEADER = 1024
MEASURE = """
import resource, sys, time
from pathlib import Path
from pickeropt.report.reporting import write_report
begun = time.process_time()
report = write_report(Path(sys.argv[1]))
most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"{time.process_time() - begun:.1f} {most:.0f} {report.written[-1].stat().st_size / 1e6:.1f}")
"""


def make_micrographs(folder: Path, count: int, size: int, rng: np.random.Generator) -> dict[str, list[object]]:
    """Name, path and Å/px of each, as `summary.json` has them."""
    places: dict[str, list[object]] = {}
    for i in range(count):
        path = folder / f"m{i:05d}.mrc"
        if i < min(WHOLE, count):
            write_mrc(path, rng.standard_normal((size, size)).astype(np.float32), PIXEL_SIZE)
            start = path.read_bytes()[: HEADER + 4 * size * STRIP]
        else:
            with path.open("wb") as file:
                file.write(start)
                file.truncate(HEADER + 4 * size * size)
        places[f"MotionCorr/job002/Movies/{path.name}"] = [str(path.absolute()), PIXEL_SIZE]
    return places


def write_table(path: Path, names: list[str], picks: int, size: int, rng: np.random.Generator) -> int:
    """`scores.csv`; how many of the picks are kept."""
    kept = 0
    with path.open("w", encoding="utf-8") as file:
        head = ["file", "row", "micrograph", "x", "y", "figure_of_merit", "class", "score"]
        file.write(",".join([*head, *(f"p_{name}" for name in CLASSES), "kept"]) + "\n")
        for name in names:
            score, xy = rng.beta(0.4, 0.4, picks), rng.uniform(0, size, (picks, 2))
            keep, other = score >= 0.5, rng.integers(1, len(CLASSES), picks)
            kept += int(keep.sum())
            rows = zip(score.tolist(), *xy.T.tolist(), keep.tolist(), other.tolist(), strict=True)
            for row, (p, x, y, stays, instead) in enumerate(rows):
                best = CLASSES[0 if stays else instead]
                rest = f"{p:.6f},{1 - p:.6f},0.000000,0.000000"
                file.write(f"{Path(name).stem}.star,{row},{name},{x!r},{y!r},0.5,{best},{p:.6f},{rest},{stays:d}\n")
    return kept


def make_run(out: Path, count: int, picks: int, size: int, seed: int) -> Path:
    """The folder of a pruning as `prune` leaves it, less the files of picks."""
    rng = np.random.default_rng(seed)
    run = out / "pruned"
    run.mkdir(parents=True)
    (out / "micrographs").mkdir()
    places = make_micrographs(out / "micrographs", count, size, rng)
    kept = write_table(run / "scores.csv", list(places), picks, size, rng)
    summary = {
        **{"picks": count * picks, "kept": kept, "rejected": count * picks - kept, "micrographs": count},
        **{"threshold": 0.5, "diameter_angstrom": DIAMETER, "pixel_sizes": [PIXEL_SIZE], "out": str(run)},
        **{"settings": {"out": str(run), "threshold": 0.5}, "inputs": [], "files": [], "places": places},
    }
    (run / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--micrographs", type=int, default=1000)
    parser.add_argument("--picks", type=int, default=1000, help="on each")
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    run = make_run(options.out, options.micrographs, options.picks, options.size, options.seed)
    for _ in range(2):
        command = [sys.executable, "-c", MEASURE, str(run)]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    print("| picks | micrographs | CPU s | MB at most | page, MB |\n|---|---|---|---|---|")
    print(f"| {options.micrographs * options.picks:,} | {options.micrographs:,} | {' | '.join(found)} |")


if __name__ == "__main__":
    main()
