"""Real programs for tests: found, or missed aloud.

A program that is missing skips its test and says so. With PICKEROPT_REQUIRE_PROGRAMS=1, or
with the names of some programs in it (`relion,topaz`), their tests fail instead.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from typer.testing import CliRunner

from pickeropt.cli import app

REMEDIES = {
    "relion": "apt-get install relion",
    "atheris": "pip install atheris",
    "chromium": "apt-get install chromium",
    "topaz": "pip install topaz-em in an environment of its own, and its topaz in $PICKEROPT_TOPAZ",
}
SECONDS = 300


def find(executable: str, name: str, variable: str | None = None) -> str:
    """The path of an executable of the program `name`; else the test is skipped, or fails."""
    given = os.environ.get(variable, "") if variable else ""
    found = shutil.which(given or executable)
    if found:
        return str(Path(found).absolute())
    missing(given or executable, name)


def missing(what: str, name: str) -> NoReturn:
    """Skip the test for want of the program `name`, or fail it where that must be there."""
    message = f"{what} is not installed: {REMEDIES[name]}"
    required = os.environ.get("PICKEROPT_REQUIRE_PROGRAMS", "").replace(",", " ").split()
    if "1" in required or name in required:
        pytest.fail(message)
    pytest.skip(message)


def run(command: Sequence[object], folder: Path, **environment: str) -> str:
    """What a program printed. Fails the test where it ends with an error."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=SECONDS,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"{' '.join(words)}\nended with {done.returncode}:\n{done.stdout[-3000:]}")
    return done.stdout


def pickeropt(*words: object) -> str:
    """What the command line of the package under test prints, run in this process and folder.

    Importing torch once more for each call would take most of the time.
    """
    threads = torch.get_num_threads()
    result = CliRunner().invoke(app, [str(word) for word in words])
    torch.set_num_threads(threads)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code:
        pytest.fail(f"pickeropt {words} ended with {result.exit_code}:\n{result.output}")
    return result.stdout


def star_rows(path: Path) -> list[tuple[str, float, float]]:
    """Micrograph, x and y of each row of a STAR file that another program wrote, in its order."""
    rows: list[tuple[str, float, float]] = []
    labels: list[str] = []
    for line in path.read_text().splitlines():
        words = line.split()
        if line.startswith("loop_"):
            labels = []
        elif line.startswith("_"):
            labels.append(words[0])
        elif len(words) == len(labels) > 2 and "_rlnCoordinateX" in labels:
            row = dict(zip(labels, words, strict=True))
            place = float(row["_rlnCoordinateX"]), float(row["_rlnCoordinateY"])
            rows.append((row.get("_rlnMicrographName", ""), *place))
    return rows
