"""Labels on disk: going on with them, changes from outside, one server at a time, large files."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from label_world import config_of, label, make_world, post, rows_of, serving

from pickeropt.errors import FormatError, GeometryError, MicrographError, OutputError, ShotsError
from pickeropt.io.micrographs import write_mrc
from pickeropt.label import app as views
from pickeropt.label import session as loading
from pickeropt.label.label_store import FIRST_ADDED, Box, LabelsFile, LabelStore, PickTable, labelled_star
from pickeropt.label.server import LabelServer
from pickeropt.shots import read_labelled_star


def test_opening_again_goes_on(tmp_path):
    picks, config = make_world(tmp_path), config_of(tmp_path)
    with serving(picks, config) as (_, client):
        post(client, "/api/classes", {"name": "aggregate"})
        label(client, (5, "aggregate"), (0, "particle"), (2, "skip"))
        post(client, "/api/add", {"micrograph": 1, "x": 77, "y": 78.5, "class": "carbon"})
    before = config.out.read_bytes()
    with serving(picks, config) as (_, client):
        state = client.get("/api/state").json()
        assert {c["name"]: c["count"] for c in state["classes"]} == {
            "particle": 1, "contaminant": 0, "carbon": 1, "background": 0, "aggregate": 1,
        }  # fmt: skip
        assert state["skipped"] == 1
        shown = [client.get("/api/picks?limit=8").json()["items"][i]["label"] for i in (0, 2, 5, 1)]
        assert shown == ["particle", "skip", "aggregate", None]
        added = client.get("/api/picks?class=carbon").json()["items"]
        assert [(item["id"] >= FIRST_ADDED, item["x"], item["y"]) for item in added] == [(True, 77.0, 78.5)]
        assert config.out.read_bytes() == before
        label(client, (1, "particle"))
    assert [row[3] for row in rows_of(config.out)] == ["aggregate", "particle", "carbon", "particle"]


def test_labels_of_other_hands_are_matched_to_picks(tmp_path):
    """Rounded to two decimals, under the micrograph's path; and a point that is no pick."""
    picks, config = make_world(tmp_path), config_of(tmp_path)
    config.out.parent.mkdir()
    where = tmp_path / "micrographs" / "m0.mrc"
    head = ["data_", "loop_", "_rlnMicrographName", "_rlnCoordinateX", "_rlnCoordinateY", "_pickeroptClass"]
    config.out.write_text("\n".join([*head, f"{where} 100.13 60 particle", f"{where} 100.2 60 ice", ""]))
    with serving(picks, config) as (_, client):
        items = client.get("/api/picks?order=labelled").json()["items"]
        assert [(i["id"], i["label"]) for i in items] == [(FIRST_ADDED + 1, "ice"), (1, "particle")]
        assert client.get("/api/state").json()["micrographs"] == 2


def test_what_is_no_label_in_a_file_of_other_hands_is_kept(tmp_path):
    """Optics, source classes and scores: in a copy that is made at the first change, and only once."""
    picks, config = make_world(tmp_path), config_of(tmp_path)
    config.out.parent.mkdir()
    head = [
        "_rlnMicrographName",
        "_rlnCoordinateX",
        "_rlnCoordinateY",
        "_pickeroptClass",
        "_pickeroptDiameter",
    ]
    lines = ["data_optics", "_rlnMicrographPixelSize 2.0", "data_labels", "loop_", *head]
    before = "\n".join([*lines, "m0.mrc 100.13 60 particle 250.0", ""])
    config.out.write_text(before)
    with serving(picks, config) as (_, client):
        assert [path.name for path in config.out.parent.glob("*.star")] == ["labels.star"]
        label(client, (0, "carbon"))
        label(client, (2, "carbon"))
        (said,) = client.get("/api/state").json()["problems"]
        assert "labels-1.star" in said
    with serving(picks, config) as (_, client):
        assert client.get("/api/state").json()["problems"] == []
        label(client, (2, None))
    assert len(rows_of(config.out)) == 2
    files = {path.name: path.read_text() for path in config.out.parent.glob("labels-*.star")}
    assert files == {"labels-1.star": before}


