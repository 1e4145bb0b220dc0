"""Micrographs: mrcfile and pillow write them, our reader must give back the same numbers."""

import struct
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from PIL import Image

from pickeropt.errors import MicrographError
from pickeropt.io.micrographs import (
    map_micrograph,
    micrograph_shape,
    read_micrograph,
    read_micrograph_header,
    write_mrc,
)

PIXELS = np.array([[1, 2, 3], [4, 5, 100]])


def write(path: Path, data: np.ndarray, voxel: float = 1.77) -> Path:
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(data)
        mrc.voxel_size = voxel
    return path


def patch(path: Path, offset: int, data: bytes) -> Path:
    content = bytearray(path.read_bytes())
    content[offset : offset + len(data)] = data
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float32", "float16"])
def test_modes(tmp_path: Path, dtype: str) -> None:
    micrograph = read_micrograph(write(tmp_path / "a.mrc", PIXELS.astype(dtype)))
    assert micrograph.pixels.dtype == np.float32
    np.testing.assert_array_equal(micrograph.pixels, PIXELS)
    assert micrograph.pixel_size == pytest.approx(1.77)
    assert micrograph_shape(tmp_path / "a.mrc") == (2, 3)


@pytest.mark.parametrize(("stamp", "first"), [(b"\x44\x44\0\0", True), (b"\x11\x11\0\0", False), (b"\0" * 4, True)])
@pytest.mark.parametrize("order", ["<", ">"])
def test_byte_orders_whatever_the_stamp(tmp_path: Path, order: str, stamp: bytes, first: bool) -> None:
    head = bytearray(1024)
    struct.pack_into(f"{order}10i", head, 0, 3, 2, 1, 1, 0, 0, 0, 3, 2, 1)
    struct.pack_into(f"{order}3f", head, 40, 4.5, 3.0, 1.5)
    struct.pack_into(f"{order}i", head, 92, 16)
    head[212:216] = stamp
    path = tmp_path / "a.mrc"
    path.write_bytes(bytes(head) + b"\x7f" * 16 + PIXELS.astype(f"{order}i2").tobytes() + b"tail")
    micrograph = read_micrograph(path)
    np.testing.assert_array_equal(micrograph.pixels, PIXELS)
    assert micrograph.pixel_size == 1.5
    assert micrograph.pixels.dtype.isnative


@pytest.mark.parametrize(("stamp", "side"), [(b"\x44\x44", 256), (b"\x11\x11", 65536)])
def test_stamp_decides_where_both_orders_make_sense(tmp_path: Path, stamp: bytes, side: int) -> None:
    head = bytearray(1024)
    struct.pack_into("<3i", head, 0, 256, 256, 256)
    head[212:214] = stamp
    (tmp_path / "a.mrc").write_bytes(head)
    with pytest.raises(MicrographError, match=f"{side} x {side} x {side}, mode 0"):
        read_micrograph(tmp_path / "a.mrc")


