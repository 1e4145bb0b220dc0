"""Truth from folders and files in every format that is taken."""

import pytest

from pickeropt.errors import FormatError
from pickeropt.evaluate.truth import read_truth

STAR = "data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n5 6\n7 8\n"
NAMED = """data_

loop_
_rlnMicrographName #1
_rlnCoordinateX #2
_rlnCoordinateY #3
_pickeroptClass #4
M/a.mrc 1 2 particle
M/b.mrc 3 4 carbon
M/a.mrc 5 6 background
M/c.mrc 7 8 particle
"""


def test_folder_of_three_formats(tmp_path):
    (tmp_path / "a.csv").write_text("Y, X ,diameter\n2,1,9\n4,3,9\n")
    (tmp_path / "b.box").write_text("10\t20\t8\t6\n")
    (tmp_path / "c_autopick.star").write_text(STAR)
    (tmp_path / "unscored.csv").write_text("x,y\n1,1\n")
    (tmp_path / "README.txt").write_text("x")
    truth = read_truth(tmp_path, ["a", "b", "c", "d"])
    assert {name: xy.tolist() for name, xy in truth.particles.items()} == {
        "a": [[1, 2], [3, 4]],
        "b": [[14, 23]],
        "c": [[5, 6], [7, 8]],
    }
    assert truth.unused == 1


def test_folder_file_without_rows_is_a_micrograph_without_particles(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n")
    (tmp_path / "b.csv").write_text("x,y\n1,2\n")
    truth = read_truth(tmp_path, ["a", "b"])
    assert truth.particles["a"].shape == (0, 2)


def test_exact_stem_goes_before_the_ending(tmp_path):
    (tmp_path / "a_picks.csv").write_text("x,y\n1,2\n")
    assert set(read_truth(tmp_path, ["a_picks", "a"]).particles) == {"a_picks"}
    assert set(read_truth(tmp_path, ["a"]).particles) == {"a"}


def test_image_suffix_may_stay_in_the_name(tmp_path):
    (tmp_path / "a.mrc.csv").write_text("x,y\n1,2\n")
    assert set(read_truth(tmp_path, ["a"]).particles) == {"a"}


def test_labelled_star_counts_only_particles(tmp_path):
    path = tmp_path / "labels.star"
    path.write_text(NAMED)
    truth = read_truth(path, ["a", "b"])
    assert {name: xy.tolist() for name, xy in truth.particles.items()} == {"a": [[1, 2]], "b": []}
    assert truth.unused == 1


def test_csv_with_micrographs_and_classes(tmp_path):
    path = tmp_path / "truth.csv"
    path.write_text("Micrograph,X,Y,Class\nM/a.mrc,1,2,particle\nb,3,4,Particle\na,5,6,ice\n")
    truth = read_truth(path, ["a", "b"])
    assert {name: xy.tolist() for name, xy in truth.particles.items()} == {"a": [[1, 2]], "b": [[3, 4]]}


@pytest.mark.parametrize(("name", "text"), [("a.csv", "x,y\n5,6\n7,8\n"), ("a_manualpick.star", STAR)])
def test_one_file_of_one_micrograph_is_named_by_its_stem(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    truth = read_truth(tmp_path / name, ["a"])
    assert truth.particles["a"].tolist() == [[5, 6], [7, 8]]


def fault(path, micrographs=("a",)):
    with pytest.raises(FormatError) as caught:
        read_truth(path, micrographs)
    return str(caught.value)


def test_no_micrograph_matches(tmp_path):
    (tmp_path / "b.csv").write_text("x,y\n1,2\n")
    message = fault(tmp_path)
    assert "none of the 1 scored micrographs" in message
    assert "names 'b', the scores name 'a'" in message


def test_two_truths_for_one_micrograph(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    (tmp_path / "a_autopick.star").write_text(STAR)
    assert "second truth for micrograph 'a', after a.csv" in fault(tmp_path)


def test_a_star_of_many_micrographs_inside_a_folder(tmp_path):
    (tmp_path / "a.star").write_text(NAMED)
    assert "names 3 micrographs" in fault(tmp_path)


def test_two_micrographs_of_one_name_in_one_file(tmp_path):
    path = tmp_path / "all.star"
    path.write_text(NAMED.replace("M/b.mrc", "N/a.mrc"))
    assert "two micrographs are called 'a'" in fault(path)


def test_no_particle_at_all(tmp_path):
    path = tmp_path / "all.star"
    path.write_text(NAMED)
    assert "holds no particle on the 1 scored micrographs" in fault(path, ("b",))


def test_empty_folder_and_missing_path(tmp_path):
    assert "holds no .csv, .box, .star file" in fault(tmp_path)
    assert "no such file or folder" in fault(tmp_path / "absent")


def test_headless_csv_names_the_line(tmp_path):
    (tmp_path / "a.csv").write_text("1,2\n3,4\n")
    assert "a.csv, line 1: no column 'x'" in fault(tmp_path)


def test_what_cryoppp_wrote_is_to_be_turned_first(tmp_path):
    (tmp_path / "a.csv").write_text("X-Coordinate,Y-Coordinate,Diameter\n1,2,3\n")
    remedy = f"pickeropt convert {tmp_path} truth --to csv --micrographs DIR"
    assert f"CryoPPP counts y from the other side: {remedy}" in fault(tmp_path)
