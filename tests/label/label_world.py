"""Small micrographs of noise with picks, and a server of them: for the tests of label."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from starlette.testclient import TestClient

from pickeropt.io.micrographs import write_mrc
from pickeropt.label.app import make_app
from pickeropt.label.label_config import LabelConfig
from pickeropt.label.server import LabelServer
from pickeropt.label.serving import Guard
from pickeropt.prune.prune_config import Finish

TOKEN = "right-token"
HOST = "http://127.0.0.1:8000"
HEADERS = {"X-Pickeropt-Token": TOKEN}
SHAPE = (200, 300)
PICKS = ((40.5, 50.25), (100.125, 60.0), (250.0, 150.75), (10.0, 190.0))
"""x, y px on each micrograph."""


def make_world(folder: Path, micrographs: int = 2, pixel_size: float = 2.0) -> Path:
    """`micrographs/mN.mrc` and one `picks.star`; the first pick of a micrograph has the highest score."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(micrographs):
        pixels = rng.standard_normal(SHAPE).astype(np.float32)
        write_mrc(folder / "micrographs" / f"m{number}.mrc", pixels, pixel_size)
        rows += [f"m{number}.mrc {x!r} {y!r} {0.9 - 0.2 * i + 0.01 * number:.3f}" for i, (x, y) in enumerate(PICKS)]
    head = ["data_", "loop_", "_rlnMicrographName", "_rlnCoordinateX", "_rlnCoordinateY"]
    path = folder / "picks.star"
    path.write_text("\n".join([*head, "_rlnAutopickFigureOfMerit", *rows, ""]))
    return path


def config_of(folder: Path, **more: object) -> LabelConfig:
    settings: dict[str, object] = {
        "out": folder / "out" / "labels.star",
        "diameter_angstrom": 60.0,
        "micrographs": (folder / "micrographs",),
        "device": "cpu",
    }
    return LabelConfig(**{**settings, **more})


@contextmanager
def serving(picks: Path, config: LabelConfig, finish: Finish | None = None) -> Iterator[tuple[LabelServer, TestClient]]:
    """A server whose picks are all read, and a client with the token and a browser's name."""
    server = LabelServer([picks], config, finish)
    try:
        assert server.loader.finished.wait(30)
        yield server, browser(server, "one")
    finally:
        assert server.close(60)


def browser(server: LabelServer, name: str) -> TestClient:
    """One more browser."""
    guarded = Guard(make_app(server), TOKEN, "127.0.0.1", 8000)
    client = TestClient(guarded, base_url=HOST, headers=HEADERS, follow_redirects=False)
    client.cookies.set("pickeropt_browser_8000", name)
    return client


def post(client: TestClient, path: str, body: object | None = None, status: int = 200) -> dict:
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    found: dict = answer.json()
    return found


def label(client: TestClient, *pairs: tuple[int, str | None], status: int = 200) -> dict:
    return post(client, "/api/labels", {"labels": [{"id": i, "class": name} for i, name in pairs]}, status)


def rows_of(path: Path) -> list[list[str]]:
    """The rows of a labels file, as text."""
    lines = path.read_text().splitlines()
    return [line.split() for line in lines if line and line[0] not in "_d" and line != "loop_"]
