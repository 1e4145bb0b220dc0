"""A pruned file is its input less the dropped picks, for every format that is not RELION's or EMAN's boxes.

The reference is what the generator put together, never the reader's own parsing.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pickeropt.errors import FormatError
from pickeropt.io.picks import companion_subsets, read_picks, subset

number = st.one_of(
    st.floats(-1e6, 1e6).map(repr),
    st.floats(0, 5000).map(lambda x: f"{x:.6f}"),
    st.sampled_from(["1e-8", "0.5", "7.25", "-0", "1E5", "12"]),
)
merit = st.one_of(number, st.sampled_from(["nan", "NaN"]))
filler = st.sampled_from(["", "  ", "# a comment 1 2"])


@dataclass(frozen=True)
class Made:
    """A generated file: its pieces, each with whether it is a pick, and x, y of the picks as text."""

    pieces: list[tuple[str, bool]]
    points: list[tuple[str, str]]

    def less(self, keep: list[bool]) -> bytes:
        flags = iter(keep)
        return "".join(text for text, is_pick in self.pieces if not is_pick or next(flags)).encode()


def _lines(draw: st.DrawFn, rows: list[str], end: str) -> list[tuple[str, bool]]:
    pieces = []
    for row in rows:
        pieces += [(text + end, False) for text in draw(st.lists(filler, max_size=1))]
        pieces.append((row + end, True))
    if pieces and draw(st.booleans()):
        pieces[-1] = (pieces[-1][0].removesuffix(end), True)
    return pieces


@st.composite
def table(draw: st.DrawFn) -> Made:
    """Topaz, CSV, CryoPPP or bare rows."""
    kind = draw(st.sampled_from(["topaz", "csv", "cryoppp", "xy", "bare csv"]))
    gap = {"topaz": "\t", "xy": draw(st.sampled_from([" ", "\t", "   "]))}.get(kind, ",")
    end = "\n" if kind == "topaz" else draw(st.sampled_from(["\n", "\r\n"]))
    scored = kind != "cryoppp" and draw(st.booleans())
    count = draw(st.integers(1 if "xy" in kind or "bare" in kind else 0, 8))
    points = draw(st.lists(st.tuples(number, number), min_size=count, max_size=count))
    rows = []
    for x, y in points:
        cells = [x, y, draw(merit)] if scored else [x, y]
        if kind == "topaz":
            cells.insert(0, draw(st.sampled_from(["a", "b c", "d.e_f", "µ"])))
        if kind == "cryoppp":
            cells += ["", "180"]
        rows.append(gap.join(cells))
    score = f"{gap}score" * scored
    head = {
        "topaz": f"image_name\tx_coord\ty_coord{score}",
        "csv": f"x,y{score}",
        "cryoppp": "X-Coordinate,Y-Coordinate,Psi,Diameter",
    }.get(kind)
    start = [] if head is None else [(head + end, False)]
    return Made(start + _lines(draw, rows, end), points)


@st.composite
def cbox(draw: st.DrawFn) -> Made:
    points = draw(st.lists(st.tuples(number, number), max_size=8))
    labels = ["_CoordinateX", "_CoordinateY", "_Width", "_Height", "_Confidence", "_Angle"]
    order = draw(st.permutations(range(6)))
    rows = []
    for x, y in points:
        cells = [x, y, "2", "4", draw(st.one_of(merit, st.just("<NA>"))), "<NA>"]
        rows.append("  ".join(cells[i] for i in order))
    head = "\ndata_global\n\n_cbox_format_version 1.0\n\ndata_cryolo\n\nloop_\n"
    head += "".join(f"{labels[k]} #{i + 1}\n" for i, k in enumerate(order))
    pieces = [(head, False), *_lines(draw, rows, "\n")]
    if pieces[-1][0].endswith("\n"):
        pieces.append((draw(st.sampled_from(["", "\ndata_cryolo_include\n\nloop_\n_slice_index #1\n 0.0\n"])), False))
    return Made(pieces, points)


@st.composite
def pos(draw: st.DrawFn) -> Made:
    whole = st.integers(-100, 9999).map(str)
    points = draw(st.lists(st.tuples(whole, whole), max_size=8))
    rows = [f"      {i}  1  {x}   {y}  {draw(number)} " for i, (x, y) in enumerate(points)]
    head = "# XMIPP_STAR_1 * \n# \ndata_header\nloop_\n _pickingMicrographState\nManual\ndata_particles\nloop_\n"
    head += " _itemId\n _enabled\n _xcoor\n _ycoor\n _cost\n"
    return Made([(head, False), *_lines(draw, rows, "\n")], points)


def read_and_cut(content: bytes, name: str, made: Made, data: st.DataObject) -> tuple[list[bool], bytes, bytes]:
    """Read, compare the coordinates, cut: keep, kept, rejected."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        file = read_picks(path)
    shift = 0.0 if file.box_sizes is None else file.box_sizes / 2
    expected = np.array([(float(x), float(y)) for x, y in made.points]).reshape(-1, 2)
    np.testing.assert_array_equal(file.picks.coordinates, expected + shift)
    count = len(made.points)
    assert subset(file, np.ones(count, bool)) == content
    keep = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    flags = np.array(keep, bool)
    return keep, subset(file, flags), subset(file, ~flags)


