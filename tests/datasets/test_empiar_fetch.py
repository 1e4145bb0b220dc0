"""`dataset empiar` from end to end against a local server: plan, files, labels with y turned, resume, CLI."""

import hashlib
import json
import os
import shutil

import numpy as np
import pytest
import typer
from empiar_server import Fault, Site, serving, tar_gz
from typer.testing import CliRunner

from pickeropt.commands import dataset as cli_empiar
from pickeropt.datasets.class_folders import build_class_folders, gather_points
from pickeropt.datasets.dataset_config import BuildConfig
from pickeropt.datasets.empiar.download_plan import (
    ask_empiar,
    extract_coordinates,
    list_folder,
    local_name,
    make_plan,
    stem_of,
)
from pickeropt.datasets.empiar.fetching import fetch
from pickeropt.datasets.empiar.http_download import Patience, part_of
from pickeropt.datasets.empiar.manifest import EmpiarConfig, EntryOverrides, choose_entries, load_manifest
from pickeropt.errors import DownloadError, FormatError, GeometryError, OutputError, PickeroptError
from pickeropt.io.delimited import read_cryoppp
from pickeropt.io.labels import read_labels
from pickeropt.io.micrographs import write_mrc

HEIGHT, WIDTH = 250, 300
DATA = "/10017/data/"
QUICK = Patience(attempts=2, timeout=5.0, sleep=lambda s: None)


