"""`dataset build`: boxes against numpy, the choice of points, what is refused, finetune on the result."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pickeropt.datasets.class_folders import build_class_folders, entry_of, gather_points
from pickeropt.datasets.dataset_config import BuildConfig
from pickeropt.datasets.simulate import SimulationConfig, labelled_points, make_species, simulate_micrographs
from pickeropt.errors import FormatError, GeometryError, MicrographError, OutputError, PickeroptError, ShotsError
from pickeropt.finetune.finetune_config import FinetuneConfig
from pickeropt.finetune.finetuning import finetune
from pickeropt.io.labels import LabelRows, labels_content, read_labels
from pickeropt.io.micrographs import read_class_folder, read_mrc_header, read_mrc_sections, write_mrc
from pickeropt.shots import read_class_boxes

PIXEL_SIZE = 2.0
NATIVE = 124.0  # Å: 62 px, so that nothing is resampled


def noise(folder, name, shape=(200, 230), seed=0, scale=3.0):
    pixels = np.random.default_rng(seed).normal(40.0, scale, shape).astype(np.float32)
    write_mrc(folder / name, pixels, PIXEL_SIZE)
    return pixels


def label(path, rows, diameter=NATIVE, pixel_size=None):
    """rows: micrograph, x, y, class, source"""
    names, xs, ys, kinds, sources = zip(*rows, strict=True)
    points = np.column_stack([xs, ys]).astype(np.float64)
    sizes = None if pixel_size is None else np.full(len(names), pixel_size)
    path.write_bytes(
        labels_content(path, LabelRows(names, points, kinds, sources, np.full(len(names), diameter), sizes))
    )
    return path


def boxes_of(out, name):
    return read_mrc_sections(out / f"{name}.mrcs", read_mrc_header(out / f"{name}.mrcs"))


def grid(names, count, kind, source, start=60):
    """`count` points on each micrograph, 10 px apart."""
    return [(name, start + 10 * i, start + 3 * i, kind, source) for name in names for i in range(count)]


def test_boxes_are_the_micrograph_in_units_of_its_noise_edges_replicated(tmp_path):
    pixels = noise(tmp_path, "a.mrc")
    points = [("a.mrc", 100.0, 90.0), ("a.mrc", 3.0, 198.0)]
    labels = label(tmp_path / "l.star", [(*p, "particle", "apo") for p in points])
    report = build_class_folders([labels], BuildConfig(), tmp_path / "out")
    sample = np.sort(pixels[::3, ::3].ravel())
    level = sample[(len(sample) - 1) // 2]  # torch's median is the lower one
    away = np.sort(np.abs(sample - level))
    scaled = (pixels - level) / (1.4826 * away[(len(away) - 1) // 2])
    padded = np.pad(np.clip(scaled, -10, 10), 93, mode="edge")
    stack = boxes_of(tmp_path / "out", "apo")
    assert report.box_px == 93  # 1.5 * 62
    assert stack.shape == (2, 93, 93)
    for box, (_, x, y) in zip(stack, points, strict=True):
        top, left = int(y) + 93 - 46, int(x) + 93 - 46  # the point lies in pixel 93 // 2
        np.testing.assert_allclose(box, padded[top : top + 93, left : left + 93], atol=1e-4)


def test_every_class_has_one_scale_whatever_the_pixel_size_and_diameter(tmp_path):
    """A disc of the particle's own diameter is 62 px across in the box, once 30 px and once 100 px before."""
    rows = []
    for name, px in (("small", 30), ("large", 100)):
        y, x = np.mgrid[:400, :400]
        disc = np.hypot(x - 200, y - 200) < px / 2
        pixels = np.random.default_rng(0).normal(0, 1, (400, 400)) - 8.0 * disc
        write_mrc(tmp_path / f"{name}.mrc", pixels.astype(np.float32), PIXEL_SIZE)
        places = [(200.0, 200.0), (201.0, 200.0)]
        rows += [(f"{name}.mrc", *place, "particle", name, px * PIXEL_SIZE) for place in places]
    points = LabelRows(
        tuple(r[0] for r in rows),
        np.array([r[1:3] for r in rows]),
        tuple(r[3] for r in rows),
        tuple(r[4] for r in rows),
        np.array([r[5] for r in rows]),
    )
    (tmp_path / "l.star").write_bytes(labels_content(tmp_path / "l.star", points))
    build_class_folders([tmp_path / "l.star"], BuildConfig(), tmp_path / "out")
    about = json.loads((tmp_path / "out/dataset.json").read_text())["classes"]
    for name, px in (("small", 30), ("large", 100)):
        area = np.count_nonzero(boxes_of(tmp_path / "out", name)[0] < -4)
        assert 2 * np.sqrt(area / np.pi) == pytest.approx(62, abs=2)
        assert about[name]["pixel_size"] == pytest.approx(px * PIXEL_SIZE / 62)
        header = read_mrc_header(tmp_path / f"out/{name}.mrcs")
        assert header.pixel_size == pytest.approx(px * PIXEL_SIZE / 62, rel=1e-5)


