"""The routes for state, picks and labels, on small micrographs."""

import io

import numpy as np
import pytest
from label_world import PICKS, browser, config_of, label, make_world, post, rows_of, serving
from PIL import Image

from pickeropt.shots import read_labelled_star


@pytest.fixture
def world(tmp_path):
    picks = make_world(tmp_path)
    with serving(picks, config_of(tmp_path)) as (server, client):
        yield server, client, tmp_path / "out" / "labels.star"


def test_the_state_says_what_there_is(world):
    _, client, labels = world
    state = client.get("/api/state").json()
    assert (state["picks"], state["micrographs"], state["loading"]) == (8, 2, None)
    assert (state["diameter_angstrom"], state["diameter_px"], state["pixel_size"]) == (60.0, 30.0, 2.0)
    assert state["box_px"] == 45
    assert [c["name"] for c in state["classes"]] == ["particle", "contaminant", "carbon", "background"]
    assert [c["key"] for c in state["classes"]] == ["1", "2", "3", "4"]
    assert state["labels_file"] == str(labels)
    assert (state["model"], state["pruned"], state["job"], state["problems"]) == (None, None, None, [])
    assert not labels.exists()


def ids(client, query):
    answer = client.get(f"/api/picks?{query}").json()
    return [item["id"] for item in answer["items"]]


def test_orders_and_filters(world):
    _, client, _ = world
    assert ids(client, "order=file") == list(range(8))
    assert ids(client, "order=merit") == [4, 0, 5, 1, 6, 2, 7, 3]  # 0.91, 0.90, 0.71, 0.70 ...
    assert ids(client, "micrograph=1") == [4, 5, 6, 7]
    assert ids(client, "order=merit&micrograph=0&offset=1&limit=2") == [1, 2]
    shuffled = ids(client, "order=random")
    assert sorted(shuffled) == list(range(8))
    assert shuffled != list(range(8))
    assert shuffled == ids(client, "order=random")
    label(client, (6, "carbon"), (2, "particle"), (1, "skip"))
    assert ids(client, "order=labelled") == [1, 2, 6]
    assert ids(client, "class=carbon") == [6]
    assert ids(client, "class=skip") == [1]
    assert ids(client, "class=unlabelled") == [0, 3, 4, 5, 7]
    assert ids(client, "order=suggested") == []
    assert ids(client, "order=uncertain") == []
    assert ids(client, "kept=kept") == []
    assert client.get("/api/picks?offset=6").json()["total"] == 8


def test_the_random_order_stays_while_picks_are_read():
    from pickeropt.label.gallery import _scrambled

    assert (_scrambled(10)[:4] == _scrambled(4)).all()
    assert len(set(_scrambled(1000).tolist())) == 1000


def test_a_class_is_the_label_or_else_the_guess(world):
    server, client, _ = world
    columns = server.session.table.columns
    columns.guess[:] = [0, 0, 1, 1, 2, 2, 3, 3]
    columns.score[:] = [0.9, 0.8, 0.3, 0.1, 0.2, 0.4, 0.5, np.nan]
    columns.doubt[:] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, np.nan]
    columns.kept[:] = [1, 1, 0, 0, 0, 0, 1, -1]
    server.gallery.asked += 1
    label(client, (0, "carbon"))
    assert ids(client, "class=particle") == [1]
    assert ids(client, "class=carbon") == [0, 4, 5]
    assert ids(client, "order=score") == [0, 1, 6, 5, 2, 4, 3, 7]
    assert ids(client, "order=uncertain") == [6, 5, 4, 3, 2, 1, 0]
    assert ids(client, "kept=rejected&class=contaminant") == [2, 3]
    assert ids(client, "kept=kept") == [0, 1, 6]
    histogram = client.get("/api/scores").json()["histogram"]
    assert len(histogram["edges"]) == 101
    assert [i for i, n in enumerate(histogram["counts"]["particle"]) if n] == [80, 90]
    assert [i for i, n in enumerate(histogram["counts"]["contaminant"]) if n] == [10, 30]


def test_an_item_has_what_its_file_says(world):
    _, client, _ = world
    label(client, (1, "background"))
    item = client.get("/api/picks?offset=1&limit=1").json()["items"][0]
    assert item == {
        "id": 1, "micrograph": 0, "name": "m0.mrc", "x": 100.125, "y": 60.0, "merit": pytest.approx(0.7),
        "label": "background", "guess": None, "score": None,
    }  # fmt: skip


