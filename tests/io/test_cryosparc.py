"""cryoSPARC's tables and groups, against numpy.load and hand-computed values."""

import io
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.recfunctions import repack_fields

from pickeropt.errors import FormatError, GeometryError, PickeroptError
from pickeropt.io.cryosparc import companion_subsets, is_cs, read_cs, read_csg, subset_cs, subset_csg, write_cs
from pickeropt.io.cryosparc_files import is_csg, read_npy_table
from pickeropt.io.picks_file import PicksFile
from pickeropt.records import Picks

UIDS = (11, 2**64 - 1, 7)
NAMES = ("J2/motioncorrected/000000123456789012345_b.mrc", "a.mrc")
KINDS = {
    "uid": "<u8",
    "location/micrograph_path": "S60",
    "location/micrograph_shape": ("<u4", (2,)),
    "location/center_x_frac": "<f4",
    "location/center_y_frac": "<f4",
    "location/micrograph_psize_A": "<f4",
    "pick_stats/ncc_score": "<f4",
    "blob/idx": "<u4",
}


def table(count: int = 3, **change: object) -> np.ndarray:
    """Picks in two micrographs of 100 rows and 200 columns; a field is changed, or left out by None."""
    values: dict[str, object] = {
        "uid": UIDS[:count],
        "location/micrograph_path": (NAMES[0], NAMES[1], NAMES[0])[:count],
        "location/micrograph_shape": (100, 200),
        "location/center_x_frac": (0.25, 0.5, 1)[:count],
        "location/center_y_frac": (0.25, 0, 0.5)[:count],
        "location/micrograph_psize_A": 1.5,
        "pick_stats/ncc_score": (0.5, np.nan, 2)[:count],
        "blob/idx": range(count),
    }
    kinds = dict(KINDS)
    for key, value in change.items():
        name = next(name for name in values if name.endswith(key))
        if value is None:
            del values[name], kinds[name]
        elif isinstance(value, np.ndarray):
            kinds[name], values[name] = (value.dtype.str, value.shape[1:]), value
        else:
            values[name] = value
    array = np.zeros(count, [(name, kinds[name]) for name in values])
    for name, value in values.items():
        array[name] = value
    return array


def saved(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version, allow_pickle=False)
    return stream.getvalue()


def loaded(content: bytes) -> np.ndarray:
    return np.load(io.BytesIO(content), allow_pickle=False, max_header_size=10**6)


def read(array: np.ndarray) -> PicksFile:
    return read_cs(Path("p.cs"), saved(array))


def part(array: np.ndarray, *names: str) -> np.ndarray:
    return repack_fields(array[["uid", *names]])


LOCATIONS = tuple(name for name in KINDS if name.startswith("location/"))


def test_the_picks_of_a_table() -> None:
    file = read(table())
    assert file.format == "cryosparc-cs"
    assert file.picks.coordinates.tolist() == [[50, 75], [100, 100], [200, 50]]
    assert file.picks.micrograph_names == NAMES
    assert file.picks.micrograph_index.tolist() == [0, 1, 0]
    np.testing.assert_array_equal(file.picks.figure_of_merit, [0.5, np.nan, 2])
    assert file.picks.pixel_size == 1.5
    assert not file.names_from_stem
    assert not file.rows_from_top
    assert file.companions == ()
    rows = [file.content[start:end] for start, end in file.row_spans.tolist()]
    assert b"".join(rows) == table().tobytes()


def test_names_may_be_unicode_and_numbers_of_other_kinds() -> None:
    change = {
        "micrograph_path": np.array(["ä.mrc", "b.mrc", "ä.mrc"]),
        "micrograph_shape": np.full((3, 2), (100, 200), dtype=">i8"),
        "center_x_frac": np.array([0.25, 0.5, 1], dtype=">f8"),
    }
    file = read(table(**change))
    assert file.picks.micrograph_names == ("ä.mrc", "b.mrc")
    assert file.picks.coordinates[:, 0].tolist() == [50, 100, 200]


def test_scores_and_pixel_size_may_be_missing_or_unset() -> None:
    file = read(table(ncc_score=None, micrograph_psize_A=0))
    assert np.isnan(file.picks.figure_of_merit).all()
    assert file.picks.pixel_size is None
    assert read(table(micrograph_psize_A=(0, 2, np.nan))).picks.pixel_size == 2


