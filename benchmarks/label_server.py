"""How quickly `pickeropt label` answers for many picks, and what memory it takes.

    python benchmarks/label_server.py [--picks 1000000] [--micrographs 1000] [--folder DIR]

Makes micrographs of noise, 4096 x 4096 px float32, a few of them under many names, and random picks: once as
a STAR file a micrograph in one folder, once as one particles.star. Starts the command as a user does, and
measures from there: the first gallery is the first 200 picks and the pictures of 40 boxes, over six
connections as a browser has. The browser's own time does not count.
"""

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from pickeropt.io.micrographs import write_mrc

SIDE = 4096
DIFFERENT = 4
CONNECTIONS = 6
FIRST_BOXES = 40
BOXES = 200


@dataclass
class Client:
    """A browser's connections, without the browser."""

    port: int
    token: str

    def get(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path, headers={"X-Pickeropt-Token": self.token})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {data[:200]!r}")
        return data

    def json(self, path: str):  # type: ignore[no-untyped-def]
        return json.loads(self.get(path))

    def boxes(self, ids: list[int]) -> None:
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(lambda key: self.get(f"/api/box/{key}.png"), ids))


def make_micrographs(folder: Path, count: int) -> list[str]:
    """Names of `count` files in `folder`, a few of them written and the others links to those."""
    rng = np.random.default_rng(0)
    names = [f"mic{i:05d}.mrc" for i in range(count)]
    for i, name in enumerate(names):
        if i < DIFFERENT:
            write_mrc(folder / name, rng.standard_normal((SIDE, SIDE), dtype=np.float32), 1.5)
        else:
            os.link(folder / names[i % DIFFERENT], folder / name)
    return names


def make_picks(names: list[str], count: int) -> Iterator[tuple[str, list[str]]]:
    """By micrograph, the rows ` x y merit` of its picks."""
    rng = np.random.default_rng(1)
    each = count // len(names)
    for name in names:
        values = zip(rng.uniform(0, SIDE, each), rng.uniform(0, SIDE, each), rng.random(each), strict=True)
        yield name, [f"{x:.4f} {y:.4f} {merit:.5f}" for x, y, merit in values]


COLUMNS = ("_rlnCoordinateX", "_rlnCoordinateY", "_rlnAutopickFigureOfMerit")


def write_folder(folder: Path, names: list[str], count: int) -> Path:
    """A STAR file a micrograph."""
    folder.mkdir()
    for name, rows in make_picks(names, count):
        head = ["", "data_", "", "loop_", *COLUMNS]
        (folder / f"{name[:-4]}.star").write_text("\n".join([*head, *rows, ""]))
    return folder


def write_one(path: Path, names: list[str], count: int) -> Path:
    """One particles.star."""
    with path.open("w") as file:
        file.write("\n".join(["", "data_particles", "", "loop_", *COLUMNS, "_rlnMicrographName", ""]))
        for name, rows in make_picks(names, count):
            file.write("".join(f"{row} {name}\n" for row in rows))
    return path


@contextmanager
def served(picks: Path, micrographs: Path, out: Path) -> Iterator[tuple[Client, int, float]]:
    """The command running: a client, its process, and when it was started."""
    command = [sys.executable, "-m", "pickeropt", "label", str(picks), "--micrographs", str(micrographs)]
    command += ["--diameter", "191", "--out", str(out)]
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("open: "):
            raise RuntimeError(f"the server did not start: {line!r}")
        address = urlsplit(line.split()[1])
        yield Client(address.port or 0, address.query.removeprefix("token=")), process.pid, begun
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def cpu_seconds(pid: int) -> float:
    """Of the process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def timed(what: Callable[[], object]) -> float:
    begun = time.perf_counter()
    what()
    return time.perf_counter() - begun


def measure(name: str, picks: Path, micrographs: Path, out: Path) -> None:
    """Print the figures of one set."""
    with served(picks, micrographs, out) as (client, pid, begun):
        address = time.perf_counter() - begun
        client.json("/api/state")
        first = client.json("/api/picks?limit=200")
        client.boxes([item["id"] for item in first["items"]][:FIRST_BOXES])
        gallery, work = time.perf_counter() - begun, cpu_seconds(pid)
        meanwhile = []
        while (state := client.json("/api/state"))["loading"]:
            key = int(np.random.default_rng(len(meanwhile)).integers(state["picks"]))
            meanwhile.append(timed(lambda key=key: client.get(f"/api/box/{key}.png")))
            time.sleep(0.02)
        loaded = time.perf_counter() - begun
        total = state["picks"]
        keys = np.random.default_rng(7).integers(0, total, BOXES).tolist()
        before = cpu_seconds(pid)
        alone = [timed(lambda key=key: client.get(f"/api/box/{key}.png?view=1.4")) for key in keys]
        each = 1000 * (cpu_seconds(pid) - before) / len(alone)
        many = timed(lambda: client.boxes([key + 1 for key in keys[:-1] if key + 1 < total]))
        orders = {order: timed(lambda o=order: client.get(f"/api/picks?order={o}")) for order in ("random", "merit")}
        far = timed(lambda: client.get(f"/api/picks?order=merit&offset={total - 300}"))
        tile = timed(lambda: client.get("/api/micrograph/7/tile/4/0/0.png"))
        save = timed(lambda: client.get("/api/micrographs"))
        print(f"{name}: {total:,} picks of {state['micrographs']:,} micrographs")
        first_seen = f"first gallery after {gallery:.2f} s ({work:.2f} s of CPU)"
        print(f"  address after {address:.2f} s, {first_seen}, all read after {loaded:.1f} s")
        if meanwhile:
            print(f"  a box while reading: {_spread(meanwhile)}")
        print(f"  a box: {_spread(alone)}, {each:.0f} ms of CPU; {BOXES} at once in {many:.2f} s")
        shown = ", ".join(f"{order} {1000 * seconds:.0f} ms" for order, seconds in orders.items())
        print(f"  first page by {shown}; its end {1000 * far:.0f} ms; list of micrographs {1000 * save:.0f} ms")
        print(f"  first tile of a whole micrograph {1000 * tile:.0f} ms; peak memory {peak_mb(pid):.0f} MB")


def _spread(seconds: list[float]) -> str:
    low, middle, high = (1000 * float(np.percentile(seconds, q)) for q in (50, 99, 100))
    return f"median {low:.0f} ms, 99 % below {middle:.0f} ms, worst {high:.0f} ms ({len(seconds)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picks", type=int, default=1_000_000)
    parser.add_argument("--micrographs", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="where to make the temporary set")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        root = Path(name)
        micrographs = root / "micrographs"
        micrographs.mkdir()
        names = make_micrographs(micrographs, given.micrographs)
        measure(
            "a file a micrograph",
            write_folder(root / "picks", names, given.picks),
            micrographs,
            root / "a.star",
        )
        measure("one file", write_one(root / "particles.star", names, given.picks), micrographs, root / "b.star")


if __name__ == "__main__":
    main()
