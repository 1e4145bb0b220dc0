"""A labelling server in its own process, a browser for its page, and picks whose class is known."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, Locator, Page, Playwright

from pickeropt.datasets.simulate import SimulationConfig, labelled_points, make_species, simulate_micrograph
from pickeropt.io.micrographs import write_mrc
from pickeropt.io.picks import read_picks
from pickeropt.io.relion_star import write_coordinate_star

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SPECIES, DIAMETER, PIXEL_SIZE = "tetramer_d2", 160.0, 3.2
KEYS = {"particle": "1", "contaminant": "2", "carbon": "3", "background": "4"}
START = 60.0
"""Seconds that a server has to print its address."""
JOB = 120_000
"""ms that a fit or a pruning may take on a busy machine."""

Place = tuple[str, float, float]


@dataclass(frozen=True)
class World:
    """Micrographs `mics/`, picks `picks/` in them, and the class of each pick in the order of the files."""

    folder: Path
    classes: tuple[str, ...]
    places: tuple[Place, ...]

    @property
    def truth(self) -> dict[Place, str]:
        return dict(zip(self.places, self.classes, strict=True))


def make_world(folder: Path, micrographs: int, side: int, each: int) -> World:
    """`each` picks a class on each micrograph, mixed; a border is left so that no box is cut off."""
    species = next(kind for kind in make_species(0) if kind.name == SPECIES)
    config = SimulationConfig(
        shape=(side, side),
        pixel_size=PIXEL_SIZE,
        diameter_angstrom=DIAMETER,
        occupancy=(0.25, 0.4),
        defocus_um=(1.5, 2.5),
        dose=(15.0, 20.0),
        ice_angstrom=(300.0, 400.0),
        carbon_probability=1.0,
        filtered_probability=0.0,
    )
    classes: list[str] = []
    places: list[Place] = []
    for number in range(micrographs):
        rng = np.random.default_rng([7, number])
        sim = simulate_micrograph(config, species, rng)
        points = labelled_points(sim, each, rng)
        order = rng.permutation(len(points.class_names))
        name = f"mic_{number + 1}"
        write_mrc(folder / "mics" / f"{name}.mrc", sim.pixels, sim.pixel_size)
        path = folder / "picks" / f"{name}.star"
        write_coordinate_star(path, points.coordinates[order], rng.random(len(order)))
        classes += [points.class_names[i] for i in order]
        places += [(f"{name}.mrc", x, y) for x, y in read_picks(path).picks.coordinates.tolist()]
    return World(folder, tuple(classes), tuple(places))


def labels_of(path: Path) -> dict[Place, str]:
    """Class by place of a labelled STAR file; empty where there is none."""
    if not path.exists() or not path.stat().st_size:
        return {}
    picks = read_picks(path).picks
    assert picks.class_names is not None
    names = [Path(picks.micrograph_names[i]).name for i in picks.micrograph_index]
    places = [(name, x, y) for name, (x, y) in zip(names, picks.coordinates.tolist(), strict=True)]
    return dict(zip(places, picks.class_names, strict=True))


class Server:
    """`pickeropt label` on a world's picks, its labels in a folder of the test's own."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.labels, self.log = world, folder / "labels.star", folder / "server.log"
        self.port = 0
        self.picks = [world.folder / "picks"]
        self.start()

    def start(self) -> None:
        """Start it, again on the same port after the first time; `address` is what it printed."""
        self.log.write_text("")
        words = ["-m", "pickeropt", "label", *map(str, self.picks), "--micrographs", "mics"]
        words += ["--diameter", f"{DIAMETER:g}"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, *words, "--out", str(self.labels), "--port", str(self.port)],
                cwd=self.world.folder,
                env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.address = self._address()
        self.port = int(self.address.split(":")[2].partition("/")[0])

    def _address(self) -> str:
        end = time.monotonic() + START
        while time.monotonic() < end and self.process.poll() is None:
            for line in self.log.read_text().splitlines():
                if line.startswith("open: ") and "token=" in line:
                    return line.removeprefix("open: ").strip()
            time.sleep(0.05)
        self.kill()
        raise AssertionError(f"the server printed no address:\n{self.log.read_text()}")

    def kill(self) -> None:
        """As kill -9 does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def served(world: World, folder: Path) -> Iterator[Server]:
    server = Server(world, folder)
    try:
        yield server
    finally:
        server.kill()


def chromium() -> str | None:
    return next((found for name in CHROMIUM if (found := shutil.which(name))), None)


@contextmanager
def launched(playwright: Playwright, executable: str) -> Iterator[Browser]:
    browser = playwright.chromium.launch(executable_path=executable, args=[*FLAGS])
    try:
        yield browser
    finally:
        browser.close()


class Person:
    """Someone in front of a page: presses keys, clicks, reads. Fails where the page's script fails."""

    def __init__(self, browser: Browser, address: str, width: int = 1280, height: int = 800) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": height})
        self.context.set_default_timeout(30_000)
        self.page: Page = self.context.new_page()
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.open(address)

    def open(self, address: str) -> None:
        self.page.goto(address)
        self.wait_for_gallery()

    def wait_for_gallery(self) -> None:
        self.tile(0).wait_for()
        self.page.locator("#box-0[aria-selected=true]").wait_for()

    def choose(self, selector: str, value: str) -> None:
        """Choose in one of the gallery's controls, and wait for the list that comes of it."""
        self.find(selector).select_option(value)
        self.page.locator("#gallery:not([aria-busy])").wait_for()
        self.wait_for_gallery()

    def find(self, selector: str) -> Locator:
        return self.page.locator(selector)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def tile(self, index: int) -> Locator:
        return self.page.locator(f"#box-{index}[data-state=there]")

    def reads(self, selector: str, text: str) -> None:
        """Wait until a part of the page has a text in it."""
        self.page.locator(selector).filter(has_text=text).wait_for()

    def count(self, name: str, labels: int) -> None:
        """Wait until the head of the page says that a class has so many labels."""
        self.page.locator(f"button.class[aria-label*='{name}'][aria-label*=': {labels} labels']").wait_for()

    def run(self, button: str, name: str) -> None:
        """Press a button that starts a job, and wait until the page says how it ended."""
        self.find(button).click()
        said = self.find("#status").filter(has_text=name).filter(has_not_text="began")
        said.wait_for(timeout=JOB)
        assert "failed" not in said.inner_text(), said.inner_text()

    def sent(self) -> None:
        """Wait until nothing is unsent: the labels are on the disk."""
        self.page.locator("body[data-unsent='0']").wait_for()
