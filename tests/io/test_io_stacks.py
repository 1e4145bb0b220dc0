from pathlib import Path

import mrcfile
import numpy as np
import pytest
from PIL import Image

from pickeropt.errors import FormatError
from pickeropt.io.micrographs import read_class_folder, write_mrc

BOX = np.arange(16, dtype=np.float32).reshape(4, 4)


def test_folder_a_class(tmp_path: Path) -> None:
    write_mrc(tmp_path / "particle" / "b.mrc", BOX, 2.0)
    Image.fromarray(BOX.astype(np.uint8)).save(tmp_path / "particle" / "a.png")
    (tmp_path / "carbon").mkdir()
    Image.fromarray(np.arange(36, dtype=np.uint16).reshape(6, 6)).save(tmp_path / "carbon" / "c.tif")
    (tmp_path / "carbon" / "notes.txt").write_text("no box")
    (tmp_path / "README.txt").write_text("no class")
    found = read_class_folder(tmp_path)
    assert found.class_names == ("particle", "carbon")
    np.testing.assert_array_equal(found.labels, [0, 0, 1])
    assert [Path(source).name for source in found.sources] == ["a.png", "b.mrc", "c.tif"]
    assert [box.shape for box in found.boxes] == [(4, 4), (4, 4), (6, 6)]
    assert all(box.dtype == np.float32 for box in found.boxes)
    np.testing.assert_array_equal(found.boxes[0], BOX)
    np.testing.assert_array_equal(found.boxes[1], BOX)


def test_stack_a_class(tmp_path: Path) -> None:
    stack = np.stack([BOX, BOX + 1, BOX + 2])
    write_mrc(tmp_path / "ice.mrcs", stack, 2.0)
    write_mrc(tmp_path / "apoferritin.mrcs", stack[:1], 2.0)
    found = read_class_folder(tmp_path)
    assert found.class_names == ("apoferritin", "ice")
    np.testing.assert_array_equal(found.labels, [0, 1, 1, 1])
    assert found.sources[1:] == [f"{i}@{tmp_path / 'ice.mrcs'}" for i in (1, 2, 3)]
    np.testing.assert_array_equal(found.boxes[3], BOX + 2)
    with mrcfile.open(tmp_path / "ice.mrcs") as mrc:
        assert mrc.is_image_stack()


def test_colour_and_16_bit_pictures(tmp_path: Path) -> None:
    (tmp_path / "ice").mkdir()
    grey = BOX.astype(np.uint8) * 10
    Image.fromarray(np.stack([grey] * 3, axis=-1)).save(tmp_path / "ice" / "a.png")
    Image.fromarray((BOX * 1000).astype(np.uint16)).save(tmp_path / "ice" / "b.png")
    found = read_class_folder(tmp_path)
    np.testing.assert_array_equal(found.boxes[0], grey)
    np.testing.assert_array_equal(found.boxes[1], BOX * 1000)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (BOX[:3], "4 x 3 px, not square; cut"),
        (np.where(BOX == 5, np.nan, BOX).astype(np.float32), "not finite; remove"),
        (np.full((4, 4), 2, dtype=np.float32), "every pixel is 2; remove"),
    ],
)
def test_wrong_boxes(tmp_path: Path, pixels: np.ndarray, message: str) -> None:
    Image.fromarray(BOX.astype(np.uint8)).save(tmp_path / "x.png")
    (tmp_path / "ice").mkdir()
    Image.fromarray(pixels).save(tmp_path / "ice" / "bad.tif")
    with pytest.raises(FormatError, match=rf"bad\.tif: .*{message}"):
        read_class_folder(tmp_path)


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such folder"):
        read_class_folder(tmp_path / "none")
    with pytest.raises(FormatError, match=r"no class in this folder; put"):
        read_class_folder(tmp_path)
    (tmp_path / "ice").mkdir()
    with pytest.raises(FormatError, match=r"ice: no image in the folder of this class"):
        read_class_folder(tmp_path)
    (tmp_path / "ice" / "a.png").write_bytes(b"no picture")
    with pytest.raises(FormatError, match=r"a\.png: cannot be decoded"):
        read_class_folder(tmp_path)
    (tmp_path / "ice" / "a.png").rename(tmp_path / "ice" / "a.mrc")
    with pytest.raises(FormatError, match=r"a\.mrc: not an MRC"):
        read_class_folder(tmp_path)
    write_mrc(tmp_path / "ice.mrcs", BOX[None], 2.0)
    with pytest.raises(FormatError, match=r"ice\.mrcs: the class ice is there twice"):
        read_class_folder(tmp_path)
