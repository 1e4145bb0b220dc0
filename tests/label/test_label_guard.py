"""Who may ask: the token, Host, Origin, and what a request can reach."""

import inspect
import re

import pytest
from label_world import HOST, TOKEN, config_of, make_world, serving
from starlette.testclient import TestClient

from pickeropt.label import app as app_module
from pickeropt.label.app import make_app
from pickeropt.label.serving import Guard, addresses


@pytest.fixture
def world(tmp_path):
    with serving(make_world(tmp_path), config_of(tmp_path)) as (server, _):
        yield server, tmp_path


def stranger(server, host="127.0.0.1", **more):
    guarded = Guard(make_app(server), TOKEN, host, 8000)
    return TestClient(guarded, base_url=HOST, follow_redirects=False, **more)


def every_route(app):
    """Method and path of every route, with whole numbers in the place of ids."""
    for route in app.routes:
        for method in sorted(route.methods):
            yield method, re.sub(r"{[^}]*}", "0", route.path)


def test_every_route_wants_the_token(world):
    server, folder = world
    app = make_app(server)
    routes = list(every_route(app))
    assert len(routes) > 15
    assert ("POST", "/api/labels") in routes
    client = stranger(server)
    body = {"labels": [{"id": 0, "class": "particle"}]}
    for method, path in [
        *routes,
        ("GET", "/"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/nothing"),
    ]:
        for headers in ({}, {"X-Pickeropt-Token": "wrong"}, {"Cookie": "pickeropt_token_8000=wrong"}):
            answer = client.request(method, path, headers=headers, json=body if method == "POST" else None)
            assert answer.status_code == 403, (method, path, headers)
    assert not (folder / "out" / "labels.star").exists()


def test_the_printed_address_lets_a_browser_in(world):
    server, _ = world
    client = stranger(server)
    assert client.get("/?token=wrong").status_code == 403
    answer = client.get(f"/?token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookies = answer.headers.get_list("set-cookie")
    assert all("HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/" in cookie for cookie in cookies)
    assert client.get("/api/state").status_code == 200  # the client keeps cookies
    again = client.get(f"/?token={TOKEN}").headers.get_list("set-cookie")
    assert not any("browser" in cookie for cookie in again)  # it stays the same browser, with its undo


def test_a_token_in_an_address_opens_nothing_but_the_page(world):
    server, _ = world
    assert stranger(server).get(f"/api/state?token={TOKEN}").status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "192.168.1.7", ""])
def test_another_host_is_refused(world, host):
    server, _ = world
    client = stranger(server, headers={"X-Pickeropt-Token": TOKEN})
    answer = client.get("/api/state", headers={"Host": host})
    assert (answer.status_code, "Host" in answer.json()["error"]) == (403, True)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "localhost:9999", "[::1]:8000"])
def test_this_machine_is_let_in_through_any_port(world, host):
    server, _ = world
    client = stranger(server, headers={"X-Pickeropt-Token": TOKEN})
    assert client.get("/api/state", headers={"Host": host}).status_code == 200


def test_with_host_given_addresses_and_its_name_are_right_but_no_other_name(world):
    server, _ = world
    client = stranger(server, host="0.0.0.0", headers={"X-Pickeropt-Token": TOKEN})
    assert client.get("/api/state", headers={"Host": "192.168.1.7:8000"}).status_code == 200
    assert client.get("/api/state", headers={"Host": "evil.example:8000"}).status_code == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:8001", "http://localhost:8000"])
def test_another_origin_is_refused(world, origin):
    server, folder = world
    client = stranger(server, headers={"X-Pickeropt-Token": TOKEN, "Origin": origin})
    answer = client.post("/api/labels", json={"labels": [{"id": 0, "class": "particle"}]})
    assert answer.status_code == 403
    assert not (folder / "out" / "labels.star").exists()


def test_our_own_origin_and_none_are_right(world):
    server, _ = world
    client = stranger(server, headers={"X-Pickeropt-Token": TOKEN})
    body = {"labels": [{"id": 0, "class": "particle"}]}
    assert client.post("/api/labels", json=body, headers={"Origin": HOST}).status_code == 200
    assert client.post("/api/labels", json=body).status_code == 200
    answer = client.post("/api/labels", json=body, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403


def test_a_form_of_another_site_is_no_request(world):
    """What a page can send without asking first is text, not JSON."""
    server, _ = world
    client = stranger(server, headers={"X-Pickeropt-Token": TOKEN})
    text = '{"labels": [{"id": 0, "class": "particle"}]}'
    assert client.post("/api/labels", content=text, headers={"Content-Type": "text/plain"}).status_code == 422


def test_every_answer_has_the_headers_and_none_opens_it_to_others(world):
    server, _ = world
    client = stranger(server, headers={"X-Pickeropt-Token": TOKEN, "Origin": HOST})
    for path in ("/api/state", "/nothing", "/api/box/0.png"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self'; img-src 'self' data: blob:")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers
    assert client.get("/api/state").headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        "/../config.py", "/%2e%2e/config.py", "/page/../../config.py", "/..%2fconfig.py", "//etc/passwd",
        "/api/box/..%2f..%2fpicks.star", "/api/box/picks.star.png", "/api/micrograph/..%2f0",
        "/api/micrograph/0/tile/0/0/..%2f0.png", "/api/picks?micrograph=../m0.mrc",
    ],
)  # fmt: skip
def test_no_path_leads_to_the_disk(world, path):
    server, _ = world
    client = stranger(server, headers={"X-Pickeropt-Token": TOKEN})
    assert client.get(path).status_code in (404, 422)


def test_only_numbers_stand_in_paths(world):
    """Every part of a path that the browser chooses is a whole number."""
    server, _ = world
    for route in make_app(server).routes:
        names = re.findall(r"{([^}]*)}", route.path)
        kinds = inspect.signature(route.endpoint).parameters
        assert all(kinds[name].annotation is int for name in names), route.path
    assert app_module.PAGE.is_dir()


def test_a_large_request_is_refused(world):
    server, _ = world
    client = stranger(server, headers={"X-Pickeropt-Token": TOKEN})
    answer = client.post("/api/labels", content=b" " * (9 * 2**20), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_the_address_has_a_tunnel_or_a_warning():
    near = addresses("127.0.0.1", 8123, "abc")
    assert near[0] == "open: http://127.0.0.1:8123/?token=abc"
    assert "ssh -N -L 8123:127.0.0.1:8123 " in near[1]
    assert not any("warning" in line for line in near)
    assert any(line.startswith("warning: with --host 0.0.0.0") for line in addresses("0.0.0.0", 8123, "abc"))
