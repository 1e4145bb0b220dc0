"""A pruned file is its input less the dropped lines: property tests on generated files.

The reference is the list of lines the generator made, never the reader's own parsing.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pickeropt.io import text
from pickeropt.io.picks import read_picks, subset
from pickeropt.io.picks_file import PicksFile
from pickeropt.io.relion_star import NO_SCORE

blank = st.sampled_from([" ", "  ", "\t", " \t ", "      "])
edge = st.sampled_from(["", " ", "\t", "   "])
number = st.one_of(
    st.floats(-1e6, 1e6).map(repr),
    st.floats(0, 5000).map(lambda x: f"{x:.6f}"),
    st.sampled_from(["1e-8", "00012", "+5", ".5", "7.", "-0", "1E5", "'3.5'", '"4"']),
)
word = st.sampled_from(
    ["a.mrc", "'a b.mrc'", '"my mic.mrc"', "data_1.mrc", "loop_x", "_x", "it's", "µ.mrc", "a#b", "0"]
)
comment = st.sampled_from([" # a comment", "\t#x 1 2 3", " # it's 'one", ""])
filler = st.sampled_from(["", " ", "\t", "# a comment 1 2", "#", "   # 1 2 3 4 5"])


def _lines(draw: st.DrawFn, rows: list[list[str]]) -> list[tuple[str, bool]]:
    """Lines and whether each is a row, with fillers between the rows."""
    lines = []
    for row in rows:
        line = draw(edge)
        for token in row:
            line += token + draw(blank)
        cut = draw(st.booleans())
        line = line.rstrip() if cut else line
        lines.append((line + (draw(comment)), True))
        lines += [(line, False) for line in draw(st.lists(filler, max_size=2))]
    return lines


def _join(draw: st.DrawFn, lines: list[tuple[str, bool]]) -> list[tuple[bytes, bool]]:
    ended = [((line + "\n").encode(), row) for line, row in lines]
    if draw(st.booleans()):
        ended[-1] = (ended[-1][0][:-1], ended[-1][1])
    return ended


@st.composite
def star_file(draw: st.DrawFn) -> list[tuple[bytes, bool]]:
    labels = draw(
        st.permutations(["_rlnCoordinateX", "_rlnCoordinateY", "_rlnMicrographName", "_rlnOther", "_rlnMore"])
    )
    labels = [label for label in labels if "Coordinate" in label or draw(st.booleans())]
    kinds = [number if "Coordinate" in label else word for label in labels]
    optics = [
        "# version 30001",
        "data_optics",
        "",
        "loop_ ",
        "_rlnOpticsGroup #1 ",
        "_rlnVoltage",
        " 1 300 ",
        "",
    ]
    general = ["data_general", "_rlnThing 5", "_rlnName 'a b'", ""]
    before = (optics if draw(st.booleans()) else []) + (general if draw(st.booleans()) else [])
    name = draw(st.sampled_from(["data_", "data_particles", " data_images # note"]))
    head = [*before, name, "", draw(st.sampled_from(["loop_", "loop_ ", " loop_\t"]))]
    head += [f"{label} #{i + 1}" if draw(st.booleans()) else label for i, label in enumerate(labels)]
    rows = draw(st.lists(st.tuples(*kinds).map(list), max_size=12))
    rows = [row for row in rows if not row[0].startswith("_") or len(rows) == 0]
    after = draw(st.sampled_from([[], [""], ["", "data_after", "loop_", "_rlnCoordinateX", "_b", "1 2", "3 4"]]))
    lines = [(line, False) for line in head] + _lines(draw, rows) + [(line, False) for line in after]
    return _join(draw, lines)


@st.composite
def box_file(draw: st.DrawFn) -> list[tuple[bytes, bool]]:
    width = draw(st.integers(4, 7))
    corner = number.filter(lambda token: "'" not in token)
    size = st.sampled_from(["180", "64.0", "1e2", "00012"])
    row = st.tuples(corner, corner, size, size, *[number] * (width - 4)).map(list)
    lines = _lines(draw, draw(st.lists(row, max_size=12)))
    return _join(draw, lines) if lines else []


def _read(lines: list[tuple[bytes, bool]], name: str) -> PicksFile:
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(b"".join(line for line, _ in lines))
        return read_picks(path)


def _check_subset(lines: list[tuple[bytes, bool]], file: PicksFile, data: st.DataObject) -> None:
    rows = [line for line, is_row in lines if is_row]
    assert len(file.picks) == len(file.row_spans) == len(rows)
    assert [file.content[a:b] for a, b in file.row_spans] == rows
    keep = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    flags = iter(keep)
    kept = b"".join(line for line, is_row in lines if not is_row or next(flags))
    flags = iter(keep)
    rejected = b"".join(line for line, is_row in lines if not is_row or not next(flags))
    assert subset(file, np.array(keep, dtype=bool)) == kept
    assert subset(file, ~np.array(keep, dtype=bool)) == rejected


@settings(deadline=None)
@given(star_file(), st.data())
def test_star_kept_and_rejected_are_the_input(lines: list[tuple[bytes, bool]], data: st.DataObject) -> None:
    _check_subset(lines, _read(lines, "x.star"), data)


@settings(deadline=None)
@given(box_file(), st.data())
def test_box_kept_and_rejected_are_the_input(lines: list[tuple[bytes, bool]], data: st.DataObject) -> None:
    _check_subset(lines, _read(lines, "x.box"), data)


@pytest.mark.parametrize("piece", [1, 7, 64])
def test_pieces_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    path = tmp_path / "x.star"
    rows = "".join(f"{i}.5  {i * 2} 'm {i // 3}.mrc' # c\n\n# {i}\n" for i in range(40))
    path.write_text(f"data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnMicrographName\n{rows}")
    whole = read_picks(path)
    monkeypatch.setattr(text, "PIECE", piece)
    cut = read_picks(path)
    assert cut.picks.micrograph_names == whole.picks.micrograph_names == tuple(f"m {i}.mrc" for i in range(14))
    np.testing.assert_array_equal(cut.picks.coordinates, [[i + 0.5, 2 * i] for i in range(40)])
    np.testing.assert_array_equal(cut.picks.micrograph_index, np.arange(40) // 3)
    np.testing.assert_array_equal(cut.row_spans, whole.row_spans)


def test_last_line_without_newline(tmp_path: Path) -> None:
    path = tmp_path / "x.box"
    path.write_bytes(b"1 2 4 4\n5 6 4 4\n7 8 4 4")
    file = read_picks(path)
    assert subset(file, np.array([True, False, True])) == b"1 2 4 4\n7 8 4 4"
    assert subset(file, np.array([True, True, False])) == b"1 2 4 4\n5 6 4 4\n"
    assert subset(file, np.zeros(3, dtype=bool)) == b""
    with pytest.raises(ValueError, match="bool"):
        subset(file, np.ones(2, dtype=bool))
    with pytest.raises(ValueError, match="int64"):
        subset(file, np.array([0, 1, 2]))


def test_real_files(shared_data: Path) -> None:
    paths = [*(shared_data / "formats").glob("relion*.star"), *(shared_data / "empiar10017").rglob("*.box")]
    paths.append(shared_data / "formats" / "sample_particles_relion31.star")
    assert len(paths) > 10
    for path in paths:
        file = read_picks(path)
        content = path.read_bytes()
        keep = np.arange(len(file.picks)) % 3 == 0
        kept, rejected = subset(file, keep), subset(file, ~keep)
        rows = [content[a:b] for a, b in file.row_spans]
        dropped = content
        for row in rows:
            dropped = dropped.replace(row, b"", 1)
        assert len(rows) > 0
        assert len(kept) + len(rejected) == len(content) + len(dropped)
        assert [line for line in content.splitlines(True) if line in set(rows)] == rows


@settings(deadline=None)
@example([("0.0", "0.0", "a.mrc", "-999.0")], " ", "\n")
@given(st.lists(st.tuples(number, number, word, number), max_size=8), blank, st.sampled_from(["\n", ""]))
def test_values_are_those_of_python(rows: list[tuple[str, str, str, str]], gap: str, end: str) -> None:
    labels = "_rlnCoordinateY\n_rlnCoordinateX\n_rlnMicrographName\n_rlnAutopickFigureOfMerit\n"
    body = "\n".join(f" {gap.join(row)}" for row in rows) + end
    file = _read([((f"data_\nloop_\n{labels}" + body).encode(), False)], "x.star")
    plain = [[token.strip("'\"") for token in row] for row in rows]
    picks = file.picks
    np.testing.assert_array_equal(picks.coordinates[:, 0], [float(row[1]) for row in plain])
    np.testing.assert_array_equal(picks.coordinates[:, 1], [float(row[0]) for row in plain])
    merits = [float(row[3]) for row in plain]
    expected = [np.nan if merit == NO_SCORE else merit for merit in merits]  # RELION's "no score"
    np.testing.assert_array_equal(picks.figure_of_merit, expected)
    assert [picks.micrograph_names[i] for i in picks.micrograph_index] == [row[2] for row in plain]
