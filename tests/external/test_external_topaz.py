"""Topaz picks real micrographs, pickeropt prunes its table, Topaz reads what is left."""

import os

import numpy as np
import pytest
from external_programs import find, pickeropt, run, star_rows
from PIL import Image

from pickeropt.io.micrographs import write_mrc

pytestmark = [pytest.mark.external, pytest.mark.slow]

NAMES = ("Falcon_2012_06_12-15_33_42_0", "Falcon_2012_06_12-15_53_09_0")
PIXEL_SIZE, DIAMETER = 1.77, 191.0
BINNING, SCALE = 2, 4
"""Of the micrographs that are pruned, and of those once more that Topaz looks at."""
START, SIDE = 512, 1024
"""The part of the binned micrographs that is used, px."""


def binned(pixels, n):
    height, width = (side // n for side in pixels.shape)
    return np.ascontiguousarray(pixels.reshape(height, n, width, n).mean(axis=(1, 3), dtype=np.float32))


@pytest.fixture
def micrographs(shared_data, tmp_path, monkeypatch):
    """`mics/`, and `small/` with mean 0 and standard deviation 1, as the detector wants it."""
    folder = shared_data / "empiar10017" / "micrographs"
    if not folder.is_dir():
        pytest.skip("no real micrographs in the folder of real data")
    for name in NAMES:
        with Image.open(folder / f"{name}.jpg") as image:
            pixels = np.flipud(np.asarray(image.convert("L"), dtype=np.float32))
        part = binned(pixels, BINNING)[START : START + SIDE, START : START + SIDE]
        small = binned(part, SCALE)
        for kind, image, size in (
            ("mics", np.ascontiguousarray(part), PIXEL_SIZE * BINNING),
            ("small", (small - small.mean()) / small.std(), PIXEL_SIZE * BINNING * SCALE),
        ):
            (tmp_path / kind).mkdir(exist_ok=True)
            write_mrc(tmp_path / kind / f"{name}.mrc", image, size)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_topaz_reads_its_own_table_less_the_rejected(micrographs):
    topaz, folder = find("topaz", "topaz", "PICKEROPT_TOPAZ"), micrographs
    cpu = ["-d", "-1", "-j", "1"]
    radius = round(DIAMETER / 2 / PIXEL_SIZE / BINNING / SCALE)
    command = [topaz, "extract", "-r", radius, "-t", "-3", "-x", SCALE, *cpu, "-o", "topaz.txt"]
    threads = str(os.cpu_count() or 1)
    run([*command, *(f"small/{name}.mrc" for name in NAMES)], folder, OMP_NUM_THREADS=threads)
    picks = (folder / "topaz.txt").read_text().splitlines()
    assert picks[0].split("\t") == ["image_name", "x_coord", "y_coord", "score"]
    assert len(picks) > 100

    pickeropt("prune", "topaz.txt", "--micrographs", "mics", "--diameter", DIAMETER)
    kept, rejected = (
        (folder / "pruned" / side / "topaz.txt").read_text().splitlines() for side in ("kept", "rejected")
    )
    assert kept[0] == rejected[0] == picks[0]
    assert 0 < len(rejected) - 1 < len(kept) - 1
    left = set(kept[1:])
    assert kept[1:] == [row for row in picks[1:] if row in left]
    assert sorted(kept[1:] + rejected[1:]) == sorted(picks[1:])

    run([topaz, "convert", "pruned/kept/topaz.txt", "-o", "kept.star"], folder)
    expected = [row.split("\t") for row in kept[1:]]
    assert sorted(star_rows(folder / "kept.star")) == sorted(
        (f"{row[0]}.mrc", float(row[1]), float(row[2])) for row in expected
    )
