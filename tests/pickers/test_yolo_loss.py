import pytest
import torch

from pickeropt.pickers.yolo_network import yolo_loss


def grids():
    """One image of 1 x 2 cells, a particle in the second."""
    found = torch.zeros(1, 5, 1, 2)
    found[0, :, 0, 0] = torch.tensor([0.5, 0.1, 0.1, 9.0, 9.0])
    found[0, :, 0, 1] = torch.tensor([0.75, 0.25, 1.0, 4.0, 9.0])
    target = torch.zeros(1, 5, 1, 2)
    target[0, :, 0, 1] = torch.tensor([1.0, 0.5, 0.5, 1.0, 1.0])
    return found, target


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((1.0, 0.0, 0.0), 0.25**2 + 0.5**2 + (2 - 1) ** 2 + (3 - 1) ** 2),
        ((0.0, 1.0, 0.0), 0.25**2),
        ((0.0, 0.0, 1.0), 0.5**2),
        ((5.0, 2.0, 0.5), 5 * 5.3125 + 2 * 0.0625 + 0.5 * 0.25),
    ],
)
def test_each_term_by_hand(weights, expected):
    found, target = grids()
    assert float(yolo_loss(found, target, weights)) == pytest.approx(expected)


def test_the_loss_is_a_mean_over_images():
    found, target = grids()
    one = yolo_loss(found, target, (5.0, 2.0, 0.5))
    two = yolo_loss(found.repeat(3, 1, 1, 1), target.repeat(3, 1, 1, 1), (5.0, 2.0, 0.5))
    assert float(two) == pytest.approx(float(one))


def test_empty_cells_say_nothing_of_boxes():
    found, target = grids()
    found.requires_grad_()
    yolo_loss(found, target, (5.0, 2.0, 0.5)).backward()
    assert not found.grad[0, 1:, 0, 0].any()
    assert found.grad[0, :, 0, 1].all()


def test_a_fifth_of_the_labels_still_gives_a_confidence_above_a_half():
    """Of five equal cells one is labelled: with the default weights their best confidence is 5 / 9."""
    target = torch.zeros(1, 5, 1, 5)
    target[0, 0, 0, 0] = 1.0

    def loss(confidence):
        found = torch.zeros(1, 5, 1, 5)
        found[0, 0] = confidence
        return float(yolo_loss(found, target, (5.0, 5.0, 1.0)))

    best = min(range(1001), key=lambda c: loss(c / 1000)) / 1000
    assert best == pytest.approx(5 / 9, abs=1e-3)
