"""An External job from command line to output nodes, on a project made by hand."""

import os
import time

import pytest
from relion_world import (
    NAMES,
    PICKS,
    XScorer,
    coordinates,
    make_project,
    particles_star,
    star_30,
    star_31,
    write,
)

from pickeropt.errors import FormatError, OutputError
from pickeropt.relion.external_args import parse_arguments, read_micrograph_star
from pickeropt.relion.external_job import (
    ABORT_NOW,
    ABORTED,
    FAILURE,
    SUCCESS,
    JobAbortedError,
    job_control,
    prepare,
    run_external,
)

SUFFIX = "--in_coords AutoPick/job004/coords_suffix_autopick.star"
LIST = "--in_coords AutoPick/job004/autopick.star"
OUT = "External/job005"


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_project(tmp_path)


def run(line, scorer=None, check=lambda: None):
    job = parse_arguments(f"--o {OUT}/ {line}".split())
    return run_external(prepare(job), scorer or XScorer(), check)


def kept_coordinates(project, tag="# version 30001\n\n"):
    """What must be in the job folder, by hand: the input's rows with x >= 40."""
    expected = {stem: coordinates([x for x in xs if x >= 40], tag) for stem, xs in PICKS.items()}
    found = {stem: (project / OUT / f"{stem}_autopick.star").read_text() for stem in PICKS}
    return found, expected


def nodes_of(project):
    lines = (project / OUT / "RELION_OUTPUT_NODES.star").read_text().splitlines()
    return [line.split() for line in lines if line.startswith(OUT)]


@pytest.mark.parametrize("given", [SUFFIX, f"{LIST} --in_mics CtfFind/job003/micrographs_ctf.star", LIST])
def test_coordinates_lie_where_either_convention_looks(project, given):
    report = run(given)
    assert (report.summary.picks, report.summary.kept) == (6, 3)
    found, expected = kept_coordinates(project)
    assert found == expected
    rows = [line.split() for line in (project / OUT / "autopick.star").read_text().splitlines()]
    assert [row for row in rows if row and row[0] in NAMES] == [
        [name, f"{OUT}/{stem}_autopick.star"] for name, stem in zip(NAMES, PICKS, strict=True)
    ]
    suffix_file = project / OUT / "coords_suffix_autopick.star"
    if given == LIST:
        assert not suffix_file.exists()  # nobody has said which micrographs
    else:
        assert suffix_file.read_text() == "CtfFind/job003/micrographs_ctf.star"
    for name in ("kept", "rejected", "scores.csv", "summary.json"):
        assert (project / OUT / "pruned" / name).exists()
    assert (project / OUT / "logfile.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("given", "nodes"),
    [
        (SUFFIX, [("coords_suffix_autopick.star", "2"), ("logfile.pdf", "13")]),
        (
            LIST,
            [
                ("autopick.star", "MicrographCoordsGroup.star.relion.autopick"),
                ("logfile.pdf", "LogFile.pdf.relion"),
            ],
        ),
        (
            f"{SUFFIX} --relion_version 4",
            [
                ("autopick.star", "MicrographsCoords.star.relion.autopick"),
                ("logfile.pdf", "LogFile.pdf.relion"),
            ],
        ),
    ],
)
def test_the_nodes_are_those_of_the_version(project, given, nodes):
    run(given)
    assert nodes_of(project) == [[f"{OUT}/{name}", kind] for name, kind in nodes]


@pytest.mark.parametrize("threshold", [0.5, 0.0, 1.0])
def test_particles_keep_their_optics(project, threshold):
    given = write(project / "Extract/job005/particles.star", particles_star())
    report = run(f"--in_parts Extract/job005/particles.star --threshold {threshold}")
    lines = particles_star().splitlines(keepends=True)
    rows = [line for line in lines if "@" in line]
    kept = [row for row in rows if float(row.split()[1]) / 80 >= threshold]
    assert len(kept) == report.summary.kept == {0.5: 3, 0.0: 6, 1.0: 0}[threshold]
    expected = "".join(line for line in lines if line not in rows or line in kept)
    assert "data_optics" in expected
    assert (project / OUT / "particles.star").read_text() == expected
    assert nodes_of(project) == [[f"{OUT}/particles.star", "3"], [f"{OUT}/logfile.pdf", "13"]]
    assert given.read_text() == particles_star()


