"""The page of `pickeropt label`, driven in Chromium on simulated micrographs."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from browser_world import (
    KEYS,
    Person,
    Place,
    Server,
    World,
    chromium,
    labels_of,
    launched,
    make_world,
    served,
)
from external_programs import missing
from PIL import Image
from playwright.sync_api import APIResponse, Position, Route, sync_playwright

from pickeropt.io.picks import read_picks

pytestmark = [pytest.mark.external, pytest.mark.slow]

SIDE = 512
"""Of a micrograph, px."""
TEXTS = (
    "#file",
    "#suggest",
    "#estimate",
    ".tools label",
    "#gallery-note",
    "#inspector",
    "#status",
    ".modes span",
)
"""Parts of the page whose text must be legible."""
CONTRAST = """e => {
    const level = v => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => level(v / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    let back = e;
    const clear = e => /, 0\\)$|transparent/.test(getComputedStyle(e).backgroundColor);
    while (clear(back)) back = back.parentElement;
    const [a, b] = [light(getComputedStyle(e).color), light(getComputedStyle(back).backgroundColor)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""
"""The contrast of a text and what is behind it, as WCAG 2 counts it."""


@pytest.fixture(scope="module")
def browser():
    executable = chromium()
    if executable is None:
        missing("chromium", "chromium")
    with sync_playwright() as playwright, launched(playwright, executable) as opened:
        yield opened


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), micrographs=2, side=SIDE, each=30)


@pytest.fixture
def server(world, tmp_path):
    with served(world, tmp_path) as running:
        yield running


@pytest.fixture
def person(browser, server):
    someone = Person(browser, server.address)
    yield someone
    someone.context.close()
    assert someone.faults == []


def test_twenty_a_class_suggestions_fine_tuning_pruning_threshold(world: World, server: Server, person: Person):
    given: Counter[str] = Counter()
    done = _with_each(world, 14)
    for name in world.classes[:done]:  # by keyboard
        given[name] += 1
        person.press(KEYS[name] if given[name] <= 14 else "Space")
    for name in KEYS:
        person.count(name, 14)
    later = range(done, len(world.classes))
    person.find("#gallery").focus()
    for name in KEYS:  # six more by mouse
        for index in [i for i in later if world.classes[i] == name][:6]:
            _bring_into_view(person, index)
            person.tile(index).click()
            person.find(f"button.class[data-name={name}]").click()
        person.count(name, 20)
    person.sent()
    labels = labels_of(server.labels)
    assert Counter(labels.values()) == dict.fromkeys(KEYS, 20)
    assert all(world.truth[place] == name for place, name in labels.items())

    person.run("#suggest", "Suggestions")
    assert person.find("#order").input_value() == "suggested"
    person.reads("#gallery-note", "of 20")
    assert person.find("#estimate").inner_text().startswith(("macro-F1 now 0.", "too few labels"))
    new = {int(tile) for tile in person.find(".tile:not([hidden])").evaluate_all("all => all.map(t => t.dataset.pick)")}
    assert len(new) > 8
    assert not {world.places[i] for i in new} & set(labels)

    person.run("#finetune", "Fine-tuning")
    person.run("#prune", "Pruning")
    assert (server.labels.parent / "model.safetensors").stat().st_size > 1000
    person.find("#order").select_option("file")
    person.wait_for_gallery()
    kept = _kept(person)
    assert sum(_written(server).values()) == len(world.classes)
    assert _written(server)["kept"] == kept["kept"]
    particles = {place for place, name in world.truth.items() if name == "particle"}
    true = len(particles & _places(server, "kept"))
    assert true > 0.6 * len(particles)
    assert true / kept["kept"] > 1.5 * len(particles) / len(world.classes)

    person.find("#threshold").focus()
    person.press("Home")  # threshold 0 keeps all: shown at once
    person.page.locator("#box-0[data-kept=yes]").wait_for()
    person.reads("#threshold-value", "0.00")
    assert _kept(person) == {"kept": len(world.classes), "rejected": 0}
    person.reads("#status", "Written with threshold 0.00")
    assert _written(server) == {"kept": len(world.classes), "rejected": 0}
    person.find("#threshold").fill("0.99")
    person.reads("#status", "Written with threshold 0.99")
    assert _written(server)["rejected"] > kept["rejected"]
    person.find("#kept").select_option("rejected")
    person.reads("#gallery-note", f"of {_written(server)['rejected']}")

    person.page.reload()  # labels, scores and the threshold are the server's
    person.wait_for_gallery()
    person.count("carbon", 20)
    person.reads("#threshold-value", "0.99")
    index = next(i for i in later if world.places[i] not in labels)
    _bring_into_view(person, index)
    person.press(KEYS[world.classes[index]])
    person.sent()
    assert labels_of(server.labels) == {**labels, world.places[index]: world.classes[index]}


