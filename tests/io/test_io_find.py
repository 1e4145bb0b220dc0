from pathlib import Path

import numpy as np
import pytest

from pickeropt.errors import MicrographError
from pickeropt.io.find import MicrographFinder
from pickeropt.io.picks_file import PicksFile
from pickeropt.records import Picks


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def picks_file(path: Path, *names: str, from_stem: bool = False) -> PicksFile:
    empty = np.zeros((0, 2))
    picks = Picks(empty, names, np.zeros(0, dtype=np.int64), np.zeros(0))
    return PicksFile(path, "", picks, b"", np.zeros((0, 2), dtype=np.int64), from_stem)


def test_path_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    mic = touch(project / "MotionCorr" / "job002" / "a.mrc")
    picks = project / "Extract" / "job003" / "particles.star"
    finder = MicrographFinder()
    name = "MotionCorr/job002/a.mrc"
    assert finder.find(name, picks) == mic  # the project is above the picks file
    assert finder.find(str(mic), picks) == mic
    assert finder.find("a.mrc", picks) is None
    assert finder.find("a.mrc", mic.parent / "p.star") == mic
    monkeypatch.chdir(project)
    assert finder.find(name, tmp_path / "elsewhere" / "p.star") == Path(name)


def test_folders_by_relative_path_then_name(tmp_path: Path) -> None:
    right = touch(tmp_path / "data" / "set2" / "a.mrc")
    touch(tmp_path / "data" / "set1" / "a.mrc")
    only = touch(tmp_path / "data" / "set1" / "deep" / "b.mrc")
    finder = MicrographFinder([tmp_path / "data"])
    picks = tmp_path / "p.star"
    assert finder.find("set2/a.mrc", picks) == right
    assert finder.find("MotionCorr/job002/b.mrc", picks) == only
    assert finder.find("MotionCorr/job002/b.tif", picks) is None  # never another extension
    with pytest.raises(MicrographError, match=r"a\.mrc: both .*set1/a\.mrc and .*set2/a\.mrc fit; name"):
        finder.find("elsewhere/a.mrc", picks)


@pytest.mark.parametrize("extension", [".mrc", ".mrcs", ".tif", ".tiff"])
@pytest.mark.parametrize(
    "stem", ["m.1", "m.1_autopick", "m.1_topazpicks", "m.1_manualpick", "m.1_picks", "m.1_cryolo_coords"]
)
def test_stems(tmp_path: Path, stem: str, extension: str) -> None:
    mic = touch(tmp_path / "mics" / "deep" / f"m.1{extension}")
    finder = MicrographFinder([tmp_path / "mics"])
    assert finder.find(stem, tmp_path / f"{stem}.star", from_stem=True) == mic
    assert finder.find("m.2", tmp_path / "m.2.star", from_stem=True) is None
    assert MicrographFinder().find(stem, mic.parent / f"{stem}.star", from_stem=True) == mic


def test_longest_stem_first(tmp_path: Path) -> None:
    touch(tmp_path / "a.mrc")
    full = touch(tmp_path / "a_picks.mrc")
    assert MicrographFinder([tmp_path]).find("a_picks", tmp_path / "x" / "p.box", from_stem=True) == full


def test_name_without_extension_goes_by_stem(tmp_path: Path) -> None:
    mic = touch(tmp_path / "mics" / "a.1.mrc")
    assert MicrographFinder([tmp_path / "mics"]).find("old/a.1", tmp_path / "p.star") == mic


def test_ambiguous_stem_but_one_file_by_two_ways(tmp_path: Path) -> None:
    mic = touch(tmp_path / "one" / "a.mrc")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "a.mrc").symlink_to(mic)
    (tmp_path / "one" / "loop").symlink_to(tmp_path, target_is_directory=True)
    folders = [tmp_path / "one", tmp_path / "two", tmp_path / "one"]
    found = MicrographFinder(folders).find("a", tmp_path / "a.box", from_stem=True)
    assert found is not None
    assert found.resolve() == mic.resolve()
    touch(tmp_path / "two" / "a.tif")
    with pytest.raises(MicrographError, match=r"a: both .*one/a\.mrc and .*two/a\.tif fit"):
        MicrographFinder(folders).find("a", tmp_path / "a.box", from_stem=True)


def test_a_namesake_of_another_folder_is_no_substitute(tmp_path: Path) -> None:
    touch(tmp_path / "mics" / "grid2" / "a.mrc")
    finder = MicrographFinder([tmp_path / "mics"])
    file = picks_file(tmp_path / "p.star", "MotionCorr/job002/grid1/a.mrc", "MotionCorr/job002/grid2/a.mrc")
    with pytest.raises(MicrographError, match=r"p\.star: .*grid1/a\.mrc and .*grid2/a\.mrc are two micrographs"):
        finder.find_all([file])
    job = tmp_path / "AutoPick" / "job004"
    listed = [picks_file(job / f"grid{i}" / "a_autopick.star", f"grid{i}/a.mrc") for i in (1, 2)]
    with pytest.raises(MicrographError, match=r"grid1/a\.mrc and grid2/a\.mrc are two micrographs"):
        MicrographFinder([tmp_path / "mics"]).find_all(listed)


