"""Pixel sizes, boxes, places and duplicates, by hand; the words of a verdict."""

from pathlib import Path

import numpy as np
import pytest
from frame_world import box_file

from pickeropt.frame.checking import (
    FAULT,
    FINE,
    WARNING,
    check_boxes,
    check_duplicates,
    check_names,
    check_outside,
    check_pixel_sizes,
    describe,
    percent,
    remedy,
)
from pickeropt.frame.frame_config import IDENTITY, RIGHT, UNSURE, WRONG, Frame, FrameDecision, FrameSite, Verdict
from pickeropt.io.micrographs import MicrographHeader
from pickeropt.io.picks import read_picks


def site(xy: list[list[float]], diameter: float | None = 30.0) -> FrameSite:
    points = np.array(xy, dtype=np.float64).reshape(-1, 2)
    header = MicrographHeader(Path("m.mrc"), (100, 200), None)
    return FrameSite("m.mrc", header, diameter, 1.0, points, np.full(len(points), np.nan))


def headers(*sizes: float | None) -> list[MicrographHeader]:
    return [MicrographHeader(Path(f"m{i}.mrc"), (10, 10), size) for i, size in enumerate(sizes)]


SIZES = [
    (None, [None, None], {}, WARNING, "neither flag, header nor optics block says one"),
    (None, [1.77, None], {}, FINE, "1.77 Å/px by 1 source"),
    (None, [1.77, 1.775], {"the optics block of p.star": 1.76}, FINE, "1.775 Å/px by 3 sources"),
    (1.77, [1.77], {}, FINE, "1.77 Å/px by 2 sources"),
    (None, [1.0, 2.0], {}, FAULT, "1 Å/px by the header of m0.mrc, 2 Å/px by the header of m1.mrc"),
    (
        None,
        [3.54],
        {"the optics block": 1.77},
        FAULT,
        "1.77 Å/px by the optics block, 3.54 Å/px by the header",
    ),
    (1.77, [3.54], {}, WARNING, "1.77 Å/px by --pixel-size, 3.54 Å/px by the header of m0.mrc"),
]


@pytest.mark.parametrize(("flag", "found", "optics", "level", "text"), SIZES)
def test_pixel_sizes_are_compared(
    flag: float | None, found: list[float | None], optics: dict[str, float], level: str, text: str
) -> None:
    finding = check_pixel_sizes(flag, headers(*found), optics)
    assert finding.level == level
    assert finding.text.startswith(text)
    assert bool(finding.remedy) == (level != FINE)


def test_boxes_must_hold_the_particle(tmp_path: Path) -> None:
    files = [read_picks(box_file(tmp_path / f"{side}.box", np.ones((3, 2)) * 50, side)) for side in (24.0, 40)]
    assert check_boxes(files, 20.0).level == FINE  # type: ignore[union-attr]
    finding = check_boxes(files, 30.0)
    assert finding is not None
    assert (finding.level, finding.text) == (
        WARNING,
        "3 of 6 boxes are smaller than the particle: 24 px for 30 px",
    )
    assert check_boxes(files, None) is None
    star = tmp_path / "a.star"
    star.write_text("data_\n\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n1 2\n")
    assert check_boxes([read_picks(star)], 30.0) is None


def test_places() -> None:
    assert check_outside([site([[0, 0], [200, 100]])]).level == FINE
    near = check_outside([site([[10, 10], [205, 50]])])
    assert (near.level, near.text) == (
        WARNING,
        "1 of 2 picks lie outside, first x 205, y 50 on m.mrc, 200 x 100 px",
    )
    far = check_outside([site([[10, 10], [205, 50]]), site([[50, 116], [50, 50]])])
    assert far.level == FAULT
    assert far.text.startswith("2 of 4 picks lie outside, first x 205")
    assert far.text.endswith("; 1 by more than a radius")


def test_duplicates_are_counted_once_each() -> None:
    row = [[20.0 * i, 50.0] for i in range(10)]
    assert check_duplicates([site(row)]).level == FINE  # type: ignore[union-attr]
    three = check_duplicates([site([*row, [1.0, 50.0], [2.0, 50.0]])])  # 10 px is a third of 30
    assert three is not None
    assert three.level == WARNING
    assert three.text.startswith("2 of 12 picks are closer")
    assert check_duplicates([site([[0, 0], [10.1, 0]])]).level == FINE  # type: ignore[union-attr]
    assert check_duplicates([site(row), site(row)]).level == FINE  # type: ignore[union-attr]
    assert check_duplicates([site(row, None)]) is None