def test_labels_are_written_at_every_change_as_finetune_reads_them(world):
    server, client, path = world
    said = label(client, (0, "particle"), (6, "carbon"))
    assert said["counts"] == {"particle": 1, "contaminant": 0, "carbon": 1, "background": 0, "skip": 0}
    assert rows_of(path) == [["m0.mrc", "40.5", "50.25", "particle"], ["m1.mrc", "250.0", "150.75", "carbon"]]
    label(client, (1, "particle"), (5, "carbon"), (6, "particle"), (4, "carbon"), (2, "skip"))
    shots = read_labelled_star(path, server.config.micrographs)
    assert shots.class_names == ("particle", "carbon")
    assert shots.labels.tolist() == [0, 0, 0, 1, 1]
    assert shots.coordinates[0].tolist() == list(PICKS[0])
    label(client, (0, None))
    assert len(rows_of(path)) == 4
    assert rows_of(path.with_name("labels.skipped.star")) == [["m0.mrc", "250.0", "150.75", "skip"]]
    label(client, (2, None))
    assert not path.with_name("labels.skipped.star").exists()


def test_a_box_that_no_picker_picked(world):
    _, client, path = world
    said = post(client, "/api/add", {"micrograph": 1, "x": 33.5, "y": 0.25, "class": "contaminant"})
    assert said["id"] >= 8
    assert rows_of(path) == [["m1.mrc", "33.5", "0.25", "contaminant"]]
    here = client.get("/api/micrograph/1").json()
    assert (here["ids"][-1], here["x"][-1], here["label"][-1]) == (said["id"], 33.5, 1)
    assert ids(client, "micrograph=1") == [4, 5, 6, 7, said["id"]]
    assert client.get(f"/api/box/{said['id']}.png").status_code == 200
    outside = post(client, "/api/add", {"micrograph": 1, "x": 300, "y": 5, "class": "carbon"}, 400)
    assert "outside" in outside["error"]
    post(client, "/api/add", {"micrograph": 2, "x": 3, "y": 5, "class": "carbon"}, 400)
    post(client, "/api/undo")
    assert ids(client, "micrograph=1") == [4, 5, 6, 7]
    assert rows_of(path) == []


def test_undo_is_each_browsers_own(world):
    server, one, path = world
    two = browser(server, "two")
    label(one, (0, "particle"), (1, "particle"))
    label(two, (1, "carbon"), (2, "carbon"))
    assert post(one, "/api/undo")["ids"] == [0]  # pick 1 is the other's now
    assert [row[3] for row in rows_of(path)] == ["carbon", "carbon"]
    assert post(one, "/api/undo")["ids"] == []
    assert not one.get("/api/state").json()["can_undo"]
    assert two.get("/api/state").json()["can_undo"]
    assert sorted(post(two, "/api/undo")["ids"]) == [1, 2]
    assert [row[3] for row in rows_of(path)] == ["particle"]  # what pick 1 was before


def test_an_action_that_comes_again_is_done_once(world):
    server, client, path = world
    box = {"micrograph": 1, "x": 33.5, "y": 60.25, "class": "contaminant", "action": "a"}
    said = post(client, "/api/add", box)
    assert post(client, "/api/add", box) == said
    assert rows_of(path) == [["m1.mrc", "33.5", "60.25", "contaminant"]]
    label(client, (0, "particle"))
    label(client, (1, "particle"))
    said = post(client, "/api/undo", {"action": "b"})
    assert post(client, "/api/undo", {"action": "b"}) == said
    assert len(rows_of(path)) == 2
    labels = {"labels": [{"id": 2, "class": "carbon"}], "action": "c"}
    said = post(client, "/api/labels", labels)
    label(browser(server, "two"), (2, "particle"))
    assert post(client, "/api/labels", labels) == said
    assert rows_of(path)[-1][3] == "particle"
    post(browser(server, "two"), "/api/undo", {"action": "b"})  # another's own
    assert rows_of(path)[-1][3] == "carbon"