@settings(deadline=None)
@given(st.one_of(table(), cbox(), pos()), st.data())
def test_kept_and_rejected_are_the_input(made: Made, data: st.DataObject) -> None:
    content = made.less([True] * len(made.points))
    keep, kept, rejected = read_and_cut(content, "x.cbox", made, data)
    assert kept == made.less(keep)
    assert rejected == made.less([not flag for flag in keep])


blanks = st.sampled_from(["", " ", "\n", " \n\t"])
value = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.data(), st.dictionaries(st.text(max_size=6).filter(lambda key: key != "boxes"), value, max_size=3))
def test_info_json_stays_json(data: st.DataObject, others: dict[str, object]) -> None:
    points = data.draw(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), max_size=6))
    tail = st.lists(st.one_of(st.just("manual"), st.floats(0, 1)), min_size=2, max_size=2)
    entries = [[x, y, "auto", *data.draw(tail)[1:]] for x, y in points]
    space = [data.draw(blanks) for _ in range(2 * len(entries) + 2)]
    inside = ",".join(f"{space[2 * i]}{json.dumps(entry)}{space[2 * i + 1]}" for i, entry in enumerate(entries))
    pairs = [f"{json.dumps(key)}: {json.dumps(each)}" for key, each in others.items()]
    pairs.insert(data.draw(st.integers(0, len(pairs))), f'"boxes":{space[-1]}[{inside}]')
    text = "{" + ", ".join(pairs) + "}" + space[-2]
    made = Made([], [(repr(x), repr(y)) for x, y in points])
    keep, kept, rejected = read_and_cut(text.encode(), "m_info.json", made, data)
    whole = json.loads(text)
    for content, side in ((kept, keep), (rejected, [not flag for flag in keep])):
        chosen = [entry for entry, flag in zip(entries, side, strict=True) if flag]
        assert repr(json.loads(content)) == repr({**whole, "boxes": chosen})  # NaN is no NaN, but its text is


WITHOUT_PICKS = {
    "empiar_10076_7.star": "no loop_ with _rlnCoordinateX",
    "empiar_10076_7.cs": "has no field location/",
    "cryosparc_J2_particles_exported.cs": "has no field location/",
}
"""Stacks of particles that do not say where on which micrograph they were picked."""


def test_every_real_file(shared_data: Path) -> None:
    """Keep all is the identity; kept and rejected share out the picks."""
    paths = sorted((shared_data / "formats").iterdir())
    paths += sorted((shared_data / "empiar10017").rglob("*.csv"))
    done = []
    for path in paths:
        if path.name in WITHOUT_PICKS:
            with pytest.raises(FormatError, match=WITHOUT_PICKS[path.name]):
                read_picks(path)
            continue
        file = read_picks(path)
        count = len(file.picks)
        assert subset(file, np.ones(count, bool)) == path.read_bytes()
        if file.format == "cbox-filaments":
            continue
        keep = np.arange(count) % 3 == 0
        with TemporaryDirectory() as folder:
            found = []
            for flags in (keep, ~keep):
                place = Path(folder) / path.name
                place.write_bytes(subset(file, flags))
                for name, content in companion_subsets(file, flags).items():
                    (Path(folder) / name).write_bytes(content)
                found.append(read_picks(place).picks.coordinates)
        np.testing.assert_array_equal(found[0], file.picks.coordinates[keep])
        np.testing.assert_array_equal(found[1], file.picks.coordinates[~keep])
        done.append(path.name)
    assert len(done) >= 14
