import numpy as np
import pytest
import torch

from pickeropt.pickers.deepem_network import PUBLISHED, DeepEMNetwork, Geometry, derived, initialise

MAPS = (6, 6, 12, 12, 12, 12)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_layers_have_the_shapes_of_table_1(name: str) -> None:
    geometry = PUBLISHED[name]
    network = DeepEMNetwork(geometry)
    seen = []
    for layer in (pair for level in zip(network.convolutions, network.pools, strict=True) for pair in level):
        layer.register_forward_hook(lambda _, __, output: seen.append(tuple(output.shape)))
    scores = network(torch.zeros(1, 1, geometry.box, geometry.box))
    assert seen == [(1, maps, side, side) for maps, side in zip(MAPS, geometry.sides(), strict=True)]
    assert scores.shape == (1,)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        # 6 x (kernel² + 1) + 12 x (6 kernel² + 1) + 12 x (12 kernel² + 1) + 12 x S6² + 1
        ("klh", 6 * 2602 + 12 * 2647 + 12 * 1201 + 973),
        ("19s", 6 * 401 + 12 * 601 + 12 * 193 + 769),
        ("26s", 6 * 962 + 12 * 1351 + 12 * 1201 + 589),
        ("inflammasome", 6 * 226 + 12 * 601 + 12 * 589 + 589),
    ],
)
def test_parameters(name: str, count: int) -> None:
    assert sum(p.numel() for p in DeepEMNetwork(PUBLISHED[name]).parameters()) == count


def test_the_forward_pass_by_hand() -> None:
    """Against the paper's Eq. 1 to 3, written with loops in numpy."""
    rng = np.random.default_rng(0)
    network = DeepEMNetwork(Geometry(12, (3, 2, 1), (2, 2, 1)), (2, 3, 2)).double()
    for parameter in network.parameters():
        parameter.data = torch.from_numpy(rng.normal(size=tuple(parameter.shape)))
    window = rng.normal(size=(12, 12))
    maps = [window]
    for convolution, pool in zip(network.convolutions, (2, 2, 1), strict=True):
        weights, biases = convolution.weight.detach().numpy(), convolution.bias.detach().numpy()
        maps = [
            pooled(sigmoid(sum(map(correlated, maps, kernels)) + bias), pool)
            for kernels, bias in zip(weights, biases, strict=True)
        ]
    weight = network.output.weight.detach().numpy()[0]
    expected = sigmoid(np.concatenate([m.ravel() for m in maps]) @ weight + float(network.output.bias.detach()))
    found = network(torch.from_numpy(window)[None, None]).detach()
    assert float(found) == pytest.approx(float(expected), abs=1e-12)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def correlated(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    k = len(kernel)
    side = len(image) - k + 1
    return np.array([[(image[y : y + k, x : x + k] * kernel).sum() for x in range(side)] for y in range(side)])


def pooled(image: np.ndarray, pool: int) -> np.ndarray:
    side = len(image) // pool
    return image.reshape(side, pool, side, pool).mean(axis=(1, 3))


def spots(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows of noise, the first half with a disc in the middle, and what they are."""
    windows = torch.from_numpy(np.random.default_rng(1).normal(size=(count, 1, 48, 48)).astype(np.float32))
    y, x = np.mgrid[:48, :48] - 23.5
    windows[: count // 2] -= torch.from_numpy((y**2 + x**2 < 12**2).astype(np.float32))
    return windows, torch.arange(count) < count // 2


def trained(uniform: bool, steps: int) -> float:
    """Share of windows that gradient steps at learning rate 1 leave wrong."""
    windows, is_spot = spots(32)
    network = DeepEMNetwork(derived(48))
    initialise(network, windows, seed=0, spread=1.0)
    if uniform:
        torch.manual_seed(0)
        for parameter in network.parameters():
            torch.nn.init.uniform_(parameter, 0.0, 1.0)
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    for _ in range(steps):
        optimiser.zero_grad()
        (0.5 * (network(windows) - is_spot.float()).square().mean()).backward()
        optimiser.step()
    return float(((network(windows) > 0.5) != is_spot).float().mean())


def test_the_initial_weights_learn_where_the_paper_s_do_not() -> None:
    assert trained(uniform=False, steps=30) < 0.05
    assert trained(uniform=True, steps=4) == 0.5


def test_the_initial_values_before_each_sigmoid() -> None:
    windows, _ = spots(32)
    network = DeepEMNetwork(derived(48))
    initialise(network, windows, seed=0, spread=2.0)
    before = []
    for convolution in network.convolutions:
        convolution.register_forward_hook(lambda _, __, output: before.append(output.detach()))
    scores = network(windows)
    for maps in before:
        torch.testing.assert_close(maps.mean((0, 2, 3)), torch.zeros(maps.shape[1]), rtol=0, atol=1e-3)
        torch.testing.assert_close(maps.std((0, 2, 3)), torch.full((maps.shape[1],), 2.0), rtol=1e-3, atol=0)
    assert scores.tolist() == [0.5] * 32