def test_names_without_a_rule_show_what_is_there() -> None:
    assert check_names(3, {}, []).text == "all 3 micrographs are there"
    finding = check_names(1, {"one.mrc": Path("p.star")}, [Path("d/quite_other.mrc")])
    assert finding.level == FAULT
    assert finding.text == "1 of 2 names match no micrograph: one.mrc; there are quite_other.mrc"
    assert "--micrographs" in finding.remedy
    ruled = check_names(0, {"m01_DW.mrc": Path("p.star")}, [Path("d/m01.mrc")])
    assert ruled.remedy.startswith("without '_DW' 1 of them match (m01_DW.mrc -> m01.mrc)")


# ---------------------------------------------------------------- words

REMEDIES = [
    (Frame(flip_y=True), "p.box", "pickeropt convert p.box mended/p.box --flip-y --micrographs 'my mics'"),
    (Frame(scale=2.0), "p.star", "pickeropt convert p.star mended/p.star --scale 2 --micrographs 'my mics'"),
    (Frame(scale=0.25), "p.cs", "pickeropt convert p.cs mended/p.star --scale 0.25 --micrographs 'my mics'"),
    (Frame(scale=1 / 3, flip_y=True), "p.txt", "--scale 0.3333333333 --flip-y --micrographs 'my mics'"),
    (Frame(swap=True), "p.star", "mended/p.star --swap-xy --micrographs 'my mics'"),
    (
        Frame(swap=True, flip_x=True, flip_y=True),
        "p.star",
        "--swap-xy --flip-x --flip-y --micrographs 'my mics'",
    ),
    (Frame(shift=(-12.0, 3.4)), "p.star", "mended/p.star --shift -12,3 --micrographs 'my mics'"),
]


@pytest.mark.parametrize(("frame", "picks", "expected"), REMEDIES)
def test_the_remedy_can_be_copied(frame: Frame, picks: str, expected: str) -> None:
    assert remedy(frame, [Path(picks)], [Path("my mics")]).endswith(expected)


def test_a_flip_finds_the_micrographs_as_the_check_did() -> None:
    assert remedy(Frame(flip_y=True), [Path("p.box")], []).endswith("mended/p.box --flip-y")


def test_a_list_is_converted_to_a_folder_with_its_list(tmp_path: Path) -> None:
    labels = "data_\nloop_\n_rlnMicrographName\n_rlnMicrographCoordinates\n"
    (tmp_path / "autopick.star").write_text(f"{labels}mics/a.mrc a_autopick.star\n")
    found = remedy(Frame(flip_y=True), [tmp_path / "autopick.star"], [])
    assert found == f"convert them: pickeropt convert {tmp_path}/autopick.star mended --to star --flip-y"


def test_a_folder_and_several_files_are_converted(tmp_path: Path) -> None:
    found = remedy(Frame(scale=2.0), [tmp_path], [])
    assert found == f"convert them: pickeropt convert {tmp_path} mended --to star --scale 2"
    assert remedy(Frame(scale=2.0), [Path("a.box"), Path("b.box")], []).endswith("--scale 2, and the others likewise")


def verdict(answer: str, frame: Frame, doubtful: bool = False, **more: object) -> Verdict:
    opinion = FrameDecision(answer, frame, 0.97, "because", doubtful)
    return Verdict(opinion, (), True, more.get("odd", ()), 1200, 3, 20.0)  # type: ignore[arg-type]


def test_verdicts_in_words() -> None:
    looked = "1,200 picks on 3 micrographs"
    assert describe(verdict(RIGHT, IDENTITY), [Path("p")], []) == (
        f"right, 97 % sure: because ({looked})",
        "",
    )
    text, cure = describe(verdict(WRONG, Frame(scale=2.0)), [Path("p.star")], [])
    assert text == f"wrong, 97 % sure: the coordinates are of micrographs binned 2 times more (because; {looked})"
    assert cure == "convert them: pickeropt convert p.star mended/p.star --scale 2"
    text, cure = describe(verdict(UNSURE, Frame(scale=2.0), True), [Path("p.star")], [])
    assert text == f"unsure: because ({looked})"
    assert cure.startswith("look at some picks on their micrograph; if it is so, convert them: ")
    assert describe(verdict(UNSURE, IDENTITY), [], [])[1] == "look at some picks on their micrograph"
    odd = verdict(RIGHT, IDENTITY, odd=(("m1.mrc", Frame(flip_y=True)),))
    assert describe(odd, [], [])[0].endswith("; on m1.mrc alone: y flipped")


def test_nothing_is_certain() -> None:
    assert percent(0.9999) == "more than 99.9 %"
    assert percent(0.973) == "97 %"