def csv(*points):
    rows = "".join(f"{x},{y},108,0.0\n" for x, y in points)
    return f"X-Coordinate,Y-Coordinate,Diameter,Angle-Psi\n{rows}".encode()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Five micrographs, of which four are labelled, the archive of labels, and what is no micrograph."""
    folder = tmp_path_factory.mktemp("server")
    files = {DATA + "README.txt": b"no micrograph", DATA + "sub/x.mrc": b"nor this"}
    for i in range(5):
        pixels = np.random.default_rng(i).normal(10, 2, (HEIGHT, WIDTH)).astype(np.float32)
        write_mrc(folder / "m.mrc", pixels, 1.77)
        files[f"{DATA}Falcon_{i}.mrc"] = (folder / "m.mrc").read_bytes()
    tables = {f"10017/ground_truth/particle_coordinates/Falcon_{i}.csv": csv((90, 40 + i)) for i in range(4)}
    tables["10017/ground_truth/particle_coordinates/Falcon_0.csv"] = csv((90, 40), (100, 250), (20, 0), (7, 9))
    tables["10017/micrographs/Falcon_0.jpg"] = b"not taken out"
    files["/labels/10017.tar.gz"] = tar_gz(tables)
    return files


@pytest.fixture
def site(files, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    with serving(Site(dict(files))) as site:
        yield site


def config_of(site, out, **more):
    return EmpiarConfig(out, site.url, site.url + "/labels", patience=QUICK, **more)


def beta_gal(**said):
    return choose_entries(load_manifest(), ["10017"], EntryOverrides({}, {}, said))


def run(site, out, entries=None, **more):
    config = config_of(site, out, **more)
    return fetch(make_plan(entries or beta_gal(), config), config)


# coordinates


def test_y_of_cryoppp_counts_from_the_other_side(tmp_path):
    """By hand: on 4096 rows y = 3000 is row 1096, the outer edge y = 0 is 4096, y = 4096 is 0."""
    (tmp_path / "a.csv").write_bytes(csv((12.5, 3000), (7, 0), (8, 4096), (9, 1.25)))
    points = [[12.5, 1096], [7, 4096], [8, 0], [9, 4094.75]]
    np.testing.assert_array_equal(read_cryoppp(tmp_path / "a.csv", 4096), points)


def test_tables_that_are_none(tmp_path):
    path = tmp_path / "a.csv"
    for text, says in (
        ("", "found: nothing"),
        ("x,y\n1,2\n", "X-Coordinate"),
        ("X-Coordinate,Y-Coordinate\n1,2\n3,no\n", "line 3"),
        ("X-Coordinate,Y-Coordinate\n1,nan\n", "line 2"),
        ("X-Coordinate,Y-Coordinate\n1\n", "line 2"),
    ):
        path.write_text(text)
        with pytest.raises(FormatError, match=says):
            read_cryoppp(path, 100)
    path.write_text("X-Coordinate,Y-Coordinate,Diameter\n")
    assert read_cryoppp(path, 100).shape == (0, 2)


# the archive


def test_an_index_page(site):
    site.files["/p/a b.mrc"] = b""
    site.files["/p/deep/c.mrc"] = b""
    assert list_folder(site.url + "/p/", QUICK) == (["a b.mrc"], ["deep"])


def test_names():
    assert local_name("sb1_210512 pos 1038 1-2_1.mrc") == "sb1_210512_pos_1038_1-2_1.mrc"
    assert local_name("_#a.mrc") == "a.mrc"
    assert stem_of("x_patch_aligned.mrc") == stem_of("x.csv") == "x"
    assert stem_of("x.frames.mrc") == "x"


def test_an_archive_of_labels_cannot_write_elsewhere(tmp_path):
    inside = "10017/ground_truth/particle_coordinates/"
    members = {f"{inside}a.csv": b"1", f"../../{inside}../b.csv": b"2", f"/x/{inside}c.csv": b"3"}
    (tmp_path / "a.tar.gz").write_bytes(tar_gz(members))
    assert extract_coordinates(tmp_path / "a.tar.gz", tmp_path / "out") == 2
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.csv", "c.csv"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar.gz", "out"]


@pytest.mark.parametrize("fault", ["cut", "empty", "not gzip"])
def test_a_broken_archive_leaves_nothing(tmp_path, fault):
    whole = tar_gz({"1/ground_truth/particle_coordinates/a.csv": os.urandom(5000)})
    data = {"cut": whole[: len(whole) // 2], "empty": tar_gz({"1/readme": b""}), "not gzip": b"<html>"}[fault]
    (tmp_path / "a.tar.gz").write_bytes(data)
    with pytest.raises(FormatError):
        extract_coordinates(tmp_path / "a.tar.gz", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar.gz"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_archive_outlives_a_stop_while_it_is_unpacked(site, tmp_path, monkeypatch, stop):
    def stopped(*_):
        raise stop

    with monkeypatch.context() as patch:
        patch.setattr("pickeropt.datasets.empiar.download_plan.Path.write_bytes", stopped)
        with pytest.raises((KeyboardInterrupt, OutputError), match=r"^$|No space left.*the archive is kept"):
            run(site, tmp_path, max_micrographs=1)
    assert (tmp_path / "10017/10017.tar.gz").read_bytes() == site.files["/labels/10017.tar.gz"]
    run(site, tmp_path, max_micrographs=1)
    assert len(site.gets("/labels/10017.tar.gz")) == 1
    assert not (tmp_path / "10017/10017.tar.gz").exists()


def test_a_damaged_archive_is_fetched_again(site, tmp_path):
    whole = site.files["/labels/10017.tar.gz"]
    site.files["/labels/10017.tar.gz"] = whole[: len(whole) // 2]
    with pytest.raises(FormatError, match="cannot be unpacked"):
        run(site, tmp_path, max_micrographs=1)
    site.files["/labels/10017.tar.gz"] = whole
    assert run(site, tmp_path, max_micrographs=1).entries[0].counts == {"particle": 3}


# all of it


def test_an_entry_is_fetched_labelled_and_can_be_built_from(site, tmp_path):
    report = run(site, tmp_path, max_micrographs=2)
    entry = report.entries[0]
    assert [p.name for p in entry.micrographs] == ["Falcon_0.mrc", "Falcon_2.mrc"]  # spread over four
    assert entry.counts == {"particle": 4}
    assert entry.outside == 1  # y = 0 is row 250, below the last
    labels = read_labels(tmp_path / "10017/labels.star")
    expected = [[90, 210], [100, 0], [7, 241], [90, 208]]  # 250 - 40, 250 - 250, 250 - 9, 250 - 42
    np.testing.assert_array_equal(labels.file.picks.coordinates, expected)
    assert labels.file.picks.micrograph_names == ("micrographs/Falcon_0.mrc", "micrographs/Falcon_2.mrc")
    assert set(labels.source_names) == {"EMPIAR-10017"}
    np.testing.assert_allclose(labels.diameters, 108 * 1.77, atol=1e-3)
    left = sorted(p.name for p in (tmp_path / "10017").iterdir())
    assert left == ["labels.star", "micrographs", "particle_coordinates"]
    built = build_class_folders([tmp_path / "10017/labels.star"], BuildConfig(), tmp_path / "boxes")
    assert built.counts == {"EMPIAR-10017": 4}


def test_the_pixel_size_of_the_entry_goes_into_the_labels(site, tmp_path):
    """108 px at the 2 Å/px that the user says, whatever the header (1.77) says; it is told."""
    entries = choose_entries(load_manifest(), ["10017"], EntryOverrides({"10017": 2.0}, {}, {}))
    report = run(site, tmp_path, entries, max_micrographs=2)
    labels = read_labels(tmp_path / "10017/labels.star")
    np.testing.assert_allclose(labels.diameters, 216, atol=1e-3)
    np.testing.assert_array_equal(labels.pixel_sizes, 2.0)
    (warning,) = report.warnings
    assert "EMPIAR-10017: 2 Å/px counts, the header of Falcon_0.mrc says 1.77 (and 1 more differ)" in warning
    points = gather_points([labels], (), "source", None, None)
    np.testing.assert_allclose(points.diameters_px, 108, rtol=1e-5)
    assert run(site, tmp_path, max_micrographs=2).warnings == ()  # 1.77 of the manifest


def test_a_second_run_fetches_nothing_and_a_damaged_file_again(site, tmp_path):
    run(site, tmp_path, max_micrographs=2)
    before = len([r for r in site.requests if r[0] == "GET" and r[1].endswith((".mrc", ".gz"))])
    assert before == 3
    path = tmp_path / "10017/micrographs/Falcon_2.mrc"
    whole = path.read_bytes()
    run(site, tmp_path, max_micrographs=2)
    assert len(site.gets(DATA + "Falcon_2.mrc")) == 1
    path.write_bytes(whole[:-4] + b"oops")
    run(site, tmp_path, max_micrographs=2)
    assert path.read_bytes() == whole
    assert len(site.gets("/labels/10017.tar.gz")) == 1
    record = json.loads((tmp_path / "downloads.json").read_text())["files"]["10017/micrographs/Falcon_2.mrc"]
    assert record["bytes"] == len(whole)


def test_the_record_has_every_file_that_was_fetched(site, tmp_path):
    run(site, tmp_path, max_micrographs=1)
    files = json.loads((tmp_path / "downloads.json").read_text())["files"]
    assert list(files) == ["10017/10017.tar.gz", "10017/labels.star", "10017/micrographs/Falcon_0.mrc"]
    assert files["10017/10017.tar.gz"] == {
        "url": site.url + "/labels/10017.tar.gz",
        "bytes": len(site.files["/labels/10017.tar.gz"]),
        "sha256": hashlib.sha256(site.files["/labels/10017.tar.gz"]).hexdigest(),
    }


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"files": []}',
        '{"files": {"a": 1}}',
        '{"files": {"a": {"bytes": "1", "sha256": 2}}}',
    ],
)
def test_a_damaged_record_is_said(site, tmp_path, text):
    (tmp_path / "downloads.json").write_text(text)
    with pytest.raises(FormatError, match=r"downloads\.json: .*; remove it"):
        run(site, tmp_path, max_micrographs=1)


def test_a_file_that_changed_at_its_source_is_said(site, tmp_path):
    run(site, tmp_path, max_micrographs=1)
    path = tmp_path / "10017/micrographs/Falcon_0.mrc"
    path.unlink()
    site.files[DATA + "Falcon_0.mrc"] = site.files[DATA + "Falcon_1.mrc"]
    with pytest.raises(DownloadError, match=r"SHA-256.*recorded at the first download"):
        run(site, tmp_path, max_micrographs=1)
    assert not path.exists()


def test_a_run_that_was_cut_off_goes_on_with_the_rest_of_the_file(site, tmp_path):
    name = DATA + "Falcon_2.mrc"
    size = len(site.files[name])
    site.faults[name], site.forever = [Fault(cut=size // 2), Fault(cut=0)], True
    with pytest.raises(DownloadError, match="cut after"):
        run(site, tmp_path, max_micrographs=2)
    folder = tmp_path / "10017/micrographs"
    assert (folder / "Falcon_0.mrc").exists()
    assert not (folder / "Falcon_2.mrc").exists()
    assert part_of(folder / "Falcon_2.mrc").stat().st_size == size // 2
    assert not (tmp_path / "10017/labels.star").exists()
    site.faults.clear()
    run(site, tmp_path, max_micrographs=2)
    assert site.gets(name)[-1] == f"bytes={size // 2}-"
    assert (folder / "Falcon_2.mrc").read_bytes() == site.files[name]
    assert len(site.gets(DATA + "Falcon_0.mrc")) == 1


def test_the_users_points_join_those_of_cryoppp(site, tmp_path):
    shots = tmp_path / "mine.star"
    shots.write_text(
        "data_\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n_pickeroptClass\n"
        "any/where/Falcon_0.mrc 50 60 carbon\nFalcon_2.mrc 70 80 contaminant\nelse.mrc 1 2 carbon\n"
    )
    report = run(site, tmp_path / "out", max_micrographs=2, shots=(shots,))
    assert report.entries[0].counts == {"particle": 4, "carbon": 1, "contaminant": 1}
    labels = read_labels(tmp_path / "out/10017/labels.star")
    rows = dict(zip(labels.source_names, labels.file.picks.coordinates.tolist(), strict=True))
    assert rows["carbon_EMPIAR-10017"] == [50, 60]  # not turned: these are rows as stored already
    assert rows["contaminant_EMPIAR-10017"] == [70, 80]
    assert [w for w in report.warnings if "1 rows are on other micrographs, such as else.mrc" in w]


HAND = "data_\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n_pickeroptClass\n"


def test_labels_that_were_added_by_hand_are_kept(site, tmp_path):
    run(site, tmp_path, max_micrographs=1)
    star = tmp_path / "10017/labels.star"
    plain = star.read_bytes()
    assert run(site, tmp_path, max_micrographs=1).warnings == ()
    for i in (1, 2):
        mine = plain + b"micrographs/Falcon_0.mrc 50 60 carbon carbon_EMPIAR-10017 191 1.77\n"
        star.write_bytes(mine)
        (warning,) = run(site, tmp_path, max_micrographs=1).warnings
        assert f"changed by hand, so it is kept as labels.kept{i}.star" in warning
        assert (tmp_path / f"10017/labels.kept{i}.star").read_bytes() == mine
        assert star.read_bytes() == plain


def test_points_of_earlier_shots_that_vanish_are_told(site, tmp_path):
    shots = tmp_path / "mine.star"
    shots.write_text(HAND + "Falcon_0.mrc 50 60 carbon\nFalcon_0.mrc 70.1234 80 contaminant\n")
    out = tmp_path / "out"
    assert run(site, out, max_micrographs=2, shots=(shots,)).warnings == ()
    assert run(site, out, max_micrographs=1, shots=(shots,)).warnings == ()  # particles go without a word
    (warning,) = run(site, out, max_micrographs=1).warnings
    assert "2 points of an earlier run (carbon, contaminant) are gone, because their --shots" in warning
    assert run(site, out, max_micrographs=1).warnings == ()


def test_no_labels_of_an_earlier_run_stay_where_there_is_no_point(site, tmp_path):
    folder = tmp_path / "10454/micrographs"
    folder.mkdir(parents=True)
    (folder / "a.mrc").write_bytes(site.files[DATA + "Falcon_0.mrc"])
    (tmp_path / "mine.star").write_text(HAND + "a.mrc 50 60 particle\n")
    entries = choose_entries(load_manifest(), ["10454"], EntryOverrides({"10454": 1.77}, {"10454": 90.0}, {}))
    report = run(site, tmp_path, entries, shots=(tmp_path / "mine.star",))
    assert report.entries[0].labels == tmp_path / "10454/labels.star"
    report = run(site, tmp_path, entries)
    assert report.entries[0].labels is None
    assert "1 points of an earlier run (particle) are gone" in report.warnings[0]
    assert not (tmp_path / "10454/labels.star").exists()


def test_labels_of_other_micrographs_are_not_taken(site, tmp_path):
    folder = tmp_path / "10017/particle_coordinates"
    folder.mkdir(parents=True)
    (folder / "other.csv").write_bytes(csv((1, 2)))
    with pytest.raises(FormatError, match=r"other\.csv and Falcon_0\.mrc"):
        run(site, tmp_path)
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "Falcon_1.csv").write_bytes(csv((1, 900), (2, 900), (3, 20)))
    with pytest.raises(GeometryError, match="2 of 3 centres lie outside"):
        run(site, tmp_path)


# the plan


def test_the_plan_counts_bytes_and_writes_nothing(site, tmp_path):
    plan = make_plan(beta_gal(), config_of(site, tmp_path / "new", max_micrographs=3))
    size, archive = len(site.files[DATA + "Falcon_0.mrc"]), len(site.files["/labels/10017.tar.gz"])
    assert plan.needed == 3 * size + archive
    assert plan.entries[0].names == tuple(f"Falcon_{i}.mrc" for i in range(5))
    assert list(tmp_path.iterdir()) == []
    everything = make_plan(beta_gal(), config_of(site, tmp_path / "new", max_micrographs=0))
    assert everything.entries[0].count == 5


def test_files_of_another_choice_pay_for_nothing(site, tmp_path):
    """Falcon_0 and _2 are here; of three Falcon_1 is missing, whatever else lies in the folders."""
    run(site, tmp_path, max_micrographs=2)
    size = len(site.files[DATA + "Falcon_0.mrc"])
    (tmp_path / "10017/micrographs/mine.mrc").write_bytes(b"x" * 10 * size)
    again = make_plan(beta_gal(), config_of(site, tmp_path, max_micrographs=2))
    assert (again.complete, again.needed) == (True, 0)
    more = make_plan(beta_gal(), config_of(site, tmp_path, max_micrographs=3))
    assert (more.complete, more.needed, more.entries[0].missing) == (False, size, 1)
    everything = make_plan(beta_gal(), config_of(site, tmp_path, max_micrographs=0))
    assert (everything.entries[0].count, everything.entries[0].missing) == (4, 2)  # four are labelled


def test_too_little_room_is_said_before_anything_is_fetched(site, tmp_path, monkeypatch):
    usage = shutil._ntuple_diskusage(10**6, 0, 1000)
    monkeypatch.setattr("pickeropt.datasets.empiar.download_plan.shutil.disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match="are free"):
        make_plan(beta_gal(), config_of(site, tmp_path))
    assert site.gets("/labels/10017.tar.gz") == []


def test_a_folder_without_micrographs_says_what_is_there(site, tmp_path):
    site.files["/10017/data/raw/readme"] = b""
    with pytest.raises(DownloadError, match=r"no file Falcon_\*\.mrc \(there is readme\).*--folder 10017="):
        make_plan(beta_gal(**{"10017": "data/raw"}), config_of(site, tmp_path))


def test_what_the_manifest_does_not_know_is_asked_for(site, tmp_path):
    entries = choose_entries(load_manifest(), ["10454"], EntryOverrides({}, {}, {}))
    with pytest.raises(PickeroptError, match=r"--pixel-size 10454=.*--diameter 10454=.*--folder 10454="):
        make_plan(entries, config_of(site, tmp_path))
    assert site.requests == []


def test_micrographs_that_are_here_need_no_folder(site, tmp_path):
    folder = tmp_path / "10454/micrographs"
    folder.mkdir(parents=True)
    (folder / "a.mrc").write_bytes(site.files[DATA + "Falcon_0.mrc"])
    entries = choose_entries(load_manifest(), ["10454"], EntryOverrides({"10454": 1.5}, {"10454": 90.0}, {}))
    report = run(site, tmp_path, entries)
    assert [p.name for p in report.entries[0].micrographs] == ["a.mrc"]
    assert report.entries[0].labels is None
    assert site.requests == []


# what EMPIAR says of an entry


def described(accession, *sets):
    names = ("directory", "category", "data_format", "pixel_width")
    rows = [dict(zip(names, one, strict=True)) for one in sets]
    return {f"/entry/EMPIAR-{accession}": json.dumps({f"EMPIAR-{accession}": {"imagesets": rows}}).encode()}


SINGLE, MOVIES = "micrographs - single frame", "micrographs - multiframe"


def asked(site, out, accession, said=None):
    entries = choose_entries(load_manifest(), [accession], said or EntryOverrides({}, {}, {}))
    return ask_empiar(entries, said or EntryOverrides({}, {}, {}), out, site.url + "/entry", QUICK)


def test_empiar_is_asked_for_what_no_one_knows(site, tmp_path):
    site.files |= described(
        "10406", ("/data/Movies", MOVIES, "TIFF", "0.5"), ("data/Micrographs/", SINGLE, "MRC", "1.7")
    )
    said, lines = asked(site, tmp_path, "10406")
    assert (said.pixel_size, said.folder) == ({"10406": 1.7}, {"10406": "data/Micrographs"})
    assert lines == ("EMPIAR-10406: by EMPIAR's own description 1.7 Å/px, in data/Micrographs",)
    said, _ = asked(site, tmp_path, "10406", EntryOverrides({"10406": 1.6}, {}, {}))
    assert (said.pixel_size, said.folder) == ({"10406": 1.6}, {"10406": "data/Micrographs"})
    assert asked(site, tmp_path, "10017") == (EntryOverrides({}, {}, {}), ())
    (tmp_path / "10406/micrographs").mkdir(parents=True)
    (tmp_path / "10406/micrographs/a.mrc").touch()
    assert asked(site, tmp_path, "10406")[0].folder == {}


def test_of_several_image_sets_that_of_the_known_folder_counts(site, tmp_path):
    both = [("data/Micrographs_part1", SINGLE, "MRC", "1.34"), ("data/part2", SINGLE, "MRC", "1.2")]
    site.files |= described("10077", *both) | described("10406", *both)
    assert asked(site, tmp_path, "10077")[0].pixel_size == {"10077": 1.34}
    said, lines = asked(site, tmp_path, "10406")
    assert said == EntryOverrides({}, {}, {})
    assert lines[0].endswith("names no one folder of micrographs (there is data/Micrographs_part1, data/part2)")


@pytest.mark.parametrize("size", ["", None, "none", 0, -1, "inf"])
def test_a_description_without_a_pixel_size(site, tmp_path, size):
    site.files |= described("10406", ("data", SINGLE, "MRC", size))
    said, lines = asked(site, tmp_path, "10406")
    assert (said.pixel_size, said.folder) == ({}, {"10406": "data"})
    assert "no pixel size, in data" in lines[0]


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b"{}", b'{"EMPIAR-10406": 3}', b'{"a": {}, "b": {}}', None])
def test_no_description(site, tmp_path, answer):
    if answer is not None:
        site.files["/entry/EMPIAR-10406"] = answer
    said, lines = asked(site, tmp_path, "10406")
    assert said == EntryOverrides({}, {}, {})
    assert lines[0].startswith("EMPIAR-10406: EMPIAR could not be asked (")


def test_a_folder_that_leads_out_is_none(site, tmp_path):
    site.files |= described("10406", ("../data", SINGLE, "MRC", "1.7"))
    assert asked(site, tmp_path, "10406")[0] == EntryOverrides({}, {}, {})


def test_the_command_takes_what_empiar_says(site, tmp_path, command):
    site.files |= described("10454", ("data", SINGLE, "MRC", "1.5"))
    site.files["/10454/data/a.mrc"] = site.files[DATA + "Falcon_0.mrc"]
    words = ["empiar", "--out", tmp_path, "--entries", "10454", "--diameter", "10454=90", "--yes"]
    words += [
        "--base-url",
        site.url,
        "--labels-url",
        site.url + "/labels",
        "--entry-url",
        site.url + "/entry",
    ]
    result = command(*words)
    assert result.exit_code == 0, result.output
    assert "EMPIAR-10454: by EMPIAR's own description 1.5 Å/px, in data" in result.stdout
    assert (tmp_path / "10454/micrographs/a.mrc").is_file()


# the command


@pytest.fixture
def command():
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("build")(cli_empiar.run_build)
    app.command("empiar")(cli_empiar.run_empiar)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def test_the_list_needs_no_network(command):
    result = command("empiar", "--list")
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line}
    assert "1.77" in lines["EMPIAR-10017"]
    assert "191" in lines["EMPIAR-10017"]
    assert lines["EMPIAR-10470"].endswith("pixel size, diameter, folder")
    assert "CC-BY-4.0" in result.stdout


def test_the_list_refuses_what_it_would_not_heed(command):
    result = command("empiar", "--list", "--entries", "99", "--folder", "10017=data")
    assert result.exit_code == 2
    assert "leave out --entries, --folder" in " ".join(result.stderr.replace("│", " ").split())


def test_the_command_asks_fetches_and_names_the_next(site, tmp_path, command):
    words = [
        "empiar",
        "--out",
        tmp_path,
        "--entries",
        "10017",
        "--max-micrographs",
        1,
        "--base-url",
        site.url,
    ]
    words += ["--labels-url", site.url + "/labels"]
    result = command(*words)
    assert "nobody is here to agree" in str(result.exception)
    assert list(tmp_path.iterdir()) == []
    result = command(*words, "--yes")
    assert result.exit_code == 0, result.output
    assert "EMPIAR-10017: 1 micrographs, 3 particle" in result.stdout
    star = tmp_path / "10017/labels.star"
    assert f"pickeropt dataset build {star} --out boxes" in result.stdout
    built = command("build", star, "--out", tmp_path / "boxes", "--per-class", 5)
    assert built.exit_code == 0, built.output
    assert "3 boxes of 93 px in 1 classes" in built.stdout
    assert "warning: class 'EMPIAR-10017' has 3 boxes where 5" in built.stdout


@pytest.mark.parametrize("known", [True, False])
def test_nothing_is_fetched_unasked(site, tmp_path, command, monkeypatch, known):
    """A surplus of one entry is none of another, and a file whose size no one says is one too."""
    place = "/10028/data/Micrographs/Micrographs_part1/"
    site.files |= {f"{place}00{i}.mrc": site.files[DATA + "Falcon_0.mrc"] for i in range(2)}
    words = ["empiar", "--out", tmp_path, "--base-url", site.url, "--labels-url", site.url + "/labels"]
    assert command(*words, "--entries", "10017", "--max-micrographs", 4, "--yes").exit_code == 0
    if not known:
        monkeypatch.setattr("pickeropt.datasets.empiar.download_plan.remote_size", lambda url, patience: None)
    both = [*words, "--entries", "10017,10028", "--max-micrographs", 2]
    result = command(*both)
    assert "nobody is here to agree" in str(result.exception)
    assert not (tmp_path / "10028").exists()
    assert "EMPIAR-10017: 2 of 5 micrographs, here already" in result.stdout
    size = "of 0 MB" if known else "of unknown size"
    assert f"EMPIAR-10028: 2 of 2 micrographs {size}" in result.stdout
    assert command(*both, "--yes").exit_code == 0
    assert command(*both).exit_code == 0  # all is here: nothing to agree to


@pytest.mark.parametrize("option", ["--pixel-size", "--folder"])
def test_an_option_that_is_no_pair(command, option):
    assert command("empiar", option, "10406").exit_code == 2
