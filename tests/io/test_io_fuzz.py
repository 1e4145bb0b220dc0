"""Whatever the bytes, `read_picks` gives picks or one of our errors, in memory of a few times the file."""

import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pickeropt.errors import PickeroptError
from pickeropt.io import text
from pickeropt.io.picks import companion_subsets, is_picks, read_picks, subset

SEEDS = (
    b"data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n_rlnMicrographName #3\n1 2 a.mrc\n3 4 'b c.mrc'\n",
    b"# version 30001\ndata_optics\nloop_\n_rlnOpticsGroup\n_rlnMicrographPixelSize\n1 1.5\n\n"
    b"data_particles\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnAutopickFigureOfMerit\n1 2 0.5\n",
    b"10\t20\t64\t64\t0.5\n-3\t4\t64\t64\t1e-3\n",
    b"\ndata_global\n_cbox_format_version 1.0\ndata_cryolo\nloop_\n_CoordinateX\n_CoordinateY\n_Width\n"
    b"_Height\n_Confidence\n1 2 4 4 0.5\n3 4 4 4 <NA>\n\ndata_cryolo_include\nloop_\n_slice_index\n",
    b'{"boxes": [[1, 2, "manual"], [3.5, 4, "auto", 0.5]], "ctf": [1, "a\\"b", {"c": NaN}]}',
    b"image_name\tx_coord\ty_coord\tscore\na\t1\t2\t0.5\nb\t3\t4\t-1\n",
    b"X-Coordinate,Y-Coordinate,Diameter\r\n1,2,3\r\n4,5,6\r\n",
    b'micrograph,x,y,score\n"a,1",1,2,0.5\nb,3,4,\n',
    b"1 2 0.5\n3 4 0.25\n",
    b"# XMIPP_STAR_1 *\ndata_particles\nloop_\n _xcoor\n _ycoor\n _cost\n 1 2 0.5\n 3 4 0.5\n",
    b"(lp0\n(lp1\n(lp2\nI1\naI2\naF0.5\naS'a.mrc'\np3\naaa.",
    b"\x93NUMPY\x01\x00v\x00{'descr': [('uid', '<u8')], 'fortran_order': False, 'shape': (1,), }" + b" " * 40,
)
_WORDS = (
    b"data_\n|loop_\n|_rlnCoordinateX\n|_CoordinateX |\n|\r\n|\t|,|'|[|]|{|}|nan|<NA>|1e999|-|#|\0|\xff|"
    b'\xef\xbb\xbf|\x80\x02|00000000000000000000000000000000000000000|\\u12|\'boxes\'|_| |"|"boxes"'
)
PIECES = st.sampled_from([*_WORDS.split(b"|"), b"9" * 400])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good file with some pieces cut out, doubled or put in."""
    content = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(len(content), start + 30)))
        middle = draw(st.one_of(st.just(b""), PIECES, st.binary(max_size=6), st.just(content[start:end] * 2)))
        content = content[:start] + middle + content[end:]
    return content


def check(content: bytes, name: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        is_picks(path.read_bytes())
        fault = ""
        try:
            file = read_picks(path)
        except PickeroptError as error:
            fault = str(error)
        if fault:
            assert path.name in fault
            return
        count = len(file.picks)
        assert np.isfinite(file.picks.coordinates).all()
        assert file.picks.micrograph_index.shape == file.picks.figure_of_merit.shape == (count,)
        assert file.row_spans.shape == (count, 2)
        assert subset(file, np.ones(count, bool)) == content
        half = np.arange(count) % 2 == 0
        try:
            subset(file, half)
            companion_subsets(file, half)
        except PickeroptError as error:
            fault = str(error)
        assert not fault or "filaments" in fault


@settings(deadline=None, max_examples=400)
@given(damaged())
def test_damaged_files(content: bytes) -> None:
    check(content, "x.dat")


@settings(deadline=None, max_examples=150)
@given(st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=40).map(b"".join), st.text().map(str.encode)))
def test_any_bytes(content: bytes) -> None:
    check(content, "x.box")


@pytest.mark.parametrize("seed", SEEDS)
def test_the_seeds_themselves(seed: bytes) -> None:
    check(seed, "x.dat")


SIZE = 2**17
HEAVY = {
    "box rows": b"1 2 3 4\n" * (SIZE // 8),
    "one long row": b"1 2 3 4 " * (SIZE // 8),
    "star rows": SEEDS[0] + b"1 2 a\n" * (SIZE // 6),
    "star of one row": SEEDS[0] + b"1 " * (SIZE // 2),
    "labels": b"data_\nloop_\n" + b"_a\n" * (SIZE // 3),
    "blocks": b"data_\n" * (SIZE // 6),
    "a long block line": b"data_ " + b"a " * (SIZE // 2),
    "names": b"image_name\tx_coord\ty_coord\n" + b"".join(b"%d\t1\t2\n" % i for i in range(SIZE // 12)),
    "csv": b"x,y\n" + b"1,2\n" * (SIZE // 4),
    "csv header": b"," * SIZE,
    "bare": b"1 2\n" * (SIZE // 4),
    "json boxes": b'{"boxes": [' + b"[1,2]," * (SIZE // 6) + b"[1,2]]}",
    "json nest": b'{"boxes": [], "a": ' + b"[" * SIZE,
    "json lists": b'{"boxes": [], "a": [' + b"[]," * (SIZE // 3) + b"0]}",
    "json string": b'{"boxes": [], "a": "' + b"\\n" * (SIZE // 2) + b'"}',
    "blank lines": b"\n" * SIZE,
    "blank": b" " * SIZE,
}


MOST = {"names": 32, "csv": 32, "bare": 32, "blank lines": 48}
"""Times the file; a row of four bytes makes nine numbers of eight, a blank line has a start and an end."""


@pytest.mark.parametrize("name", HEAVY)
def test_memory_is_a_few_times_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Python objects for all tokens would be 30 times the file and more."""
    path = tmp_path / "x.box"
    path.write_bytes(HEAVY[name])
    monkeypatch.setattr(text, "PIECE", SIZE // 16)
    tracemalloc.start()
    try:
        read_picks(path)
    except PickeroptError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MOST.get(name, 24) * len(HEAVY[name]) + 2**20
