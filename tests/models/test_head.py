"""The branched head against the paper's layers written out, and its loss by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from pickeropt.models.head import BranchedHead, FeatureLayout, PointwiseBranch, joint_logits, multi_loss


def shapes(branch: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(p.shape) for name, p in branch.named_parameters() if name.endswith("weight")]


def test_branches_have_the_shapes_of_the_paper() -> None:
    """Fig. 1C on a resnet18: 512 - k; 512 - 256 - k; and of section 3.4.2, 512 - 256 - 128 - k."""
    head = BranchedHead(FeatureLayout((512,), 1), classes=4, branches=3)
    assert shapes(head.branches[0]) == [(4, 512)]
    assert shapes(head.branches[1]) == [(256, 512), (4, 256)]
    assert shapes(head.branches[2]) == [(256, 512), (128, 256), (4, 128)]
    assert len(BranchedHead(FeatureLayout((512,), 1), 4).branches) == 2
    assert len(BranchedHead(FeatureLayout((512,), 1), 4, 1).branches) == 1


def test_several_maps_and_windows() -> None:
    layout = FeatureLayout((128, 256), 5)
    assert layout.width == 1920
    head = BranchedHead(layout, 3, 3)
    assert shapes(head.branches[0]) == [(3, 1920)]
    assert shapes(head.branches[1]) == [(64, 128), (128, 256), (3, 5 * (64 + 128))]
    assert shapes(head.branches[2]) == [(128, 128), (128, 128), (128, 256), (128, 128), (3, 5 * 256)]
    assert [z.shape for z in head(torch.zeros(2, 1920))] == [(2, 3)] * 3
    assert [z.shape for z in head(torch.zeros(0, 1920))] == [(0, 3)] * 3


@pytest.mark.parametrize("branches", [0, 4])
def test_one_to_three_branches(branches: int) -> None:
    with pytest.raises(ValueError, match="one, two or three"):
        BranchedHead(FeatureLayout((8,), 1), 2, branches)


@pytest.mark.parametrize("widths", [[], [6], [6, 3]])
def test_convolutions_then_gap_are_the_pointwise_branch(widths: list[int]) -> None:
    """The paper's order: 1x1 convolutions on the map, global average pooling, a linear layer."""
    torch.manual_seed(0)
    branch = PointwiseBranch(FeatureLayout((12,), 1), [widths], 4)
    layers: list[nn.Module] = []
    for linear in branch.convolutions[0]:
        convolution = nn.Conv2d(linear.in_features, linear.out_features, 1)
        convolution.weight.data = linear.weight.data[:, :, None, None]
        convolution.bias.data = linear.bias.data
        layers.append(convolution)
    maps = torch.randn(5, 12, 7, 9)
    expected = branch.linear(nn.Sequential(*layers)(maps).mean((2, 3)))
    torch.testing.assert_close(branch(maps.mean((2, 3))), expected, atol=1e-5, rtol=1e-5)


def test_two_maps_and_two_windows_in_the_order_of_the_layout() -> None:
    """Features by map, window, channel: each map's convolution acts on each of its windows."""
    torch.manual_seed(0)
    branch = PointwiseBranch(FeatureLayout((3, 5), 2), [[2], [4]], 2)
    first, second = torch.randn(6, 3, 4, 4), torch.randn(6, 5, 8, 8)

    def windows(maps: Tensor) -> list[Tensor]:
        return [maps.mean((2, 3)), maps[:, :, 1:3, 1:3].mean((2, 3))]

    ends = []
    for maps, layer in zip((first, second), branch.convolutions, strict=True):
        weight, bias = layer[0].weight, layer[0].bias
        convolved = nn.functional.conv2d(maps, weight[:, :, None, None], bias)
        ends += windows(convolved)
    expected = branch.linear(torch.cat(ends, 1))
    features = torch.cat([*windows(first), *windows(second)], 1)
    torch.testing.assert_close(branch(features), expected, atol=1e-5, rtol=1e-5)


def test_standardise() -> None:
    head = BranchedHead(FeatureLayout((3,), 1), 2)
    features = torch.tensor([[1.0, 5.0, 0.0], [3.0, 5.0, 8.0]])
    head.standardise(features)
    assert head.mean.tolist() == [2.0, 5.0, 4.0]
    assert head.scale.tolist() == [1.0, 0.0, 0.25]
    x = (torch.tensor([[4.0, 99.0, 4.0]]) - head.mean) * head.scale
    assert x.tolist() == [[2.0, 0.0, 0.0]]
    expected = head.branches[0](x)
    torch.testing.assert_close(head(torch.tensor([[4.0, 99.0, 4.0]]))[0], expected)
    assert {"mean", "scale"} <= set(head.state_dict())