def test_points_are_spread_over_micrographs_and_a_short_class_is_told(tmp_path):
    names = [f"m{i}.mrc" for i in range(4)]
    for i, name in enumerate(names):
        noise(tmp_path, name, seed=i)
    rows = grid(names, 8, "particle", "apo") + grid(names[:1], 3, "carbon", "film", start=70)
    labels = label(tmp_path / "l.star", rows)
    report = build_class_folders([labels], BuildConfig(per_class=8), tmp_path / "out")
    about = json.loads((tmp_path / "out/dataset.json").read_text())
    assert report.counts == {"apo": 8, "film": 3}
    assert sorted(about["classes"]["apo"]["micrographs"]) == sorted(names * 2)
    assert about["format"] == "pickeropt class folders 1"
    assert about["box_diameters"] == 1.5
    assert about["classes"]["film"]["class"] == "carbon"
    assert about["classes"]["film"]["count"] == 3
    assert [w for w in report.warnings if "'film' has 3 boxes where 8" in w]
    assert len(report.warnings) == 1


def test_micrographs_of_one_name_in_two_entries_stay_apart(tmp_path):
    files = []
    for i, entry in enumerate(("10017", "10028")):
        noise(tmp_path, f"{entry}/micrographs/001.mrc", seed=i)
        rows = grid(["micrographs/001.mrc"], 2, "particle", f"EMPIAR-{entry}")
        files.append(label(tmp_path / entry / "labels.star", rows))
    build_class_folders(files, BuildConfig(), tmp_path / "out")
    about = json.loads((tmp_path / "out/dataset.json").read_text())["classes"]
    assert about["EMPIAR-10017"]["micrographs"] == ["10017/micrographs/001.mrc"] * 2
    assert about["EMPIAR-10028"]["micrographs"] == ["10028/micrographs/001.mrc"] * 2


def test_the_seed_and_nothing_else_decides(tmp_path):
    names = ["m0.mrc", "m1.mrc"]
    for i, name in enumerate(names):
        noise(tmp_path, name, seed=i)
    labels = label(tmp_path / "l.star", grid(names, 10, "particle", "apo"))
    for out, seed in (("one", 1), ("again", 1), ("other", 2)):
        build_class_folders([labels], BuildConfig(per_class=5, seed=seed), tmp_path / out)
    first = (tmp_path / "one/apo.mrcs").read_bytes()
    assert (tmp_path / "again/apo.mrcs").read_bytes() == first
    assert (tmp_path / "other/apo.mrcs").read_bytes() != first


def test_a_point_without_texture_gives_way_to_another(tmp_path):
    pixels = noise(tmp_path, "a.mrc", shape=(300, 600))
    pixels[:, 300:] = 5000.0  # burnt out: clipped to one value
    write_mrc(tmp_path / "a.mrc", pixels, PIXEL_SIZE)
    rows = [("a.mrc", x, 150.0, "carbon", "gold") for x in (100.0, 110.0, 120.0, 450.0, 460.0, 470.0)]
    labels = label(tmp_path / "l.star", rows)
    report = build_class_folders([labels], BuildConfig(per_class=3), tmp_path / "out")
    assert report.counts == {"gold": 3}
    assert report.featureless >= 1  # of six points three are burnt out; seed 0 draws one of them
    assert read_class_folder(tmp_path / "out").class_names == ("gold",)


