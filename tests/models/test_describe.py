"""From a micrograph and picks to features: order, company and batches of picks change nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from model_world import SPEC as DENSE

from pickeropt.errors import GeometryError
from pickeropt.models.backbone import Backbone, inference_copy
from pickeropt.models.features import box_features, dense_features, describe_boxes, describe_micrograph, fitted_boxes
from pickeropt.models.views import cut_boxes, make_view
from pickeropt.records import FloatArray

BOXED = replace(DENSE, dense=False, centred=False)
ALONE = replace(BOXED, normalise="box")
DIAMETER = 20.0


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    return inference_copy(Backbone("resnet18", DENSE.stages), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def pixels() -> FloatArray:
    return np.random.default_rng(0).standard_normal((90, 130)).astype(np.float32)


PICKS = np.array([[30.0, 40.0], [0.0, 0.0], [129.0, 89.0], [-9.0, 95.0], [64.3, 41.8], [30.0, 40.0]])


@pytest.mark.parametrize("spec", [DENSE, BOXED, ALONE], ids=["dense", "boxed", "alone"])
def test_order_and_company_of_picks_change_nothing(backbone, pixels, spec) -> None:
    out = describe_micrograph(backbone, spec, pixels, DIAMETER, PICKS)
    assert out.shape == (6, spec.layout.width)
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all()
    order = [4, 2, 0, 5, 1, 3]
    shuffled = describe_micrograph(backbone, spec, pixels, DIAMETER, PICKS[order])
    torch.testing.assert_close(shuffled, out[order], atol=1e-5, rtol=1e-5)
    for row, pick in zip(out, PICKS, strict=True):
        single = describe_micrograph(backbone, spec, pixels, DIAMETER, pick[None])
        torch.testing.assert_close(single[0], row, atol=1e-5, rtol=1e-5)
    assert torch.equal(out[0], out[5])
    assert (out[0] - out[4]).abs().max() > 0.01


@pytest.mark.parametrize("spec", [DENSE, BOXED, ALONE], ids=["dense", "boxed", "alone"])
def test_no_picks(backbone, pixels, spec) -> None:
    out = describe_micrograph(backbone, spec, pixels, DIAMETER, np.zeros((0, 2)))
    assert out.shape == (0, spec.layout.width)


@pytest.mark.parametrize("batch_size", [1, 4, 6, 100])
def test_batches_change_nothing(backbone, pixels, batch_size: int) -> None:
    calls: list[int] = []
    hook = backbone.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    out = describe_micrograph(backbone, BOXED, pixels, DIAMETER, PICKS, batch_size)
    hook.remove()
    assert max(calls) == min(batch_size, 6)
    expected = describe_micrograph(backbone, BOXED, pixels, DIAMETER, PICKS)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


def test_views_stand_one_behind_the_other(backbone, pixels) -> None:
    dense = describe_micrograph(backbone, DENSE, pixels, DIAMETER, PICKS)
    boxed = describe_micrograph(backbone, BOXED, pixels, DIAMETER, PICKS)
    width = DENSE.layout.width // 2
    for index, diameter in enumerate(DENSE.view_diameters):
        view, frame = make_view(pixels, DIAMETER, diameter)
        columns = slice(index * width, (index + 1) * width)
        with torch.inference_mode():
            expected = dense_features(backbone, DENSE, view, frame.to_view(PICKS), index)
            torch.testing.assert_close(dense[:, columns], expected)
            boxes = cut_boxes(view, frame, PICKS, BOXED.box_px(diameter))
            torch.testing.assert_close(
                boxed[:, columns], box_features(backbone, BOXED, boxes, index), atol=1e-5, rtol=1e-5
            )


def test_boxes_cut_elsewhere_are_seen_like_boxes_cut_here(backbone, pixels) -> None:
    """At the scale of the view, 33 px boxes around picks inside are the same pixels either way."""
    spec = replace(ALONE, view_diameters=(DIAMETER,), box_diameters=33 / DIAMETER)
    picks = np.array([[40, 40], [64, 45], [101, 30]])
    boxes = [(f"{x}", pixels[y - 16 : y + 17, x - 16 : x + 17]) for x, y in picks]
    here = describe_micrograph(backbone, spec, pixels, DIAMETER, picks.astype(np.float64))
    there = describe_boxes(backbone, spec, boxes, 2.0, 2.0 * DIAMETER)
    torch.testing.assert_close(there, here, atol=1e-4, rtol=1e-4)
    louder = [(name, 3 * box + 200) for name, box in boxes]
    torch.testing.assert_close(describe_boxes(backbone, spec, louder, 2.0, 2.0 * DIAMETER), there, atol=1e-3, rtol=1e-3)


def test_boxes_of_several_sizes_become_one_stack(pixels) -> None:
    boxes = [("a", pixels[:60, :60]), ("b", pixels[10:81, 20:91])]
    stack = fitted_boxes(ALONE, boxes, 2.0, 2.0 * DIAMETER, 24.0)
    assert stack.shape == (2, 1, 65, 65)
    with pytest.raises(GeometryError, match=r"c.mrc: a box of 30 x 30 px cannot hold .*; or leave this box out"):
        fitted_boxes(ALONE, [*boxes, ("c.mrc", pixels[:30, :30])], 2.0, 80.0, 24.0)
    with pytest.raises(GeometryError, match=r"d.mrc: more than half"):
        fitted_boxes(ALONE, [*boxes, ("d.mrc", 0 * pixels[:60, :60] + 3)], 2.0, 2.0 * DIAMETER, 24.0)


def test_a_particle_that_does_not_fit(backbone, pixels) -> None:
    with pytest.raises(GeometryError, match="does not fit"):
        describe_micrograph(backbone, DENSE, pixels, 91.0, PICKS)