def test_lasso_added_box_own_class_undo_and_reload(world: World, server: Server, person: Person):
    person.find("#micrograph").focus()
    person.press("l", KEYS["carbon"])
    canvas = person.find("#micrograph").bounding_box()
    assert canvas is not None
    left, top = canvas["x"], canvas["y"]

    def at(x: float, y: float) -> tuple[float, float]:
        place = _on_canvas(person, x, y)
        return left + place["x"], top + place["y"]

    person.page.mouse.move(*at(0.4 * SIDE, 0.9 * SIDE))
    person.page.mouse.down()
    for x, y in ((0.9, 0.9), (0.9, 0.6), (0.4, 0.6)):
        person.page.mouse.move(*at(x * SIDE, y * SIDE), steps=4)
    person.page.mouse.up()
    inside = {
        place
        for place in world.places
        if place[0] == "mic_1.mrc" and 0.4 < place[1] / SIDE < 0.9 and 0.6 < place[2] / SIDE < 0.9
    }
    assert len(inside) > 3
    person.reads("#status", f"{len(inside)} boxes: carbon")
    person.sent()
    assert labels_of(server.labels) == dict.fromkeys(inside, "carbon")

    free = _free_place(world)
    person.press("c")
    person.page.keyboard.type("aggregate")
    person.press("Enter")
    person.reads("#status", "Class aggregate has key 5")
    person.press("a", "5")
    person.page.mouse.click(*at(*free))
    person.reads("#status", "Box added")
    person.sent()
    added = {place for place, name in labels_of(server.labels).items() if name == "aggregate"}
    ((name, x, y),) = added
    assert name == "mic_1.mrc"
    assert abs(x - free[0]) < 2
    assert abs(y - free[1]) < 2
    person.press("Escape")

    person.page.reload()
    person.wait_for_gallery()
    person.count("carbon", len(inside))
    person.count("aggregate", 1)
    person.press("u", "u")  # a browser keeps its way back over a reload
    person.count("carbon", 0)
    person.sent()
    assert labels_of(server.labels) == {}


def test_a_state_read_before_a_class_was_added_does_not_take_it_away(world: World, server: Server, person: Person):
    late: list[tuple[Route, APIResponse]] = []

    def hold(route: Route) -> None:
        if late:
            route.continue_()
        else:
            late.append((route, route.fetch()))

    person.page.route("**/api/state", hold)
    person.press("1")
    person.sent()  # and now the state is read
    while not late:
        person.page.wait_for_timeout(10)
    person.press("c")
    person.page.keyboard.type("aggregate")
    person.press("Enter")
    person.reads("#status", "Class aggregate has key 5")
    person.press("a", "5")
    route, answer = late[0]
    with person.page.expect_request("**/api/changes?*"):  # the first after the answer was read
        route.fulfill(response=answer)
    x, y = _free_place(world)
    person.find("#micrograph").click(position=_on_canvas(person, x, y))
    person.reads("#status", ": aggregate")
    person.sent()
    assert sorted(labels_of(server.labels).values()) == ["aggregate", "particle"]


def test_the_first_box_is_selected_while_picks_are_still_being_read(server: Server, person: Person):
    lists: list[Route] = []
    states: list[Route] = []

    def state(route: Route) -> None:
        states.append(route)
        answer = route.fetch()
        early = {"picks": 1, "loading": {"done": 1, "total": 2}} if len(states) == 1 else {}
        route.fulfill(response=answer, json={**answer.json(), **early})

    def picks(route: Route) -> None:
        lists.append(route)
        if len(lists) > 1:  # the first is given up when more picks are known of
            route.continue_()

    person.page.route("**/api/state", state)
    person.page.route("**/api/picks?*", picks)
    person.page.reload()
    person.wait_for_gallery()
    person.press("2")
    person.sent()
    assert list(labels_of(server.labels).values()) == ["contaminant"]
    assert len(lists) > 1