def test_mode_0_is_signed_unless_imod_says_otherwise(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mrc", np.array([[-1, 0], [1, 2]], dtype=np.int8))
    np.testing.assert_array_equal(read_micrograph(path).pixels, [[-1, 0], [1, 2]])
    patch(path, 152, struct.pack("<2i", 1146047817, 0))
    np.testing.assert_array_equal(read_micrograph(path).pixels, [[255, 0], [1, 2]])
    patch(path, 156, struct.pack("<i", 1))
    np.testing.assert_array_equal(read_micrograph(path).pixels, [[-1, 0], [1, 2]])


def test_stack_of_one_and_missing_map_stamp(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mrcs", PIXELS[None].astype(np.float32))
    patch(path, 208, b"\0\0\0\0")
    assert micrograph_shape(path) == (2, 3)
    np.testing.assert_array_equal(read_micrograph(path).pixels, PIXELS)


@pytest.mark.parametrize("voxel", [0.0, 1.0, -2.0, float("nan"), float("inf")])
def test_pixel_size_unset(tmp_path: Path, voxel: float) -> None:
    path = write(tmp_path / "a.mrc", PIXELS.astype(np.float32))
    patch(path, 40, struct.pack("<3f", 3 * voxel, 2 * voxel, voxel))
    assert read_micrograph_header(path).pixel_size is None
    assert read_micrograph(path).pixel_size is None


def test_pixel_size_must_agree_in_x_and_y(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mrc", PIXELS.astype(np.float32))
    patch(path, 40, struct.pack("<3f", 6, 6, 1))
    assert read_micrograph_header(path).pixel_size is None
    patch(path, 28, struct.pack("<3i", 0, 0, 0))
    assert read_micrograph_header(path).pixel_size is None


FAULTS = [
    ("empty", lambda p: p.write_bytes(b""), r"empty \(0 bytes\); copy"),
    ("missing", lambda p: p.unlink(), "no such file; check"),
    ("short header", lambda p: p.write_bytes(p.read_bytes()[:1000]), "not an MRC or TIFF file; give"),
    ("text", lambda p: p.write_bytes(b"some text " * 200), "not an MRC or TIFF file"),
    ("truncated", lambda p: p.write_bytes(p.read_bytes()[:-1]), r"truncated, 1047 bytes .* says 1048; copy"),
    ("ext header", lambda p: patch(p, 92, struct.pack("<i", 4)), "truncated, 1048 bytes .* says 1052"),
    (
        "frames",
        lambda p: write(p, np.zeros((4, 2, 3), np.float32)),
        "holds 4 frames; give the motion-corrected",
    ),
    ("complex", lambda p: patch(p, 12, struct.pack("<i", 4)), "mode 4 holds complex numbers; give"),
    ("mode 3", lambda p: patch(p, 12, struct.pack("<i", 3)), "mode 3 holds complex numbers"),
    ("4 bit", lambda p: patch(p, 12, struct.pack("<i", 101)), "mode 101 is not read; convert"),
]


@pytest.mark.parametrize(("spoil", "message"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_header_faults(tmp_path: Path, spoil, message: str) -> None:  # type: ignore[no-untyped-def]
    path = write(tmp_path / "a.mrc", PIXELS.astype(np.float32))
    spoil(path)
    for read in (micrograph_shape, read_micrograph):
        with pytest.raises(MicrographError, match=message) as caught:
            read(path)
        assert str(caught.value).startswith(str(path))


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(MicrographError, match="cannot be read"):
        read_micrograph(tmp_path)


def test_pixels_not_finite(tmp_path: Path) -> None:
    pixels = PIXELS.astype(np.float32)
    pixels[1, 0], pixels[1, 2] = np.nan, np.inf
    path = write(tmp_path / "a.mrc", PIXELS.astype(np.float32))
    patch(path, 1024, pixels.tobytes())
    assert micrograph_shape(path) == (2, 3)
    with pytest.raises(MicrographError, match=r"2 pixels are not finite, the first at x 0, y 1 \(nan\); exclude"):
        read_micrograph(path)


def test_constant(tmp_path: Path) -> None:
    with pytest.raises(MicrographError, match="every pixel is 7; exclude"):
        read_micrograph(write(tmp_path / "a.mrc", np.full((4, 4), 7, dtype=np.int16)))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_tiff(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(PIXELS.astype(dtype)).save(path)
    micrograph = read_micrograph(path)
    assert micrograph.pixels.dtype == np.float32
    np.testing.assert_array_equal(micrograph.pixels, PIXELS)
    assert micrograph.pixel_size is None
    assert micrograph_shape(path) == (2, 3)


def test_tiff_compressed(tmp_path: Path) -> None:
    pixels = np.arange(6400, dtype=np.uint16).reshape(80, 80)
    Image.fromarray(pixels).save(tmp_path / "a.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(read_micrograph(tmp_path / "a.tif").pixels, pixels)


def test_large_tiff_is_no_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(PIXELS.astype(np.uint8)).save(tmp_path / "a.tif")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    np.testing.assert_array_equal(read_micrograph(tmp_path / "a.tif").pixels, PIXELS)


def test_big_tiff_written_by_hand(tmp_path: Path) -> None:
    tags = [(256, 3), (257, 2), (258, 8), (259, 1), (262, 1), (273, 256), (277, 1), (278, 2), (279, 6)]
    entries = b"".join(struct.pack("<HHQQ", tag, 4 if tag == 273 else 3, 1, value) for tag, value in tags)
    head = struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, len(tags)) + entries + struct.pack("<Q", 0)
    path = tmp_path / "a.tif"
    path.write_bytes(head.ljust(256, b"\0") + PIXELS.astype(np.uint8).tobytes())
    np.testing.assert_array_equal(read_micrograph(path).pixels, PIXELS)
    patch(path, 24 + 5 * 20 + 12, struct.pack("<Q", 257))
    with pytest.raises(MicrographError, match="truncated, 262 bytes where it says 263"):
        micrograph_shape(path)


def test_tiff_faults(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pixels = np.arange(6400, dtype=np.uint8).reshape(80, 80)
    image = Image.fromarray(pixels)
    image.save(path, save_all=True, append_images=[image])
    with pytest.raises(MicrographError, match="holds 2 frames"):
        micrograph_shape(path)
    image.convert("RGB").save(path)
    with pytest.raises(MicrographError, match="pixels of kind RGB; give one channel"):
        micrograph_shape(path)
    image.save(path)
    content = path.read_bytes()
    for size in (8, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(MicrographError, match=r"truncated|not a whole TIFF"):
            micrograph_shape(path)
        with pytest.raises(MicrographError):
            read_micrograph(path)


def test_write_mrc(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.mrc"
    pixels = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    write_mrc(path, pixels, 1.25)
    first = path.read_bytes()
    write_mrc(path, pixels, 1.25)
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == ["a.mrc"]
    micrograph = read_micrograph(path)
    np.testing.assert_array_equal(micrograph.pixels, pixels)
    assert micrograph.pixel_size == pytest.approx(1.25)
    assert mrcfile.validate(path)
    with mrcfile.open(path) as mrc:
        np.testing.assert_array_equal(mrc.data, pixels)
        assert mrc.voxel_size.x == pytest.approx(1.25)


def test_a_mapped_micrograph_has_the_same_pixels(tmp_path):
    pixels = np.random.default_rng(0).standard_normal((20, 30)).astype(np.float32)
    write_mrc(tmp_path / "a.mrc", pixels, 1.5)
    mapped = map_micrograph(tmp_path / "a.mrc")
    assert isinstance(mapped, np.memmap)
    assert not mapped.flags.writeable
    assert (mapped[3:5, 7:9] == pixels[3:5, 7:9]).all()
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    assert (map_micrograph(tmp_path / "a.tif") == pixels).all()
    with pytest.raises(MicrographError, match="no such file"):
        map_micrograph(tmp_path / "b.mrc")
