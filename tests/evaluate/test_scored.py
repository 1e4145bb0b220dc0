"""Reading scores.csv: what it holds, and what each fault is told as."""

from pathlib import Path

import numpy as np
import pytest

from pickeropt.errors import FormatError
from pickeropt.evaluate.evaluation import read_scored_picks as read_scores
from pickeropt.evaluate.truth import micrograph_stem, micrograph_stems

HEADER = "file,row,micrograph,x,y,figure_of_merit,class,score,p_particle,p_background,kept\n"
ROW = "a.box,0,Micrographs/a.mrc,10,20.5,0.3,particle,0.9,0.9,0.1,1\n"


def written(folder, text):
    path = folder / "scores.csv"
    path.write_text(text)
    return path


def test_reads_every_field_in_order(tmp_path):
    rows = (
        ROW
        + "b.box,0,Micrographs/b.mrc,1e2,-3,,background,0.25,0.25,0.75,0\n"
        + "\n"
        + 'a.box,1,"Micrographs/a.mrc", 7 ,8,nan,particle,1,1,0,1\n'
    )
    scored = read_scores(written(tmp_path, HEADER + rows))
    assert scored.coordinates.tolist() == [[10, 20.5], [100, -3], [7, 8]]
    assert scored.files == ("a.box", "b.box")
    assert scored.file_index.tolist() == [0, 1, 0]
    assert scored.micrographs == ("a", "b")
    assert scored.micrograph_index.tolist() == [0, 1, 0]
    assert scored.score.tolist() == [0.9, 0.25, 1]
    assert scored.figure_of_merit[0] == 0.3
    assert np.isnan(scored.figure_of_merit[1:]).all()
    assert scored.kept.tolist() == [True, False, True]


def test_one_micrograph_under_a_long_and_a_short_name(tmp_path):
    rows = ROW + ROW.replace("Micrographs/", "") + ROW.replace("Micrographs/", "/data/Micrographs/")
    scored = read_scores(written(tmp_path, HEADER + rows))
    assert scored.micrographs == ("a",)
    assert scored.micrograph_index.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 1: no column 'file'.*must name the columns"),
        (HEADER, r"has no rows; run `pickeropt prune`"),
        (HEADER.replace("kept", "keep") + ROW, r"line 1: no column 'kept'"),
        (HEADER.replace("row", "score") + ROW, r"line 1: column 'score' appears twice"),
        (HEADER + "\n" + ROW.replace("20.5", "2O.5"), r"scores.csv, line 3: y '2O.5' is not a number"),
        (HEADER + ROW.replace("20.5", "nan"), r"line 2: y 'nan' is not finite"),
        (HEADER + ROW.replace("20.5", ""), r"line 2: y '' is not a number"),
        (HEADER + ROW.replace("0.3", "inf"), r"line 2: figure_of_merit 'inf' is not finite"),
        (HEADER + ROW.replace("0.3", "high"), r"line 2: figure_of_merit 'high' is not a number"),
        (HEADER + ROW + ROW.replace("0.9,0.9", "1.1,0.9"), r"line 3: score '1.1' is outside 0 to 1"),
        (HEADER + ROW.replace(",1\n", ",yes\n"), r"line 2: kept 'yes' is neither 1 nor 0"),
        (HEADER + ROW.replace(",1\n", "\n"), r"line 2: 10 values where the header names 11"),
        (HEADER + ROW.replace("Micrographs/a.mrc", ""), r"empty micrograph name ''"),
        (
            HEADER + ROW + ROW.replace("Micrographs", "Other"),
            r"two micrographs are called 'a'.*one at a time",
        ),
    ],
)
def test_faults_name_the_place_and_the_remedy(tmp_path, text, message):
    with pytest.raises(FormatError, match=message):
        read_scores(written(tmp_path, text))


def test_a_missing_file_and_a_binary_one(tmp_path):
    with pytest.raises(FormatError, match=r"absent.csv: cannot be read"):
        read_scores(tmp_path / "absent.csv")
    binary = tmp_path / "scores.csv"
    binary.write_bytes(b"\x93NUMPY\xff\xfe")
    with pytest.raises(FormatError, match=r"not a comma-separated text file"):
        read_scores(binary)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.mrc", "a"),
        ("x/y/a.TIFF", "a"),
        ("a", "a"),
        ("FoilHole_1.2_34", "FoilHole_1.2_34"),
        ("FoilHole_1.2_34.mrc", "FoilHole_1.2_34"),
    ],
)
def test_stem_drops_only_the_folder_and_an_image_suffix(name, stem):
    assert micrograph_stem(name) == stem


def test_stems_refuse_two_folders_whatever_comes_between():
    assert micrograph_stems(Path("f"), ["g/a.mrc", "a", "h/g/a.tif"]) == ["a", "a", "a"]
    with pytest.raises(FormatError, match="two micrographs"):
        micrograph_stems(Path("f"), ["g/a.mrc", "a", "g/h/a.tif"])