def _on_canvas(person: Person, x: float, y: float) -> Position:
    """A point of the micrograph that is shown whole, CSS px from the canvas's corner."""
    canvas = person.find("#micrograph").bounding_box()
    assert canvas is not None
    wide, high = canvas["width"], canvas["height"]
    scale = min(wide, high) / SIDE  # in the middle; row 0 is at the bottom
    return {"x": wide / 2 + (x - SIDE / 2) * scale, "y": high / 2 + (SIDE / 2 - y) * scale}


def _free_place(world: World) -> tuple[float, float]:
    """A place of the first micrograph that is farthest from its picks."""
    picks = np.array([(x, y) for name, x, y in world.places if name == "mic_1.mrc"])
    grid = np.stack(np.meshgrid(*[np.arange(60, SIDE - 60, 8.0)] * 2), axis=-1).reshape(-1, 2)
    gaps = np.linalg.norm(grid[:, None] - picks, axis=2).min(axis=1)
    x, y = grid[gaps.argmax()]
    return float(x), float(y)


def test_nothing_is_lost_when_the_server_is_killed(world: World, server: Server, person: Person):
    person.press("1", "2")
    person.sent()
    server.kill()
    person.press("3", "4")
    person.reads("#line", "The server does not answer")
    person.reads("#line", "kept in this browser")
    person.count("carbon", 1)
    assert list(labels_of(server.labels).values()) == ["particle", "contaminant"]
    first, *others = sorted((world.folder / "picks").iterdir())
    server.picks = [*others, first]  # boxes have other numbers now
    server.start()
    person.reads("#line", "Open the address it printed")  # another token
    person.open(server.address)
    person.sent()
    person.find("#line").wait_for(state="hidden")
    assert labels_of(server.labels) == dict(zip(world.places[:4], KEYS, strict=True))
    for name in KEYS:
        person.count(name, 1)


def test_unsent_labels_find_their_boxes_where_micrographs_have_other_numbers(
    world: World, server: Server, person: Person
):
    """The labels name the second micrograph only, so the next run counts from it."""
    person.press("End")
    person.page.locator(f"#box-{len(world.places) - 1}[aria-selected=true]").wait_for()
    person.press("1")
    person.sent()
    server.kill()
    person.press("ArrowLeft", "2")
    person.reads("#line", "kept in this browser")
    server.start()
    second = person.context.new_page()
    second.goto(server.address)
    person.sent()
    assert labels_of(server.labels) == {world.places[-1]: "particle", world.places[-2]: "contaminant"}
    person.reads("#micrographs", "1 / 2 mic_2.mrc")


def test_a_list_that_grows_shorter_under_the_hand(world: World, server: Server, person: Person):
    """Each key is for another box, also where the next one has left the list meanwhile."""
    person.choose("#class-filter", "unlabelled")
    person.find("#gallery").focus()
    for key in ("1", "2", "3"):
        person.press(key)
        person.sent()
        person.press("r")
    given = dict(zip(world.places, ("particle", "contaminant", "carbon"), strict=False))
    person.count("carbon", 1)
    person.sent()
    assert labels_of(server.labels) == given
    person.reads("#inspector", "Box 3")
    for box in (3, 4):  # by another hand
        person.context.request.post(
            f"http://127.0.0.1:{server.port}/api/labels", data={"labels": [{"id": box, "class": "carbon"}]}
        )
    person.count("carbon", 3)
    person.press("r")
    person.page.locator("#box-0[data-pick='5']").wait_for()
    person.press("4", "1", "2")
    person.count("contaminant", 2)
    person.sent()
    given |= dict(zip(world.places[3:], ("background", "carbon", "particle", "contaminant"), strict=False))
    assert labels_of(server.labels) == given


