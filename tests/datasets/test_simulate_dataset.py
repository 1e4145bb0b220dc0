"""`pickeropt dataset simulate`: files, determinism, processes, resuming, and what is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from pickeropt.cli import Commands
from pickeropt.commands.dataset import dataset_app
from pickeropt.datasets.class_folders import gather_points
from pickeropt.datasets.dataset_config import DatasetConfig
from pickeropt.datasets.simulate import CARBON_KINDS, CONTAMINANT_KINDS, DEFAULT_SPECIES, MASK_CLASSES
from pickeropt.datasets.simulate.simulated_dataset import choose_species, grid_of, run_all, simulate_dataset
from pickeropt.errors import OutputError
from pickeropt.io.labels import TRUTH_COLUMNS, TruthPoints, join_truth, read_labels, write_truth
from pickeropt.io.micrographs import read_micrograph

SMALL = DatasetConfig(micrographs=4, size=192, pixel_size=(6.0, 7.0), species=("groel", "rubisco"), seed=3)
KINDS = {
    "particle": ("groel", "rubisco"),
    "contaminant": CONTAMINANT_KINDS,
    "carbon": CARBON_KINDS,
    "background": ("empty_ice",),
}
app = typer.Typer(cls=Commands, pretty_exceptions_enable=False)
app.add_typer(dataset_app, name="dataset")


@app.callback()
def _root() -> None:
    """As `pickeropt` does."""


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "set"
    seen: list[tuple[str, int, int]] = []
    report = simulate_dataset(out, SMALL, on_progress=lambda *now: seen.append(now))
    assert seen == [("simulating", done, 4) for done in range(5)]
    assert (report.micrographs, report.earlier, report.species) == (4, 0, ("groel", "rubisco"))
    assert report.particles == (out / "truth.star").read_text().count(" particle ") > 4
    return out


def test_the_folder_is_as_promised(made: Path) -> None:
    names = ["00000_groel", "00001_rubisco", "00002_groel", "00003_rubisco"]
    expected = {"truth.star", "dataset.json"}
    expected |= {f"{d}/{n}.{s}" for n in names for d, s in
                 (("micrographs", "mrc"), ("masks", "png"), ("truth", "star"))}  # fmt: skip
    assert set(_contents(made)) == expected
    about = json.loads((made / "dataset.json").read_text())
    assert about["format"] == "pickeropt simulated micrographs 1"
    assert (about["seed"], about["micrographs"]) == (3, names)
    assert set(about["species"]) == {"groel", "rubisco"}


def test_truth_masks_and_micrographs_agree(made: Path) -> None:
    labels = read_labels(made / "truth.star")
    picks = labels.file.picks
    files = sorted((made / "micrographs").iterdir())
    assert picks.micrograph_names == tuple(f"micrographs/{path.name}" for path in files)
    for number, name in enumerate(picks.micrograph_names):
        micrograph = read_micrograph(made / name)
        mask = np.asarray(Image.open(made / "masks" / f"{Path(name).stem}.png"))
        assert micrograph.pixels.shape == mask.shape == (192, 192)
        assert micrograph.pixel_size is not None
        assert 6.0 <= micrograph.pixel_size <= 7.0
        rows = np.flatnonzero(picks.micrograph_index == number)
        x, y = picks.coordinates[rows].astype(int).T
        species = Path(name).stem[6:]
        for row, value in zip(rows.tolist(), mask[y, x].tolist(), strict=True):
            kind, source = labels.class_names[row], labels.source_names[row]
            assert source in KINDS[kind]
            assert kind != "particle" or source == species
            assert kind == "particle" or MASK_CLASSES[value] == kind
            assert labels.diameters[row] == pytest.approx({"groel": 179, "rubisco": 128}[species], abs=2)
    assert {"particle", "contaminant", "background"} <= set(labels.class_names)


def test_truth_has_angles_of_particles_and_one_defocus_a_micrograph(made: Path) -> None:
    lines = (made / "truth.star").read_text().splitlines()
    rows = [line.split() for line in lines if line.startswith("micrographs/")]
    assert all(len(row) == len(TRUTH_COLUMNS) == 12 for row in rows)
    for row in rows:
        rot, tilt, psi = map(float, row[5:8])
        if row[3] == "particle":
            assert 0 <= tilt <= 180
            assert max(abs(rot), abs(psi)) <= 180
        else:
            assert rot == tilt == psi == 0
        assert 15_000 - 800 <= float(row[9]) <= float(row[8]) <= 45_000 + 800
    defocus = {(row[0], *row[8:11]) for row in rows}
    assert len(defocus) == 4
    assert len({tuple(row[5:8]) for row in rows if row[3] == "particle"}) == sum(r[3] == "particle" for r in rows)


def test_one_angstrom_a_pixel_is_known_though_headers_read_it_as_unset(tmp_path: Path) -> None:
    one = replace(SMALL, micrographs=1, size=512, pixel_size=(1.0, 1.0), species=("groel",))
    simulate_dataset(tmp_path / "one", one)
    labels = read_labels(tmp_path / "one" / "truth.star")
    points = gather_points([labels], (), "source", None, None)
    assert points.pixel_sizes == (1.0,)
    assert points.diameters_px[0] == pytest.approx(179, abs=2)


def test_two_processes_make_the_same_bytes(made: Path, tmp_path: Path) -> None:
    simulate_dataset(tmp_path / "two", SMALL, workers=2)
    assert _contents(tmp_path / "two") == _contents(made)


def test_an_unfinished_set_goes_on_and_a_finished_one_grows(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    simulate_dataset(out, replace(SMALL, micrographs=2))
    untouched = (out / "micrographs" / "00000_groel.mrc").stat().st_mtime_ns
    (out / "truth" / "00001_rubisco.star").unlink()  # as if killed before it was written
    (out / "micrographs" / ".00002_groel.mrc.abc.partial").write_bytes(b"half")
    (out / "truth.star").unlink()
    report = simulate_dataset(out, SMALL)
    assert report.earlier == 1
    assert (out / "micrographs" / "00000_groel.mrc").stat().st_mtime_ns == untouched
    assert _contents(out) == _contents(made)


@pytest.mark.slow
def test_a_run_killed_outright_goes_on_and_leaves_no_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pickeropt.datasets.simulate.simulated_dataset import *\n"
        "if __name__ == '__main__':\n"
        f"    simulate_dataset(Path(sys.argv[1]), {replace(SMALL, micrographs=40)!r}, workers=2)\n"
    )
    script, out = tmp_path / "run.py", tmp_path / "set"
    script.write_text(code)
    run = subprocess.Popen([sys.executable, str(script), str(out)], start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(out.glob("truth/*.star")) and time.monotonic() < deadline:
        time.sleep(0.05)
    run.kill()
    run.wait()
    assert list(out.glob("truth/*.star"))
    assert not (out / "truth.star").exists()
    while time.monotonic() < deadline:
        try:
            os.killpg(run.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        os.killpg(run.pid, signal.SIGKILL)
        pytest.fail("workers outlive the run")
    done = len(list(out.glob("truth/*.star")))
    report = simulate_dataset(out, replace(SMALL, micrographs=max(done, 1) + 1))
    assert 1 <= report.earlier <= done
    names = json.loads((out / "dataset.json").read_text())["micrographs"]
    assert all((out / "micrographs" / f"{name}.mrc").exists() for name in names)


BOTH_ON_CARBON = 4
"""A seed that gives the first two grids a support."""


def test_a_grid_has_its_own_junk(tmp_path: Path) -> None:
    """Each species keeps to its kinds on all its micrographs, and the next one has others."""
    config = replace(SMALL, micrographs=8, size=256, pixel_size=(8.0, 8.0), grid_kinds=2, seed=BOTH_ON_CARBON)
    simulate_dataset(tmp_path / "set", config)
    labels = read_labels(tmp_path / "set" / "truth.star")
    picks = labels.file.picks
    found: dict[tuple[str, str], set[str]] = {}
    for index, kind, source in zip(
        picks.micrograph_index.tolist(), labels.class_names, labels.source_names, strict=True
    ):
        species = picks.micrograph_names[index].removesuffix(".mrc").rpartition("_")[2]
        found.setdefault((species, kind), set()).add(source)
    for kind, expected in (("contaminant", grid_kinds_of(config, "contaminant_kinds")),
                           ("carbon", grid_kinds_of(config, "carbon_kinds"))):  # fmt: skip
        one, other = found[("groel", kind)], found[("rubisco", kind)]
        assert one
        assert other
        assert one <= set(expected[0])
        assert other <= set(expected[1])
        assert not one & other


def test_grids_of_other_junk_are_not_gone_on_with(tmp_path: Path) -> None:
    """A set made before grids had a film of their own says nothing of them."""
    config = replace(SMALL, micrographs=1, grid_kinds=1)
    simulate_dataset(tmp_path, config)
    marker = tmp_path / "dataset.json"
    described = json.loads(marker.read_text())
    assert len(described.pop("grid")) == 2
    marker.write_text(json.dumps(described))
    with pytest.raises(OutputError, match="holds a data set of another grid; give its own options"):
        simulate_dataset(tmp_path, replace(config, micrographs=2))


def grid_kinds_of(config: DatasetConfig, name: str) -> list[tuple[str, ...]]:
    return [grid_of(config, i)[name] for i in range(2)]


def test_kinds_go_round_all_species() -> None:
    config = replace(SMALL, grid_kinds=1)
    contaminants = [grid_of(config, i)["contaminant_kinds"] for i in range(14)]
    assert {kinds[0] for kinds in contaminants} == set(CONTAMINANT_KINDS)
    supports = [grid_of(config, i)["carbon_kinds"] for i in range(14)]
    assert sorted(kind for kinds in supports for kind in kinds) == sorted(CARBON_KINDS)
    assert grid_of(config, 14)["contaminant_kinds"] == contaminants[0]
    assert grid_of(config, 14)["carbon_kinds"] == supports[0]
    assert grid_of(config, 14)["film_seed"] != grid_of(config, 0)["film_seed"]
    assert grid_of(SMALL, 0) == {}


def test_other_options_other_folders_and_overwriting(made: Path, tmp_path: Path) -> None:
    for change in ({"seed": 4}, {"species": ("groel",)}, {"preset": "cryolo"}):
        with pytest.raises(OutputError, match=r"another (seed|species|config)"):
            simulate_dataset(made, replace(SMALL, **change))  # type: ignore[arg-type]
    (tmp_path / "thesis.tex").write_text("dear")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="no simulated data set"):
            simulate_dataset(tmp_path, SMALL, overwrite=overwrite)
    assert (tmp_path / "thesis.tex").read_text() == "dear"
    out, one = tmp_path / "set", replace(SMALL, micrographs=1)
    with pytest.raises(OutputError, match="GB free"):
        simulate_dataset(out, replace(SMALL, size=10**7))  # leaves nothing that is in the way
    simulate_dataset(out, replace(one, seed=9))
    simulate_dataset(out, one, overwrite=True)
    assert json.loads((out / "dataset.json").read_text())["seed"] == 3
    name = "micrographs/00000_groel.mrc"
    assert (out / name).read_bytes() == (made / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--species", "dust"], "'dust'"),
        (["--preset", "tem"], "preset 'tem'"),
        (["--pixel-size", "wide"], "'wide' is not a number"),
        (["--pixel-size", "2-1"], "pixel_size 2 to 1"),
        (["--pixel-size", "0"], "above 0"),
        (["--pixel-size", "40"], "give a smaller pixel size"),
        (["--size", "100"], "two diameters"),
        (["--snr", "0.1,-1"], "above 0"),
        (["--snr", "0.1,inf"], "above 0"),
        (["--snr", "0.1,nan"], "above 0"),
        (["--structures", "nowhere"], "no such folder"),
        (["--micrographs", "0"], "--micrographs"),
        (["--size", "2000000", "--micrographs", "1000"], "GB free"),
    ],
)
def test_bad_options_are_one_clear_line(tmp_path: Path, options: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["dataset", "simulate", str(tmp_path / "out"), *options])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert not list(tmp_path.rglob("*.mrc"))


def test_the_command_simulates(made: Path, tmp_path: Path) -> None:
    options = ["--micrographs", "1", "--size", "192", "--pixel-size", "6-7", "--species", "groel,rubisco"]
    result = CliRunner().invoke(
        app, ["dataset", "simulate", str(tmp_path / "out"), *options, "--seed", "3", "--workers", "1"]
    )
    assert result.exit_code == 0, result.output
    name = "micrographs/00000_groel.mrc"
    assert (tmp_path / "out" / name).read_bytes() == (made / name).read_bytes()
    assert "1 micrographs with" in result.output


def test_structures_of_the_user_join_the_species(tmp_path: Path) -> None:
    rows = []
    for i, x in enumerate(np.linspace(0, 70, 300), 1):
        place = f"{x:8.3f}{3.0 * i % 41:8.3f}{7.0 * i % 37:8.3f}"
        rows.append(f"ATOM  {i:5d}  CA  ALA A{i:4d}    {place}  1.00 20.00           C\n")
    (tmp_path / "My Rod.pdb").write_text("".join(rows) + "END\n")
    config = replace(SMALL, species=(), structures=tmp_path)
    assert [one.name for one in choose_species(config)] == [*DEFAULT_SPECIES, "my_rod"]
    (chosen,) = choose_species(replace(config, species=("my_rod",)))
    assert chosen.volumes.sum() == pytest.approx(300 * 71.08 * 1.21, rel=1e-3)
    assert len(choose_species(replace(config, species=("all",)))) == 28


def test_a_name_no_star_can_hold_is_refused_and_parts_join_in_order(tmp_path: Path) -> None:
    place, turn, defocus = np.zeros((1, 2)), np.zeros((1, 3)), (2.0, 1.0, 9.0)
    one = TruthPoints("micrographs/a.mrc", place, ("particle",), ("groel",), turn, defocus, 180.0)
    with pytest.raises(OutputError, match="'my rod'"):
        write_truth(tmp_path / "a.star", replace(one, source_classes=("my rod",)))
    write_truth(tmp_path / "a.star", one)
    write_truth(tmp_path / "b.star", replace(one, micrograph="micrographs/b.mrc", class_names=("carbon",)))
    assert join_truth(tmp_path / "all.star", [tmp_path / "b.star", tmp_path / "a.star"]) == 1
    assert read_labels(tmp_path / "all.star").file.picks.micrograph_names == (
        "micrographs/b.mrc",
        "micrographs/a.mrc",
    )
    write_truth(tmp_path / "b.star", replace(one, micrograph="micrographs/b.mrc", pixel_size=1.0))
    assert join_truth(tmp_path / "all.star", [tmp_path / "b.star", tmp_path / "a.star"]) == 2
    np.testing.assert_array_equal(read_labels(tmp_path / "all.star").pixel_sizes, [1.0, np.nan])
    (tmp_path / "b.star").write_text("data_\n")
    with pytest.raises(OutputError, match=r"b\.star"):
        join_truth(tmp_path / "all.star", [tmp_path / "b.star"])


def _die(task: int) -> int:
    os._exit(1)


def test_a_worker_that_dies_is_said_so() -> None:
    with pytest.raises(OutputError, match="worker process died"):
        list(run_all(_die, [1, 2, 3], 2))
