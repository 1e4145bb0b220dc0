"""`pickeropt check` from the command line: what it prints, its exit codes, its JSON; and real data."""

import json
from pathlib import Path

import numpy as np
import pytest
from frame_world import DIAMETER, PIXEL_SIZE, SHAPE, box_file, write
from numpy.typing import NDArray
from typer.testing import CliRunner

from pickeropt.cli import app
from pickeropt.frame.evidence import judge_frame
from pickeropt.frame.frame_config import IDENTITY, RIGHT, WRONG, Frame, FrameConfig, FrameSite
from pickeropt.io.micrographs import read_micrograph_header, write_mrc
from pickeropt.io.picks import read_picks

ANGSTROM = str(DIAMETER * PIXEL_SIZE)
HEIGHT = SHAPE[0]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NDArray[np.float64]:
    """The current folder has mics/m01.mrc and picks/m01.box with all its particles."""
    monkeypatch.chdir(tmp_path)
    _, xy = write(tmp_path / "mics", "m01.mrc", 7)
    box_file(tmp_path / "picks/m01.box", xy)
    return xy


def check(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["check", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def lines(output: str) -> dict[str, str]:
    """The level of each finding."""
    rows = [line.split() for line in output.split("\n\n")[1].splitlines() if line[:1].isalpha()]
    return {row[0]: row[1] for row in rows}


def test_all_is_fine(world: NDArray[np.float64]) -> None:
    code, output = check("picks", "--micrographs", "mics", "--diameter", ANGSTROM)
    assert code == 0
    levels = lines(output)
    assert [levels[what] for what in ("frame", "names", "boxes", "places", "duplicates")] == ["fine"] * 5
    assert "right, more than 99.9 % sure" in output
    assert "->" not in output
    assert "overall: fine" in output


def test_a_flip_is_a_fault_with_its_remedy(world: NDArray[np.float64]) -> None:
    flipped = np.column_stack([world[:, 0], HEIGHT - world[:, 1]])
    path = box_file(Path("wrong/m01.box"), flipped)
    before = path.read_bytes()
    code, output = check(str(path), "--micrographs", "mics", "--json", "out.json")
    assert code == 2
    assert "-> convert them: pickeropt convert wrong/m01.box mended/m01.box --flip-y --micrographs mics" in output
    assert path.read_bytes() == before
    report = json.loads(Path("out.json").read_text())
    assert (report["exit_code"], report["level"], report["picks"]) == (2, "fault", 60)
    assert report["frame"]["opinion"]["name"] == "y flipped"
    assert report["frame"]["opinion"]["frame"]["flip_y"] is True
    assert report["frame"]["candidates"][0]["probability"] > 0.99
    assert [finding["what"] for finding in report["findings"]][:2] == ["frame", "names"]


def test_what_is_unsure_is_a_warning(world: NDArray[np.float64]) -> None:
    box_file(Path("few/m01.box"), world[:10])
    code, output = check("few", "--micrographs", "mics", "--diameter", ANGSTROM)
    assert code == 1
    assert "unsure: 10 picks are too few to tell" in output


def test_names_are_mended(world: NDArray[np.float64]) -> None:
    box_file(Path("dw/m01_DW.box"), world)
    code, output = check("dw", "--micrographs", "mics")
    assert code == 2
    assert "1 of 1 names match no micrograph: m01_DW" in output
    assert "without '_DW' 1 of them match (m01_DW -> m01.mrc)" in output


def test_pixel_sizes_boxes_places_and_duplicates(world: NDArray[np.float64]) -> None:
    xy = np.concatenate([world, world[:5] + 2, [[SHAPE[1] + 50.0, 10.0]]])
    box_file(Path("odd/m01.box"), xy, side=16)
    code, output = check("odd", "--micrographs", "mics", "--diameter", "40", "--pixel-size", "1.5")
    assert code == 2
    levels = lines(output)
    assert levels["pixel"] == "size"
    assert "1.5 Å/px by --pixel-size, 2 Å/px by the header of m01.mrc" in output
    assert (levels["boxes"], levels["places"], levels["duplicates"]) == ("warning", "fault", "warning")
    assert "66 of 66 boxes are smaller" in output
    assert "5 of 66 picks are closer" in output


def test_a_damaged_micrograph_is_a_fault(world: NDArray[np.float64]) -> None:
    Path("mics/m02.mrc").write_bytes(Path("mics/m01.mrc").read_bytes()[:3000])
    box_file(Path("picks/m02.box"), world)
    code, output = check("picks", "--micrographs", "mics")
    assert code == 2
    assert "truncated" in output
    assert "right, more than 99.9 % sure" in output


def test_files_without_picks_are_no_fault_of_ours(world: NDArray[np.float64]) -> None:
    Path("none").mkdir()
    Path("none/m01.box").write_text("")
    code, output = check("none", "--micrographs", "mics")
    assert code == 1
    assert "there are no picks to look at" in output
    code, _ = check("nowhere", "--micrographs", "mics")
    assert code == 2


def test_a_model_judges_when_asked(world: NDArray[np.float64]) -> None:
    from dataclasses import replace

    from model_world import SPEC, random_model

    one = replace(SPEC, stages=("layer1",), channels=(64,), view_diameters=(16.0,), orientations=1)
    random_model(Path("model.safetensors"), one, DIAMETER * PIXEL_SIZE)
    given = ("picks", "--micrographs", "mics", "--json", "out.json")
    code, output = check(*given, "--model", "model.safetensors")
    judged = json.loads(Path("out.json").read_text())
    assert code == judged["exit_code"]
    assert f"{DIAMETER:.0f} px across" in output  # the diameter is the model's
    assert lines(output)["boxes"] == "fine"
    check(*given, "--diameter", ANGSTROM)
    contrast = json.loads(Path("out.json").read_text())
    assert contrast["frame"]["candidates"][0]["name"] == "as given"
    assert judged["frame"]["candidates"][0]["evidence"] < contrast["frame"]["candidates"][0]["evidence"] - 0.3
    assert judged["findings"][1:] == contrast["findings"][1:]


# ---------------------------------------------------------------- real micrographs

REAL = {
    "given": (IDENTITY, lambda x, y, side: (x, y)),
    "flip x": (Frame(flip_x=True), lambda x, y, side: (side - x, y)),
    "flip y": (Frame(flip_y=True), lambda x, y, side: (x, side - y)),
    "flip both": (Frame(flip_x=True, flip_y=True), lambda x, y, side: (side - x, side - y)),
    "swap": (Frame(swap=True), lambda x, y, side: (y, x)),
    "binned 2": (Frame(scale=2.0), lambda x, y, side: (x / 2, y / 2)),
    "binned 4": (Frame(scale=4.0), lambda x, y, side: (x / 4, y / 4)),
}


def test_real_picks_of_three_pickers(shared_data: Path, tmp_path: Path) -> None:
    from PIL import Image

    data = shared_data / "empiar10017"
    name = "Falcon_2012_06_12-15_53_09_0"
    if not (data / "micrographs" / f"{name}.jpg").is_file():
        pytest.skip("no real micrographs")
    with Image.open(data / "micrographs" / f"{name}.jpg") as image:
        pixels = np.flipud(np.asarray(image.convert("L"), dtype=np.float32))
    side = len(pixels)
    write_mrc(tmp_path / "m.mrc", np.ascontiguousarray(pixels), 1.77)
    for picker in ("crYOLO", "topaz", "deepPicker"):
        picks = read_picks(data / "picks" / picker / f"{name}.box").picks
        for frame, spoil in REAL.values():
            xy = np.column_stack(spoil(*picks.coordinates.T, side))
            merit = picks.figure_of_merit
            header = read_micrograph_header(tmp_path / "m.mrc")
            found = FrameSite("m", header, 191 / 1.77, 1.77, xy, merit)
            opinion = judge_frame([found], FrameConfig()).opinion
            assert (opinion.answer, opinion.frame) == (RIGHT if frame == IDENTITY else WRONG, frame)
