"""Verdicts on simulated micrographs: every frame is named, and nothing is where there is nothing."""

from pathlib import Path

import numpy as np
import pytest
from frame_world import DIAMETER, SHAPE, draw, site, write
from numpy.typing import NDArray

from pickeropt.frame.evidence import choose_picks, choose_sites, judge_frame
from pickeropt.frame.frame_config import IDENTITY, RIGHT, UNSURE, WRONG, Frame, FrameConfig, FrameSite
from pickeropt.io.micrographs import MicrographHeader, write_mrc

CONFIG = FrameConfig()
HEIGHT, WIDTH = SHAPE

SPOILT = {
    "given": (IDENTITY, lambda x, y: (x, y)),
    "flip x": (Frame(flip_x=True), lambda x, y: (WIDTH - x, y)),
    "flip y": (Frame(flip_y=True), lambda x, y: (x, HEIGHT - y)),
    "flip both": (Frame(flip_x=True, flip_y=True), lambda x, y: (WIDTH - x, HEIGHT - y)),
    "swap": (Frame(swap=True), lambda x, y: (y, x)),
    "quarter": (Frame(swap=True, flip_x=True), lambda x, y: (y, WIDTH - x)),
    "binned 2": (Frame(scale=2.0), lambda x, y: (x / 2, y / 2)),
    "binned 4": (Frame(scale=4.0), lambda x, y: (x / 4, y / 4)),
    "finer 2": (Frame(scale=0.5), lambda x, y: (2 * x, 2 * y)),
    "finer 4": (Frame(scale=0.25), lambda x, y: (4 * x, 4 * y)),
    "binned and flipped": (Frame(flip_y=True, scale=2.0), lambda x, y: (x / 2, (HEIGHT - y) / 2)),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NDArray[np.float64]]:
    return write(tmp_path_factory.mktemp("mics"), "m1.mrc", 7)


@pytest.mark.parametrize("name", SPOILT)
def test_every_frame_is_named(world: tuple[Path, NDArray[np.float64]], name: str) -> None:
    path, xy = world
    frame, spoil = SPOILT[name]
    given = np.column_stack(spoil(xy[:, 0], xy[:, 1]))
    np.testing.assert_allclose(frame.place(given, SHAPE), xy, atol=1e-9)
    verdict = judge_frame([site(path, given)], CONFIG)
    assert verdict.opinion.frame == frame
    assert verdict.opinion.answer == (RIGHT if frame.is_identity else WRONG)
    assert verdict.opinion.probability > 0.999
    assert verdict.candidates[0].frame == frame
    assert IDENTITY in [candidate.frame for candidate in verdict.candidates]
    assert verdict.dark
    assert (verdict.picks, verdict.micrographs, verdict.diameter_px) == (60, 1, DIAMETER)


def test_a_constant_shift_is_found(world: tuple[Path, NDArray[np.float64]]) -> None:
    path, xy = world
    opinion = judge_frame([site(path, xy - [12, 12])], CONFIG).opinion  # corners in place of centres
    assert opinion.answer == WRONG
    assert opinion.frame.shifted(0.0, 0.0) == IDENTITY
    np.testing.assert_allclose(opinion.frame.shift, [12, 12], atol=3)
    assert judge_frame([site(path, xy - [2, 1])], CONFIG).opinion.answer == RIGHT


def test_bright_particles_are_no_obstacle(tmp_path: Path) -> None:
    path, xy = write(tmp_path, "m.mrc", 3, sign=1.0)
    verdict = judge_frame([site(path, xy)], CONFIG)
    assert (verdict.opinion.answer, verdict.dark) == (RIGHT, False)
    flipped = np.column_stack([xy[:, 0], HEIGHT - xy[:, 1]])
    assert judge_frame([site(path, flipped)], CONFIG).opinion.frame == Frame(flip_y=True)


def test_the_shell_of_a_hollow_particle_is_no_shift(tmp_path: Path) -> None:
    path, xy = write(tmp_path, "m.mrc", 4, sign=-1.5, hollow=6.0)
    for diameter in (14.0, DIAMETER, 24.0):
        opinion = judge_frame([site(path, xy, diameter)], CONFIG).opinion
        assert (opinion.answer, opinion.frame) == (RIGHT, IDENTITY)


def test_an_unknown_diameter_is_found(world: tuple[Path, NDArray[np.float64]]) -> None:
    path, xy = world
    flipped = np.column_stack([xy[:, 0], HEIGHT - xy[:, 1]])
    for given, frame in ((xy, IDENTITY), (flipped, Frame(flip_y=True))):
        verdict = judge_frame([site(path, given, None)], CONFIG)
        assert verdict.opinion.frame == frame
        assert verdict.opinion.answer != UNSURE
        assert verdict.diameter_px is not None
        assert DIAMETER / 2 < verdict.diameter_px < DIAMETER * 2


@pytest.mark.parametrize("seed", range(4))
def test_picks_on_nothing_give_no_verdict(tmp_path: Path, seed: int) -> None:
    path, _ = write(tmp_path, "m.mrc", seed)
    xy = np.random.default_rng(100 + seed).uniform([0, 0], [WIDTH, HEIGHT], size=(80, 2))
    assert judge_frame([site(path, xy)], CONFIG).opinion.answer == UNSURE


