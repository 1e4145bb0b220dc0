"""P(particle) in files of picks: the score column and nothing else changes."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pickeropt.errors import FormatError
from pickeropt.io.picks import read_picks, subset
from pickeropt.io.scores import check_scores_fit, with_scores

HEAD = "\n# version 30001\n\ndata_\n\nloop_ \n_rlnCoordinateX #1 \n_rlnCoordinateY #2 \n"
SCORES = np.array([0.25, 0.9999999, 0.0])


def written(path: Path, content: str, scores: np.ndarray = SCORES) -> str:
    path.write_bytes(content.encode())
    file = with_scores(read_picks(path), scores)
    whole = np.ones(len(scores), dtype=np.bool_)
    assert subset(file, whole) == file.content
    assert path.read_bytes() == content.encode()
    lines = [file.content[start:end] for start, end in file.row_spans.tolist()]
    for i, line in enumerate(lines):
        assert subset(file, np.arange(len(scores)) == i).count(line) >= 1
        assert b"\n" not in line.rstrip(b"\n")
    return file.content.decode()


def test_the_pickers_own_moves_to_a_column_of_its_own(tmp_path: Path) -> None:
    before = HEAD + (
        "_rlnAutopickFigureOfMerit #3 \n_rlnAnglePsi #4 \n"
        "  1.5  2.25     0.712345   -999.0 \n3 4 -5.1234567 7 # by hand\n5 6 nan 8"
    )
    after = HEAD + (
        "_rlnAutopickFigureOfMerit #3 \n_rlnAnglePsi #4 \n_pickeroptPickerFigureOfMerit #5\n"
        "  1.5  2.25     0.250000   -999.0 0.712345 \n3 4   1.000000 7 -5.1234567 # by hand\n"
        "5 6 0.000000 8 nan"
    )
    assert written(tmp_path / "a.star", before) == after
    # once more: P(particle) is replaced, the picker's own stays
    assert written(tmp_path / "b.star", after, SCORES[::-1]) == (
        after.replace("0.250000", "?").replace("0.000000", "0.250000").replace("?", "0.000000")
    )


def test_a_column_that_is_not_there_is_appended(tmp_path: Path) -> None:
    before = HEAD + "1 2\n3 4 \n\n5 6\n\n\ndata_other\nloop_\n_a #1\n_b #2\n1 2\n"
    after = HEAD.replace("#2 \n", "#2 \n_rlnAutopickFigureOfMerit #3\n") + (
        "1 2 0.250000\n3 4 1.000000 \n\n5 6 0.000000\n\n\ndata_other\nloop_\n_a #1\n_b #2\n1 2\n"
    )
    assert written(tmp_path / "a.star", before) == after
    assert read_picks(tmp_path / "a.star").picks.figure_of_merit.tolist() == pytest.approx([np.nan] * 3, nan_ok=True)


def test_labels_without_numbers_and_without_rows(tmp_path: Path) -> None:
    bare = "data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY"
    assert written(tmp_path / "a.star", bare, SCORES[:0]) == f"{bare}\n_rlnAutopickFigureOfMerit"
    assert written(tmp_path / "b.star", f"{bare}\n", SCORES[:0]) == f"{bare}\n_rlnAutopickFigureOfMerit\n"
    assert written(tmp_path / "c.star", f"{bare}\n1 2\n", SCORES[:1]) == (
        f"{bare}\n_rlnAutopickFigureOfMerit\n1 2 0.250000\n"
    )


def test_particles_keep_their_optics(tmp_path: Path) -> None:
    optics = "# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnImagePixelSize #2\n1 1.5\n\n\n"
    particles = "data_particles\n\nloop_\n_rlnAutopickFigureOfMerit #1\n_rlnMicrographName #2\n"
    particles += "_rlnCoordinateX #3\n_rlnCoordinateY #4\n"
    rows = ["0.1 'a b.mrc' 1 2\n", "-12 c.mrc 3 4\n", "7.5 c.mrc 5 6\n"]
    own = ["0.250000 'a b.mrc' 1 2 0.1\n", "1.000000 c.mrc 3 4 -12\n", "0.000000 c.mrc 5 6 7.5\n"]
    assert written(tmp_path / "a.star", optics + particles + "".join(rows)) == (
        optics + particles + "_pickeroptPickerFigureOfMerit #5\n" + "".join(own)
    )


def test_the_fifth_value_of_a_box(tmp_path: Path) -> None:
    four = "# made by hand\n1\t2\t10\t10\n3\t4\t10\t10\n\n5\t6\t10\t10"
    assert written(tmp_path / "a.box", four) == (
        "# made by hand\n1\t2\t10\t10\t0.250000\n3\t4\t10\t10\t1.000000\n\n5\t6\t10\t10\t0.000000"
    )
    six = "1 2 10 10 -3 a\n 3 4 10 10 0.12345678 b # c\n5 6 10 10 1 d\n"
    assert written(tmp_path / "b.box", six) == (
        "1 2 10 10 0.250000 a\n 3 4 10 10   1.000000 b # c\n5 6 10 10 0.000000 d\n"
    )
    assert written(tmp_path / "empty.box", "", SCORES[:0]) == ""


def test_the_confidence_of_a_cbox(tmp_path: Path) -> None:
    head = "\ndata_global\n\n_cbox_format_version 1.0\n\ndata_cryolo\n\nloop_\n"
    head += "_CoordinateX #1\n_CoordinateY #2\n_Width #3\n_Height #4\n"
    foot = "\ndata_cryolo_include\n\nloop_\n_slice_index #1\n 0.000000 \n"
    with_one = head + "_Confidence #5\n_Angle #6\n1 2 8 8 0.65784490108 <NA>\n3 4 8 8 <NA> <NA>\n5 6 8 8 1 0\n" + foot
    assert written(tmp_path / "a.cbox", with_one) == (
        head
        + "_Confidence #5\n_Angle #6\n1 2 8 8      0.250000 <NA>\n3 4 8 8 1.000000 <NA>\n5 6 8 8 0.000000 0\n"
        + foot
    )
    without = head + "1 2 8 8\n3 4 8 8\n5 6 8 8\n" + foot
    assert written(tmp_path / "b.cbox", without) == (
        head + "_Confidence #5\n1 2 8 8 0.250000\n3 4 8 8 1.000000\n5 6 8 8 0.000000\n" + foot
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "image_name\tx_coord\ty_coord\tscore\na\t1\t2\t-3.5\nb\t3\t4\t0.25\nb\t5\t6\t9\n",
            "image_name\tx_coord\ty_coord\tscore\na\t1\t2\t0.250000\nb\t3\t4\t1.000000\nb\t5\t6\t0.000000\n",
        ),
        (
            "image_name\tx_coord\ty_coord\na\t1\t2\nb\t3\t4\n\nb\t5\t6",
            "image_name\tx_coord\ty_coord\tscore\na\t1\t2\t0.250000\nb\t3\t4\t1.000000\n\nb\t5\t6\t0.000000",
        ),
        (
            '\ufeffscore,name,x,y\r\n,a,1,2\r\n 7 ,"b,""c",3,4\r\nNA,b,5,6\r\n',
            '\ufeffscore,name,x,y\r\n0.250000,a,1,2\r\n 1.000000 ,"b,""c",3,4\r\n0.000000,b,5,6\r\n',
        ),
        (
            'name,x,y\r\na,1,2\r\n"b,",3,4\r\nb,5,6',
            'name,x,y,score\r\na,1,2,0.250000\r\n"b,",3,4,1.000000\r\nb,5,6,0.000000',
        ),
        ("# mine\n1 2\n3 4\n 5 6\n", "# mine\n1 2 0.250000\n3 4 1.000000\n 5 6 0.000000\n"),
        ("1   2 0.5\n3 4 6\n5 6 7", "1   2 0.250000\n3 4 1.000000\n5 6 0.000000"),
    ],
)
def test_tables(tmp_path: Path, before: str, after: str) -> None:
    assert written(tmp_path / "a.txt", before) == after
    assert read_picks(tmp_path / "a.txt").picks.coordinates.tolist() == [[1, 2], [3, 4], [5, 6]]
    (tmp_path / "b.txt").write_bytes(after.encode())
    np.testing.assert_allclose(read_picks(tmp_path / "b.txt").picks.figure_of_merit, SCORES, atol=5e-7)


@given(
    columns=st.permutations(["_rlnCoordinateX", "_rlnCoordinateY", "_rlnAutopickFigureOfMerit", "_other"]),
    rows=st.lists(st.tuples(*[st.floats(-1e4, 1e4)] * 4), max_size=6),
    gap=st.sampled_from([" ", "\t", "   "]),
    ends=st.booleans(),
    data=st.data(),
)
def test_read_again_it_is_the_same_but_for_the_score(tmp_path_factory, columns, rows, gap, ends, data) -> None:
    path = tmp_path_factory.mktemp("star") / "a.star"
    lines = ["data_", "loop_", *columns, *(gap.join(map(repr, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n" * ends)
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))), dtype=np.bool_)
    scores = np.linspace(0, 1, len(rows))
    before = read_picks(path)
    after = with_scores(before, scores)
    np.testing.assert_array_equal(after.picks.figure_of_merit, before.picks.figure_of_merit)
    other = path.with_name("b.star")
    other.write_bytes(subset(after, keep))
    again = read_picks(other)
    np.testing.assert_array_equal(again.picks.coordinates, before.picks.coordinates[keep])
    np.testing.assert_allclose(again.picks.figure_of_merit, scores[keep], atol=5.1e-7)
    own = [line.split()[-1] for line in other.read_text().splitlines()[7:]]
    merits = [repr(row[columns.index("_rlnAutopickFigureOfMerit")]) for row in rows]
    assert own == [merit for merit, kept in zip(merits, keep, strict=True) if kept]


def test_a_format_without_room_is_named(tmp_path: Path) -> None:
    from dataclasses import replace

    path = tmp_path / "a.box"
    path.write_text("1 2 3 4\n")
    file = replace(read_picks(path), format="deeppicker")
    with pytest.raises(FormatError, match=r"a\.box: a deeppicker file has no place for a score.*--write-score"):
        check_scores_fit([read_picks(path), file])
    with pytest.raises(FormatError, match="no place"):
        with_scores(file, np.array([0.5]))


def test_the_files_that_real_programs_wrote(shared_data: Path) -> None:
    seen = set()
    for path in sorted((shared_data / "formats").iterdir()):
        if path.suffix not in (".star", ".cbox") or path.name == "empiar_10076_7.star":  # has no coordinates
            continue
        file = read_picks(path)
        if file.format == "cbox-filaments":
            continue
        seen.add(file.format)
        scores = np.round(np.linspace(0, 1, len(file.picks)), 6)
        found = with_scores(file, scores)
        assert len(found.content.splitlines()) - len(file.content.splitlines()) in (0, 1)
        for old, new in zip(file.row_spans.tolist(), found.row_spans.tolist(), strict=True):
            kept = file.content[slice(*old)].split()
            assert len(set(kept) - set(found.content[slice(*new)].split())) <= 1
    assert seen >= {"relion-coordinates", "relion-particles", "cbox"}
