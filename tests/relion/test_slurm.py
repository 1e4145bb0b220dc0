"""The scripts of docs/slurm are scripts, and RELION's has the variables that RELION fills in."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "docs" / "slurm"
RELION_FILLS_IN = {"queue", "mpinodes", "threads", "outfile", "errfile", "command"}
"""RELION's pipeline_jobs.cpp (saveJobSubmissionScript); it knows more."""


@pytest.mark.parametrize("name", ["relion_qsub.sh", "prune.sbatch"])
def test_bash_can_read_it(name):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    subprocess.run([bash, "-n", SCRIPTS / name], check=True)
    lines = (SCRIPTS / name).read_text().splitlines()
    assert lines[0].startswith("#!")
    options = [i for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert options
    assert all(line.startswith("#") for line in lines[: options[-1]])  # sbatch stops at a command


def test_the_variables_of_the_template():
    text = (SCRIPTS / "relion_qsub.sh").read_text()
    assert set(re.findall(r"XXX(\w+?)XXX", text)) == RELION_FILLS_IN
    assert "XXX" not in (SCRIPTS / "prune.sbatch").read_text()
