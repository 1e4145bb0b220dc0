"""Where RELION looks for coordinates, by hand."""

import pytest

from pickeropt.errors import FormatError
from pickeropt.relion.job_outputs import list_bytes, places, root_path, suffix_ending


@pytest.mark.parametrize(
    ("micrograph", "path"),
    [
        ("MotionCorr/job002/Movies/a.mrc", "J/Movies/a"),
        ("MotionCorr/job002/a.mrc", "J/a"),
        ("MotionCorr/job1002/Movies/a.mrc", "J/Movies/a"),
        ("Micrographs/a.mrc", "J/Micrographs/a"),
        ("a.mrc", "J/a"),
        ("Raw/a.b.c.mrc", "J/Raw/a.b.c"),
        ("Raw/a_0.001.tiff", "J/Raw/a_0.001"),
        ("MotionCorr/job002/External/job003/a.mrc", "J/External/job003/a"),
        ("job002/a.mrc", "J/job002/a"),  # RELION wants a folder before it
        ("Raw/job_2/a.mrc", "J/Raw/job_2/a"),
        ("/data/raw/a.mrc", "J/data/raw/a"),
        ("./Raw/a.mrc", "J/Raw/a"),
    ],
)
def test_the_path_of_a_micrographs_coordinates(micrograph, path):
    assert root_path("J/", micrograph) == path


@pytest.mark.parametrize("micrograph", ["../raw/a.mrc", "Raw/../../a.mrc", "MotionCorr/job002/"])
def test_a_micrograph_outside_the_project(micrograph):
    with pytest.raises(FormatError, match="outside the project"):
        root_path("J/", micrograph)


def test_places():
    micrographs = ["MotionCorr/job002/Movies/a.mrc", "Raw/b.mrc"]
    files = ["AutoPick/job004/Movies/a_manualpick.star", "elsewhere/b.BOX"]
    assert places("External/job005/", micrographs, files) == [
        "External/job005/Movies/a_autopick.star",
        "External/job005/Raw/b_autopick.box",
    ]


def test_what_has_no_place():
    with pytest.raises(FormatError, match=r"^picks/a\.cbox: RELION extracts from \.star and \.box files only"):
        places("J/", ["a.mrc"], ["picks/a.cbox"])
    with pytest.raises(FormatError, match=r"^the micrograph a\.mrc is listed twice"):
        places("J/", ["a.mrc", "b.mrc", "a.mrc"], ["a.star", "b.star", "c.star"])
    both = ["MotionCorr/job002/M/a.mrc", "MotionCorr/job009/M/a.mrc"]
    with pytest.raises(FormatError, match=rf"of {both[0]} and {both[1]} would both be J/M/a_autopick\.star"):
        places("J/", both, ["a.star", "b.star"])


def test_one_ending_or_none():
    assert suffix_ending(["J/a_autopick.star", "J/b_autopick.star"]) == ".star"
    assert suffix_ending(["J/a_autopick.box"]) == ".box"
    assert suffix_ending(["J/a_autopick.star", "J/b_autopick.box"]) is None
    assert suffix_ending([]) is None


def test_a_list():
    assert list_bytes([("M/a.mrc", "J/a_autopick.star"), ("M/b.mrc", "J/b_autopick.star")]).decode() == (
        "\n# version 30001\n\ndata_coordinate_files\n\nloop_ \n_rlnMicrographName #1 \n"
        "_rlnMicrographCoordinates #2 \nM/a.mrc J/a_autopick.star \nM/b.mrc J/b_autopick.star \n \n"
    )


@pytest.mark.parametrize("name", ["my mic.mrc", "_a.mrc", "#a.mrc", ";a.mrc", ""])
def test_a_name_that_no_list_can_hold(name):
    with pytest.raises(FormatError, match="cannot stand in a STAR file"):
        list_bytes([(name, "a.star")])