def test_no_rows() -> None:
    file = read(table(0))
    assert len(file.picks) == 0
    assert file.picks.micrograph_names == ()
    assert subset_cs(file, np.zeros(0, dtype=bool)) == file.content


BAD = {
    "uid twice": ({"uid": (4, 5, 4)}, r"rows 0 and 2 have the same uid 4"),
    "no uid": ({"uid": None}, r"no field uid"),
    "no shape": ({"micrograph_shape": None}, r"no field location/micrograph_shape.*\.csg"),
    "no y": ({"center_y_frac": None}, r"no field location/center_y_frac"),
    "nan": (
        {"center_x_frac": (0, np.nan, np.inf)},
        r"row 1 \(uid 18446744073709551615\).*2 more|row 1 .* 1 more",
    ),
    "zero shape": ({"micrograph_shape": (0, 200)}, r"row 0 \(uid 11\): location/micrograph_shape"),
    "empty name": ({"micrograph_path": ("a", "", "b")}, r"row 1 .*micrograph_path is empty"),
    "no text": ({"micrograph_path": np.array([b"\xff", b"a", b"b"])}, r"micrograph_path is no text"),
    "flat shape": ({"micrograph_shape": np.ones(3, dtype="u4")}, r"micrograph_shape is of type uint32"),
    "whole fraction": ({"center_x_frac": np.ones(3, dtype="u4")}, r"center_x_frac is of type uint32"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named(name: str) -> None:
    change, message = BAD[name]
    with pytest.raises(FormatError, match=message):
        read(table(**change))


def test_two_pixel_sizes() -> None:
    with pytest.raises(GeometryError, match=r"micrograph_psize_A is 1 Å in one row and 2 Å"):
        read(table(micrograph_psize_A=(1, 2, 2)))


def test_files_that_are_no_tables() -> None:
    content = saved(table())
    pickled = io.BytesIO()
    np.save(pickled, np.array([(1, {})], dtype=[("uid", "<u8"), ("o", "O")]), allow_pickle=True)
    wrong = {
        content[:-1]: "the file is damaged",
        content + b"\0": "the file is damaged",
        content[:40]: "ends within its header",
        content[:8]: "ends within its header",
        b"\x93NUMPY\x09\x00" + content[8:]: "no NumPy file of version",
        saved(np.zeros(4)): "no table of named fields",
        saved(table().reshape(1, 3)): "no table of named fields",
        saved(np.zeros(2, [("uid", "<u8"), ("x", [("y", "<u8")])])): "no table of named fields",
        content.replace(b"'<u8'", b"'<M8'"): "holds the type '<M8'",
        content.replace(b"(2,)", b"(,2)"): "no table of named fields.*Cannot parse",
        pickled.getvalue(): "field o holds Python objects, which would run code",
        content.replace(b"'<f4'", b"'|O8'"): "holds Python objects",
        content.replace(b"'|S60'", b"'|S0' "): "3 rows need",
        content.replace(b"(3,)", b"(9,)"): "9 rows need",
        content.replace(b"{'descr'", b"__import"): "no table of named fields",
    }
    for damaged, message in wrong.items():
        with pytest.raises(FormatError, match=message):
            read_cs(Path("p.cs"), damaged)


def test_the_compressed_kind_is_refused_with_the_remedy() -> None:
    assert is_cs(b"\x95CSDAT\x01\0\0\0{}")
    with pytest.raises(FormatError, match=r"CSDAT.*Dataset\.load\('x/p\.cs'\)\.save\('p_numpy\.cs'\)"):
        read_cs(Path("x/p.cs"), b"\x95CSDAT\x01\0\0\0{}")


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_a_subset_is_what_numpy_reads(version: tuple[int, int]) -> None:
    content = saved(table(), version)
    file = read_cs(Path("p.cs"), content)
    keep = np.array([True, False, True])
    pruned = subset_cs(file, keep)
    assert pruned[:8] == content[:8]
    assert len(content) - len(pruned) == table().itemsize
    assert loaded(pruned).dtype == table().dtype
    assert loaded(pruned).tobytes() == table()[keep].tobytes()
    assert subset_cs(file, ~np.zeros(3, dtype=bool)) == content
    with pytest.raises(ValueError, match="bool"):
        subset_cs(file, np.ones(3))


def test_a_header_keeps_its_length_when_the_count_gets_shorter() -> None:
    array = np.zeros(1234, [("uid", "<u8")])
    array["uid"] = np.arange(1234)
    content = saved(array)
    read_from = read_npy_table(Path("p"), content)
    pruned = read_from.subset(np.arange(1234) % 200 == 0)
    assert len(pruned) - 7 * 8 == len(content) - 1234 * 8
    assert loaded(pruned)["uid"].tolist() == list(range(0, 1234, 200))


def test_headers_longer_than_numpy_loads() -> None:
    """3D classes make them so (cryoDRGN's issue 418)."""
    kinds = [(f"alignments_class_{i}/class_posterior_of_something_long", "<f4") for i in range(400)]
    array = np.zeros(3, [*table().dtype.descr, *kinds])
    for name in table().dtype.names:
        array[name] = table()[name]
    content = saved(array)
    with pytest.raises(ValueError, match="max_header_size"):
        np.load(io.BytesIO(content))
    keep = np.array([False, True, True])
    assert loaded(subset_cs(read_cs(Path("p.cs"), content), keep)).tobytes() == array[keep].tobytes()


def test_headers_of_numpy_under_python_2() -> None:
    content = saved(table())
    old = content.replace(b"(3,), }", b"(3L,),}").replace(b"(2,)), ", b"(2L,)),", 1)
    assert old != content
    assert read_cs(Path("p.cs"), old).picks.coordinates.tolist() == read(table()).picks.coordinates.tolist()


def split(folder: Path) -> tuple[Path, Path]:
    """The fields over two files, their rows in another order, one row in the second that belongs to none."""
    whole = table()
    extra = table(1, uid=(5,))
    first = folder / "J12_particles_selected.cs"
    second = folder / "P3_J12_passthrough_particles_selected.cs"
    first.write_bytes(saved(part(whole, "blob/idx")))
    names = (*LOCATIONS, "pick_stats/ncc_score")
    rows = np.concatenate([part(whole, *names)[[2, 0]], part(extra, *names), part(whole, *names)[[1]]])
    second.write_bytes(saved(rows))
    return first, second


def test_a_lone_table_finds_its_passthrough(tmp_path: Path) -> None:
    first, second = split(tmp_path)
    decoy = saved(part(table(uid=(1, 2, 3)), *LOCATIONS))
    (tmp_path / "P3_J12_passthrough_particles_excluded.cs").write_bytes(decoy)
    (tmp_path / "P3_J12_passthrough_selected.cs").write_bytes(decoy)
    file = read_cs(first, first.read_bytes())
    assert file.picks.coordinates.tolist() == [[50, 75], [100, 100], [200, 50]]
    assert file.picks.micrograph_names == NAMES
    np.testing.assert_array_equal(file.picks.figure_of_merit, [0.5, np.nan, 2])
    assert [(c.path, c.name) for c in file.companions] == [(second, second.name)]
    keep = np.array([True, False, True])
    assert loaded(subset_cs(file, keep))["uid"].tolist() == [11, 7]
    parts = companion_subsets(file, keep)
    assert list(parts) == [second.name]
    assert loaded(parts[second.name])["uid"].tolist() == [7, 11, 5]
    assert companion_subsets(file, np.ones(3, dtype=bool)) == {second.name: second.read_bytes()}


def test_a_lone_table_without_a_passthrough_that_fits(tmp_path: Path) -> None:
    first, second = split(tmp_path)
    message = r"J12_particles_selected\.cs: has no field location/micrograph_path.*\.csg.*passthrough"
    content = second.read_bytes()
    second.write_bytes(saved(part(table(uid=(11, 7, 8)), *LOCATIONS)))
    with pytest.raises(FormatError, match=message):
        read_cs(first, first.read_bytes())
    second.unlink()
    with pytest.raises(FormatError, match=message):
        read_cs(first, first.read_bytes())
    second.write_bytes(content)
    (tmp_path / "J12_passthrough_particles_selected.cs").write_bytes(content)
    with pytest.raises(FormatError, match=r"both hold its locations; give the \.csg"):
        read_cs(first, first.read_bytes())


def group(first: str = "J12_particles_selected.cs", count: int = 3) -> bytes:
    second = "P3_J12_passthrough_particles_selected.cs"
    return f"""created: 2024-05-06 07:08:09.101112
group:
  description: 'Particles: selected'
  name: particles_selected
  type: particle
results:
  location:
    metafile: '>{second}'
    num_items: 4
    type: particle.location
  blob:
    metafile: '>{first}'
    num_items: {count}
    type: particle.blob
  pick_stats:
    metafile: '>{second}'
    num_items: 4
    type: particle.pick_stats
version: v4.5.3
""".encode()


def test_a_group_joins_its_files_and_is_rewritten(tmp_path: Path) -> None:
    first, second = split(tmp_path)
    assert is_csg(group())
    path = tmp_path / "J12_particles_selected.csg"
    file = read_csg(path, group())
    assert file.format == "cryosparc-csg"
    assert file.picks.coordinates.tolist() == [[50, 75], [100, 100], [200, 50]]
    assert [c.name for c in file.companions] == [first.name, second.name]
    assert file.row_spans.shape == (3, 2)
    keep = np.array([False, False, True])
    expected = group(count=1).replace(b"num_items: 4", b"num_items: 2")
    assert subset_csg(file, keep) == expected
    parts = companion_subsets(file, keep)
    assert {name: loaded(data)["uid"].tolist() for name, data in parts.items()} == {
        first.name: [7],
        second.name: [7, 5],
    }
    every = np.ones(3, dtype=bool)
    assert subset_csg(file, every) == group()
    assert companion_subsets(file, every) == {p.name: p.read_bytes() for p in (first, second)}
    for name, data in parts.items():
        (tmp_path / name).write_bytes(data)
    assert read_csg(path, expected).picks.coordinates.tolist() == [[200, 50]]
    with pytest.raises(FormatError, match="has changed since it was read"):
        companion_subsets(file, keep)


def test_groups_that_cannot_be_used(tmp_path: Path) -> None:
    split(tmp_path)
    path = tmp_path / "g.csg"
    wrong = {
        group(count=4): r"says 4 items, but J12_particles_selected\.cs has 3 rows",
        group("gone.cs"): "names gone.cs, which is not beside it",
        group("../p.cs"): "is no file beside the group",
        group("/tmp/p.cs"): "is no file beside the group",
        group("a\\b.cs"): "is no file beside the group",
        group("").replace(b"'>'", b""): "is no file beside the group",
        group().replace(b"num_items: 3", b"num_items: x"): "num_items is 'x'",
        group().replace(b"    metafile: '>J12", b"    other: '>J12"): "blob names no metafile",
        b"results:\n": "no results",
        b"results:\nversion: 1\n  metafile: x\n": "no results",
        b" " * (2**20 + 1): "too many",
    }
    for content, message in wrong.items():
        with pytest.raises(FormatError, match=message):
            read_csg(path, content)
    (tmp_path / "J12_particles_selected.cs").write_bytes(saved(part(table(uid=(11, 12, 13)), "blob/idx")))
    with pytest.raises(FormatError, match=r"2 of 3 particles are not in it, the first is uid 12"):
        read_csg(path, group())


def test_what_is_no_group() -> None:
    for content in (b"", b"data_\n\nloop_\n", b"results:\n", saved(table()), b"\0" + group()):
        assert not is_csg(content)
    assert not is_cs(group())


def test_real_tables(shared_data: Path) -> None:
    paths = sorted((shared_data / "formats").glob("*.cs"))
    assert len(paths) == 2
    for path in paths:
        content = path.read_bytes()
        array = np.load(path, allow_pickle=False)
        mine = read_npy_table(path, content)
        assert mine.rows.tobytes() == array.tobytes()
        assert mine.subset(np.ones(len(array), dtype=bool)) == content
        keep = np.arange(len(array)) % 3 == 1
        assert loaded(mine.subset(keep)).tobytes() == array[keep].tobytes()
        assert loaded(mine.subset(keep)).dtype == array.dtype
        with pytest.raises(FormatError, match="has no field location/micrograph_path"):
            read_cs(path, content)


def test_memory_stays_near_the_size_of_the_file() -> None:
    count = 20_000
    array = np.zeros(count, [*table().dtype.descr, ("blob/path", "S300")])
    array["uid"] = np.arange(count)
    array["location/micrograph_path"] = "a.mrc"
    array["location/micrograph_shape"] = 100
    content = saved(array)
    del array
    tracemalloc.start()
    try:
        file = read_cs(Path("p.cs"), content)
        subset_cs(file, np.arange(count) % 2 == 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(content)


fraction = st.floats(-0.5, 1.5, width=32)
rows = st.lists(
    st.tuples(st.integers(0, 2**64 - 1), st.sampled_from(["a.mrc", "ö/b.mrc", "J1/c"]), fraction, fraction),
    max_size=12,
    unique_by=lambda row: row[0],
)


@settings(deadline=None)
@given(rows, st.integers(1, 50_000), st.integers(1, 50_000), st.randoms(use_true_random=False))
def test_round_trips(found: list[tuple[int, str, float, float]], ny: int, nx: int, random: object) -> None:
    array = np.zeros(len(found), table().dtype)
    array["location/micrograph_shape"] = (ny, nx)
    for i, (uid, name, fx, fy) in enumerate(found):
        array[i]["uid"], array[i]["location/micrograph_path"] = uid, name.encode()
        array[i]["location/center_x_frac"], array[i]["location/center_y_frac"] = fx, fy
    file = read(array)
    expected = [[float(np.float32(fx)) * nx, (1 - float(np.float32(fy))) * ny] for _, _, fx, fy in found]
    np.testing.assert_allclose(file.picks.coordinates, np.reshape(expected, (-1, 2)), rtol=1e-12, atol=1e-9)
    assert [file.picks.micrograph_names[i] for i in file.picks.micrograph_index] == [r[1] for r in found]
    keep = np.array([random.random() < 0.5 for _ in found], dtype=bool)  # type: ignore[attr-defined]
    assert subset_cs(file, np.ones(len(found), dtype=bool)) == file.content
    assert loaded(subset_cs(file, keep)).tobytes() == array[keep].tobytes()
    both = np.concatenate([loaded(subset_cs(file, keep)), loaded(subset_cs(file, ~keep))])
    assert sorted(row.tobytes() for row in both) == sorted(row.tobytes() for row in array)


def test_what_is_written_is_read_again() -> None:
    coordinates = np.array([[0, 0], [4095.5, 1], [17.25, 4000.125]])
    picks = Picks(coordinates, ("a.mrc", "b.mrc"), np.array([0, 1, 1]), np.array([1, 2, np.nan]), None, 1.25)
    file = read_cs(Path("p.cs"), write_cs(picks, [(4096, 5760), (4092, 4096)]))
    np.testing.assert_allclose(file.picks.coordinates, coordinates, atol=1e-3)
    assert file.picks.micrograph_names == picks.micrograph_names
    assert file.picks.micrograph_index.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(file.picks.figure_of_merit, picks.figure_of_merit)
    assert file.picks.pixel_size == 1.25
    nothing = replace(picks, figure_of_merit=np.full(3, np.nan), pixel_size=None)
    again = read_cs(Path("p.cs"), write_cs(nothing, [(10, 10), (10, 10)]))
    assert again.picks.pixel_size is None
    assert np.isnan(again.picks.figure_of_merit).all()
    none = Picks(np.zeros((0, 2)), (), np.zeros(0, dtype=np.int64), np.zeros(0))
    assert len(read_cs(Path("p.cs"), write_cs(none, [])).picks) == 0


CONTENT = saved(table())


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_tables_raise_nothing_else(changes: list[tuple[int, int]]) -> None:
    content = bytearray(CONTENT)
    for at, byte in changes:
        content[at] = byte
    try:
        file = read_cs(Path("p.cs"), bytes(content))
    except PickeroptError:
        return
    assert np.isfinite(file.picks.coordinates).all()
    assert subset_cs(file, np.ones(len(file.picks), dtype=bool)) == content


@settings(deadline=None, max_examples=300)
@given(st.integers(0, len(group())), st.integers(0, 40), st.binary(max_size=12))
def test_damaged_groups_raise_nothing_else(start: int, length: int, new: bytes) -> None:
    content = group()[:start] + new + group()[start + length :]
    is_csg(content)
    with pytest.raises(PickeroptError):
        read_csg(Path("nowhere/g.csg"), content)
