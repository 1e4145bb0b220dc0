import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pickeropt.errors import FormatError, GeometryError, MicrographError, PickeroptError, ShotsError
from pickeropt.shots import Shots, read_class_files, read_labelled_star

Row = tuple[str, float, float, str]
HEADER = "data_\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n_pickeroptClass #4\n"
FIRST_LINE = 8  # of the rows below HEADER
ROWS: list[Row] = [
    ("a.mrc", 10, 20, "ice"),
    ("b.mrc", 30.5, 40, "particle"),
    ("a.mrc", 50, 60, "ice"),
    ("a.mrc", 70, 80, "particle"),
    ("b.mrc", 0, 0, "carbon"),
    ("b.mrc", 199, 99, "carbon"),
]


def blank_mrc(path: Path, width: int, height: int) -> Path:
    """A sparse int8 MRC file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    words = np.zeros(256, dtype="<i4")
    words[:3] = width, height, 1
    path.write_bytes(words.tobytes())
    os.truncate(path, 1024 + width * height)
    return path


def labelled(path: Path, rows: list[Row], header: str = HEADER) -> Path:
    path.write_text(header + "".join(f"{m} {x} {y} {c}\n" for m, x, y, c in rows))
    return path


def points(path: Path, xy: list[tuple[float, float]], optics: float | None = None) -> Path:
    """RELION's coordinate file of one micrograph."""
    head = "" if optics is None else f"data_optics\n\nloop_\n_rlnMicrographPixelSize #1\n{optics}\n\n"
    rows = "".join(f"{x} {y}\n" for x, y in xy)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{head}data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n{rows}")
    return path


@pytest.fixture
def mics(tmp_path: Path) -> Path:
    """a.mrc and b.mrc, 200 x 100 px."""
    for name in ("a", "b"):
        blank_mrc(tmp_path / "mics" / f"{name}.mrc", 200, 100)
    return tmp_path / "mics"


def described(shots: Shots) -> set[Row]:
    """What the shots say, whatever their order."""
    zipped = zip(shots.micrograph_index, shots.coordinates, shots.labels, strict=True)
    return {(shots.micrographs[m].name, float(x), float(y), shots.class_names[c]) for m, (x, y), c in zipped}


def test_labelled_star(tmp_path: Path, mics: Path) -> None:
    shots = read_labelled_star(labelled(tmp_path / "labels.star", ROWS), [mics])
    assert shots.class_names == ("particle", "ice", "carbon")
    assert shots.labels.tolist() == [1, 0, 1, 0, 2, 2]
    assert shots.coordinates.tolist() == [[10, 20], [30.5, 40], [50, 60], [70, 80], [0, 0], [199, 99]]
    assert shots.micrograph_index.tolist() == [0, 1, 0, 0, 1, 1]
    assert shots.micrographs == (mics / "a.mrc", mics / "b.mrc")
    assert shots.pixel_size is None
    assert len(shots) == 6
    assert shots.labels.dtype == shots.micrograph_index.dtype == np.int64


def test_one_micrograph_under_two_names_is_one(tmp_path: Path, mics: Path) -> None:
    (tmp_path / "link").symlink_to(mics)
    rows = [("link/a.mrc", x, y, c) for _, x, y, c in ROWS[:4]] + [("a.mrc", x, y, c) for _, x, y, c in ROWS[4:]]
    shots = read_labelled_star(labelled(tmp_path / "labels.star", rows), [mics])
    assert len(shots.micrographs) == 1
    assert set(shots.micrograph_index.tolist()) == {0}
    twice = [*rows, ("link/a.mrc", 199, 99.5, "ice")]  # half a pixel off, under the other name
    with pytest.raises(ShotsError, match=r"line 13 \(carbon\) and .*line 14 \(ice\) are one point"):
        read_labelled_star(labelled(tmp_path / "labels.star", twice), [mics])