def test_undo_goes_back_step_by_step(world):
    _, client, path = world
    label(client, (0, "particle"))
    label(client, (0, "carbon"), (1, "carbon"))
    label(client, (0, "carbon"))  # nothing new: no step
    label(client, (1, None))
    seen = []
    for _ in range(4):
        seen.append([row[3] for row in rows_of(path)])
        post(client, "/api/undo")
    assert seen == [["carbon"], ["carbon", "carbon"], ["particle"], []]


def test_two_browsers_see_each_others_labels(world):
    server, one, path = world
    two = browser(server, "two")
    before = one.get("/api/changes").json()["revision"]
    label(one, (3, "particle"))
    between = two.get(f"/api/changes?since={before}").json()
    assert [(c["id"], c["class"]) for c in between["labels"]] == [(3, "particle")]
    label(two, (4, "carbon"), (3, None))
    after = one.get(f"/api/changes?since={between['revision']}").json()
    assert sorted((c["id"], c["class"]) for c in after["labels"]) == [(3, None), (4, "carbon")]
    assert one.get(f"/api/changes?since={after['revision']}").json()["labels"] == []
    assert [row[3] for row in rows_of(path)] == ["carbon"]


def test_classes_of_the_users_own(world):
    _, client, path = world
    classes = post(client, "/api/classes", {"name": "aggregate"})["classes"]
    assert (classes[-1]["name"], classes[-1]["key"]) == ("aggregate", "5")
    assert len({c["colour"] for c in classes}) == 5
    label(client, (5, "aggregate"))
    assert rows_of(path) == [["m1.mrc", "100.125", "60.0", "aggregate"]]
    for name in ("two words", "", "a,b", "skip", "#x", "unlabelled", "'q"):
        assert "error" in post(client, "/api/classes", {"name": name}, 400)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/labels", {"labels": [{"id": 8, "class": "particle"}]}),
        ("/api/labels", {"labels": [{"id": 0, "class": "nothing"}]}),
        ("/api/threshold", {"threshold": 0.3}),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(world, path, body):
    _, client, labels = world
    said = post(client, path, body, 400)
    assert "\n" not in said["error"]
    assert not labels.exists()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/labels", {"labels": [{"id": -1, "class": "particle"}]}),
        ("/api/labels", {"labels": [{"id": "0/../1", "class": "particle"}]}),
        ("/api/labels", {"labels": [{"id": 0}]}),
        ("/api/add", {"micrograph": 0, "x": "1e999", "y": 3, "class": "particle"}),
        ("/api/prune", {"threshold": 1.5}),
    ],
)
def test_what_makes_no_sense_is_refused(world, path, body):
    _, client, labels = world
    assert set(post(client, path, body, 422)) == {"error"}
    assert not labels.exists()


def test_pictures_are_png_of_the_size_that_was_asked(world):
    _, client, _ = world
    answer = client.get("/api/box/0.png?px=96&view=2&lowpass=0&contrast=4")
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"] == "private, max-age=3600"
    assert Image.open(io.BytesIO(answer.content)).size == (96, 96)
    here = client.get("/api/micrograph/0").json()
    assert (here["width"], here["height"], here["levels"]) == (300, 200, 2)
    sizes = {}
    for level, tx in ((0, 0), (0, 1), (1, 0)):
        data = client.get(f"/api/micrograph/0/tile/{level}/{tx}/0.png").content
        sizes[level, tx] = Image.open(io.BytesIO(data)).size
    assert sizes == {(0, 0): (256, 200), (0, 1): (44, 200), (1, 0): (150, 100)}
    for place in ("2/0/0", "0/2/0", "0/0/1", "0/-1/0"):
        assert client.get(f"/api/micrograph/0/tile/{place}.png").status_code == 400
    assert client.get("/api/box/99.png").status_code == 400


def test_a_missing_micrograph_is_said_and_the_others_are_shown(tmp_path):
    picks = make_world(tmp_path)
    (tmp_path / "micrographs" / "m1.mrc").unlink()
    with serving(picks, config_of(tmp_path)) as (_, client):
        problems = client.get("/api/state").json()["problems"]
        assert len(problems) == 1
        assert "m1.mrc" in problems[0]
        assert "--micrographs" in problems[0]
        assert client.get("/api/box/0.png").status_code == 200
        answer = client.get("/api/box/4.png")
        assert (answer.status_code, "m1.mrc" in answer.json()["error"]) == (404, True)