def test_standardise_with_weights_is_that_of_repeated_rows() -> None:
    features = torch.tensor([[1.0, 123.4], [2.0, 123.4], [9.0, 123.4]])
    weighted, repeated = (BranchedHead(FeatureLayout((2,), 1), 2) for _ in range(2))
    weighted.standardise(features, torch.tensor([1.5, 0.5, 1.0]))
    repeated.standardise(features[[0, 0, 0, 1, 2, 2]])
    assert weighted.mean.tolist() == pytest.approx([(3 * 1 + 2 + 2 * 9) / 6, 123.4])
    torch.testing.assert_close(weighted.mean, repeated.mean)
    torch.testing.assert_close(weighted.scale, repeated.scale)
    assert weighted.scale[1] == 0


def test_features_beyond_the_limit_say_no_more() -> None:
    """Standardised features are 2 and beyond: whatever they are, the head sees 2, to the last bit."""
    torch.manual_seed(0)
    head = BranchedHead(FeatureLayout((4,), 1), 3, 3, limit=2.0)
    features = torch.tensor([[0.0, 1.0, 2.0, 8.0], [2.0, 5.0, -4.0, 8.5], [4.0, 6.0, 8.0, 9.5]])
    head.standardise(features)
    spread = 1 / head.scale
    at = head.mean + torch.tensor([[2.0, -2.0, 2.0, 1.0]]) * spread
    expected = [branch(torch.tensor([[2.0, -2.0, 2.0, 1.0]])) for branch in head.branches]
    for found, z in zip(head(at), expected, strict=True):
        torch.testing.assert_close(found, z)
    far = head.mean + torch.tensor([[2.5, -3.0, 40.0, 1.0], [1e6, -9.0, 2.001, 1.0]]) * spread
    for z in head(far):
        assert torch.equal(z[0], z[1])
    for found, z in zip(head(far), expected, strict=True):
        torch.testing.assert_close(found, z.expand(2, 3))
    inside = head.mean + torch.tensor([[1.9, -1.9, 1.9, 1.0]]) * spread
    assert (head(inside)[0] - expected[0]).abs().max() > 1e-3


def test_without_a_limit_the_head_is_linear() -> None:
    head = BranchedHead(FeatureLayout((4,), 1), 3)
    x = torch.randn(2, 4)
    zero, one, ten = (head(k * x)[1] for k in (0.0, 1.0, 10.0))
    torch.testing.assert_close(ten - zero, 10 * (one - zero), atol=1e-4, rtol=1e-4)


LOGITS = [torch.tensor([[0.0, math.log(3.0)], [math.log(4.0), 0.0]]), torch.zeros(2, 2)]
LABELS = torch.tensor([1, 1])


def test_the_loss_by_hand() -> None:
    """P of the true class: 3/4 and 1/5 in the first branch, 1/2 and 1/2 in the second."""
    first, second = (math.log(4 / 3) + math.log(5)) / 2, math.log(2)
    loss = multi_loss(LOGITS, LABELS, (1.0, 0.3), torch.ones(2))
    assert loss.item() == pytest.approx(first + 0.3 * second, rel=1e-6)


def test_class_weights_by_hand() -> None:
    labels = torch.tensor([0, 1])  # P of the true class: 1/4 and 1/5
    loss = multi_loss(LOGITS[:1], labels, (2.0,), torch.tensor([3.0, 1.0]))
    assert loss.item() == pytest.approx(2 * (3 * math.log(4) + math.log(5)) / 4, rel=1e-6)


def test_each_branch_learns_from_its_own_cross_entropy() -> None:
    logits = [torch.zeros(2, 3, requires_grad=True) for _ in range(3)]
    multi_loss(logits, LABELS, (1.0, 0.5, 0.0), torch.ones(3)).backward()
    grad = torch.tensor([[1 / 3, -2 / 3, 1 / 3]] * 2) / 2
    for z, weight in zip(logits, (1.0, 0.5, 0.0), strict=True):
        torch.testing.assert_close(z.grad, weight * grad)


def test_a_weight_for_each_branch() -> None:
    with pytest.raises(ValueError, match="zip"):
        multi_loss(LOGITS, LABELS, (1.0,), torch.ones(2))
    with pytest.raises(ValueError, match="zip"):
        joint_logits(LOGITS, (1.0, 0.3, 0.2))


def test_joint_logits_by_hand() -> None:
    logits = [torch.tensor([[1.0, 2.0]]), torch.tensor([[5.0, -2.0]])]
    torch.testing.assert_close(joint_logits(logits, (1.0, 0.25)), torch.tensor([[1.8, 1.2]]))
    assert torch.equal(joint_logits(logits[:1], (7.0,)), logits[0])
