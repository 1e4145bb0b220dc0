import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pickeropt.pickers.yolo_network import apart, boxes_of, decoded, iou, matched, targets

sides = st.floats(0.5, 50)
places = st.floats(-100, 100)
boxes = st.lists(st.tuples(places, places, sides, sides), min_size=1, max_size=6).map(np.array)


def test_iou_by_hand():
    one = np.array([[10.0, 10.0, 4.0, 4.0]])
    others = np.array(
        [
            [10.0, 10.0, 4.0, 4.0],  # the same
            [12.0, 10.0, 4.0, 4.0],  # half a side apart: 8 of 24
            [12.0, 12.0, 4.0, 4.0],  # along the diagonal: 4 of 28
            [10.0, 10.0, 2.0, 8.0],  # 2 x 4 of 16 + 16 - 8
            [14.0, 10.0, 4.0, 4.0],  # touching
            [30.0, 10.0, 4.0, 4.0],
        ]
    )
    np.testing.assert_allclose(iou(one, others), [[1.0, 1 / 3, 1 / 7, 1 / 3, 0.0, 0.0]])


@given(boxes, boxes)
def test_iou_is_symmetric_and_one_with_itself(first, second):
    between = iou(first, second)
    np.testing.assert_allclose(between, iou(second, first).T)
    assert ((between >= 0) & (between <= 1 + 1e-12)).all()
    np.testing.assert_allclose(np.diag(iou(first, first)), 1.0)


def test_a_particle_is_in_the_cell_of_its_centre():
    grid = targets(np.array([[40.0, 8.0, 48.0, 64.0], [70.0, 10.0, 32.0, 32.0]]), rows=1, columns=2)
    assert grid[0].tolist() == [[0.0, 1.0]]  # 70 is in the third column, which is not there
    assert grid[:, 0, 1].tolist() == [1.0, 0.25, 0.25, 1.5, 2.0]
    assert not grid[:, 0, 0].any()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_in_a_cell_the_nearer_to_its_middle_stays(order):
    two = np.array([[4.0, 4.0, 10.0, 10.0], [20.0, 14.0, 20.0, 20.0]])
    grid = targets(two[list(order)], rows=1, columns=1)
    assert grid[:, 0, 0].tolist() == [1.0, 20 / 32, 14 / 32, 20 / 32, 20 / 32]


def test_decoding_by_hand():
    output = torch.tensor([0.0, math.log(3.0), math.log(2.0), -math.log(2.0), math.log(4.0), 9.0])
    grid = torch.zeros(1, 6, 1, 2)
    grid[0, :, 0, 1] = output
    found = decoded(grid, anchor=1.5)
    assert found[0, :, 0, 1].tolist() == pytest.approx([0.8, 0.5, 0.75, 3.0, 0.75])
    boxes, scores = boxes_of(found[0].numpy())
    np.testing.assert_allclose(boxes, [[16, 16, 48, 48], [32 + 16, 24, 96, 24]], rtol=1e-6)
    np.testing.assert_allclose(scores, [0.5, 0.8], rtol=1e-6)


def test_what_is_encoded_is_decoded():
    wanted = np.array([[40.0, 8.0, 48.0, 64.0], [5.0, 50.0, 24.0, 24.0]])
    grid = targets(wanted, rows=2, columns=2)
    boxes, scores = boxes_of(grid)
    np.testing.assert_allclose(boxes[scores == 1], wanted[[0, 1]], rtol=1e-6)


def test_of_overlapping_boxes_the_best_stays():
    one = np.array([[10.0, 10, 8, 8], [11.0, 10, 8, 8], [14.0, 10, 8, 8], [40.0, 10, 8, 8]])
    # IoU of rows 0 and 1: 7/9, of 1 and 2: 5/11, of 0 and 2: 1/3
    assert apart(one, np.array([0.7, 0.9, 0.8, 0.1]), 0.4).tolist() == [1, 3]
    assert apart(one, np.array([0.7, 0.9, 0.8, 0.1]), 0.5).tolist() == [1, 2, 3]
    assert apart(one, np.array([0.7, 0.9, 0.8, 0.1]), 0.8).tolist() == [1, 2, 0, 3]
    # row 1 is gone, so it takes row 2 not with it
    assert apart(one, np.array([0.9, 0.8, 0.7, 0.1]), 0.4).tolist() == [0, 2, 3]


def test_of_equal_scores_the_first_stays():
    same = np.array([[10.0, 10, 8, 8], [10.0, 10, 8, 8]])
    assert apart(same, np.array([0.5, 0.5]), 0.4).tolist() == [0]
    assert apart(np.empty((0, 4)), np.empty(0), 0.4).tolist() == []


def test_a_particle_counts_for_one_box():
    truth = np.array([[10.0, 10, 8, 8], [30.0, 10, 8, 8]])
    found = np.array([[10.5, 10, 8, 8], [10.0, 10, 8, 8], [34.0, 10, 8, 8]])
    true, shared = matched(found, truth, 0.6)
    assert true.tolist() == [True, False, False]
    np.testing.assert_allclose(shared, [7.5 / 8.5, 0.0, 0.0])
    assert matched(found, truth, 0.3)[0].tolist() == [True, False, True]
    assert matched(found, np.empty((0, 4)), 0.3)[0].tolist() == [False] * 3
