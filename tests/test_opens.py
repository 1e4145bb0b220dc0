"""How often each verb opens its inputs: a file of picks once, a micrograph once for its header and once a pass."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from finetune_world import make_shots

from pickeropt.io.lists import write_coordinate_list
from pickeropt.io.relion_star import write_coordinate_star, write_labelled_star

WATCHED = """
import json, os, sys

code, log, opened = sys.argv.pop(1), sys.argv.pop(1), []

def note(event, args):
    if event == "open" and isinstance(args[0], (str, bytes)):
        opened.append(os.path.realpath(os.fsdecode(args[0])))

sys.addaudithook(note)
try:
    exec(code)
finally:
    with open(log, "w") as file:
        json.dump(list(opened), file)
"""
"""Runs Python code, and writes every file that was opened."""
COMMAND = "from pickeropt.cli import main; main()"
PRUNE = """
from pathlib import Path
from prune_world import FakeScorer
from pickeropt.prune.prune_config import PruneConfig
from pickeropt.prune.pruning import prune
config = PruneConfig(micrographs=(Path("mics"),), out=Path("out") / sys.argv[1])
prune([Path(sys.argv[1])], config, FakeScorer(diameter_angstrom=200.0))
"""
"""Without the report: that is a pass of its own over the micrographs."""
MICROGRAPHS = 4


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`mics/mK.mrc`, `labels.star`, `picks/mK_autopick.star`, and a list of those, `autopick.star`."""
    root = tmp_path_factory.mktemp("opens").resolve()
    shots = make_shots(root / "mics", MICROGRAPHS)
    names = [path.name for path in shots.micrographs]
    classes = [shots.class_names[label] for label in shots.labels]
    rows = [names[index] for index in shots.micrograph_index]
    write_labelled_star(root / "labels.star", rows, shots.coordinates, classes)
    for index, name in enumerate(names):
        xy = shots.coordinates[shots.micrograph_index == index]
        write_coordinate_star(root / "picks" / f"{Path(name).stem}_autopick.star", xy, np.zeros(len(xy)))
    paths = [f"picks/{Path(name).stem}_autopick.star" for name in names]
    (root / "autopick.star").write_bytes(write_coordinate_list(names, paths))
    return root


def opens(root: Path, code: str, *words: str, most: int = 0) -> Counter[str]:
    """How often code opens each file of a folder, by its path there; `words` are its arguments.

    most : the highest exit code that is right
    """
    log = root / "opens.json"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WATCHED, code, str(log), *words]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode <= most, done.stderr
    paths = [Path(path) for path in json.loads(log.read_text())]
    return Counter(path.relative_to(root).as_posix() for path in paths if path.is_relative_to(root))


def of_folder(found: Counter[str], folder: str) -> list[int]:
    """How often each file of a folder was opened."""
    return [count for path, count in sorted(found.items()) if path.startswith(f"{folder}/")]


@pytest.mark.parametrize("picks", ["picks"])
def test_prune_opens_each_input_once_and_a_micrograph_for_header_sample_and_pixels(world: Path, picks: str) -> None:
    found = opens(world, PRUNE, picks)
    assert of_folder(found, "picks") == [1] * MICROGRAPHS
    assert found["autopick.star"] == (picks == "autopick.star")
    opened = sorted(of_folder(found, "mics"))
    assert opened == [2, 3, 3, 3]  # the frame of the picks is judged by a sample of three


@pytest.mark.parametrize("picks", ["picks"])
def test_check(world: Path, picks: str) -> None:
    found = opens(world, COMMAND, "check", picks, "--diameter", "200", "--micrographs", "mics", most=1)  # a warning
    assert of_folder(found, "picks") == [1] * MICROGRAPHS
    assert found["autopick.star"] == (picks == "autopick.star")
    assert of_folder(found, "mics") == [2] * MICROGRAPHS  # header, then the pixels of the sample


def test_convert(world: Path) -> None:
    found = opens(world, COMMAND, "convert", "picks", "out.star", "--flip-y", "--micrographs", "mics", "--overwrite")
    assert of_folder(found, "picks") == [1] * MICROGRAPHS
    assert of_folder(found, "mics") == [1] * MICROGRAPHS


def test_finetune(world: Path) -> None:
    where = ("--micrographs", "mics", "--out", "model.safetensors", "--overwrite", "--device", "cpu")
    found = opens(world, COMMAND, "finetune", "--shots", "labels.star", "--diameter", "200", *where, "--trust-frame")
    assert found["labels.star"] == 1
    assert of_folder(found, "mics") == [2] * MICROGRAPHS  # header, then pixels