def test_a_server_started_anew_without_the_class_that_is_given(server: Server, person: Person):
    """No label had the class, so no file did; the cookie of a second tab lets the first go on."""
    person.press("c")
    person.page.keyboard.type("aggregate")
    person.press("Enter")
    person.reads("#status", "Class aggregate has key 5")
    person.press("b", "5")
    person.reads("#status", "Class to give: aggregate")
    server.kill()
    person.reads("#line", "The server does not answer")
    server.start()
    second = person.context.new_page()
    second.goto(server.address)
    person.reads("#status", "has no class aggregate")
    person.reads("#status", "Class to give: particle")
    person.reads("#mode-note", "particle")
    assert labels_of(server.labels) == {}


def test_answers_that_are_lost_on_the_way(world: World, server: Server, person: Person):
    lost: list[str] = []

    def lose(route: Route) -> None:
        if route.request.url in lost:
            route.continue_()
            return
        lost.append(route.request.url)
        route.fetch()
        route.abort("connectionreset")

    person.press("1", "2", "3")
    person.sent()
    person.page.route("**/api/undo", lose)
    person.page.route("**/api/add", lose)
    person.press("u")
    person.reads("#status", "Undone: Box 2")
    person.sent()
    assert labels_of(server.labels) == dict(zip(world.places[:2], KEYS, strict=False))
    person.press("a", "4")
    person.find("#micrograph").click(position=_on_canvas(person, *_free_place(world)))
    person.count("background", 1)
    person.sent()
    assert len(lost) == 2
    assert sorted(labels_of(server.labels).values()) == ["background", "contaminant", "particle"]


def test_an_added_box_that_was_undone_is_not_there(world: World, server: Server, person: Person):
    """By the page that added it, and by one that read it."""
    place = _on_canvas(person, *_free_place(world))
    person.press("a", "4")
    person.find("#micrograph").click(position=place)
    person.sent()
    person.page.reload()
    person.wait_for_gallery()
    person.reads("#micrograph-note", "· 1 labels")
    person.press("u")
    person.reads("#micrograph-note", "· 0 labels")
    person.press("b", "3")
    person.find("#micrograph").click(position=place)
    person.press("a", "2")
    person.find("#micrograph").click(position=place)
    person.reads("#status", "Box added")
    person.press("u")
    person.reads("#micrograph-note", "· 0 labels")
    person.press("b", "3")
    person.find("#micrograph").click(position=place)
    person.press("g", "Home")
    person.sent()
    assert labels_of(server.labels) == {}


def test_the_mouse_leaves_the_keys_to_the_boxes(world: World, server: Server, person: Person):
    person.press("1", "2", "3")
    person.sent()
    person.find("#undo").click()
    person.reads("#status", "Undone: Box 2")
    person.press(" ")  # skips box 3
    person.reads("#status", "Box 3: skipped")
    person.find("#move-on").click()
    person.find("#order").click()
    person.find("#order").select_option("merit")
    person.page.locator("#gallery:focus").wait_for()
    for button in ("help", "new-class", "micrographs"):
        person.find(f"#{button}").click()
        person.press("Escape")
        person.page.locator("#gallery:focus").wait_for()
    assert not person.find("#move-on").is_checked()
    person.find("#order").focus()  # by keyboard one stays, to go on to another
    person.press("ArrowDown")
    assert person.find("#order:focus").input_value() == "suggested"
    person.sent()
    assert labels_of(server.labels) == dict(zip(world.places[:2], KEYS, strict=False))


def test_a_tenth_class_has_no_key(server: Server, person: Person):
    for name in ("ice", "grid", "aggregate", "edge", "fold"):
        address = f"http://127.0.0.1:{server.port}/api/classes"
        assert person.context.request.post(address, data={"name": name}).ok
    person.press("c")
    person.page.keyboard.type("unknown")
    person.press("Enter")
    person.reads("#status", "Class unknown has no key")
    button = person.find("button.class[data-name=unknown]")
    assert "key" not in (button.get_attribute("aria-label") or "key")
    button.click()
    person.count("unknown", 1)
    person.sent()
    assert list(labels_of(server.labels).values()) == ["unknown"]


