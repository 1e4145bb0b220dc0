import pytest
from hypothesis import given
from hypothesis import strategies as st

from pickeropt.errors import GeometryError, PickeroptError
from pickeropt.pickers.deepem_network import LEAST_BOX, PUBLISHED, DeepEMSettings, Geometry, derived

TABLE_1 = {
    "klh": (272, [222, 74, 54, 27, 18, 9]),
    "19s": (160, [141, 47, 38, 19, 16, 8]),
    "26s": (150, [120, 60, 46, 23, 14, 7]),
    "inflammasome": (112, [98, 49, 40, 20, 14, 7]),
}
"""Box, and sides of C1, S2, C3, S4, C5, S6, as the paper's table has them."""


@pytest.mark.parametrize("name", TABLE_1)
def test_the_presets_are_table_1(name: str) -> None:
    box, sides = TABLE_1[name]
    assert PUBLISHED[name].box == box
    assert list(PUBLISHED[name].sides()) == sides


def test_the_rule_gives_the_network_whose_proportions_it_takes() -> None:
    assert derived(112) == PUBLISHED["inflammasome"]


def test_the_rule_by_hand() -> None:
    # 64 x 7/8 = 56, half 28; x 40/49 = 22.9, even 22, half 11; x 0.7 = 7.7, even 8, half 4
    assert derived(64) == Geometry(64, (9, 7, 4), (2, 2, 2))
    assert list(derived(64).sides()) == [56, 28, 22, 11, 8, 4]


@given(st.integers(LEAST_BOX, 600))
def test_the_rule_keeps_the_paper_s_ranges(box: int) -> None:
    before = box
    for output, pooled in zip(*[iter(derived(box).sides())] * 2, strict=True):
        assert 0.7 * before <= output <= 0.9 * before
        assert pooled == output / 2
        before = pooled


def test_a_box_too_small_for_the_rule() -> None:
    with pytest.raises(GeometryError, match="box of 39 px"):
        derived(39)


def test_layers_that_do_not_fit() -> None:
    with pytest.raises(GeometryError, match="layer C1 gives 51 px, which a pool of 2 px does not divide"):
        Geometry(60, (10, 5, 3), (2, 2, 2))
    with pytest.raises(GeometryError, match="layer C5 do not fit"):
        Geometry(60, (11, 6, 30), (2, 2, 2))


def test_settings_choose_the_layers() -> None:
    assert DeepEMSettings(geometry="klh").layers() == PUBLISHED["klh"]
    assert DeepEMSettings(box=150, kernels=(31, 15, 10)).layers() == PUBLISHED["26s"]
    assert DeepEMSettings(box=64).layers() == derived(64)
    with pytest.raises(PickeroptError, match="give one of derived, klh, 19s, 26s, inflammasome"):
        DeepEMSettings(geometry="ribosome")


@pytest.mark.parametrize(("box", "step"), [(272, 20), (112, 20), (111, 16), (64, 8), (48, 8), (40, 4)])
def test_the_raster_is_20_px_or_the_same_share_of_a_smaller_box(box: int, step: int) -> None:
    assert DeepEMSettings(box=box).scan_step() == step
    assert DeepEMSettings(box=box, step=7).scan_step() == 7


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch", 1), ("step", -1), ("std_range", -0.5), ("learning_rate", 0.0), ("separation", -1.0)],
)
def test_settings_that_mean_nothing(name: str, value: float) -> None:
    with pytest.raises(PickeroptError, match=f"DeepEM's {name} is"):
        DeepEMSettings(**{name: value})


def test_kernels_are_three() -> None:
    with pytest.raises(PickeroptError, match="DeepEM's kernels are 9,7; give three"):
        DeepEMSettings(kernels=(9, 7))