def test_relion_30_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    project = make_project(tmp_path, star_30())
    for stem, xs in PICKS.items():
        write(project / f"AutoPick/job004/{stem}_autopick.star", coordinates(xs, tag=""))
    run(SUFFIX)
    found, expected = kept_coordinates(project, tag="")
    assert found == expected
    assert "# version" not in found["raw/c"]


def test_the_pixel_size_is_that_of_the_micrographs_star(project):
    write(project / "CtfFind/job003/micrographs_ctf.star", star_31(size=1.25))
    assert run(SUFFIX).summary.pixel_sizes == (1.25,)
    assert run(f"{SUFFIX} --pixel_size 1.5").summary.pixel_sizes == (1.5,)
    assert run(LIST).summary.pixel_sizes == (2.0,)  # the MRC header's


def test_pixel_sizes_of_micrograph_stars(tmp_path):
    assert read_micrograph_star(write(tmp_path / "a.star", star_31())).pixel_size == 2.0
    assert read_micrograph_star(write(tmp_path / "b.star", star_30())).pixel_size == 2.0  # 1e4 * 5 / 25000
    two = star_31().replace("opticsGroup1 1 2.0\n", "opticsGroup1 1 2.0\nopticsGroup2 2 1.0\n")
    assert read_micrograph_star(write(tmp_path / "c.star", two)).pixel_size == 2.0  # none is of the second
    both = two.replace(f"{NAMES[2]} 1\n", f"{NAMES[2]} 2\n")
    found = read_micrograph_star(write(tmp_path / "d.star", both))
    assert (found.pixel_size, found.names) == (None, NAMES)


def test_a_finished_job_that_is_continued_with_another_threshold_computes_nothing(project):
    scorer = XScorer()
    run(f"{SUFFIX} --threshold 1", scorer)
    assert len(scorer.calls) == 3
    assert run(SUFFIX, scorer).summary.kept == 3
    assert len(scorer.calls) == 3
    found, expected = kept_coordinates(project)
    assert found == expected


def of_another_model(project):
    return XScorer(digest="e" * 64)


def with_a_changed_micrograph(project):
    later = time.time() + 10
    os.utime(project / NAMES[1], (later, later))
    return XScorer()


def with_other_picks(project):
    write(project / "AutoPick/job004/raw/c_autopick.star", coordinates([60, 62]))
    return XScorer()


@pytest.mark.parametrize("change", [of_another_model, with_a_changed_micrograph, with_other_picks])
def test_a_continued_job_computes_anew_where_something_else_has_changed(project, change):
    run(f"{SUFFIX} --threshold 1")
    scorer = change(project)
    assert run(SUFFIX, scorer).summary.kept == (4 if change is with_other_picks else 3)
    assert len(scorer.calls) == 3


@pytest.mark.parametrize("fewer", [False, True])
def test_a_job_that_is_run_again_on_other_picks_prunes_those(project, fewer):
    run(f"{LIST} --threshold 0")
    for stem in PICKS:
        write(project / f"AutoPick/job007/{stem}_autopick.star", coordinates([60, 61, 62, 63]))
    listed = (project / "AutoPick/job004/autopick.star").read_text().replace("job004", "job007")
    rows = [line for line in listed.splitlines() if not (fewer and line.startswith("raw/c.mrc"))]
    write(project / "AutoPick/job007/autopick.star", "\n".join(rows) + "\n")
    report = run(f"{LIST.replace('job004', 'job007')} --threshold 0")
    assert report.summary.kept == (8 if fewer else 12)
    kept = (project / OUT / "Movies/a_autopick.star").read_text()
    assert kept == coordinates([60, 61, 62, 63])


def test_a_coordinate_file_that_would_be_written_is_refused(project):
    listed = (project / "AutoPick/job004/autopick.star").read_text()
    write(project / "elsewhere.star", listed)
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    with pytest.raises(OutputError, match=r"Movies/a_autopick\.star: is an input and would be the output"):
        prepare(parse_arguments(["--o", "AutoPick/job004/", "--in_coords", "elsewhere.star"]))
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before


def test_a_continued_job_computes_anew_with_another_diameter(project):
    run(SUFFIX)
    scorer = XScorer(diameter_angstrom=24.0)
    run(f"{SUFFIX} --diameter 24", scorer)
    assert len(scorer.calls) == 3


