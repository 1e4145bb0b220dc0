"""RELION 3.1 picks, pickeropt prunes as its External job, RELION extracts what was kept."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from external_programs import find, pickeropt, run, star_rows

from pickeropt.datasets.simulate import SimulationConfig, make_species, simulate_micrograph
from pickeropt.io.micrographs import write_mrc

pytestmark = [pytest.mark.external, pytest.mark.slow]

DIAMETER, PIXEL_SIZE, SIDE, BOX = 160.0, 3.2, 512, 64
MICROGRAPHS = tuple(f"MotionCorr/job002/Movies/m{i}.mrc" for i in range(3))
STAR = "CtfFind/job003/micrographs_ctf.star"
PICKS, JOB = "AutoPick/job004", "External/job005"

STARS = {
    "3.0": """
data_

loop_
_rlnMicrographName #1
_rlnDetectorPixelSize #2
_rlnMagnification #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
{rows}
""",
    "3.1": """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographOriginalPixelSize #3
_rlnMicrographPixelSize #4
_rlnVoltage #5
_rlnSphericalAberration #6
_rlnAmplitudeContrast #7
opticsGroup1 1 3.2 3.2 300.0 2.7 0.1


# version 30001

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
{rows}

""",
}
"""Micrographs as 3.0 and as 3.1 wrote them: 5 µm at 15,625 times are 3.2 Å."""

ROWS = {"3.0": "{name} 5.0 15625.0 300.0 2.7 0.1", "3.1": "{name} 1"}


@pytest.fixture(scope="module")
def picked(tmp_path_factory):
    """A project with simulated micrographs and the picks of RELION's Laplacian of Gaussian."""
    autopick = find("relion_autopick", "relion")
    if "3.1" not in run([autopick, "--version"], Path()):
        pytest.skip("this RELION is another than 3.1")
    root = tmp_path_factory.mktemp("project")
    config = SimulationConfig(
        shape=(SIDE, SIDE),
        pixel_size=PIXEL_SIZE,
        diameter_angstrom=DIAMETER,
        occupancy=(0.25, 0.4),
        defocus_um=(1.0, 2.5),
        dose=(10.0, 15.0),
        filtered_probability=0.0,
    )
    species = next(kind for kind in make_species(0) if kind.name == "tetramer_d2")
    for seed, name in enumerate(MICROGRAPHS):
        sim = simulate_micrograph(config, species, np.random.default_rng(seed))
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_mrc(root / name, sim.pixels, sim.pixel_size)
    write_star(root, "3.1")
    command = [autopick, "--i", STAR, "--odir", f"{PICKS}/", "--pickname", "autopick", "--LoG"]
    command += ["--LoG_diam_min", 0.7 * DIAMETER, "--LoG_diam_max", DIAMETER, "--lowpass", 20]
    run([*command, "--shrink", 0, "--LoG_adjust_threshold", -1], root)
    (root / PICKS / "coords_suffix_autopick.star").write_text(STAR)
    return root


def write_star(root: Path, convention: str) -> None:
    rows = "\n".join(ROWS[convention].format(name=name) for name in MICROGRAPHS)
    (root / STAR).parent.mkdir(parents=True, exist_ok=True)
    (root / STAR).write_text(STARS[convention].format(rows=rows))


@pytest.fixture
def project(picked, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(picked, tmp_path / "project"))
    monkeypatch.chdir(folder)
    return folder


def external(*words: object) -> str:
    """As RELION calls it."""
    arguments = ["--o", f"{JOB}/", *words, "--diameter", DIAMETER, "--j", 2, "--pipeline_control", f"{JOB}/"]
    return pickeropt("relion", *arguments)


def preprocess(project: Path, folder: str, *words: object) -> list[tuple[str, float, float]]:
    command = [find("relion_preprocess", "relion"), "--i", STAR, *words, "--extract", "--extract_size", BOX]
    run([*command, "--part_dir", f"{folder}/", "--part_star", f"{folder}/particles.star"], project)
    return star_rows(project / folder / "particles.star")


@pytest.mark.parametrize("convention", ["3.0", "3.1"])
def test_relion_extracts_what_was_kept(project, convention):
    write_star(project, convention)
    files = sorted((project / PICKS).rglob("*_autopick.star"))
    files = [path for path in files if "coords_suffix" not in path.name]
    assert len(files) == len(MICROGRAPHS)
    if convention == "3.0":
        for path in files:
            path.write_text(path.read_text().replace("# version 30001", ""))
    picks = sum(len(star_rows(path)) for path in files)

    external("--in_coords", f"{PICKS}/coords_suffix_autopick.star")
    job = project / JOB
    kept = {name: star_rows(job / "Movies" / f"{Path(name).stem}_autopick.star") for name in MICROGRAPHS}
    count = sum(len(rows) for rows in kept.values())
    assert (job / "RELION_JOB_EXIT_SUCCESS").exists()
    assert 0 < count < picks

    found = preprocess(project, "Extract/job006", "--coord_dir", f"{JOB}/", "--coord_suffix", "_autopick.star")
    assert len(found) == count
    assert sorted(found) == sorted((name, x, y) for name, rows in kept.items() for _, x, y in rows)


