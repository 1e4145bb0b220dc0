"""The main job on real micrographs, end to end; skipped where the folder of real data is not there."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pickeropt.evaluate.evaluation import evaluate_scores
from pickeropt.finetune.finetune_config import FinetuneConfig
from pickeropt.finetune.finetuning import finetune
from pickeropt.io.micrographs import write_mrc
from pickeropt.prune.prune_config import PruneConfig
from pickeropt.prune.pruning import prune
from pickeropt.prune.scoring import load_scorer
from pickeropt.shots import read_labelled_star

BINNING = 2
TRAINING = ("Falcon_2012_06_12-15_07_41_0", "Falcon_2012_06_12-15_27_22_0")
PRUNED = "Falcon_2012_06_12-15_53_09_0"


def binned_micrograph(data: Path, name: str, folder: Path) -> None:
    with Image.open(data / "empiar10017" / "micrographs" / f"{name}.jpg") as image:
        pixels = np.flipud(np.asarray(image.convert("L"), dtype=np.float32))
    side = pixels.shape[0] // BINNING
    binned = pixels.reshape(side, BINNING, side, BINNING).mean(axis=(1, 3))
    write_mrc(folder / f"{name}.mrc", np.ascontiguousarray(binned), 1.77 * BINNING)


def test_pruning_real_picks_of_an_unseen_micrograph(shared_data: Path, tmp_path: Path) -> None:
    data = shared_data / "empiar10017"
    if not (data / "micrographs").is_dir():
        pytest.skip("no real micrographs")
    mrc = tmp_path / "mrc"
    mrc.mkdir()
    for name in (*TRAINING, PRUNED):
        binned_micrograph(shared_data, name, mrc)
    header = "data_\n\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n_pickeroptClass\n"
    rows = [line.split() for line in (data / "labels.star").read_text().splitlines() if line.startswith("Falcon")]
    kept = [r for r in rows if r[0].removesuffix(".mrc") in TRAINING]
    text = "".join(f"{r[0]} {float(r[1]) / BINNING} {float(r[2]) / BINNING} {r[3]}\n" for r in kept)
    (tmp_path / "labels.star").write_text(header + text)
    shots = read_labelled_star(tmp_path / "labels.star", [mrc])
    report = finetune(shots, FinetuneConfig(191.0, shots_per_class=20), tmp_path / "model.safetensors")
    assert report.macro_f1 is not None

    boxes = [line.split() for line in (data / "picks" / "topaz" / f"{PRUNED}.box").read_text().splitlines()]
    picks = tmp_path / "picks" / f"{PRUNED}.box"
    picks.parent.mkdir()
    halved = [[str(float(v) / BINNING) for v in row[:4]] + row[4:] for row in boxes]
    picks.write_text("".join("\t".join(row) + "\n" for row in halved))
    before = picks.read_bytes()
    config = PruneConfig(micrographs=(mrc,), out=tmp_path / "pruned")
    summary = prune([picks], config, load_scorer(tmp_path / "model.safetensors"))

    assert picks.read_bytes() == before
    lines = [(tmp_path / "pruned" / part / picks.name).read_text().splitlines() for part in ("kept", "rejected")]
    assert sorted(lines[0] + lines[1]) == sorted(before.decode().splitlines())
    assert summary.picks == len(boxes)
    with (tmp_path / "pruned" / "scores.csv").open() as file:
        assert sum(1 for _ in csv.DictReader(file)) == len(boxes)

    truth = tmp_path / "truth" / f"{PRUNED}.csv"
    truth.parent.mkdir()
    points = np.loadtxt(data / "truth" / f"{PRUNED}.csv", delimiter=",", skiprows=1) / BINNING
    truth.write_text("x,y\n" + "".join(f"{x},{y}\n" for x, y in points))
    result = evaluate_scores(tmp_path / "pruned" / "scores.csv", truth.parent, 54.0 / BINNING)
    assert result.after.precision > result.before.precision + 0.03
    assert result.after.recall > 0.9 * result.before.recall
