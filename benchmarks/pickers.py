"""What pruning adds to each picker, on real micrographs that neither has seen: EMPIAR-10017.

    python benchmarks/pickers.py --data DIR --micrographs MRC_DIR --picker FILE [--picker FILE …]

The pickers were trained on the six micrographs that have labels of all classes (`pickeropt pick train`); here
they pick on the other four. A model is fine-tuned on 20 shots a class of the six and prunes the picks. Truth
are the curated particles, one to one within half a diameter; the padding along the sides does not count, for
picks and particles alike. "pruned" keeps P(particle) >= 0.5 of the picks above the picker's own threshold,
"all, pruned" of all of its candidates. The centre error is a share of the particle's diameter. Mean and
standard deviation over the draws of shots.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from picking_quality import Picked, PickingQuality, picking_quality
from real_data import DIAMETER, DIAMETER_PX, PADDING_PX, PIXEL_SIZE, RADIUS_PX, Labelled, read_all

from pickeropt.finetune.finetune_config import FinetuneConfig
from pickeropt.finetune.finetuning import finetune
from pickeropt.io.picks import read_picks, subset
from pickeropt.pickers.picker_config import PickRunConfig
from pickeropt.pickers.picker_records import read_picker
from pickeropt.pickers.picking import pick
from pickeropt.prune.prune_config import PruneConfig
from pickeropt.prune.pruning import prune
from pickeropt.prune.scoring import load_scorer
from pickeropt.pruned_run import SCORES, read_scores
from pickeropt.shots import read_labelled_star

SHAPE = (4096, 4096)
SHOTS = 20
KEEP = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("PICKEROPT_DATA")
    parser.add_argument("--data", type=Path, default=data and Path(data), required=data is None, metavar="DIR")
    parser.add_argument("--micrographs", type=Path, required=True, metavar="MRC_DIR", help="their MRC files")
    parser.add_argument("--picker", type=Path, required=True, action="append", metavar="FILE")
    parser.add_argument("--draws", type=int, default=5, help="of the shots (5)")
    args = parser.parse_args()
    unseen = [one for one in read_all(args.data) if len(set(one.labels.tolist())) == 1]
    paths = [args.micrographs / f"{one.name}.mrc" for one in unseen]
    print("| picker | | picks | precision | recall | F1 | average precision | centre error |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as work:
        names = {one.name for one in unseen}
        models = [tuned(args, names, Path(work), draw) for draw in range(args.draws)]
        for file in args.picker:
            measure(file, unseen, paths, models, Path(work) / file.stem)


def tuned(args: argparse.Namespace, unseen: set[str], work: Path, draw: int) -> Path:
    """A model of 20 shots a class, none of them on an unseen micrograph."""
    labels = read_picks(args.data / "empiar10017" / "labels.star")
    of_six = [Path(name).stem not in unseen for name in labels.picks.micrograph_names]
    path = work / "labels.star"
    path.write_bytes(subset(labels, np.array(of_six)[labels.picks.micrograph_index]))
    shots = read_labelled_star(path, (args.micrographs,))
    out = work / f"model{draw}.safetensors"
    finetune(shots, FinetuneConfig(DIAMETER, PIXEL_SIZE, shots_per_class=SHOTS, seed=draw), out)
    return out


def measure(file: Path, unseen: Sequence[Labelled], paths: Sequence[Path], models: Sequence[Path], work: Path) -> None:
    """Print the rows of one picker."""
    begun = time.perf_counter()
    pick(paths, PickRunConfig(file, work / "all", threshold=0.0, pixel_size=PIXEL_SIZE))
    seconds = (time.perf_counter() - begun) / len(paths)
    threshold = read_picker(file).threshold
    candidates = []
    for one in unseen:
        picks = read_picks(work / "all" / f"{one.name}_autopick.star").picks
        candidates.append(Picked(picks.coordinates, picks.figure_of_merit, one.truth))
    name = f"{file.stem} ({seconds:.1f} s a micrograph)"
    inside = [one.inside(SHAPE, PADDING_PX) for one in candidates]
    show(name, "alone", [picking_quality(inside, threshold, RADIUS_PX)])
    pruned, everything = [], []
    for draw, model in enumerate(models):
        p = probabilities(work, unseen, paths, model, draw)
        kept = [
            Picked(one.coordinates[one.scores >= threshold], own[one.scores >= threshold], one.truth)
            for one, own in zip(candidates, p, strict=True)
        ]
        ranked = [replace(one, scores=own) for one, own in zip(candidates, p, strict=True)]
        pruned.append(quality_of(kept))
        everything.append(quality_of(ranked))
    show("", "pruned", pruned)
    show("", "all, pruned", everything)


def quality_of(picked: Sequence[Picked]) -> PickingQuality:
    return picking_quality([one.inside(SHAPE, PADDING_PX) for one in picked], KEEP, RADIUS_PX)


def probabilities(
    work: Path, unseen: Sequence[Labelled], paths: Sequence[Path], model: Path, draw: int
) -> list[NDArray[np.float64]]:
    """P(particle) of all candidates of each micrograph, in the order of their file."""
    out = work / f"pruned{draw}"
    folder = paths[0].parent
    config = PruneConfig((folder,), out, pixel_size=PIXEL_SIZE, trust_frame=True)
    prune([work / "all"], config, load_scorer(model, "auto", None, None))
    scored = read_scores(out / SCORES)
    found = []
    for one in unseen:
        index = [Path(file).stem for file in scored.files].index(f"{one.name}_autopick")
        found.append(scored["score"][scored["file"] == index])
    return found


def show(name: str, what: str, figures: Sequence[PickingQuality]) -> None:
    columns = ["precision", "recall", "f1", "average_precision"]
    cells = [spread([getattr(one, column) for one in figures]) for column in columns]
    cells.append(spread([one.centre_error / DIAMETER_PX for one in figures]))
    picks = np.mean([one.picks for one in figures])
    print(f"| {name} | {what} | {picks:.0f} | {' | '.join(cells)} |", flush=True)


def spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ± {np.std(values):.3f}"


if __name__ == "__main__":
    main()