def test_few_picks_give_no_verdict(world: tuple[Path, NDArray[np.float64]]) -> None:
    path, xy = world
    opinion = judge_frame([site(path, HEIGHT - xy[:29])], CONFIG).opinion
    assert (opinion.answer, opinion.doubtful) == (UNSURE, False)
    assert opinion.reason == "29 picks are too few to tell"
    assert judge_frame([], CONFIG).opinion.reason == "there are no picks to look at"


def test_picks_outside_that_fit_nowhere_are_a_doubt(world: tuple[Path, NDArray[np.float64]]) -> None:
    path, _ = world
    xy = np.random.default_rng(100).uniform([0, 0], [1.4 * WIDTH, HEIGHT], size=(80, 2))
    opinion = judge_frame([site(path, xy)], CONFIG).opinion
    assert (opinion.answer, opinion.doubtful) == (UNSURE, True)


def test_one_micrograph_in_another_frame_is_named(tmp_path: Path) -> None:
    sites = []
    for seed in range(3):
        path, xy = write(tmp_path, f"m{seed}.mrc", seed)
        sites.append(site(path, np.column_stack([xy[:, 0], HEIGHT - xy[:, 1]]) if seed == 1 else xy))
    verdict = judge_frame(sites, CONFIG)
    assert verdict.opinion.answer == RIGHT
    assert verdict.odd == (("m1.mrc", Frame(flip_y=True)),)


def test_what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    path, xy = write(tmp_path, "good.mrc", 5)
    write_mrc(tmp_path / "flat.mrc", np.ones(SHAPE, np.float32), 2.0)
    bad = [tmp_path / "flat.mrc", tmp_path / "missing.mrc"]
    (tmp_path / "torn.mrc").write_bytes(path.read_bytes()[:5000])
    bad.append(tmp_path / "torn.mrc")
    verdict = judge_frame([*(site(p, xy) for p in bad), site(path, xy)], FrameConfig(micrographs=4))
    assert (verdict.opinion.answer, verdict.micrographs) == (RIGHT, 1)
    assert judge_frame([site(p, xy) for p in bad], CONFIG).opinion.answer == UNSURE


def test_a_particle_that_cannot_be_seen_gives_no_verdict(world: tuple[Path, NDArray[np.float64]]) -> None:
    path, xy = world
    for diameter in (3.0, 0.6 * HEIGHT):
        assert judge_frame([site(path, xy, diameter)], CONFIG).opinion.answer == UNSURE


def test_a_classifier_judges_in_place_of_contrast(world: tuple[Path, NDArray[np.float64]]) -> None:
    """It takes the right half of the micrograph for particles, whatever is there."""
    path, _ = world
    xy = np.random.default_rng(2).uniform([10, 10], [WIDTH / 2 - 10, HEIGHT - 10], size=(60, 2))

    def score(_: FrameSite, places: NDArray[np.float64]) -> NDArray[np.float64]:
        return (places[:, 0] > WIDTH / 2).astype(np.float64)

    opinion = judge_frame([site(path, xy)], CONFIG, score).opinion
    assert opinion.frame.flip_x
    assert opinion.answer != RIGHT
    assert judge_frame([site(path, [WIDTH, 0] + xy * [-1, 1])], CONFIG, score).opinion.frame.flip_x is False


# ---------------------------------------------------------------- which micrographs and picks


def made(name: str, picks: int, shape: tuple[int, int] = SHAPE) -> FrameSite:
    xy = np.arange(2.0 * picks).reshape(-1, 2)
    header = MicrographHeader(Path(name), shape, None)
    return FrameSite(name, header, DIAMETER, 2.0, xy, np.full(picks, np.nan))


def chosen(sites: list[FrameSite], **settings: int) -> str:
    return "".join(found.name for found in choose_sites(sites, FrameConfig(**settings)))


def test_micrographs_are_spread_over_those_with_many_picks() -> None:
    sites = [made(name, picks) for name, picks in zip("abcdefgh", [9, 1, 9, 1, 9, 1, 9, 0], strict=True)]
    assert chosen(sites, micrographs=3) == "aeg"
    assert chosen(sites, micrographs=9) == "abcdefg"
    assert chosen(sites[7:]) == ""


def test_pixels_are_bounded_but_one_micrograph_is_always_seen() -> None:
    sites = [made(name, 5, (10, 10)) for name in "abc"]
    assert chosen(sites, pixels=250) == "ab"
    assert chosen(sites, pixels=1) == "a"


def test_the_better_half_by_score_is_taken() -> None:
    scored = made("a", 200)
    merit = np.arange(200.0)
    best = choose_picks(FrameSite(*_parts(scored), merit), FrameConfig())
    assert best.tolist() == scored.coordinates[:99:-1].tolist()
    assert len(choose_picks(FrameSite(*_parts(scored), merit), FrameConfig(picks=10))) == 10
    assert len(choose_picks(FrameSite(*_parts(made("a", 60)), merit[:60]), FrameConfig())) == 50
    same = choose_picks(FrameSite(*_parts(scored), np.ones(200)), FrameConfig(unranked=50))
    assert same.tolist() == scored.coordinates[::4].tolist()
    assert len(choose_picks(scored, FrameConfig(unranked=199))) == 100


def _parts(found: FrameSite) -> tuple[object, ...]:
    return found.name, found.header, found.diameter_px, found.pixel_size, found.coordinates


def test_the_world_is_what_it_says() -> None:
    pixels, xy = draw(0, 5)
    assert [pixels[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4].mean() < -0.5 for x, y in xy] == [True] * 5
