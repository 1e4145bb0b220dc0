"""DeepPicker's pickle, against `pickle` itself and hand-made opcodes; hostile pickles run nothing."""

import os
import pickle
import struct
import subprocess
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pickeropt.errors import FormatError, PickeroptError
from pickeropt.io.deeppicker import is_pickle, read_deeppicker, subset_deeppicker, write_deeppicker
from pickeropt.io.picks_file import PicksFile
from pickeropt.records import Picks

PATH = Path("autopick_results.pickle")
LISTS = [
    [[12.0, 34.5, np.float32(0.75), "mics/a.mrc"], [56.0, 7.0, np.float32(0.1), "mics/a.mrc"]],
    [],
    [[3, 4000, np.float64(1.0), "mics/b.mrc"]],
]
PLAIN = [
    [[12.0, 34.5, 0.75, "mics/a.mrc"], [56.0, 7.0, float(np.float32(0.1)), "mics/a.mrc"]],
    [],
    [[3, 4000, 1.0, "mics/b.mrc"]],
]


def read(content: bytes) -> PicksFile:
    return read_deeppicker(PATH, content)


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol(protocol: int) -> None:
    content = pickle.dumps(LISTS, protocol)
    assert is_pickle(content)
    file = read(content)
    assert file.format == "deeppicker"
    assert file.picks.coordinates.tolist() == [[12, 34.5], [56, 7], [3, 4000]]
    assert file.picks.micrograph_names == ("mics/a.mrc", "mics/b.mrc")
    assert file.picks.micrograph_index.tolist() == [0, 0, 1]
    assert file.picks.figure_of_merit.tolist() == [0.75, float(np.float32(0.1)), 1]
    assert not file.names_from_stem
    assert file.row_spans.shape == (3, 2)
    assert subset_deeppicker(file, np.ones(3, dtype=bool)) == content
    pruned = subset_deeppicker(file, np.array([False, True, True]))
    assert pruned[:2] == b"\x80\x02"
    assert pickle.loads(pruned) == [PLAIN[0][1:], [], PLAIN[2]]
    assert pickle.loads(subset_deeppicker(file, np.zeros(3, dtype=bool))) == [[], [], []]
    assert read(pruned).picks.coordinates.tolist() == [[56, 7], [3, 4000]]
    with pytest.raises(ValueError, match="bool"):
        subset_deeppicker(file, np.ones(2, dtype=bool))


PYTHON_2 = {
    "cPickle, protocol 0": b"(lp1\n(lp2\n(lp3\nF12\naF34.5\nacnumpy.core.multiarray\nscalar\np4\n"
    b"(cnumpy\ndtype\np5\n(S'f4'\nI0\nI1\ntRp6\n(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
    b"S'\\x9a\\x99\\x19?'\ntRp7\naS'd\\xe9/a.mrc'\np8\naaa(lp9\na.",
    "pickle, protocol 0": b"(lp0\n(lp1\n(lp2\nI12\naF34.5\naF0.60000002384185791\naS'd\\xe9/a.mrc'\np3\naaa(lp4\na.",
    "cPickle, protocol 2": b"\x80\x02]q\x01(]q\x02]q\x03(G@(\0\0\0\0\0\0G@A@\0\0\0\0\0"
    b"cnumpy.core.multiarray\nscalar\nq\x04cnumpy\ndtype\nq\x05U\x02f4K\0K\x01\x87Rq\x06"
    b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tbU\x04\x9a\x99\x19?\x86Rq\x07"
    b"U\x08d\xe9/a.mrcq\x08ea]q\x09e.",
}
"""As Python 2 and its NumPy write [[[12, 34.5, float32(0.6), 'd\\xe9/a.mrc']], []]."""


@pytest.mark.parametrize("name", PYTHON_2)
def test_pickles_of_python_2(name: str) -> None:
    content = PYTHON_2[name]
    score = float(np.float32(0.6))
    assert pickle.loads(content, encoding="latin1") == [[[12, 34.5, score, "dé/a.mrc"]], []]
    file = read(content)
    assert is_pickle(content)
    assert file.picks.coordinates.tolist() == [[12, 34.5]]
    assert file.picks.figure_of_merit.tolist() == [score]
    assert file.picks.micrograph_names == ("dé/a.mrc",)