def test_coordinates_that_are_no_longer_asked_for_go(project):
    run(SUFFIX)
    write(project / "CtfFind/job003/micrographs_ctf.star", star_31(NAMES[:1]))
    run(SUFFIX)
    assert (project / OUT / "Movies/a_autopick.star").exists()
    assert not (project / OUT / "Movies/b_autopick.star").exists()
    assert (project / "AutoPick/job004/Movies/b_autopick.star").exists()


def test_micrographs_without_a_coordinate_file_are_told(project):
    (project / "AutoPick/job004/raw/c_autopick.star").unlink()
    prepared = prepare(parse_arguments(f"--o {OUT}/ {SUFFIX}".split()))
    assert prepared.warnings == ("1 of 3 micrographs have no coordinate file, and are left out",)
    assert run_external(prepared, XScorer(), lambda: None).summary.picks == 5


REFUSED = {
    "a coordinate file": (
        "--in_coords AutoPick/job004/raw/c_autopick.star",
        "is neither a list of coordinate files nor a coords_suffix file",
    ),
    "no micrographs": ("--in_coords empty/coords_suffix_autopick.star", "names 'Undefined'"),
    "no coordinates": (
        "--in_coords empty/coords_suffix_autopick.star --in_mics CtfFind/job003/micrographs_ctf.star",
        "no coordinate file for any micrograph of CtfFind/job003/micrographs_ctf.star (empty/Movies/a_auto",
    ),
    "other names": (
        f"{LIST} --in_mics other.star",
        "'MotionCorr/job002/Movies/a.mrc' here, 'MotionCorr/job009/Movies/a.mrc' there",
    ),
    "not micrographs": (f"{LIST} --in_mics AutoPick/job004/raw/c_autopick.star", "no loop_ with _rlnMicrog"),
    "a list for 3.1": (f"{LIST} --relion_version 3.1", "give the input micrographs (--in_mics)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_before_any_compute(project, name):
    given, message = REFUSED[name]
    write(project / "empty/coords_suffix_autopick.star", "Undefined\n")
    write(project / "other.star", star_31([name.replace("job002", "job009") for name in NAMES[:2]]))
    with pytest.raises(FormatError) as caught:
        prepare(parse_arguments(f"--o {OUT}/ {given}".split()))
    assert message in str(caught.value)


def test_a_few_names_that_match_nothing_are_told(project):
    write(project / "some.star", star_31(NAMES[:2]))
    prepared = prepare(parse_arguments(f"--o {OUT}/ {LIST} --in_mics some.star".split()))
    assert prepared.warnings == (
        "1 of 3 micrographs of AutoPick/job004/autopick.star are not in some.star (first raw/c.mrc): "
        "RELION will extract nothing from them",
    )


# exit files


def exits(folder):
    return sorted(path.name for path in folder.glob("RELION_JOB_*"))


def test_an_aborted_job_stops_between_micrographs_and_goes_on(project):
    folder, scorer = project / OUT, XScorer()

    def job(press_after):
        with job_control(folder) as check:

            def between():
                if len(scorer.calls) == press_after:
                    (folder / ABORT_NOW).touch()
                check()

            return run(SUFFIX, scorer, between)

    with pytest.raises(JobAbortedError):
        job(press_after=1)
    assert exits(folder) == [ABORTED]
    assert not (folder / "RELION_OUTPUT_NODES.star").exists()
    assert len(scorer.calls) == 1
    report = job(press_after=None)
    assert exits(folder) == [SUCCESS]
    assert report.summary.resumed == 1
    assert sorted(scorer.calls) == ["a.mrc", "b.mrc", "c.mrc"]  # none twice
    assert kept_coordinates(project)[0] == kept_coordinates(project)[1]


def test_exit_files(tmp_path):
    folder = tmp_path / "External/job007"
    with job_control(folder):
        assert exits(folder) == []
    assert exits(folder) == [SUCCESS]
    with pytest.raises(ZeroDivisionError), job_control(folder):
        raise ZeroDivisionError
    assert exits(folder) == [FAILURE]
    with pytest.raises(KeyboardInterrupt), job_control(folder):
        raise KeyboardInterrupt
    assert exits(folder) == [ABORTED]
    with job_control(folder):
        assert exits(folder) == []  # of the run before


def test_an_abort_while_the_job_was_queued_counts_once(tmp_path):
    (tmp_path / ABORT_NOW).touch()
    with pytest.raises(JobAbortedError), job_control(tmp_path):
        pytest.fail("it began")
    assert exits(tmp_path) == [ABORTED]
    with job_control(tmp_path) as check:
        check()
    assert exits(tmp_path) == [SUCCESS]