def test_all_points_without_texture_is_an_error(tmp_path):
    pixels = noise(tmp_path, "a.mrc", shape=(300, 600))
    pixels[:, 320:] = 5000.0
    write_mrc(tmp_path / "a.mrc", pixels, PIXEL_SIZE)
    labels = label(tmp_path / "l.star", [("a.mrc", x, 150.0, "carbon", "gold") for x in (450.0, 460.0)])
    with pytest.raises(ShotsError, match="texture"):
        build_class_folders([labels], BuildConfig(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_simulated_truth_becomes_a_folder_that_finetune_learns_from(tmp_path):
    config = SimulationConfig(
        shape=(256, 288),
        pixel_size=5.0,
        diameter_angstrom=200.0,
        carbon_probability=1.0,
        carbon_kinds=("straight_edge",),
        contaminants=(0, 0),
        filtered_probability=0.0,
    )
    species = tuple(s for s in make_species(0) if s.name == "barrel_d7")
    rows = []
    for i, sim in enumerate(simulate_micrographs(config, 2, seed=3, species=species)):
        write_mrc(tmp_path / f"sim/micrographs/m{i}.mrc", sim.pixels, 5.0)
        found = labelled_points(sim, 3, np.random.default_rng(i), margin=0.3)
        columns = zip(found.coordinates, found.class_names, found.source_class, strict=True)
        rows += [(f"micrographs/m{i}.mrc", *xy, kind, source) for xy, kind, source in columns]
    truth = label(tmp_path / "sim/truth.star", rows, diameter=200.0)
    build_class_folders([truth], BuildConfig(by="class"), tmp_path / "boxes")
    shots = read_class_boxes(tmp_path / "boxes")
    assert shots.class_names[0] == "particle"
    assert {"background", "carbon"} < set(shots.class_names)
    settings = FinetuneConfig(  # 3 shots a class: none is held out, so one fit and not six
        diameter_angstrom=200.0, pixel_size=200.0 / 62, shots_per_class=3, init="none", device="cpu"
    )
    report = finetune(shots, settings, tmp_path / "model.safetensors")
    assert report.class_names == shots.class_names
    assert (tmp_path / "model.safetensors").exists()
    build_class_folders([truth], BuildConfig(), tmp_path / "sources")
    sources = read_class_folder(tmp_path / "sources").class_names
    assert set(sources) == {row[4] for row in rows}


def test_files_together_a_diameter_is_that_of_the_micrograph_else_the_flag(tmp_path):
    noise(tmp_path, "a.mrc")
    noise(tmp_path, "b.mrc", seed=1)
    particles = label(tmp_path / "p.star", grid(["a.mrc"], 3, "particle", "EMPIAR-10017"), diameter=100.0)
    user = tmp_path / "user.star"
    user.write_text(
        "data_\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n_pickeroptClass\n"
        "a.mrc 50 60 carbon\na.mrc 55 60 carbon\n"
    )
    build_class_folders([particles, user], BuildConfig(), tmp_path / "out")
    about = json.loads((tmp_path / "out/dataset.json").read_text())["classes"]
    assert about["carbon"]["pixel_size"] == pytest.approx(100 / 62)
    assert about["EMPIAR-10017"]["entry"] == "EMPIAR-10017"
    user.write_text(user.read_text().replace("a.mrc", "b.mrc"))
    with pytest.raises(GeometryError, match=r"user.star, line 7.*b\.mrc.*--diameter"):
        build_class_folders([particles, user], BuildConfig(), tmp_path / "no")
    build_class_folders([particles, user], BuildConfig(diameter_angstrom=80.0), tmp_path / "yes")
    about = json.loads((tmp_path / "yes/dataset.json").read_text())["classes"]
    assert about["carbon"]["pixel_size"] == pytest.approx(80 / 62)
    assert about["EMPIAR-10017"]["pixel_size"] == pytest.approx(100 / 62)


def test_the_pixel_size_of_the_labels_counts_before_that_of_the_header(tmp_path):
    """Two entries of which each says its own; the flag is above both, and rows must not contradict."""
    files = []
    for name, size in (("a", 1.0), ("b", 4.0)):
        noise(tmp_path, f"{name}.mrc")  # its header says 2 Å/px
        rows = grid([f"{name}.mrc"], 3, "particle", name)
        files.append(label(tmp_path / f"{name}.star", rows, pixel_size=size))
    labels = [read_labels(path) for path in files]
    assert gather_points(labels, (), "source", None, None).pixel_sizes == (1.0, 4.0)
    assert gather_points(labels, (), "source", None, 3.0).pixel_sizes == (3.0, 3.0)
    files[1].write_text(files[1].read_text().replace(" 4\n", " nan\n"))
    labels = [read_labels(path) for path in files]
    assert gather_points(labels, (), "source", None, None).pixel_sizes == (1.0, 2.0)
    files[0].write_text(files[0].read_text().replace(" 1\n", " 1.5\n", 1))
    with pytest.raises(GeometryError, match=r"a\.mrc: 1 and 1\.5 Å/px by _pickeroptPixelSize"):
        build_class_folders(files, BuildConfig(), tmp_path / "no")


def test_the_entry_of_a_source_class():
    assert entry_of("EMPIAR-10017") == "EMPIAR-10017"
    assert entry_of("carbon_EMPIAR-10017") == "EMPIAR-10017"
    assert entry_of("barrel_d7") == "barrel_d7"


BAD = [
    ("kind", ShotsError, "'apo' is carbon here and particle above"),
    ("slash", ShotsError, "name of a file"),
    ("outside", GeometryError, "outside"),
    ("missing", MicrographError, "missing"),
    ("too large", GeometryError, "across"),
    ("no class", FormatError, "_pickeroptClass"),
    ("bad diameter", FormatError, "_pickeroptDiameter is -3"),
    ("bad pixel size", FormatError, "_pickeroptPixelSize is 0"),
]


@pytest.mark.parametrize(("fault", "kind", "says"), BAD, ids=[b[0] for b in BAD])
def test_what_cannot_be_built_is_said_before_anything_is_written(tmp_path, fault, kind, says):
    noise(tmp_path, "a.mrc")
    rows = grid(["a.mrc"], 3, "particle", "apo")
    diameter = NATIVE
    if fault == "kind":
        rows.append(("a.mrc", 100.0, 100.0, "carbon", "apo"))
    elif fault == "slash":
        rows.append(("a.mrc", 100.0, 100.0, "carbon", "../up"))
    elif fault == "outside":
        rows.append(("a.mrc", 230.0, 100.0, "particle", "apo"))
    elif fault == "missing":
        rows.append(("b.mrc", 100.0, 100.0, "particle", "apo"))
    elif fault == "too large":
        diameter = 500.0
    labels = label(tmp_path / "l.star", rows, diameter, 2.0 if fault == "bad pixel size" else None)
    if fault == "no class":
        labels.write_text(labels.read_text().replace("_pickeroptClass", "_other"))
    elif fault == "bad diameter":
        labels.write_text(labels.read_text().replace("124.000", "-3", 1))
    elif fault == "bad pixel size":
        labels.write_text(labels.read_text().replace(" 2\n", " 0\n", 1))
    with pytest.raises(kind, match=says):
        build_class_folders([labels], BuildConfig(), tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mrc", "l.star"]


def test_settings_and_an_output_in_the_way(tmp_path):
    noise(tmp_path, "a.mrc")
    labels = label(tmp_path / "l.star", grid(["a.mrc"], 3, "particle", "apo"))
    for config in (BuildConfig(by="colour"), BuildConfig(per_class=1), BuildConfig(box_diameters=0.5)):
        with pytest.raises(PickeroptError, match="--"):
            build_class_folders([labels], config, tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("keep")
    with pytest.raises(OutputError, match="exists"):
        build_class_folders([labels], BuildConfig(), tmp_path / "out")
    assert (tmp_path / "out/mine").read_text() == "keep"


def test_a_run_that_dies_leaves_no_folder(tmp_path, monkeypatch):
    noise(tmp_path, "a.mrc")
    labels = label(tmp_path / "l.star", grid(["a.mrc"], 3, "particle", "apo"))

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pickeropt.datasets.class_folders.write_mrc", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        build_class_folders([labels], BuildConfig(), tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mrc", "l.star"]


def test_labels_come_back_as_written(tmp_path):
    rows = LabelRows(
        ("m/a.mrc", "m/b.mrc"), np.array([[1.5, 2.25], [3.0, 4.125]]), ("particle", "carbon"),
        ("apo", "film"), np.array([191.2, np.nan]),
    )  # fmt: skip
    (tmp_path / "l.star").write_bytes(labels_content(tmp_path / "l.star", rows))
    read = read_labels(tmp_path / "l.star")
    np.testing.assert_array_equal(read.file.picks.coordinates, rows.coordinates)
    assert read.file.picks.micrograph_names == rows.micrographs
    assert (read.class_names, read.source_names) == (rows.class_names, rows.source_names)
    np.testing.assert_array_equal(read.diameters, [191.2, np.nan])
    np.testing.assert_array_equal(read.pixel_sizes, [np.nan, np.nan])
    (tmp_path / "l.star").write_bytes(
        labels_content(tmp_path / "l.star", replace(rows, pixel_sizes=np.array([1.2156, np.nan])))
    )
    np.testing.assert_array_equal(read_labels(tmp_path / "l.star").pixel_sizes, [1.2156, np.nan])
    with pytest.raises(OutputError, match="cannot stand"):
        (tmp_path / "no.star").write_bytes(
            labels_content(tmp_path / "no.star", LabelRows(("a b.mrc",), np.ones((1, 2)), ("p",), ("p",), np.ones(1)))
        )