def test_the_job_of_another_page_does_not_take_the_list_away(person: Person):
    """The server's answers on jobs are ours: no model is needed."""
    job: dict[str, object] = {
        "number": 1,
        "kind": "suggest",
        "what": "",
        "done": 0,
        "total": 0,
        "state": "done",
        "error": None,
    }
    job["text"] = "six boxes"

    def begin(route: Route) -> None:
        job.update(number=2, text="seven boxes")
        route.fulfill(status=202, json={"job": {**job, "state": "running"}})

    person.choose("#order", "merit")
    person.press("g", "ArrowRight")
    person.page.locator("#box-1[aria-selected=true]").wait_for()
    selected = person.find("#inspector").inner_text()
    person.page.route("**/api/job", lambda route: route.fulfill(json=job))
    person.page.route("**/api/suggest", begin)
    person.reads("#status", "six boxes")
    assert person.find("#order").input_value() == "merit"
    assert person.find("#inspector").inner_text() == selected
    person.find("#suggest").click()
    person.reads("#status", "seven boxes")
    person.reads("#gallery-note", "no boxes")  # of those that the server did not suggest
    assert person.find("#order").input_value() == "suggested"


def test_two_browsers_see_and_keep_each_others_labels(world: World, browser, server: Server, person: Person):
    other = Person(browser, server.address)
    person.press("1", "1")
    other.press("ArrowRight", "ArrowRight", "3")
    person.sent()
    other.sent()
    person.page.locator("#box-2[data-status=label] .foot").filter(has_text="carbon").wait_for()
    other.page.locator("#box-1[data-status=label] .foot").filter(has_text="particle").wait_for()
    person.press("u", "u", "u")  # only one's own
    person.reads("#status", "Nothing to undo")
    other.count("particle", 0)
    assert labels_of(server.labels) == {world.places[2]: "carbon"}
    other.context.close()
    assert other.faults == []


