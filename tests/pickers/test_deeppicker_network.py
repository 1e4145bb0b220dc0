import pytest
import torch
from torch.nn import functional

from pickeropt.pickers import deeppicker_network as module
from pickeropt.pickers.deeppicker_network import DeepPickerNetwork


@pytest.fixture
def network():
    torch.manual_seed(3)
    made = DeepPickerNetwork()
    for parameter in made.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)  # biases that are not 0
    return made.eval()


def test_layers_have_the_shapes_of_the_table(network):
    x, sides = torch.zeros(1, 1, 64, 64), []
    for convolution in network.convolutions:
        x = convolution(x)
        sides.append(tuple(x.shape[1:]))
        assert x.shape[-1] % 2 == 0  # no pooling drops a row
        x = functional.max_pool2d(x, 2)
        sides.append(tuple(x.shape[1:]))
    assert sides == [
        (8, 60, 60), (8, 30, 30), (16, 28, 28), (16, 14, 14),
        (32, 12, 12), (32, 6, 6), (64, 4, 4), (64, 2, 2),
    ]  # fmt: skip
    assert network(torch.zeros(5, 1, 64, 64)).shape == (5, 2)


def test_parameters_are_those_of_the_layers(network):
    counts = [sum(p.numel() for p in c.parameters()) for c in network.convolutions]
    assert counts == [8 * 25 + 8, 16 * 8 * 9 + 16, 32 * 16 * 9 + 32, 64 * 32 * 9 + 64]
    assert sum(p.numel() for p in network.hidden.parameters()) == 256 * 128 + 128
    assert sum(p.numel() for p in network.output.parameters()) == 2 * 128 + 2
    assert sum(p.numel() for p in network.parameters()) == 57_666


def test_dropout_leaves_out_half_of_the_first_connected_layer(network):
    seen = []
    network.output.register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    patch = torch.randn(1, 1, 64, 64).expand(200, 1, 64, 64)
    plain = network(patch)
    network.train()
    torch.manual_seed(0)
    network(patch)
    assert torch.equal(plain[:1], plain[1:2])
    active = seen[0] > 0
    assert ((seen[1] == 0) | (seen[1] == 2 * seen[0])).all()
    assert (seen[1][active] == 0).float().mean() == pytest.approx(0.5, abs=0.03)


def single_windows(network, view):
    """Log odds of each window by itself: the sliding window."""
    windows = view.unfold(2, 64, 4).unfold(3, 64, 4)[0, 0]
    logits = torch.stack([torch.stack([network(w[None, None])[0] for w in row]) for row in windows])
    return torch.log_softmax(logits, 2)[..., 1] - torch.log_softmax(logits, 2)[..., 0]


@pytest.mark.parametrize("extra", [(0, 0), (4, 11), (37, 30), (22, 9)])
def test_all_windows_at_once_are_the_sliding_window(network, extra, monkeypatch):
    monkeypatch.setattr(module, "BAND", 3)  # rows of windows lie in several bands
    view = torch.randn(1, 1, 64 + extra[0], 64 + extra[1], generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found, expected = network.log_odds(view), single_windows(network, view)
    assert found.shape == (extra[0] // 4 + 1, extra[1] // 4 + 1)
    assert expected.numel() == 1 or expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
