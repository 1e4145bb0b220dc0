"""The geometry of frames, by hand and against matrices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pickeropt.frame.frame_config import FRAMES, IDENTITY, SHIFTED, Frame

SHAPE = (60, 100)
PICK = np.array([[10.0, 20.0]])

BY_HAND = [
    (Frame(), (10, 20), "as given"),
    (Frame(flip_x=True), (90, 20), "x flipped"),
    (Frame(flip_y=True), (10, 40), "y flipped"),
    (Frame(flip_x=True, flip_y=True), (90, 40), "x and y flipped"),
    (Frame(swap=True), (20, 10), "x and y swapped"),
    (Frame(swap=True, flip_x=True), (80, 10), "swapped, then x flipped"),
    (Frame(swap=True, flip_y=True), (20, 50), "swapped, then y flipped"),
    (Frame(scale=2.0), (20, 40), "x 2"),
    (Frame(scale=0.25), (2.5, 5), "x 1/4"),
    (Frame(flip_y=True, scale=2.0), (20, 20), "y flipped, x 2"),
    (Frame(shift=(3.0, -4.0)), (13, 16), "shifted by +3, -4 px"),
    (
        Frame(swap=True, flip_x=True, flip_y=True, scale=0.5, shift=(0.0, 7.0)),
        (90, 62),
        "swapped, then both flipped, x 1/2, shifted by +0, +7 px",
    ),
]


@pytest.mark.parametrize(("frame", "expected", "name"), BY_HAND)
def test_a_pick_is_placed_and_the_frame_named(frame: Frame, expected: tuple[float, float], name: str) -> None:
    assert frame.place(PICK, SHAPE).tolist() == [list(map(float, expected))]
    assert frame.name == name
    assert PICK.tolist() == [[10.0, 20.0]]


def test_all_turns_at_all_scales_are_tried_and_no_two_are_the_same() -> None:
    assert FRAMES[0] == IDENTITY
    assert len(FRAMES) == len(set(FRAMES)) == 8 * 9
    places = {tuple(frame.place(np.array([[11.3, 20.9]]), SHAPE)[0]) for frame in FRAMES}
    assert len(places) == len(FRAMES)
    assert {frame.scale for frame in FRAMES} >= {1, 2, 4, 0.5, 0.25}
    assert len(SHIFTED) == 8 + 8
    assert IDENTITY in SHIFTED


@given(
    st.sampled_from(FRAMES),
    st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 60)), min_size=1, max_size=5),
)
def test_placing_is_the_product_of_its_matrices(
    frame: Frame, shift: tuple[float, float], points: list[tuple[float, float]]
) -> None:
    height, width = SHAPE
    scale = np.diag([frame.scale, frame.scale, 1])
    swap = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]]) if frame.swap else np.eye(3)
    flip_x = np.array([[-1, 0, width], [0, 1, 0], [0, 0, 1]]) if frame.flip_x else np.eye(3)
    flip_y = np.array([[1, 0, 0], [0, -1, height], [0, 0, 1]]) if frame.flip_y else np.eye(3)
    move = np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1]])
    matrix = move @ flip_y @ flip_x @ swap @ scale
    expected = [(matrix @ [x, y, 1])[:2] for x, y in points]
    found = frame.shifted(*shift).place(np.array(points), SHAPE)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_what_is_the_matter_is_said() -> None:
    assert Frame(flip_y=True).what == "count y from the last stored row"
    assert Frame(scale=4.0).what == "are of micrographs binned 4 times more"
    assert Frame(scale=0.5).what == "are of micrographs 2 times finer"
    both = Frame(swap=True, shift=(10.0, -5.0)).what
    assert both == "have x and y swapped and are off by a constant -10 px in x and +5 px in y"
