"""What follows from a model's geometry."""

from dataclasses import replace

import pytest

from pickeropt.models.spec import ModelSpec

SPEC = ModelSpec(
    backbone="resnet18",
    stages=("layer2", "layer3"),
    channels=(128, 256),
    view_diameters=(62.0, 41.0),
    windows=(0.5, 1.2, 2.7),
    orientations=4,
    dense=True,
    box_diameters=2.7,
    centred=True,
    normalise="micrograph",
    loss_weights=(1.0, 0.3),
    class_names=("particle", "ice"),
)


def test_the_layout_is_views_of_stages() -> None:
    assert SPEC.layout.channels == (128, 256, 128, 256)
    assert SPEC.layout.windows == 3
    assert SPEC.layout.width == 2 * 384 * 3
    assert replace(SPEC, windows=(), view_diameters=(150.0,)).layout.width == 384


def test_passes_in_words() -> None:
    assert SPEC.passes == "8 passes a micrograph"
    assert replace(SPEC, dense=False).passes == "8 passes a pick"
    assert replace(SPEC, dense=False, orientations=1, view_diameters=(150.0,)).passes == "1 pass a pick"


@pytest.mark.parametrize(
    ("diameters", "view", "side"),
    [(1.5, 224 / 1.5, 225), (2.7, 62.0, 161), (2.7, 41.0, 97), (1.2, 224 / 1.5, 193)],
)
def test_sides_of_boxes(diameters: float, view: float, side: int) -> None:
    assert replace(SPEC, box_diameters=diameters).box_px(view) == side
