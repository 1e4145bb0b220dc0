"""`pickeropt relion`: exit codes, exit files, and what goes to run.out and run.err."""

import pytest
import torch
from relion_world import PICKS, XScorer, make_project
from typer.testing import CliRunner

import pickeropt.cli
from pickeropt.cli import app
from pickeropt.prune import scoring

OUT = "External/job005"
COORDS = "--in_coords AutoPick/job004/coords_suffix_autopick.star"


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scoring, "load_scorer", lambda *given: XScorer())
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    return make_project(tmp_path)


def relion(line):
    return CliRunner().invoke(app, ["relion", *line.split()])


def exits(project):
    return sorted(path.name for path in (project / OUT).glob("RELION_JOB_*"))


def test_a_job(project):
    result = relion(f"--o {OUT}/ {COORDS} --in_mics CtfFind/job003/micrographs_ctf.star --j 2")
    assert (result.exit_code, result.stderr) == (0, "")
    assert exits(project) == ["RELION_JOB_EXIT_SUCCESS"]
    lines = result.stdout.splitlines()
    assert lines[0].startswith("pruning: 6 of 6 picks (100 %)")
    assert lines[-2:] == [
        f"output for RELION 3.1: {OUT}/coords_suffix_autopick.star (coordinates)",
        f"output for RELION 3.1: {OUT}/logfile.pdf (logfile)",
    ]
    assert "\x1b" not in result.stdout


def test_a_job_has_its_report_with_the_ice_and_defocus_of_its_micrographs(project):
    star = project / "CtfFind/job003/micrographs_ctf.star"
    lines = star.read_text().splitlines()
    last = max(i for i, line in enumerate(lines) if line.startswith("_rln"))
    names = [line.split()[0] for line in lines[last + 1 :] if line.strip()]
    rows = [f"{line} {12000 + 1000 * i}" if line.strip() else line for i, line in enumerate(lines[last + 1 :])]
    star.write_text("\n".join([*lines[: last + 1], "_rlnDefocusU #3", *rows]) + "\n")
    line = f"--o {OUT}/ {COORDS} --in_mics CtfFind/job003/micrographs_ctf.star"
    assert relion(line).exit_code == 0
    page = (project / OUT / "pruned/report.html").read_text(encoding="utf-8")
    assert f"{names[0]}: 1.2 µm" in page
    assert f"{names[2]}: 1.4 µm" in page
    assert relion(f"{line} --threshold 0.9").exit_code == 0  # continued: only the threshold is another
    assert "threshold 0.9" in (project / OUT / "pruned/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"--o {OUT}/ {COORDS} --thresold 1", "error: the label --thresold is unknown; is it --threshold?"),
        (f"--thresold 1 {COORDS} --o {OUT}/", "error: the label --thresold is unknown; is it --threshold?"),
        (f"--o {OUT}/ {COORDS} --threshold 1.5", "error: the threshold is 1.5; give one from 0 to 1"),
        (f"--o {OUT}/ --in_mics CtfFind/job003/micrographs_ctf.star", "error: nothing to prune (there is"),
        (f"--o {OUT}/ --in_coords nowhere.star", "error: nowhere.star: no such file"),
    ],
)
def test_the_users_faults_are_a_failed_job(project, line, message):
    result = relion(line)
    assert result.exit_code == 2
    assert result.stderr.startswith(message)
    assert len(result.stderr.splitlines()) == 1
    assert exits(project) == ["RELION_JOB_EXIT_FAILURE"]
    assert not (project / OUT / "RELION_OUTPUT_NODES.star").exists()


def test_our_faults_are_a_failed_job_too(project, monkeypatch):
    monkeypatch.setattr(XScorer, "score", lambda *given: 1 / 0)
    result = relion(f"--o {OUT}/ {COORDS}")
    assert isinstance(result.exception, ZeroDivisionError)
    assert exits(project) == ["RELION_JOB_EXIT_FAILURE"]


def test_without_an_output_folder_nothing_is_written(project):
    before = sorted(project.rglob("*"))
    result = relion(COORDS)
    assert result.exit_code == 2
    assert result.stderr == "error: no output folder; give --o External/job001/, as RELION does\n"
    assert sorted(project.rglob("*")) == before


@pytest.mark.parametrize("line", [COORDS, "--in_parts AutoPick/job004/raw/c_autopick.star"])
def test_the_folder_of_the_inputs_is_no_output_folder(project, line):
    (project / "AutoPick/job004/RELION_JOB_EXIT_SUCCESS").touch()
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    result = relion(f"--o AutoPick/job004/ {line}")
    assert result.exit_code == 2
    assert "lies in the output folder AutoPick/job004, and inputs are never written to" in result.stderr
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before


def test_an_abort_is_answered_and_the_job_goes_on_after_it(project):
    (project / OUT).mkdir(parents=True)
    (project / OUT / "RELION_JOB_ABORT_NOW").touch()
    result = relion(f"--o {OUT}/ {COORDS}")
    assert (result.exit_code, result.stderr) == (2, "")
    assert result.stdout == "aborted; continue the job to go on where it stopped\n"
    assert exits(project) == ["RELION_JOB_EXIT_ABORTED"]
    assert relion(f"--o {OUT}/ {COORDS}").exit_code == 0
    assert exits(project) == ["RELION_JOB_EXIT_SUCCESS"]


def test_warnings_are_in_run_out(project):
    (project / "AutoPick/job004/raw/c_autopick.star").unlink()
    result = relion(f"--o {OUT}/ {COORDS}")
    assert "warning: 1 of 3 micrographs have no coordinate file, and are left out" in result.stdout
    assert result.stderr == ""


def test_the_executable_of_its_own(project, monkeypatch):
    words = f"relion_external_pickeropt --o {OUT}/ {COORDS} --pipeline_control {OUT}/"
    monkeypatch.setattr("sys.argv", words.split())
    with pytest.raises(SystemExit) as ended:
        pickeropt.cli.relion_external()
    assert ended.value.code == 0
    assert exits(project) == ["RELION_JOB_EXIT_SUCCESS"]
    assert all((project / OUT / f"{stem}_autopick.star").is_file() for stem in PICKS)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(flag):
    result = relion(flag)
    assert result.exit_code == 0
    assert "--in_coords FILE" in result.stdout
