"""The fully convolutional scan against a window cut, turned and scored at every position."""

import pytest
import torch

from pickeropt.pickers.deepem_network import PUBLISHED, DeepEMNetwork, Geometry, derived, initialise, scan

ODD = Geometry(47, (4, 3, 2), (4, 3, 2))


def made(geometry: Geometry) -> DeepEMNetwork:
    torch.manual_seed(0)
    network = DeepEMNetwork(geometry).eval().requires_grad_(False)
    windows = torch.randn(8, 1, geometry.box, geometry.box)
    initialise(network, windows, seed=0, spread=1.0)
    torch.nn.init.normal_(network.output.weight, std=0.5)  # scores far apart: a wrong place shows
    network.output.bias.sub_(network.logits(windows).mean())
    return network


def slid(network: DeepEMNetwork, view: torch.Tensor, step: int) -> torch.Tensor:
    box = network.geometry.box
    windows = view[0, 0].unfold(0, box, step).unfold(1, box, step)
    flat = windows.reshape(-1, 1, box, box)
    with torch.no_grad():
        turned = [network(torch.rot90(flat, quarter, (2, 3))) for quarter in range(4)]
    return torch.stack(turned).mean(0).view(windows.shape[:2])


@pytest.mark.parametrize(
    ("geometry", "step"),
    [
        (derived(48), 4),
        (derived(48), 20),  # divided by both pools
        (derived(48), 6),  # by the first only
        (derived(48), 5),  # by none
        (derived(48), 1),
        (ODD, 20),
        (ODD, 7),
        (Geometry(50, (6, 4, 3), (3, 2, 2)), 20),  # a first pool of 3, as of the KLH and 19S networks
        (PUBLISHED["19s"], 20),
    ],
)
def test_the_scan_equals_the_sliding_window(geometry: Geometry, step: int) -> None:
    network = made(geometry)
    torch.manual_seed(1)
    view = torch.randn(1, 1, geometry.box + 3 * step + 4, geometry.box + 5 * step + 1)
    expected = slid(network, view, step)
    assert expected.std() > 0.01
    found = scan(network, view, step)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_bands_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    network = made(derived(48))
    view = torch.randn(1, 1, 48 * 9, 70)
    whole = scan(network, view, 8)
    monkeypatch.setattr("pickeropt.pickers.deepem_network.BAND_PX", 1)
    torch.testing.assert_close(scan(network, view, 8), whole, rtol=0, atol=1e-5)


def test_a_view_of_one_box_has_one_score() -> None:
    network = made(derived(48))
    window = torch.randn(1, 1, 48, 48)
    assert scan(network, window, 20).shape == (1, 1)
    torch.testing.assert_close(scan(network, window, 20)[0], network.turned_scores(window).detach())