def test_repeated_rows_count_once(tmp_path: Path, mics: Path) -> None:
    shots = read_labelled_star(labelled(tmp_path / "labels.star", ROWS[:3] + ROWS), [mics])
    assert len(shots) == 6
    assert described(shots) == set(ROWS)
    pair = [*ROWS[:4], ROWS[4], ROWS[4]]
    with pytest.raises(ShotsError, match=r"rows that repeat.*'carbon' has 1"):
        read_labelled_star(labelled(tmp_path / "labels.star", pair), [mics])


def test_pixel_size_of_the_optics_block(tmp_path: Path, mics: Path) -> None:
    optics = "data_optics\n\nloop_\n_rlnMicrographPixelSize #1\n1.77\n\n"
    path = labelled(tmp_path / "labels.star", ROWS, optics + HEADER.replace("data_\n", "data_particles\n"))
    assert read_labelled_star(path, [mics]).pixel_size == 1.77


def test_pixel_size_of_the_rows(tmp_path: Path, mics: Path) -> None:
    header = HEADER + "_pickeroptPixelSize\n"
    for sizes, expected in ((["1.77"] * 6, 1.77), (["1.77", "nan"] * 3, 1.77), (["1.77", "1.5"] * 3, None)):
        rows = [(m, x, y, f"{c} {size}") for (m, x, y, c), size in zip(ROWS, sizes, strict=True)]
        shots = read_labelled_star(labelled(tmp_path / "labels.star", rows, header), [mics])
        assert shots.pixel_size == expected


def wrong(change: Callable[[list[Row]], list[Row]]) -> Callable[[Path, Path], object]:
    return lambda tmp, mics: read_labelled_star(labelled(tmp / "labels.star", change(list(ROWS))), [mics])