def test_relion_extracts_again_the_particles_that_were_kept(project):
    everything = preprocess(project, "Extract/job005", "--coord_dir", f"{PICKS}/", "--coord_suffix", "_autopick.star")
    external("--in_parts", "Extract/job005/particles.star")
    kept = star_rows(project / JOB / "particles.star")
    assert 0 < len(kept) < len(everything)
    again = preprocess(project, "Extract/job006", "--reextract_data_star", f"{JOB}/particles.star")
    assert sorted(again) == sorted(kept)


EMPTY_PIPELINE = "\n# version 30001\n\ndata_pipeline_general\n\n_rlnPipeLineJobCounter 5\n\n"
EXTERNAL_JOB = """
# version 30001

data_job

_rlnJobType 99
_rlnJobIsContinue 0


# version 30001

data_joboptions_values

loop_
_rlnJobOptionVariable #1
_rlnJobOptionValue #2
fn_exe {executable}
in_coords {picks}/coords_suffix_autopick.star
in_mic {star}
param1_label diameter
param1_value {diameter}
param2_label threshold
param2_value 0.6
nr_threads 2
do_queue No
"""


def test_relions_pipeline_runs_the_job_and_takes_its_nodes(project):
    pipeliner = find("relion_pipeliner", "relion")
    executable = project / "relion_external_pickeropt"  # as pip installs it
    executable.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pickeropt relion "$@"\n')
    executable.chmod(0o755)
    (project / "default_pipeline.star").write_text(EMPTY_PIPELINE)
    job = EXTERNAL_JOB.format(executable=executable, picks=PICKS, star=STAR, diameter=DIAMETER)
    (project / "job.star").write_text(job)
    run([pipeliner, "--addJobFromStar", "job.star"], project)
    schedule = [pipeliner, "--RunJobs", f"{JOB}/", "--schedule", "test", "--sec_wait_after", "0"]
    run(schedule, project)
    folder = project / JOB
    said = "".join((folder / name).read_text() for name in ("note.txt", "run.out", "run.err"))
    assert (folder / "RELION_JOB_EXIT_SUCCESS").exists(), said
    assert f"--diameter {DIAMETER} --threshold 0.6 --j 2  --pipeline_control {JOB}/" in said
    assert (folder / "run.err").read_text() == ""
    run([pipeliner, "--check_job_completion"], project)
    lines = [line.split() for line in (project / "default_pipeline.star").read_text().splitlines()]
    assert [f"{JOB}/coords_suffix_autopick.star", "2"] in lines
    assert [f"{JOB}/logfile.pdf", "13"] in lines
    assert [f"{JOB}/", "None", "99", "2"] in lines  # finished


def test_relion_fills_in_the_submission_script(project):
    pipeliner = find("relion_pipeliner", "relion")
    executable = project / "touch.sh"
    executable.write_text('#!/bin/sh\necho "$OMP_NUM_THREADS $*" > said.txt\ntouch "$2/RELION_JOB_EXIT_SUCCESS"\n')
    executable.chmod(0o755)
    (project / "default_pipeline.star").write_text(EMPTY_PIPELINE)
    job = EXTERNAL_JOB.format(executable=executable, picks=PICKS, star=STAR, diameter=DIAMETER)
    template = Path(__file__).parents[2] / "docs" / "slurm" / "relion_qsub.sh"
    queue = f"do_queue Yes\nqueuename long\nqsub bash\nqsubscript {template}\nmin_dedicated 1\n"
    (project / "job.star").write_text(job.replace("do_queue No\n", queue))
    run([pipeliner, "--addJobFromStar", "job.star"], project)
    run([pipeliner, "--RunJobs", f"{JOB}/", "--schedule", "test", "--sec_wait_after", "0"], project)
    script = (project / JOB / "run_submit.script").read_text()
    for line in ("partition=long", "cpus-per-task=2", f"output={JOB}/run.out", f"error={JOB}/run.err"):
        assert f"\n#SBATCH --{line}\n" in script
    assert script.count("XXX") == 2  # in the comment that speaks of them
    assert (project / "said.txt").read_text().startswith(f"2 --o {JOB}/ --in_mics {STAR} --in_coords ")