def test_one_micrograph_by_several_names(tmp_path: Path) -> None:
    mic = touch(tmp_path / "mics" / "a.mrc")
    names = ("MotionCorr/job002/Movies/a.mrc", "MotionCorr/job015/Movies/a.mrc", "Movies/a.mrc", "a")
    assert MicrographFinder([tmp_path / "mics"]).find_all([picks_file(tmp_path / "p.star", *names)]) == [[mic] * 4]
    machines = [picks_file(tmp_path / f"{i}.star", f"/data{i}/a.mrc") for i in (1, 2)]
    assert MicrographFinder([tmp_path / "mics"]).find_all(machines) == [[mic], [mic]]
    for grid in ("grid1", "grid2"):
        (tmp_path / grid).mkdir()
        (tmp_path / grid / "a.mrc").symlink_to(mic)
    linked = picks_file(tmp_path / "p.star", "grid1/a.mrc", "grid2/a.mrc")
    assert len(MicrographFinder().find_all([linked])[0]) == 2


def test_the_folders_may_go_first(tmp_path: Path) -> None:
    touch(tmp_path / "MotionCorr" / "job002" / "Movies" / "a.mrc")
    touch(tmp_path / "b.mrc")
    full, other = touch(tmp_path / "full" / "a.mrc"), touch(tmp_path / "full" / "b.tif")
    finder = MicrographFinder([tmp_path / "full"], folders_first=True)
    assert finder.find("MotionCorr/job002/Movies/a.mrc", tmp_path / "p.star") == full
    assert finder.find("b", tmp_path / "b.box", from_stem=True) == other
    assert finder.find("b.mrc", tmp_path / "p.star") == tmp_path / "b.mrc"


UID = "000000123456789012345_"


def test_the_prefix_of_cryosparc_counts_for_nothing(tmp_path: Path) -> None:
    plain = touch(tmp_path / "mics" / "deep" / "a.mrc")
    prefixed = touch(tmp_path / "mics" / f"{UID}b.mrc")
    finder = MicrographFinder([tmp_path / "mics"])
    picks = tmp_path / "picks" / "p.cs"
    assert finder.find(f"J2/motioncorrected/{UID}a.mrc", picks) == plain
    assert finder.find(f"J2/motioncorrected/{UID}b.mrc", picks) == prefixed
    assert finder.find("b.mrc", picks) == prefixed
    assert finder.find("MotionCorr/job002/b.mrc", picks) == prefixed
    assert finder.find("b_autopick", picks, from_stem=True) == prefixed
    assert finder.find(f"{UID}a_picks", picks, from_stem=True) == plain
    assert MicrographFinder().find(f"J2/{UID}a.mrc", plain.parent / "p.cs") is None
    assert MicrographFinder().find(f"{UID}a.mrc", plain.parent / "p.cs") == plain
    assert finder.find(f"{UID[1:]}a.mrc", picks) is None  # 20 digits are a name
    assert finder.find(f"9{UID}a.mrc", picks) is None
    assert finder.find(f"{UID}.mrc", picks) is None


def test_the_name_as_it_is_goes_before_the_one_without_prefix(tmp_path: Path) -> None:
    plain = touch(tmp_path / "a.mrc")
    prefixed = touch(tmp_path / f"{UID}a.mrc")
    finder = MicrographFinder([tmp_path])
    assert finder.find("a.mrc", tmp_path / "x" / "p.cs") == plain
    assert finder.find(f"{UID}a.mrc", tmp_path / "x" / "p.cs") == prefixed
    touch(tmp_path / f"{UID}b.mrc")
    touch(tmp_path / f"9{UID[1:]}b.mrc")
    with pytest.raises(MicrographError, match=r"b\.mrc: both .* fit; name the folder"):
        MicrographFinder([tmp_path]).find("b.mrc", tmp_path / "x" / "p.cs")


def test_find_all(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        touch(tmp_path / "mics" / f"{name}.mrc")
    touch(tmp_path / "mics" / ".snapshot" / "b.mrc")
    files = [
        picks_file(tmp_path / "p.star", "x/c.mrc", "a.mrc"),
        picks_file(tmp_path / "b_autopick.star", "b_autopick", from_stem=True),
        picks_file(tmp_path / "empty.box"),
    ]
    found = MicrographFinder([tmp_path / "mics"]).find_all(files)
    mics = tmp_path / "mics"
    assert found == [[mics / "c.mrc", mics / "a.mrc"], [mics / "b.mrc"], []]


def test_missing_are_told_at_once(tmp_path: Path) -> None:
    touch(tmp_path / "mics" / "micrograph_0001_DW.mrc")
    names = [f"micrograph_000{i}.mrc" for i in range(1, 6)]
    with pytest.raises(MicrographError) as caught:
        MicrographFinder([tmp_path / "mics"]).find_all([picks_file(tmp_path / "p.star", *names)])
    assert str(caught.value) == (
        "5 micrographs are missing: micrograph_0001.mrc, micrograph_0002.mrc, micrograph_0003.mrc, ...; "
        f"looked in {tmp_path}, ., {tmp_path / 'mics'} "
        "(for micrograph_0001.mrc, is it micrograph_0001_DW.mrc?); "
        "give their folder with --micrographs DIR"
    )


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(MicrographError, match="no such folder; give"):
        MicrographFinder([tmp_path / "none"])
