"""The script for cryosparc-tools, against stand-ins of its objects: no cryoSPARC server was asked."""

import contextlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pickeropt.io.cryosparc import read_cs, subset_cs

SCRIPT = Path(__file__).parents[1] / "scripts" / "cryosparc_external_job.py"


@pytest.fixture
def script() -> ModuleType:
    if not SCRIPT.is_file():
        pytest.skip("scripts/ is not part of this copy")
    spec = importlib.util.spec_from_file_location("cryosparc_external_job", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Dataset:
    """As much of cryosparc.dataset.Dataset as the script uses."""

    def __init__(self, columns: dict[str, np.ndarray]) -> None:
        self.columns = columns

    def fields(self) -> list[str]:
        return list(self.columns)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def mask(self, rows: np.ndarray) -> "Dataset":
        return Dataset({name: column[rows] for name, column in self.columns.items()})

    def filter_prefixes(self, prefixes: list[str], *, copy: bool = False) -> "Dataset":
        wanted = {name: c for name, c in self.columns.items() if name == "uid" or name.split("/")[0] in prefixes}
        if copy:
            return Dataset(wanted)
        self.columns = wanted
        return self

    def save(self, file: str) -> None:
        fixed = {n: np.array([str(v).encode() for v in c]) if c.dtype == object else c for n, c in self.columns.items()}
        array = np.zeros(len(fixed["uid"]), [(n, c.dtype, c.shape[1:]) for n, c in fixed.items()])
        for name, column in fixed.items():
            array[name] = column
        with Path(file).open("wb") as stream:
            np.save(stream, array, allow_pickle=False)


class ExternalJob:
    """Records what is asked of it."""

    uid = "J77"

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.saved: dict[str, Dataset] = {}
        self.running = False

    def add_input(self, **options: Any) -> None:
        self.calls.append(("add_input", options["type"], options["name"], options["slots"]))

    def connect(self, *names: str) -> None:
        self.calls.append(("connect", *names))

    def add_output(self, **options: Any) -> None:
        self.calls.append(("add_output", options["name"], options["slots"], options["passthrough"]))

    @contextlib.contextmanager
    def run(self) -> Iterator[None]:
        self.running = True
        yield
        self.running = False

    def save_output(self, name: str, dataset: Dataset) -> None:
        assert self.running
        self.saved[name] = dataset

    def log(self, text: str) -> None:
        self.calls.append(("log", text))


def particles() -> Dataset:
    names = ["J2/motioncorrected/a.mrc", "J3/motioncorrected/b.mrc", "J2/motioncorrected/a.mrc"]
    return Dataset(
        {
            "uid": np.array([5, 2**64 - 1, 9], dtype=np.uint64),
            "blob/path": np.array(["x", "y", "z"], dtype=object),
            "location/micrograph_path": np.array(names, dtype=object),
            "location/micrograph_shape": np.full((3, 2), 100, dtype=np.uint32),
            "location/center_x_frac": np.full(3, 0.5, dtype=np.float32),
            "location/center_y_frac": np.full(3, 0.25, dtype=np.float32),
            "pick_stats/ncc_score": np.ones(3, dtype=np.float32),
        }
    )


class World:
    """A server with one project and one job, and a `pickeropt prune` that keeps certain uids."""

    def __init__(self, folder: Path, kept: list[int], code: int = 0) -> None:
        self.folder, self.kept, self.code = folder, kept, code
        self.particles = particles()
        self.external = ExternalJob()
        self.commands: list[list[str]] = []
        for job in ("J2", "J3"):
            (folder / job / "motioncorrected").mkdir(parents=True)

    def find_project(self, uid: str) -> Any:
        assert uid == "P3"
        return SimpleNamespace(dir=self.folder, find_job=self.find_job, create_external_job=self.create)

    def find_job(self, uid: str) -> Any:
        assert uid == "J42"
        return SimpleNamespace(load_output=lambda name: {"particles_selected": self.particles}[name])

    def create(self, workspace: str, title: str) -> ExternalJob:
        self.external.calls.append(("create", workspace, title))
        return self.external

    def call(self, command: list[str]) -> int:
        self.commands.append(command)
        path = Path(command[2])
        file = read_cs(path, path.read_bytes())
        keep = np.isin(np.load(path)["uid"], np.array(self.kept, dtype=np.uint64))
        for side, rows in (("kept", keep), ("rejected", ~keep)):
            target = path.parent / "pruned" / side / path.name
            target.parent.mkdir(parents=True)
            target.write_bytes(subset_cs(file, rows))
        return self.code


WORDS = ["--url", "http://localhost:39000", "P3", "W1", "J42", "--output", "particles_selected"]


def test_from_the_job_to_the_external_job(script: ModuleType, tmp_path: Path) -> None:
    world = World(tmp_path / "CS-project", [9, 5])
    arguments = script.parse([*WORDS, "--work", str(tmp_path / "w"), "--", "--model", "m.safetensors"])
    assert script.prune_job(world, arguments, world.call) == "J77"
    folders = [str(tmp_path / "CS-project" / job / "motioncorrected") for job in ("J2", "J3")]
    work = str(tmp_path / "w")
    expected = f"pickeropt prune {work}/picks.cs --micrographs {folders[0]} --micrographs {folders[1]}"
    expected += f" --out {work}/pruned --model m.safetensors"
    assert [" ".join(command) for command in world.commands] == [expected]
    title = "pickeropt: 2 of 3 particles of J42 kept"
    assert world.external.calls == [
        ("create", "W1", title),
        ("add_input", "particle", "particles", ["location"]),
        ("connect", "particles", "J42", "particles_selected"),
        ("add_output", "particles_kept", ["location"], "particles"),
        ("add_output", "particles_rejected", ["location"], "particles"),
        ("log", title),
    ]
    saved = world.external.saved
    assert saved["particles_kept"]["uid"].tolist() == [5, 9]
    assert saved["particles_rejected"]["uid"].tolist() == [2**64 - 1]
    fields = ["uid", *(name for name in particles().fields() if name.startswith("location/"))]
    assert saved["particles_kept"].fields() == fields
    assert world.particles.fields() == particles().fields()
    written = np.load(tmp_path / "w" / "picks.cs", allow_pickle=False)
    assert "blob/path" not in written.dtype.names
    assert "pick_stats/ncc_score" in written.dtype.names


def test_a_side_without_particles_has_no_output(script: ModuleType, tmp_path: Path) -> None:
    world = World(tmp_path / "p", [5, 9, 2**64 - 1])
    script.prune_job(world, script.parse([*WORDS, "--work", str(tmp_path / "w")]), world.call)
    assert list(world.external.saved) == ["particles_kept"]


@pytest.mark.parametrize(
    ("kept", "code", "change", "message"),
    [
        ([], 0, None, "no particle was kept"),
        ([5], 2, None, "2"),
        ([5], 0, "location/micrograph_shape", "its particles have no location/micrograph_shape"),
        ([5], 0, "folder", "J3/motioncorrected: no such folder"),
    ],
)
def test_nothing_is_made_where_something_is_wrong(
    script: ModuleType, tmp_path: Path, kept: list[int], code: int, change: str | None, message: str
) -> None:
    world = World(tmp_path / "p", kept, code)
    if change == "folder":
        (tmp_path / "p" / "J3" / "motioncorrected").rmdir()
    elif change:
        del world.particles.columns[change]
    with pytest.raises(SystemExit) as caught:
        script.prune_job(world, script.parse([*WORDS, "--work", str(tmp_path / "w")]), world.call)
    assert message in str(caught.value.code)
    assert world.external.calls == []


def test_the_result_of_other_particles_is_refused(script: ModuleType, tmp_path: Path) -> None:
    world = World(tmp_path / "p", [5])
    world.call(["pickeropt", "prune", str(_saved(tmp_path))])
    with pytest.raises(SystemExit, match="holds other particles than the job"):
        script.kept_rows(np.array([5, 9], dtype=np.uint64), tmp_path)


def _saved(folder: Path) -> Path:
    particles().save(str(folder / "picks.cs"))
    return folder / "picks.cs"


def test_the_login(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    tools = ModuleType("cryosparc.tools")
    tools.CryoSPARC = lambda *words, **named: seen.append((words, named))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cryosparc", ModuleType("cryosparc"))
    monkeypatch.setitem(sys.modules, "cryosparc.tools", tools)
    monkeypatch.setattr(script, "prune_job", lambda server, arguments: "J1")
    (tmp_path / "i.json").write_text(json.dumps({"host": "h", "base_port": 39000}))
    for login in (["--instance", str(tmp_path / "i.json")], ["--url", "http://h"]):
        monkeypatch.setattr(sys, "argv", ["script", *login, "P3", "W1", "J42"])
        script.main()
    assert seen == [((), {"host": "h", "base_port": 39000}), (("http://h",), {})]