def test_a_million_boxes_are_a_virtual_list(person: Person):
    """The answers of the server are made longer on their way to the page."""
    last = 999_999

    def picks(route: Route) -> None:
        offset = int(route.request.url.partition("offset=")[2].partition("&")[0])
        items = [
            {
                "id": i,
                "micrograph": 0,
                "x": 99.0,
                "y": 99.0,
                "merit": None,
                "label": None,
                "guess": None,
                "score": None,
            }
            for i in range(offset, min(offset + 200, last + 1))
        ]
        route.fulfill(json={"total": last + 1, "items": items})

    asked: list[str] = []
    with Image.new("L", (8, 8)) as image:
        pixels = io.BytesIO()
        image.save(pixels, "PNG")

    def box(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(body=pixels.getvalue(), content_type="image/png")

    person.page.route("**/api/picks?*", picks)
    person.page.route("**/api/box/*", box)
    person.press("r")
    person.reads("#gallery-note", "of 1,000,000")
    person.press("End")
    person.page.locator(f"#box-{last}[aria-selected=true][data-state=there]").wait_for()
    assert person.tile(last).get_attribute("aria-setsize") == "1000000"
    person.press("ArrowUp", "PageUp", "PageUp")
    selected = person.find(".tile.current")
    assert int(selected.get_attribute("data-pick") or 0) > last - 100
    gallery = person.find("#gallery")
    gallery.evaluate(  # the scroll bar pulled through all of it, and left in the middle
        """async e => { for (let step = 60; step >= 30; step--) {
            e.scrollTop = e.scrollHeight * step / 60; await new Promise(requestAnimationFrame); } }"""
    )
    person.find(".tile[data-state=there][data-pick^='50']").first.wait_for()
    gallery.hover()
    top = _first_in_view(person)
    for _ in range(20):
        person.page.mouse.wheel(0, 232)
        person.page.wait_for_timeout(20)
    columns = int(gallery.evaluate("e => Math.floor(e.clientWidth / (104 + 12))"))
    person.page.locator(f"#box-{top + 40 * columns}").wait_for()
    assert abs(_first_in_view(person) - top - 40 * columns) <= columns  # small steps are exact
    assert person.find(".tile").count() < 100
    assert len(asked) < 700  # of 1500 that went by


def _first_in_view(person: Person) -> int:
    """The entry at the upper edge of the gallery."""
    return int(
        person.find("#gallery").evaluate(
            """e => { const top = e.getBoundingClientRect().top;
            return Math.min(...[...e.querySelectorAll('.tile:not([hidden])')]
                .filter(t => t.getBoundingClientRect().bottom > top + 1).map(t => t.index)); }"""
        )
    )


def test_all_of_it_by_keyboard_and_for_screen_readers(world: World, server: Server, person: Person):
    names = person.page.evaluate(
        """() => [...document.querySelectorAll('button, select, input, canvas, [role=listbox]')]
            .filter(e => e.checkVisibility())
            .map(e => e.getAttribute('aria-label') || e.textContent.trim()
                || e.labels?.[0]?.textContent.trim() || '')"""
    )
    assert len(names) > 25
    assert "" not in names, names
    reached = set()
    for _ in range(40):  # Tab goes everywhere, and is seen to
        person.press("Tab")
        name, outline = person.page.evaluate(
            """() => { const e = document.activeElement;
            const shown = e.type === 'radio' ? e.nextElementSibling : e;
            return [e.id || e.dataset.name || e.value || '', getComputedStyle(shown).outlineStyle]; }"""
        )
        if name:
            reached.add(name)
            assert outline == "solid", name
    assert {
        "suggest",
        "finetune",
        "prune",
        "theme",
        "particle",
        "order",
        "contrast",
        "gallery",
        "micrograph",
    } <= reached

    person.press("g", "Home", "Shift+ArrowRight", "Shift+ArrowRight", "3")  # many at once, without a mouse
    person.reads("#status", "3 boxes: carbon. Now 3 carbon.")
    assert person.find("#status").get_attribute("aria-live") == "polite"
    person.press("j", "a", "2")
    for _ in range(3):
        person.press("ArrowRight")
    person.press("Enter")
    person.sent()
    assert sorted(labels_of(server.labels).values()).count("contaminant") == 1
    person.press("Escape", "g", "n")
    person.reads("#micrographs", "2 / 2")
    person.press("?")
    person.find("#help-dialog").wait_for()
    person.press("Escape", "t")
    assert person.find("html").get_attribute("data-theme") == "light"
    colours = {person.find(f"button.class[data-name={name}] .mark").evaluate(CONTRAST) for name in KEYS}
    assert min(colours) >= 4.5
    for _ in range(2):  # light, dark
        ratios = [person.find(part).first.evaluate(CONTRAST) for part in TEXTS]
        assert min(ratios) >= 4.5, dict(zip(TEXTS, ratios, strict=True))
        person.press("t")


def _with_each(world: World, count: int) -> int:
    """How many of the first picks have so many of each class among them."""
    ends = ([i for i, name in enumerate(world.classes) if name == wanted][count - 1] for wanted in KEYS)
    return max(ends) + 1


def _bring_into_view(person: Person, index: int) -> None:
    """Walk there with the keyboard, as a virtual list has only what is in view."""
    person.press("Home")
    columns = int(person.find("#gallery").evaluate("e => Math.floor(e.clientWidth / (104 + 12))"))
    for _ in range(index // columns):
        person.press("ArrowDown")
    for _ in range(index % columns):
        person.press("ArrowRight")
    person.page.locator(f"#box-{index}[aria-selected=true]").wait_for()


def _kept(person: Person) -> dict[str, int]:
    """What the table of the results says of all picks."""
    cells = person.find("#results tbody tr:last-child td").all_inner_texts()
    return {"kept": int(cells[0]), "rejected": int(cells[1])}


def _written(server: Server) -> dict[str, int]:
    """Rows of the coordinate files that the pruning wrote."""
    return {fate: len(_places(server, fate)) for fate in ("kept", "rejected")}


def _places(server: Server, fate: str) -> set[Place]:
    found = set()
    for path in (server.labels.parent / "pruned" / fate).rglob("*.star"):
        picks = read_picks(path).picks
        names = [f"{Path(picks.micrograph_names[i]).stem}.mrc" for i in picks.micrograph_index]
        found |= {(name, x, y) for name, (x, y) in zip(names, picks.coordinates.tolist(), strict=True)}
    return found