def test_scalars_of_other_kinds_and_byte_orders() -> None:
    big = np.array([0.375], dtype=">f8")
    scalar = pickle.dumps([[[1, 2, 0.5, "a"]]], 2).replace(
        b"G" + struct.pack(">d", 0.5),
        b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\0\0\0f8K\0K\x01\x87R(K\x03X\x01\0\0\0>NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tbC\x08" + big.tobytes() + b"\x86R",
    )
    assert read(scalar).picks.figure_of_merit.tolist() == [0.375]
    rows = [
        [np.int64(-3), np.uint16(4), np.float16(0.5), "a"],
        [np.int32(1), np.uint8(2), np.float64("nan"), "a"],
    ]
    for protocol in range(5):
        picks = read(pickle.dumps([rows], protocol)).picks
        assert picks.coordinates.tolist() == [[-3, 4], [1, 2]]
        np.testing.assert_array_equal(picks.figure_of_merit, [0.5, np.nan])


def test_further_values_of_a_row_stay() -> None:
    rows = [[1, 2, 0.5, "a.mrc", 1, None, "x"], [3, 4, 0.25, "b.mrc", True]]
    file = read(pickle.dumps([rows]))
    assert pickle.loads(subset_deeppicker(file, np.array([True, False]))) == [rows[:1]]


def test_many_rows_in_the_batches_that_pickle_writes() -> None:
    rows = [[float(i), 2.0 * i, np.float32(i), "a.mrc"] for i in range(2500)]
    for protocol in (0, 2, 4):
        picks = read(pickle.dumps([rows, [[0.5, 1.5, 1, "b.mrc"]]], protocol)).picks
        assert picks.coordinates[:-1, 0].tolist() == list(range(2500))
        assert picks.figure_of_merit[2400] == 2400
        assert len(picks) == 2501


class Hostile:
    """Pickles as the call of something."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch FLAG",), r"'(posix|nt)\.system'"),
        (eval, ("open('FLAG', 'w')",), r"'(builtins|__builtin__)\.eval'"),
        (exec, ("open('FLAG', 'w')",), r"'(builtins|__builtin__)\.exec'"),
        (getattr, ("a", "b"), r"'(builtins|__builtin__)\.getattr'"),
        (subprocess.check_call, (["touch", "FLAG"],), r"'(subprocess|commands)\.check_call'"),
        (Path, ("FLAG",), r"'pathlib(\._local)?\.Path'"),
        (np.load, ("FLAG",), r"'numpy\.load'"),
    ],
)
def test_hostile_pickles_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int, function: Any, arguments: Any, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for value in (
        Hostile(function, *arguments),
        [[[1, 2, Hostile(function, *arguments), "a"]]],
        [[[1, 2, 0.5, Hostile(function, *arguments)]]],
    ):
        with pytest.raises(FormatError, match=rf"{name}.*nothing of it was run"):
            read(pickle.dumps(value, protocol))
    assert list(tmp_path.iterdir()) == []


def test_the_hostile_pickles_would_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: `pickle` itself runs them."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Hostile(exec, "open('FLAG', 'w').close()")))
    assert [path.name for path in tmp_path.iterdir()] == ["FLAG"]


REFUSED = {
    "an allowed name called with others": (
        b"\x80\x02cnumpy\ndtype\nX\x02\0\0\0O8\x85R.",
        "numpy.dtype.*no NumPy",
    ),
    "a scalar of no type": (b"\x80\x02cnumpy.core.multiarray\nscalar\nK\x01C\x01a\x86R.", "no NumPy scalar"),
    "a scalar of too few bytes": (
        b"\x80\x02cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\0\0\0f4\x85RC\x01a\x86R.",
        "no NumPy scalar",
    ),
    "a codec that is none": (b"\x80\x02c_codecs\nencode\nX\x01\0\0\0aX\x03\0\0\0rot\x86R.", "_codecs.encode"),
    "the call of a list": (b"\x80\x02](K\x01tR.", "not callable"),
    "a state for a list": (b"\x80\x02](K\x03X\x01\0\0\0<tb.", "state is not a dict"),
    "a state that is none": (b"\x80\x02cnumpy\ndtype\nX\x02\0\0\0f4\x85R}b.", "EMPTY_DICT"),
    "a name made of lists": (b"\x80\x04]]\x93.", "STACK_GLOBAL requires str"),
    "a dictionary": (pickle.dumps({"a": 1}), "EMPTY_DICT has no place"),
    "a set": (pickle.dumps({1}, 4), "EMPTY_SET has no place"),
    "a bytearray": (pickle.dumps(bytearray(3), 5), "BYTEARRAY8 has no place"),
    "an object": (b"\x80\x02cos\nsystem\n)\x81.", "'os.system'"),
    "an old object": (b"(S'ls'\nios\nsystem\n.", "INST has no place"),
    "an old object on the stack": (b"\x80\x02(cos\nsystem\no.", "'os.system'"),
    "a registered extension": (b"\x80\x02\x82\x01.", "EXT1 has no place"),
    "a persistent id": (b"\x80\x02PX\n.", "PERSID has no place"),
    "a NumPy array": (pickle.dumps([[np.zeros(4)]], 2), "_reconstruct"),
    "nothing": (b"\x80\x02.", "0 values"),
    "two values": (b"\x80\x02]].", "2 values"),
    "no end": (pickle.dumps(LISTS)[:-1], "ends too early"),
    "half of it": (pickle.dumps(LISTS, 2)[:60], "autopick_results.pickle, byte"),
    "more after the end": (pickle.dumps(LISTS) + b"x", "1 bytes follow"),
    "no opcode": (b"\x80\x02\xff.", r"b'\\xff' is no opcode"),
    "a mark left": (b"\x80\x02](.", "1 values"),
    "no mark": (b"\x80\x02]e.", "a mark is missing"),
    "values below a mark": (b"\x80\x02K\x01(\x85.", "a value is missing"),
    "appended to a number": (b"\x80\x02K\x01K\x01a.", "no attribute 'append'"),
    "the memo is empty": (b"\x80\x02h\x05.", "no entry 5"),
    "broken text": (b"\x80\x02X\x01\0\0\0\xff.", "decode"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_place_in_a_pickle_of_picks(name: str) -> None:
    content, message = REFUSED[name]
    with pytest.raises(FormatError, match=message):
        read(content)


WRONG = {
    "a number": (3, "holds a int, not a list"),
    "names": (["a", "b"], "micrograph 0 is 'a', not a list"),
    "a flat list": ([[1, 2, 0.5, "a"]], r"micrograph 0, row 0 is a int"),
    "a tuple": ([[(1, 2, 0.5, "a")]], "row 0 is a tuple"),
    "a short row": ([[[1, 2, 0.5, "a"], [1, 2, 0.5]]], r"micrograph 0, row 1 has 3 values"),
    "a text": ([[["1", 2, 0.5, "a"]]], "x is '1', not a number"),
    "a truth": ([[[1, True, 0.5, "a"]]], "y is a bool, not a number"),
    "nan": ([[[1, float("nan"), 0.5, "a"]]], "y is nan, not a finite"),
    "infinite": ([[[np.float32("inf"), 1, 0.5, "a"]]], "x is inf, not a finite"),
    "no score": ([[[1, 2, None, "a"]]], "score is a nonetype"),
    "no name": ([[[1, 2, 0.5, None]]], "the micrograph is a nonetype, not a name"),
    "an empty name": ([[[1, 2, 0.5, ""]]], "the micrograph is ''"),
    "a name of two lines": ([[[1, 2, 0.5, "a\nb"]]], r"the micrograph is 'a\\nb'"),
    "a list in a row": ([[[1, 2, 0.5, "a", []]]], "values that are no numbers"),
    "a great number": ([[[2**65, 2, 0.5, "a"]]], "whole number of 66 bits"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_list_of_picks(name: str) -> None:
    value, message = WRONG[name]
    with pytest.raises(FormatError, match=message):
        read(pickle.dumps(value, 2))


def test_one_list_in_many_places() -> None:
    rows = [[1, 2, 0.5, "a"]]
    itself: list[Any] = []
    itself.append(itself)
    for value in ([rows, rows], [rows * 2], itself):
        with pytest.raises(FormatError, match="not a list of its own"):
            read(pickle.dumps(value, 2))


def peak_of(content: bytes) -> int:
    """Bytes of memory that reading takes at the most; it must end in our own error."""
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            read(content)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


SIZE = 50_000
BOMBS = {
    "a far place in the memo": b"\x80\x02]r\xff\xff\xff\x7f.",
    "a far place in the memo, in digits": b"(lp99999999999\n.",
    "a text said to be long": b"\x80\x04\x8d" + struct.pack("<Q", 2**50) + b"a.",
    "bytes said to be long": b"\x80\x03B\xff\xff\xff\x7fa.",
    "a frame said to be long": b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.",
    "a number said to be long": b"\x80\x02\x8b\xff\xff\xff\x7fa.",
    "marks": b"\x80\x02" + b"(" * SIZE + b".",
    "empty lists": b"\x80\x02" + b"]" * SIZE + b".",
    "lists in lists": b"\x80\x02" + b"]" * SIZE + b"a" * (SIZE - 1) + b".",
    "tuples in tuples": b"\x80\x02)" + b"\x85" * SIZE + b".",
    "nothings": b"\x80\x02(" + b"N" * SIZE + b"l.",
    "memos": b"\x80\x04N" + b"\x94" * SIZE + b"0.",
    "twice twice twice": b"\x80\x02]q\0" + b"".join(b"](h%ch%celq%c" % (i, i, i + 1) for i in range(200)) + b".",
    "one row a million times": b"\x80\x02](](K\x01K\x01K\x01X\x01\0\0\0aeq\0" + b"h\0" * SIZE + b"ee.",
    "many digits": b"(lp0\nL" + b"9" * SIZE + b"L\na.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_memory_stays_near_the_size_of_the_file(name: str) -> None:
    assert peak_of(BOMBS[name]) < 24 * len(BOMBS[name]) + 2**20


number = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False))
score = st.one_of(st.floats(), st.floats(width=32).map(np.float32), st.integers(0, 1))
row = st.tuples(number, number, score, st.sampled_from(["a.mrc", "x/ü.mrc", "c d.mrc"])).map(list)


@settings(deadline=None)
@given(st.lists(st.lists(row, max_size=5), max_size=5), st.integers(0, 5), st.randoms(use_true_random=False))
def test_round_trips(lists: list[list[list[Any]]], protocol: int, random: Any) -> None:
    content = pickle.dumps(lists, protocol)
    file = read(content)
    rows = [row for rows in lists for row in rows]
    assert file.picks.coordinates.tolist() == [[float(x), float(y)] for x, y, _, _ in rows]
    np.testing.assert_array_equal(file.picks.figure_of_merit, [float(row[2]) for row in rows])
    assert [file.picks.micrograph_names[i] for i in file.picks.micrograph_index] == [row[3] for row in rows]
    keep = np.array([random.random() < 0.5 for _ in rows], dtype=bool)
    assert subset_deeppicker(file, np.ones(len(rows), dtype=bool)) == content
    kept, rejected = (read(subset_deeppicker(file, side)).picks for side in (keep, ~keep))
    np.testing.assert_array_equal(kept.coordinates, file.picks.coordinates[keep])
    np.testing.assert_array_equal(rejected.coordinates, file.picks.coordinates[~keep])
    np.testing.assert_array_equal(kept.figure_of_merit, file.picks.figure_of_merit[keep])


def test_what_is_written_is_read_again() -> None:
    coordinates = np.array([[0.5, 1], [2, 3], [4, 5]])
    picks = Picks(coordinates, ("a.mrc", "b.mrc"), np.array([0, 1, 0]), np.array([1, np.nan, 3]))
    file = read(write_deeppicker(picks))
    assert file.picks.coordinates.tolist() == [[0.5, 1], [4, 5], [2, 3]]  # by micrograph
    assert file.picks.micrograph_index.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(file.picks.figure_of_merit, [1, 3, np.nan])


WHOLE = tuple(pickle.dumps(LISTS, protocol) for protocol in (0, 2, 4))


@settings(deadline=None, max_examples=500)
@given(
    st.sampled_from(WHOLE),
    st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 255)), min_size=1, max_size=4),
    st.booleans(),
)
def test_damaged_pickles_raise_nothing_else(whole: bytes, changes: list[tuple[int, int]], cut: bool) -> None:
    content = bytearray(whole)
    for at, byte in changes:
        content[at % len(content)] = byte
    damaged = bytes(content[: changes[0][0] % len(content)] if cut else content)
    try:
        file = read(damaged)
    except PickeroptError:
        return
    assert subset_deeppicker(file, np.ones(len(file.picks), dtype=bool)) == damaged
    subset_deeppicker(file, np.zeros(len(file.picks), dtype=bool))


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=60))
def test_any_bytes_raise_nothing_else(content: bytes) -> None:
    is_pickle(content)
    with pytest.raises(PickeroptError):
        read(b"\x80\x02" + content)


def test_what_is_no_pickle() -> None:
    for content in (b"", b"\x80", b"\x80\x09", b"data_\n", b"10 20 30 40\n", b"{}", b"[1, 2]", b"(1, 2)"):
        assert not is_pickle(content)
