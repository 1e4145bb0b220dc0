"""Runs that are killed, and runs of two processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pretrain_pair import DATA, several
from pretrain_world import make_folders, make_micrographs, make_weights
from safetensors.torch import load_file

from pickeropt.pretrain.pretraining import pretrain


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which `pretrain_pair.py` has run."""
    root = tmp_path_factory.mktemp("pair")
    make_micrographs(root / "micrographs")
    make_folders(root / "folders")
    make_weights(root / "weights.safetensors")
    script = Path(__file__).with_name("pretrain_pair.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(root)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return root


@pytest.mark.slow
@pytest.mark.parametrize("recipe", DATA)
def test_a_killed_run_goes_on_to_the_identical_bytes(root: Path, recipe: str) -> None:
    whole, killed = (root / f"{name}-{recipe}.safetensors" for name in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes()
    assert json.loads((root / f"{recipe}.json").read_text()) == {"default": 8, "paper": 4}[recipe]
    logs = [path.with_suffix(".log.csv").read_text().splitlines() for path in (whole, killed)]
    rows, others = ([line.split(",") for line in log] for log in logs)
    pace = rows[0].index("images_per_second")
    assert [row[:pace] + row[pace + 1 :] for row in rows] == [r[:pace] + r[pace + 1 :] for r in others]
    assert not [path.name for path in root.iterdir() if "partial" in path.name]


@pytest.mark.parametrize("recipe", DATA)
def test_two_processes_give_what_one_gives(root: Path, recipe: str) -> None:
    single = root / f"single-{recipe}.safetensors"
    pretrain(root / DATA[recipe], single, several(root, recipe))
    one, two = load_file(str(single)), load_file(str(root / f"pair-{recipe}.safetensors"))
    start = load_file(str(root / "weights.safetensors"))
    layers = [n for n in one if n in start and start[n].ndim == 4 and n != "conv1.weight"]
    moved = torch.cat([(one[n].float() - start[n].half().float()).flatten() for n in layers])
    apart = torch.cat([(one[n].float() - two[n].float()).flatten() for n in layers])
    assert moved.norm() > 0.03  # so far apart that two shares of a batch would not agree by chance
    assert apart.norm() < 0.01 * moved.norm()
    for name in ("head.branches.0.linear.weight", "bn1.running_mean", "layer3.1.bn2.running_var"):
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-5)
    assert _log(single) == pytest.approx(_log(root / f"pair-{recipe}.safetensors"), rel=1e-3)


def _log(product: Path) -> list[float]:
    """Every figure of a log but the pace."""
    lines = [line.split(",") for line in product.with_suffix(".log.csv").read_text().splitlines()]
    pace = lines[0].index("images_per_second")
    return [float(v) for line in lines[1:] for i, v in enumerate(line) if v and i != pace]


@pytest.mark.parametrize("recipe", DATA)
def test_what_is_held_back_gets_better(root: Path, recipe: str) -> None:
    lines = (root / f"whole-{recipe}.log.csv").read_text().splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    assert [row["step"] for row in rows] == ["2", "4", "6", "8"]
    column = "held_back_rotation" if recipe == "default" else "held_back_classes"
    assert float(rows[3][column]) < float(rows[1][column]) - 0.02
