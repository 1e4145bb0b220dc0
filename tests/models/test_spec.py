"""What follows from a model's geometry."""

from dataclasses import replace

import model_world
import pytest

SPEC = replace(model_world.SPEC, stages=("layer2", "layer3"), channels=(128, 256), view_diameters=(62.0, 41.0))


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
