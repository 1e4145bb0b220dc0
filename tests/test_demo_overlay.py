"""The picture of one micrograph and its picks: what is drawn where, read back from the pixels."""

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pickeropt.demonstration import KEPT_COLOUR, PICKED_COLOUR, REJECTED_LOOKS, SIDE, overlay_png
from pickeropt.errors import FormatError
from pickeropt.io.micrographs import write_mrc

HEIGHT, WIDTH, DIAMETER = 200, 300, 20.0
INCHES, DPI = (2 * SIDE, SIDE + 0.8), 110

Rows = list[tuple[str, float, float, str, int]]
"""Micrograph, x, y, class, kept."""
ROWS: Rows = [
    ("M/a.mrc", 60, 50, "particle", 1),
    ("M/a.mrc", 240, 150, "carbon", 0),
    ("M/a.mrc", 240, 50, "contaminant", 0),
    ("M/a.mrc", 60, 150, "particle", 0),
    ("M/b.mrc", 150, 100, "particle", 1),
]


@pytest.fixture(scope="module")
def micrograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pixels = np.random.default_rng(0).standard_normal((HEIGHT, WIDTH)).astype(np.float32)
    path = tmp_path_factory.mktemp("mics") / "a.mrc"
    write_mrc(path, pixels, 2.0)
    return path


def drawn(micrograph: Path, folder: Path, rows: Rows) -> NDArray[np.int64]:
    """(h, w, 3) pixels of the picture."""
    classes = list(dict.fromkeys(["particle", *(row[3] for row in rows)]))
    cells = ",".join(["0.5"] * len(classes))
    lines = [f"p.star,{i},{m},{x},{y},{c},{cells},{k}" for i, (m, x, y, c, k) in enumerate(rows)]
    path = folder / "scores.csv"
    path.write_text(
        "\n".join([f"file,row,micrograph,x,y,class,{','.join(f'p_{name}' for name in classes)},kept", *lines]) + "\n"
    )
    with Image.open(io.BytesIO(overlay_png(micrograph, path, DIAMETER))) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(np.int64)


def runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and one past the last of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def panels(picture: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The two pictures of the micrograph, without title and legend: where columns and rows are not white."""
    dark = (picture < 250).any(2)
    columns = [run for run in runs(dark.mean(0) > 0.5) if run[1] - run[0] > 100]
    (top, bottom), *_ = [run for run in runs(dark.mean(1) > 0.5) if run[1] - run[0] > 100]
    return [picture[top:bottom, left:right] for left, right in columns]


def places(panel: NDArray[np.int64], color: str) -> set[tuple[int, int]]:
    """The quarter circles of the micrograph's px, to the nearest 10, about which a colour is drawn."""
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    y, x = np.nonzero((np.abs(panel - wanted) < 10).all(2))
    x, y = (x + 0.5) * WIDTH / panel.shape[1], (y + 0.5) * HEIGHT / panel.shape[0]
    found = set()
    for right in (False, True):
        for low in (False, True):
            here = ((x > WIDTH / 2) == right) & ((y > HEIGHT / 2) == low)
            if here.sum() > 10:
                middle = [(v[here].min() + v[here].max()) / 2 for v in (x, y)]
                found.add((round(middle[0] / 10) * 10, round(middle[1] / 10) * 10))
    return found


def test_size_and_places(micrograph: Path, tmp_path: Path) -> None:
    picture = drawn(micrograph, tmp_path, ROWS)
    assert picture.shape == (round(INCHES[1] * DPI), round(INCHES[0] * DPI), 3)
    before, after = panels(picture)
    assert before.shape[1] / before.shape[0] == pytest.approx(WIDTH / HEIGHT, rel=0.02)
    assert places(before, PICKED_COLOUR) == {(60, 50), (240, 150), (240, 50), (60, 150)}
    assert places(after, KEPT_COLOUR) == {(60, 50)}
    # carbon and contaminant in the order of the alphabet, then particles that were not sure enough
    for (color, _), place in zip(REJECTED_LOOKS, [(240, 150), (240, 50), (60, 150)], strict=False):
        assert places(after, color) == {place}
        assert places(before, color) == set()
    assert places(before, KEPT_COLOUR) == places(after, PICKED_COLOUR) == places(after, REJECTED_LOOKS[3][0]) == set()


def test_circles_have_the_diameter_of_the_particle(micrograph: Path, tmp_path: Path) -> None:
    before, _ = panels(drawn(micrograph, tmp_path, ROWS[:1]))
    yellow = [int(PICKED_COLOUR[i : i + 2], 16) for i in (1, 3, 5)]
    _, x = np.nonzero((np.abs(before - yellow) < 10).all(2))
    across = (x.max() - x.min() + 1) * WIDTH / before.shape[1]
    assert 0.8 * DIAMETER < across < 1.1 * DIAMETER


def test_nothing_kept_and_nothing_at_all(micrograph: Path, tmp_path: Path) -> None:
    _, after = panels(drawn(micrograph, tmp_path, ROWS[1:2]))
    assert places(after, KEPT_COLOUR) == set()
    assert places(after, REJECTED_LOOKS[0][0]) == {(240, 150)}
    for panel in panels(drawn(micrograph, tmp_path, ROWS[4:])):
        assert places(panel, PICKED_COLOUR) == places(panel, KEPT_COLOUR) == set()


def test_the_same_picks_are_the_same_picture(micrograph: Path, tmp_path: Path) -> None:
    drawn(micrograph, tmp_path, ROWS)
    scores = tmp_path / "scores.csv"
    assert overlay_png(micrograph, scores, DIAMETER) == overlay_png(micrograph, scores, DIAMETER)


def test_a_table_without_the_classes(micrograph: Path, tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("micrograph,x,y\na.mrc,1,2\n")
    with pytest.raises(FormatError, match="no column 'class'"):
        overlay_png(micrograph, tmp_path / "scores.csv", DIAMETER)
