from pathlib import Path

import numpy as np
import pytest

from pickeropt.errors import ShotsError
from pickeropt.io.micrographs import write_mrc
from pickeropt.shots import read_class_boxes


def test_class_boxes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    good, ice = (rng.normal(size=(n, s, s)).astype(np.float32) for n, s in ((3, 8), (2, 6)))
    write_mrc(tmp_path / "boxes" / "particle.mrcs", good, 2.0)
    write_mrc(tmp_path / "boxes" / "ice" / "1.mrc", ice[0], 2.0)
    write_mrc(tmp_path / "boxes" / "ice" / "2.mrc", ice[1], 2.0)
    boxes = read_class_boxes(tmp_path / "boxes")
    assert boxes.class_names == ("particle", "ice")
    assert boxes.labels.tolist() == [0, 0, 0, 1, 1]
    for box, expected in zip(boxes.boxes, [*good, *ice], strict=True):
        np.testing.assert_array_equal(box, expected)
    assert boxes.sources[1] == f"2@{tmp_path / 'boxes' / 'particle.mrcs'}"
    assert len(boxes) == len(boxes.sources) == 5


def test_faults_of_class_boxes(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).normal(size=(2, 8, 8)).astype(np.float32)
    write_mrc(tmp_path / "particle.mrcs", stack, 2.0)
    with pytest.raises(ShotsError, match="only the class 'particle'"):
        read_class_boxes(tmp_path)
    write_mrc(tmp_path / "ice.mrcs", stack[:1], 2.0)
    with pytest.raises(ShotsError, match="'ice' has 1"):
        read_class_boxes(tmp_path)
    (tmp_path / "ice.mrcs").rename(tmp_path / "thick ice.mrcs")
    with pytest.raises(ShotsError, match=r"thick ice: 'thick ice' cannot be the name"):
        read_class_boxes(tmp_path)
