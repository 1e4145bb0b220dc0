"""Simulated micrographs: truth, determinism, contrast, labelled points and picks."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from pickeropt.datasets.simulate import (
    CARBON_KINDS,
    CONTAMINANT_KINDS,
    MASK_CLASSES,
    SOURCE_NAMES,
    SPECIES_NAMES,
    PickerConfig,
    SimulatedMicrograph,
    SimulationConfig,
    Species,
    labelled_points,
    make_species,
    simulate_micrograph,
    simulate_micrographs,
    simulate_picks,
)
from pickeropt.errors import GeometryError

SMALL = SimulationConfig(shape=(320, 384), pixel_size=6.0)


@pytest.fixture(scope="module")
def species() -> tuple[Species, ...]:
    return make_species(0)


@pytest.fixture(scope="module")
def sims(species: tuple[Species, ...]) -> list[SimulatedMicrograph]:
    config = replace(SMALL, shape=(512, 640), carbon_probability=1.0, occupancy=(0.3, 0.4))
    chosen = tuple(item for item in species if item.name in ("tetramer_d2", "barrel_d7", "two_part"))
    return list(simulate_micrographs(config, 6, seed=4, species=chosen))


def _area_under_curve(positive: np.ndarray, negative: np.ndarray) -> float:
    """Share of pairs in the right order, counted one by one."""
    return float(np.mean(positive[:, None] > negative[None, :]))


def test_shapes_types_and_bounds(sims: list[SimulatedMicrograph]) -> None:
    for sim in sims:
        assert sim.pixels.shape == sim.mask.shape == sim.source_map.shape == (512, 640)
        assert (sim.pixels.dtype, sim.mask.dtype) == (np.float32, np.uint8)
        assert np.isfinite(sim.pixels).all()
        assert sim.pixels.std() > 0
        assert len(sim.coordinates) == len(sim.source_class) > 5
        assert (sim.coordinates >= 0).all()
        assert (sim.coordinates <= [639, 511]).all()


def test_one_seed_gives_one_micrograph(species: tuple[Species, ...]) -> None:
    first, again, other = (simulate_micrograph(SMALL, species[6], np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.pixels, again.pixels)
    np.testing.assert_array_equal(first.coordinates, again.coordinates)
    np.testing.assert_array_equal(first.source_map, again.source_map)
    assert not np.array_equal(first.pixels, other.pixels)


def test_a_micrograph_does_not_depend_on_how_many_are_made() -> None:
    two, three = (list(simulate_micrographs(SMALL, count, seed=9)) for count in (2, 3))
    np.testing.assert_array_equal(two[1].pixels, three[1].pixels)


def test_species_are_deterministic_distinct_and_centred() -> None:
    first, again, other = make_species(1), make_species(1), make_species(2)
    assert tuple(item.name for item in first) == SPECIES_NAMES
    assert len(SPECIES_NAMES) == 14
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a.points, b.points)
        assert not np.array_equal(a.points[:10], c.points[:10])
        centre = np.average(a.points, axis=0, weights=a.volumes)
        np.testing.assert_allclose(centre, 0.0, atol=1e-9)
        assert 60 < a.diameter_angstrom < 400


@pytest.mark.parametrize(("name", "fold"), [("barrel_d7", 7), ("ring_c11", 11), ("channel_c4", 4)])
def test_symmetric_species_have_the_symmetry_of_their_name(species: tuple[Species, ...], name: str, fold: int) -> None:
    """Of the angular waves about the axis only those of the fold stand out of the noise."""
    molecule = species[SPECIES_NAMES.index(name)]
    x, y, z = molecule.points[molecule.points[:, 2] > 0].T
    angle = np.arctan2(y, x)
    waves = np.abs([np.exp(1j * order * angle).sum() for order in range(fold + 1)])
    noise = np.sqrt(len(z))
    assert waves[fold] > 3.0 * noise
    assert waves[1:fold].max() < 3.0 * noise


def test_scaling_keeps_shape_and_density(species: tuple[Species, ...]) -> None:
    double = species[0].scaled(2.0 * species[0].diameter_angstrom)
    np.testing.assert_allclose(double.points, 2.0 * species[0].points)
    assert double.volumes.sum() == pytest.approx(8.0 * species[0].volumes.sum())


def test_diameter_of_the_config_wins(species: tuple[Species, ...]) -> None:
    sim = simulate_micrograph(replace(SMALL, diameter_angstrom=150.0), species[6], np.random.default_rng(0))
    assert sim.diameter_angstrom == 150.0
    assert sim.diameter_px == 25.0


@pytest.mark.parametrize("filtered", [0.0, 1.0])
def test_particles_are_darker_than_empty_ice(species: tuple[Species, ...], filtered: float) -> None:
    config = replace(
        SMALL, shape=(512, 512), contaminants=(0, 0), carbon_probability=0.0, filtered_probability=filtered
    )
    for index, name in enumerate(("globular", "tetramer_d2", "two_part", "disc", "dimer_c2")):
        sim = simulate_micrograph(
            replace(config, diameter_angstrom=180.0),
            species[SPECIES_NAMES.index(name)],
            np.random.default_rng(index),
        )
        column, row = np.rint(sim.coordinates).astype(int).T
        near = ndimage.uniform_filter(sim.pixels, 7)
        empty = near[ndimage.distance_transform_edt(sim.mask == 0) > 8]
        error = empty.std() / np.sqrt(len(column))
        assert near[row, column].mean() < empty.mean() - 3 * error, name


def test_eight_bit_data_are_whole_grey_values(species: tuple[Species, ...]) -> None:
    sim = simulate_micrograph(replace(SMALL, filtered_probability=1.0), species[6], np.random.default_rng(2))
    assert sim.filtered
    assert set(np.unique(sim.pixels)) <= set(range(256))
    assert len(np.unique(sim.pixels)) > 40


@pytest.mark.parametrize("kind", CONTAMINANT_KINDS + CARBON_KINDS)
def test_every_kind_of_junk_leaves_its_mark(species: tuple[Species, ...], kind: str) -> None:
    is_carbon = kind in CARBON_KINDS
    config = replace(
        SMALL,
        contaminants=(0, 0) if is_carbon else (4, 4),
        contaminant_kinds=() if is_carbon else (kind,),
        carbon_kinds=(kind,) if is_carbon else (),
        carbon_probability=1.0,
        occupancy=(0.0, 0.0),
        filtered_probability=0.0,
        dose=(500.0, 500.0),
    )
    sim = simulate_micrograph(config, species[6], np.random.default_rng(11))
    marked = sim.source_map == SOURCE_NAMES.index(kind)
    assert set(np.unique(sim.mask)) == {0, 3 if is_carbon else 2}
    assert 0.001 < marked.mean() < 0.98
    away = ndimage.distance_transform_edt(~marked) > 10
    plain = simulate_micrograph(
        replace(config, contaminant_kinds=(), carbon_kinds=()), species[6], np.random.default_rng(11)
    )
    smooth, ice = (ndimage.gaussian_filter(image.pixels, 1.5) for image in (sim, plain))
    inside = np.abs(smooth[marked] / np.median(smooth[away]) - 1.0).mean()
    assert inside > 1.2 * np.abs(ice / np.median(ice) - 1.0).mean()


def test_labelled_points_agree_with_the_mask(sims: list[SimulatedMicrograph]) -> None:
    seen = set()
    for sim in sims:
        points = labelled_points(sim, 12, np.random.default_rng(0))
        column, row = points.coordinates.astype(int).T
        assert tuple(MASK_CLASSES[i] for i in sim.mask[row, column]) == points.class_names
        counts = {name: points.class_names.count(name) for name in MASK_CLASSES}
        assert max(counts.values()) <= 12
        assert counts["particle"] == 12
        edge = 0.5 * sim.diameter_px
        assert (points.coordinates >= edge - 1).all()
        assert (points.coordinates <= np.array([640, 512]) - edge).all()
        is_empty = np.array(points.class_names) == "background"
        apart = cdist(points.coordinates[is_empty], sim.coordinates)
        assert apart.min(initial=np.inf) > 0.85 * sim.diameter_px
        for name, source in zip(points.class_names, points.source_class, strict=True):
            expected = {"background": ("empty_ice",), "particle": SPECIES_NAMES}
            kinds = {"contaminant": CONTAMINANT_KINDS, "carbon": CARBON_KINDS} | expected
            assert source in kinds[name]
        seen |= set(points.class_names)
    assert seen == set(MASK_CLASSES)


def test_picks_are_wrong_as_often_as_configured(sims: list[SimulatedMicrograph]) -> None:
    for sim in sims:
        for fraction in (0.2, 0.4):
            picks = simulate_picks(sim, np.random.default_rng(1), PickerConfig(false_fraction=fraction))
            wrong = np.array(picks.class_names) != "particle"
            assert wrong.mean() == pytest.approx(fraction, abs=0.02)
            assert len(picks.coordinates) == len(picks.source_class) == len(picks.figure_of_merit)
            assert (np.diff(picks.figure_of_merit) <= 0).all()


def test_true_picks_are_on_particles_and_wrong_ones_are_not(sims: list[SimulatedMicrograph]) -> None:
    classes = set()
    for sim in sims:
        picks = simulate_picks(sim, np.random.default_rng(2))
        is_true = np.array(picks.class_names) == "particle"
        nearest = cdist(picks.coordinates, sim.coordinates).min(axis=1) / sim.diameter_px
        assert nearest[is_true].max() <= 0.3 + 1e-9
        assert nearest[~is_true].min() > 0.45
        assert (picks.coordinates >= 0).all()
        assert (picks.coordinates <= [639, 511]).all()
        assert 0.75 < is_true.sum() / len(sim.coordinates) <= 1.0
        classes |= set(picks.class_names)
    assert classes == set(MASK_CLASSES)


def test_figure_of_merit_is_informative_but_imperfect(sims: list[SimulatedMicrograph]) -> None:
    for auc in (0.75, 0.9):
        found = []
        for sim in sims:
            picks = simulate_picks(sim, np.random.default_rng(3), PickerConfig(auc=auc))
            is_true = np.array(picks.class_names) == "particle"
            assert ((picks.figure_of_merit > 0) & (picks.figure_of_merit < 1)).all()
            found.append(_area_under_curve(picks.figure_of_merit[is_true], picks.figure_of_merit[~is_true]))
        assert np.mean(found) == pytest.approx(auc, abs=0.05)


def test_a_micrograph_without_particles_has_no_picks(species: tuple[Species, ...]) -> None:
    sim = simulate_micrograph(replace(SMALL, occupancy=(0.0, 0.0)), species[0], np.random.default_rng(0))
    assert sim.coordinates.shape == (0, 2)
    assert len(simulate_picks(sim, np.random.default_rng(0)).coordinates) == 0
    assert "particle" not in labelled_points(sim, 5, np.random.default_rng(0)).class_names


@pytest.mark.parametrize("wrong", [{"shape": (10, 400)}, {"pixel_size": 0.0}, {"contaminant_kinds": ("dust",)}])
def test_impossible_configs_are_refused(wrong: dict) -> None:
    with pytest.raises(GeometryError):
        SimulationConfig(**wrong)