def test_a_link_to_the_labels_leads_to_the_same_file(tmp_path):
    picks, config = make_world(tmp_path), config_of(tmp_path)
    link = tmp_path / "labels.star"
    link.symlink_to("out/labels.star")
    linked = replace(config, out=link)
    with serving(picks, config) as (_, client):
        label(client, (0, "particle"))
        with pytest.raises(OutputError, match="another server"):
            LabelServer([picks], linked)
    with serving(picks, linked) as (_, client):
        label(client, (1, "carbon"), (2, "skip"))
    assert link.is_symlink()
    assert len(rows_of(config.out)) == 2
    assert sorted(path.name for path in tmp_path.glob("*.star")) == ["labels.star", "picks.star"]


def test_labels_that_name_micrographs_only_as_the_picks_do_are_found(tmp_path):
    """Micrographs that are found from the picks' folder, while the labels lie elsewhere."""
    picks = make_world(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    text = picks.read_text().replace("m0.mrc", "micrographs/m0.mrc").replace("m1.mrc", "micrographs/m1.mrc")
    picks.write_text(text)
    config = config_of(tmp_path, micrographs=(), out=tmp_path / "elsewhere" / "deep" / "labels.star")
    with serving(picks, config) as (_, client):
        label(client, (0, "particle"), (4, "carbon"))
    with serving(picks, config) as (_, client):
        assert client.get("/api/state").json()["problems"] == []
        items = client.get("/api/picks?order=labelled").json()["items"]
        assert [item["id"] for item in items] == [4, 0]


def beside(folder, rows):
    """Files of picks without names, each beside its micrograph, and labels elsewhere."""
    for number, place in enumerate(rows):
        path = folder / "data" / place
        pixels = np.random.default_rng(number).standard_normal((200, 300)).astype(np.float32)
        write_mrc(path, pixels, 2.0)
        lines = ["data_", "loop_", "_rlnCoordinateX", "_rlnCoordinateY", *rows[place], ""]
        path.with_suffix(".star").write_text("\n".join(lines))
    return folder / "data", config_of(folder, micrographs=())


def test_picks_beside_their_micrographs_and_labels_elsewhere(tmp_path):
    picks, config = beside(tmp_path, {"m0.mrc": ["40.5 50.25", "100 60"], "m1.mrc": ["40.5 50.25"]})
    with serving(picks, config) as (_, client):
        label(client, (0, "particle"), (2, "carbon"), (1, "skip"))
    with serving(picks, config) as (_, client):
        state = client.get("/api/state").json()
        assert (state["problems"], state["micrographs"], state["picks"]) == ([], 2, 3)
        assert [i["label"] for i in client.get("/api/picks").json()["items"]] == [
            "particle",
            "skip",
            "carbon",
        ]
        label(client, (0, "contaminant"))
    assert [row[1:] for row in rows_of(config.out)] == [
        ["40.5", "50.25", "contaminant"],
        ["40.5", "50.25", "carbon"],
    ]


@pytest.mark.parametrize("folders", [(), ("data",)])
def test_micrographs_of_one_name_in_two_folders_are_told_apart(tmp_path, folders):
    picks, config = beside(tmp_path, {"A/m1.mrc": ["40 50", "100 60"], "B/m1.mrc": ["41 50", "101 60"]})
    config = replace(config, micrographs=tuple(tmp_path / name for name in folders))
    with serving(picks, config) as (server, client):
        label(client, (0, "particle"), (1, "particle"), (2, "carbon"), (3, "carbon"))
        shots = read_labelled_star(config.out, server.model_jobs._folders())
    found = [shots.micrographs[i].parent.name for i in shots.micrograph_index]
    assert list(zip(found, shots.coordinates[:, 0].tolist(), strict=True)) == [
        ("A", 40.0), ("A", 100.0), ("B", 41.0), ("B", 101.0),
    ]  # fmt: skip
    with serving(picks, config) as (_, client):
        labels = [item["label"] for item in client.get("/api/picks").json()["items"]]
        assert labels == ["particle", "particle", "carbon", "carbon"]


def test_a_namesake_is_no_substitute_for_a_micrograph(tmp_path):
    picks = make_world(tmp_path)
    text = picks.read_text()
    picks.write_text(text.replace("m0.mrc", "A/m0.mrc").replace("m1.mrc", "B/m0.mrc"))
    with pytest.raises(MicrographError, match=r"A/m0\.mrc and B/m0\.mrc are two micrographs.*--micrographs"):
        LabelServer([picks], config_of(tmp_path))


def test_a_change_by_another_program_is_not_overwritten(tmp_path):
    picks, config = make_world(tmp_path), config_of(tmp_path)
    with serving(picks, config) as (_, client):
        label(client, (0, "particle"))
        changed = config.out.read_text() + "m1.mrc 9 9 carbon\n"
        config.out.write_text(changed)
        said = label(client, (1, "particle"), status=409)
        assert "changed by another program" in said["error"]
        assert config.out.read_text() == changed
        assert client.get("/api/picks?limit=2").json()["items"][1]["label"] is None
        assert client.get("/api/state").json()["problems"] == [said["error"]]
        config.out.unlink()
        assert "removed by another program" in label(client, (1, "particle"), status=409)["error"]
        assert not config.out.exists()


def test_a_file_that_was_only_touched_is_no_change(tmp_path):
    picks, config = make_world(tmp_path), config_of(tmp_path)
    with serving(picks, config) as (_, client):
        label(client, (0, "particle"))
        config.out.write_bytes(config.out.read_bytes())
        label(client, (1, "particle"))
    assert len(rows_of(config.out)) == 2


def test_what_cannot_be_saved_is_not_labelled(tmp_path, monkeypatch):
    picks, config = make_world(tmp_path), config_of(tmp_path)
    with serving(picks, config) as (_, client):
        label(client, (0, "particle"))

        def full(path, data):
            raise OutputError(f"{path}: cannot be written (No space left on device); free space")

        monkeypatch.setattr("pickeropt.label.label_store.write_bytes_atomically", full)
        assert "No space" in label(client, (0, "carbon"), (1, "carbon"), status=409)["error"]
        monkeypatch.undo()
        items = client.get("/api/picks?limit=2").json()["items"]
        assert [item["label"] for item in items] == ["particle", None]
        assert post(client, "/api/undo")["ids"] == [0]  # the action before, not the one that failed


def test_a_second_server_is_refused(tmp_path):
    picks, config = make_world(tmp_path), config_of(tmp_path)
    with (
        serving(picks, config),
        pytest.raises(OutputError, match=r"labels\.star: another server .*has it open"),
    ):
        LabelServer([picks], config)
    with serving(picks, config):
        pass
    assert [path.name for path in config.out.parent.iterdir()] == []


def test_a_lock_whose_process_died_is_none(tmp_path):
    code = "import sys, os; from pathlib import Path; from pickeropt.label.label_store import LabelsFile\n"
    code += "LabelsFile(Path(sys.argv[1])); os._exit(9)"
    path = tmp_path / "labels.star"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 9
    assert (tmp_path / ".labels.star.lock").exists()
    LabelsFile(path).close()


def test_files_that_must_not_be_overwritten(tmp_path):
    picks = make_world(tmp_path)
    labelled = tmp_path / "truth.star"
    labelled.write_bytes(labelled_star(["m0.mrc"], np.array([[1.0, 2.0]]), ["ice"]))
    with pytest.raises(OutputError, match="is the file of picks itself"):
        LabelServer([labelled], config_of(tmp_path, out=labelled))
    with pytest.raises(OutputError, match="is in the folder of picks"):
        LabelServer([tmp_path], config_of(tmp_path))
    other = tmp_path / "coordinates.star"
    other.write_bytes(picks.read_bytes())
    with pytest.raises(FormatError, match=r"no column _pickeroptClass.*another --out"):
        LabelServer([picks], config_of(tmp_path, out=other))
    assert other.read_bytes() == picks.read_bytes()


def test_a_faulty_first_file_stops_the_command_and_a_later_one_does_not(tmp_path):
    picks = make_world(tmp_path)
    (tmp_path / "zz.star").write_text("data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n1 2\n3\n")
    with pytest.raises(FormatError, match=r"zz\.star, line 6"):
        LabelServer([tmp_path / "zz.star"], config_of(tmp_path))
    server = LabelServer([picks, tmp_path / "zz.star"], config_of(tmp_path))
    assert server.loader.finished.wait(10)
    state = views.page_state(server, "")
    server.close()
    assert state["picks"] == 8
    assert "zz.star, line 6" in state["problems"][0]


def test_without_picks_micrographs_or_pixel_size_nothing_is_served(tmp_path):
    picks = make_world(tmp_path, pixel_size=1.0)  # which in a header means: not set
    empty = tmp_path / "empty.star"
    empty.write_text("data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n")
    with pytest.raises(FormatError, match=r"empty\.star: has no picks"):
        LabelServer([empty], config_of(tmp_path))
    with pytest.raises(MicrographError, match=r"m0\.mrc: the micrograph is missing.*--micrographs"):
        LabelServer([picks], config_of(tmp_path, micrographs=(tmp_path / "out",)))
    with pytest.raises(GeometryError, match="--pixel-size"):
        LabelServer([picks], config_of(tmp_path))
    with serving(picks, config_of(tmp_path, pixel_size=1.5)) as (_, client):
        assert client.get("/api/state").json()["diameter_px"] == 40.0


def test_wrong_class_names_and_folders_are_said_at_once(tmp_path):
    picks = make_world(tmp_path)
    with pytest.raises(ShotsError, match="two words"):
        LabelServer([picks], config_of(tmp_path, class_names=("two words",)))
    with pytest.raises(MicrographError, match="no such folder"):
        LabelServer([picks], config_of(tmp_path, micrographs=(tmp_path / "nowhere",)))
    assert not (tmp_path / "out" / ".labels.star.lock").exists()


def test_the_start_of_a_large_file_is_there_before_the_rest(tmp_path, monkeypatch):
    """Its ids are the same when all has been read, by another process; a label given in between stays."""
    picks = make_world(tmp_path)
    lines = picks.read_text().splitlines()
    lines += [f"m{i % 2}.mrc {i % 300} {i % 200} 0.5" for i in range(3000)]
    picks.write_text("\n".join([*lines, ""]))
    read, seen = loading.read_apart, []

    def slowly(path):
        session = opened[0]
        seen.append(len(session.table))
        session.set_labels({3: session.store.index("carbon")}, "one")
        return read(path)

    opened = []
    put = loading.Session.put_picks
    monkeypatch.setattr(loading.Session, "put_picks", lambda self, *args: opened.append(self) or put(self, *args))
    monkeypatch.setattr(loading, "LARGE", 1000)
    monkeypatch.setattr(loading, "START", 1000)
    monkeypatch.setattr(loading, "read_apart", slowly)
    with serving(picks, config_of(tmp_path)) as (server, client):
        assert 8 < seen[0] < 100
        assert len(server.session.table) == 3008
        item = client.get("/api/picks?offset=3&limit=1").json()["items"][0]
        assert (item["label"], item["x"], item["y"]) == ("carbon", 10.0, 190.0)
        assert rows_of(server.config.out) == [["m0.mrc", "10.0", "190.0", "carbon"]]


def test_undo_goes_back_over_a_box_that_turned_out_to_be_a_pick():
    table = PickTable()
    store = LabelStore(table)
    key = store.add(Box(0, 40.0, 50.0))
    store.set({key: 0}, "one")
    store.set({key: 2}, "one")
    table.write(0, np.array([[1.0, 2.0], [40.0, 50.0]]), np.zeros(2), np.zeros(2, dtype=np.int64))
    store.move({key: 1})
    seen = [dict(store.labels)]
    for _ in range(2):
        assert [key for key, _, _ in store.undo("one").changes] == [1]
        seen.append(dict(store.labels))
    assert seen == [{1: 2}, {1: 0}, {}]
    assert table.columns.label.tolist() == [-1, -1]


def test_names_with_blanks_are_quoted():
    data = labelled_star(["a b.mrc"], np.array([[1.5, 1e-7]]), ["ice"])
    assert data.splitlines()[-1] == b'"a b.mrc" 1.5 1e-07 ice'
