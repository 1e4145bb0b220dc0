import math

import pytest
import torch
from torch.nn import functional

from pickeropt.errors import CheckpointError
from pickeropt.pickers.yolo_network import YoloNetwork, inference_network, load_weights, weights_of

TABLE_2 = [
    # filters, side of the map that a layer gives at an input of 1024, weights: in x out x side² + 2 out
    (32, 1024, 1 * 32 * 9 + 64),
    (64, 512, 32 * 64 * 9 + 128),
    (128, 256, 64 * 128 * 9 + 256),
    (64, 256, 128 * 64 + 128),
    (128, 256, 64 * 128 * 9 + 256),
    (256, 128, 128 * 256 * 9 + 512),
    (128, 128, 256 * 128 + 256),
    (256, 128, 128 * 256 * 9 + 512),
    (512, 64, 256 * 512 * 9 + 1024),
    (256, 64, 512 * 256 + 512),
    (512, 64, 256 * 512 * 9 + 1024),
    (256, 64, 512 * 256 + 512),
    (512, 64, 256 * 512 * 9 + 1024),
    (1024, 32, 512 * 1024 * 9 + 2048),
    (512, 32, 1024 * 512 + 1024),
    (1024, 32, 512 * 1024 * 9 + 2048),
    (512, 32, 1024 * 512 + 1024),
    (1024, 32, 512 * 1024 * 9 + 2048),
    (1024, 32, 1024 * 1024 * 9 + 2048),
    (1024, 32, 1024 * 1024 * 9 + 2048),
    (1024, 32, (1024 + 4 * 512) * 1024 * 9 + 2048),
]


def test_layers_and_weights_are_those_of_table_2():
    with torch.device("meta"):
        network = YoloNetwork()
        shapes = []
        for layer in network.layers:
            layer.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape)))
        detected = network(torch.empty(1, 1, 1024, 1024))
    assert shapes == [(1, filters, side, side) for filters, side, _ in TABLE_2]
    assert detected.shape == (1, 6, 32, 32)
    counts = [sum(p.numel() for p in layer.parameters()) for layer in network.layers]
    assert counts == [weights for _, _, weights in TABLE_2]
    assert sum(p.numel() for p in network.parameters()) == 67_015_014
    assert network.dropout.p == 0.2
    assert all(layer[2].negative_slope == 0.1 for layer in network.layers)


def randomised(width, seed=0):
    """A network whose batch norms have statistics of their own."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = YoloNetwork(width)
    for layer in network.layers:
        norm = layer[1]
        for value, low in ((norm.running_mean, -0.2), (norm.running_var, 0.5), (norm.weight, 0.5)):
            value.data.copy_(low + torch.rand(value.shape, generator=generator))
    network.detection.weight.data.normal_(generator=generator)
    network.detection.bias.data.normal_(generator=generator)
    return network.eval()


def by_hand(network, x):
    """The forward pass of the table, written once more: double precision, space to depth by indices."""
    state = {name: value.double() for name, value in network.state_dict().items()}
    x = passed = x.double()
    for number in range(1, 22):
        if number == 21:
            corners = [passed[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]
            deep = torch.stack(corners, dim=2).flatten(1, 2)
            x = torch.cat([x, deep], dim=1)
        w, norm = state[f"layers.{number - 1}.0.weight"], f"layers.{number - 1}.1."
        x = functional.conv2d(x, w, padding=w.shape[-1] // 2)
        scale = state[norm + "weight"] / (state[norm + "running_var"] + 1e-5).sqrt()
        x = (x - state[norm + "running_mean"][:, None, None]) * scale[:, None, None]
        x = x + state[norm + "bias"][:, None, None]
        x = torch.where(x > 0, x, 0.1 * x)
        if number == 13:
            passed = x
        if number in (1, 2, 5, 8, 13):
            b, c, h, w = x.shape
            x = x.reshape(b, c, h // 2, 2, w // 2, 2).amax(dim=(3, 5))
    return functional.conv2d(x, state["detection.weight"], state["detection.bias"])


def test_the_forward_pass_is_that_of_the_table():
    network = randomised(0.05)
    x = torch.randn(2, 1, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = by_hand(network, x)
        found = network(x)
    assert found.shape == (2, 6, 2, 3)
    assert expected.std() > 1e-3
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_folding_batch_norm_changes_nothing():
    network = randomised(0.05)
    x = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    ready = inference_network(network, torch.device("cpu"), torch.float32)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in ready.modules())
    with torch.no_grad():
        torch.testing.assert_close(ready(x), network(x), rtol=1e-3, atol=1e-4)


def test_width_multiplies_filters():
    network = YoloNetwork(0.25)
    assert [layer[0].out_channels for layer in network.layers][:4] == [8, 16, 32, 16]
    assert network.layers[20][0].in_channels == 256 + 4 * 128


def test_weights_come_back():
    network, other = randomised(0.05), YoloNetwork(0.05).eval()
    load_weights(other, weights_of(network))
    x = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(other(x), network(x))


def test_weights_of_another_width_or_kind_are_refused():
    weights = weights_of(YoloNetwork(0.5))
    with pytest.raises(CheckpointError, match=r"set width to theirs, which is about 0\.5"):
        load_weights(YoloNetwork(0.25), weights)
    with pytest.raises(CheckpointError, match="not of a yolo picker"):
        load_weights(YoloNetwork(0.25), {"layer": torch.zeros(1)})


def test_initial_weights_are_he_s():
    torch.manual_seed(0)
    weight = YoloNetwork(0.25).layers[18][0].weight.detach()
    fan_in = weight.shape[1] * 9
    assert float(weight.std()) == pytest.approx(math.sqrt(2 / (1.01 * fan_in)), rel=0.01)