def renamed(old: str, new: str) -> Callable[[list[Row]], list[Row]]:
    return lambda rows: [(m, x, y, new if c == old else c) for m, x, y, c in rows]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            renamed("particle", "good"),
            ShotsError,
            r"no class 'particle' \(classes found: ice, good, carbon\)",
        ),
        (lambda rows: [], ShotsError, r"labels\.star: no class 'particle' \(classes found: none\)"),
        (lambda rows: [rows[1], rows[3]], ShotsError, "only the class 'particle'; label at least one more"),
        (lambda rows: rows[:5], ShotsError, "'carbon' has 1; label 2 or more"),
        (renamed("ice", "a=b"), ShotsError, rf"labels\.star, line {FIRST_LINE}: 'a=b' cannot be the name"),
        (renamed("carbon", "a,b"), ShotsError, rf"line {FIRST_LINE + 4}: 'a,b' cannot be the name"),
        (renamed("ice", "'two words'"), ShotsError, "'two words' cannot be the name of a class; name the"),
        (renamed("ice", "''"), ShotsError, "'' cannot be the name of a class"),
        (
            lambda rows: [*rows, ("b.mrc", 30.9, 40.9, "ice")],
            ShotsError,
            r"line 9 \(particle\) and .*line 14 \(ice\) are one point of .*b\.mrc, x 30\.5, y 40; delete",
        ),
        (
            lambda rows: [*rows, ("b.mrc", 200, 5, "ice"), ("b.mrc", 5, -0.1, "ice")],
            GeometryError,
            r"line 14: x 200, y 5 is outside of .*b\.mrc, 200 x 100 px \(and 1 more\); give",
        ),
        (lambda rows: [*rows, ("b.mrc", 5, 100, "ice")], GeometryError, "line 14: x 5, y 100 is outside"),
        (
            lambda rows: [*rows, ("c.mrc", 5, 5, "ice")],
            MicrographError,
            r"1 micrograph is missing: c\.mrc.*--micrographs",
        ),
    ],
)
def test_faults_of_a_labelled_star(
    tmp_path: Path,
    mics: Path,
    change: Callable[[list[Row]], list[Row]],
    error: type[PickeroptError],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        wrong(change)(tmp_path, mics)


def test_neighbours_that_are_no_conflict(tmp_path: Path, mics: Path) -> None:
    near = [("b.mrc", 31.5, 40, "ice"), ("a.mrc", 30.5, 40, "ice"), ("b.mrc", 30.2, 40, "particle")]
    shots = read_labelled_star(labelled(tmp_path / "labels.star", [*ROWS, *near]), [mics])
    assert described(shots) == {*ROWS, *near}  # 1 px away, the other micrograph, the same class


def test_no_class_column(tmp_path: Path, mics: Path) -> None:
    path = points(tmp_path / "a.star", [(1, 2)])
    with pytest.raises(FormatError, match=r"a\.star: no column _pickeroptClass .*add it .*--class NAME=FILE"):
        read_labelled_star(path, [mics])


def test_a_truncated_micrograph(tmp_path: Path, mics: Path) -> None:
    os.truncate(mics / "b.mrc", 2000)
    with pytest.raises(MicrographError, match=r"b\.mrc: truncated"):
        read_labelled_star(labelled(tmp_path / "labels.star", ROWS), [mics])


def test_class_files_of_every_kind(tmp_path: Path, mics: Path) -> None:
    points(tmp_path / "good" / "a_autopick.star", [(70, 80)])
    points(tmp_path / "good" / "b_manualpick.star", [(30.5, 40)])
    (tmp_path / "good" / "notes.txt").write_text("not read")
    (tmp_path / "b.box").write_text("-10 -10 20 20\n189 89 20 20\n")
    (tmp_path / "ice.star").write_text(
        "data_particles\n\nloop_\n_rlnCoordinateX\n_rlnMicrographName\n_rlnCoordinateY\n10 a.mrc 20\n50 a.mrc 60\n"
    )
    files = [("ice", tmp_path / "ice.star"), ("particle", tmp_path / "good"), ("carbon", tmp_path / "b.box")]
    shots = read_class_files(files, [mics])
    assert shots.class_names == ("particle", "ice", "carbon")
    assert described(shots) == set(ROWS)
    assert shots.pixel_size is None


def test_a_class_given_twice(tmp_path: Path, mics: Path) -> None:
    files = [
        ("particle", points(tmp_path / "1" / "a.star", [(70, 80)], optics=1.5)),
        ("ice", points(tmp_path / "2" / "a.star", [(10, 20), (50, 60)])),
        ("particle", points(tmp_path / "1" / "b.star", [(30.5, 40)], optics=1.5)),
        ("ice", tmp_path / "2" / "a.star"),  # the same file again adds nothing
    ]
    shots = read_class_files(files, [mics])
    assert described(shots) == {row for row in ROWS if row[3] != "carbon"}
    assert shots.pixel_size == 1.5
    points(tmp_path / "1" / "b.star", [(30.5, 40)], optics=3)
    with pytest.raises(GeometryError, match=r"1/a\.star has 1\.5 Å/px and .*1/b\.star 3 Å/px; take"):
        read_class_files(files, [mics])


def test_a_list_of_coordinate_files(tmp_path: Path, mics: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = tmp_path / "AutoPick" / "job003"
    points(job / "x" / "one.star", [(70, 80)])  # its own name says nothing of the micrograph
    points(job / "x" / "two.star", [(30.5, 40)])
    points(job / "x" / "none.star", [])
    head = "data_coordinate_files\n\nloop_\n_rlnMicrographName #1\n_rlnMicrographCoordinates #2\n"
    pairs = [("mics/a.mrc", "one"), ("mics/b.mrc", "two"), ("mics/gone.mrc", "none")]
    rows = "".join(f"{mic} AutoPick/job003/x/{name}.star\n" for mic, name in pairs)
    (job / "autopick.star").write_text(head + rows)
    files = [("particle", job / "autopick.star"), ("ice", points(tmp_path / "a.star", [(10, 20), (50, 60)]))]
    monkeypatch.chdir(mics)
    assert described(read_class_files(files, [mics])) == {row for row in ROWS if row[3] != "carbon"}
    in_folder = read_class_files([("particle", job), files[1]], [mics])
    assert described(in_folder) == described(read_class_files(files, [mics]))


def test_a_class_in_a_folder_of_any_format(tmp_path: Path, mics: Path) -> None:
    folder = tmp_path / "good"
    folder.mkdir()
    (folder / "topaz.txt").write_text("image_name\tx_coord\ty_coord\tscore\na\t70\t80\t1.5\nb\t30\t40\t0.5\n")
    (folder / "notes.md").write_text("not picks\n")
    ice = points(tmp_path / "ice" / "a.star", [(10, 20), (50, 60)])
    shots = read_class_files([("particle", folder), ("ice", ice.parent)], [mics])
    assert shots.coordinates[shots.labels == 0].tolist() == [[70, 80], [30, 40]]
    assert [path.name for path in shots.micrographs] == ["a.mrc", "b.mrc"]


def test_faults_of_class_files(tmp_path: Path, mics: Path) -> None:
    good = points(tmp_path / "good" / "a.star", [(1, 2), (3, 4)])
    ice = points(tmp_path / "ice" / "a.star", [(1, 2), (50, 60)])
    empty = tmp_path / "empty" / "a.box"
    empty.parent.mkdir()
    empty.write_text("")
    labels = labelled(tmp_path / "labels.star", ROWS)

    def read(*files: tuple[str, Path]) -> Shots:
        return read_class_files(files, [mics])

    with pytest.raises(ShotsError, match=r"good/a\.star, line 6 .*ice/a\.star, line 6 \(ice\) are one point"):
        read(("particle", good), ("ice", ice))
    with pytest.raises(ShotsError, match="no class 'particle'"):
        read()
    with pytest.raises(ShotsError, match="only the class 'particle'"):
        read(("particle", good), ("particle", ice))
    with pytest.raises(ShotsError, match="too few shots, class 'ice' has 0"):
        read(("particle", good), ("ice", empty))
    with pytest.raises(ShotsError, match=r"--class =.*a\.star: '' cannot be the name of a class"):
        read(("", good), ("ice", ice))
    with pytest.raises(FormatError, match=r"labels\.star: has classes of its own \(carbon, ice\), given as 'part"):
        read(("particle", labels), ("ice", ice))
    with pytest.raises(FormatError, match=r"mics: no files of picks"):
        read(("particle", mics), ("ice", ice))
    with pytest.raises(FormatError, match=r"none\.star.*cannot be read|none\.star: no such file"):
        read(("particle", tmp_path / "none.star"), ("ice", ice))
    with pytest.raises(MicrographError, match="1 micrograph is missing: a"):
        read_class_files([("particle", good), ("ice", good)], [])


def test_real_labels(shared_data: Path, tmp_path: Path) -> None:
    labels = shared_data / "empiar10017" / "labels.star"
    rows = [line.split() for line in labels.read_text().splitlines() if len(line.split()) == 4 and ".mrc " in line]
    names = dict.fromkeys(row[0] for row in rows)
    for name in names:
        blank_mrc(tmp_path / name, 4096, 4096)
    shots = read_labelled_star(labels, [tmp_path])
    assert len(shots) == len(rows) == 1229
    assert dict(zip(shots.class_names, np.bincount(shots.labels).tolist(), strict=True)) == {
        "particle": 600,
        "background": 360,
        "contaminant": 145,
        "carbon": 124,
    }
    assert [path.name for path in shots.micrographs] == list(names)
    assert len(names) == 10
    last = rows[-1]
    assert shots.coordinates[-1].tolist() == [float(last[1]), float(last[2])]
    assert shots.micrographs[shots.micrograph_index[-1]].name == last[0]
