"""The parts of the benchmark by hand: statistics, draws, data sets, rows, the CSV."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmark_world import DIAMETER, boxes, class_folder, micrographs, write_star

from pickeropt.benchmark.benchmark_config import BenchmarkConfig
from pickeropt.benchmark.benchmark_sets import read_sets
from pickeropt.benchmark.fits import TABLE_3, Method, draw, draw_seed, held_out, needed, table_3, table_4, with_losses
from pickeropt.benchmark.results import (
    DrawRecord,
    DrawResults,
    TableContext,
    differences,
    macro_f1,
    markdown,
    read_records,
    summary,
    write_records,
)
from pickeropt.errors import FormatError, GeometryError, PickeroptError, ShotsError
from pickeropt.finetune.finetune_config import FinetuneConfig
from pickeropt.finetune.recipes import make_classifier
from pickeropt.io.micrographs import write_mrc

CONFIG = BenchmarkConfig()
METHOD = Method("pretrained", "default", (1.0, 0.3))


def record(data_set, number, value, method=METHOD, shots=30, **more):
    plain = DrawRecord(
        data_set, method, shots, number, 0, value, value / 2, None, "box", (30, 30), ("particle", "ice"),
        ((3, 1), (0, 4)), "b", "w",
    )  # fmt: skip
    return replace(plain, **more)


# records


def test_particle_or_not_by_hand():
    names, counts = ("ice", "particle", "carbon"), ((5, 1, 4), (2, 8, 0), (3, 0, 7))
    found = record("a", 0, 0.5, class_names=names, confusion=counts)
    # particles: 8 right of 9 named and 10 there; the rest: 19 right of 21 named and 20 there
    assert found.pruning_f1 == pytest.approx((16 / 19 + 38 / 41) / 2)
    only = record("a", 0, 0.5, class_names=("particle", "ice"), confusion=((0, 0), (1, 3)))
    assert only.pruning_f1 == pytest.approx(6 / 7)


# statistics


def test_mean_spread_and_interval_by_hand():
    found = summary([0.8, 0.9, 1.0])
    assert found.mean == pytest.approx(0.9)
    assert found.spread == pytest.approx(0.1)  # (0.01 + 0 + 0.01) / 2
    half = 4.302653 * 0.1 / np.sqrt(3)  # Student's t, two degrees of freedom, from a printed table
    assert (found.low, found.high) == (pytest.approx(0.9 - half), pytest.approx(0.9 + half))


def test_one_value_has_no_interval():
    found = summary([0.7])
    assert (found.count, found.mean, found.spread, found.low, found.high) == (1, 0.7, None, None, None)


def test_the_interval_covers_the_mean_19_times_in_20():
    rng = np.random.default_rng(0)
    found = [summary(rng.normal(3, 2, 5).tolist()) for _ in range(4000)]
    assert np.mean([f.low < 3 < f.high for f in found]) == pytest.approx(0.95, abs=0.012)


def test_means_over_data_sets_are_of_draws_that_all_have():
    results = DrawResults([*(record("a", i, 0.1 * i) for i in range(3)), *(record("b", i, 0.5) for i in (1, 2, 3))])
    values = results.values(["a", "b"], METHOD, 30, macro_f1)
    assert values == {1: pytest.approx(0.3), 2: pytest.approx(0.35)}
    assert results.values(["a", "c"], METHOD, 30, macro_f1) == {}
    assert differences(values, {2: 0.25, 7: 0.0}) == [pytest.approx(0.1)]


# draws

LABELS = np.repeat([0, 1, 2], 12)
GROUPS = np.tile(np.repeat(np.arange(6), 2), 3)


def test_a_draw_learns_and_asks_on_different_micrographs():
    for seed in range(10):
        few, many = draw(LABELS, GROUPS, 2, seed), draw(LABELS, GROUPS, 5, seed)
        assert np.bincount(LABELS[many.shots]).tolist() == [5, 5, 5]
        assert not set(GROUPS[many.shots]) & set(GROUPS[many.queries])
        assert len(set(GROUPS[many.queries])) == 2  # a third of six
        assert set(few.shots) < set(many.shots)
        assert few.queries.tolist() == many.queries.tolist()
        again = draw(LABELS, GROUPS, 5, seed)
        assert again.shots.tolist() == many.shots.tolist()
    assert len({tuple(draw(LABELS, GROUPS, 2, seed).queries) for seed in range(10)}) > 4


def test_a_class_on_one_micrograph_is_learnt_and_not_asked_about():
    groups = np.where(LABELS == 2, 3, GROUPS)
    for seed in range(10):
        held = held_out(LABELS, groups, seed)
        assert not (held & (LABELS == 2)).any()
        assert all((held & (label == LABELS)).any() for label in (0, 1))


def test_a_rare_class_is_asked_about_where_it_can_be():
    groups = GROUPS.copy()
    groups[LABELS == 2] = [0] * 6 + [5] * 6
    assert all((held_out(LABELS, groups, seed) & (LABELS == 2)).sum() == 6 for seed in range(20))


def test_without_micrographs_a_third_of_each_class_is_asked_about():
    labels = np.repeat([0, 1], [9, 4])
    found = draw(labels, np.zeros_like(labels), 30, 0)
    assert np.bincount(labels[found.queries]).tolist() == [3, 1]
    assert np.bincount(labels[found.shots]).tolist() == [6, 3]
    assert not set(found.shots) & set(found.queries)


def test_draws_have_seeds_of_their_own():
    seeds = {draw_seed(seed, name, i) for seed in (0, 1) for name in ("a", "b") for i in range(50)}
    assert len(seeds) == 200
    assert 0 <= min(seeds) < max(seeds) < 2**32
    assert draw_seed(0, "a", 0) == draw_seed(0, "a", 0)


# rows


def test_other_losses_leave_the_pretrainings_opinion_as_it_is():
    """A fresh head on the same features; an opinion of random weights would outvote ten shots."""
    made = make_classifier(FinetuneConfig(100.0), ("particle", "background", "carbon"), None)
    classifier = with_losses(made, (1.0, 0.2, 0.1))
    features = torch.randn(5, made.spec.layout.width)
    with torch.no_grad():
        assert torch.equal(classifier.prior_logits(features), made.prior_logits(features))
        assert made.prior_logits(features).abs().max() > 0.1
    assert len(classifier.head.branches) == 3
    bare = make_classifier(FinetuneConfig(100.0, init="none"), ("particle", "carbon"), None)
    assert with_losses(bare, (1.0,)).source_prior is None


def test_table_3_is_the_papers_rows_and_those_it_lacks():
    rows = table_3(CONFIG)
    assert tuple(row.key for row in rows) == TABLE_3
    by_key = {row.key: row.method for row in rows}
    assert by_key["scratch"] == Method("none", "paper", (1.0, 0.3))
    assert by_key["imagenet-single"] == Method("imagenet", "paper", (1.0,))
    assert by_key["frozen"] == Method("pretrained", "frozen")
    assert by_key["default-imagenet"] == Method("imagenet", "default", (1.0, 0.3))
    chosen = table_3(replace(CONFIG, rows=("default", "cryo")))
    assert [row.key for row in chosen] == ["cryo", "default"]


def test_without_cryo_em_pretraining_its_rows_fall_away():
    assert not [row for row in table_3(replace(CONFIG, init="imagenet")) if row.method.start == "pretrained"]
    assert [r for r in table_3(replace(CONFIG, init="imagenet", backbones="{entry}")) if r.key == "cryo"]
    with pytest.raises(PickeroptError, match="--rows frozen: --init none has no cryo-EM"):
        table_3(replace(CONFIG, init="none", rows=("frozen",)))


def test_every_method_is_needed_once():
    both = needed(replace(CONFIG, tables=(2, 4)))
    assert len(both) == 3 + len(CONFIG.loss_choices) - 1  # (1, 0.3) at 30 shots is in both tables
    assert {shots for method, shots in both if method.loss_weights == (1.0, 1.0)} == {30}
    assert [r.key for r in table_4(replace(CONFIG, loss_choices=((1.0, 0.1, 0.1), (1.0,))))] == [
        "1", "1,0.3", "1,0.1,0.1"
    ]  # fmt: skip


# tables


def test_table_4_by_hand(tmp_path):
    config = replace(CONFIG, tables=(4,), draws=2, loss_choices=((1.0,), (1.0, 0.1), (1.0, 0.3)))
    other = replace(METHOD, loss_weights=(1.0, 0.1))
    results = DrawResults(
        [
            *(record("a", i, value) for i, value in enumerate((0.6, 0.8))),
            *(record("a", i, value, other) for i, value in enumerate((0.61, 0.81))),
            record("a", 0, 0.5, replace(METHOD, loss_weights=(1.0,))),
        ]
    )
    folder = class_folder(tmp_path / "a")
    sets = read_sets([folder], replace(config, diameter_angstrom=DIAMETER, pixel_size=1.0), ())
    lines = markdown(results, TableContext(config, sets, {}, ("ice is thick",))).splitlines()
    assert "- ice is thick." in lines
    assert lines[-3:] == [
        "| 1 | 0.500 (n 1) | -0.1000 |",
        "| 1,0.1 | **0.710 ± 0.141 [-0.561, 1.981]** | +0.0100 [+0.0100, +0.0100] |",
        "| 1,0.3 | 0.700 ± 0.141 [-0.571, 1.971] | - |",
    ]


# the CSV


def test_records_come_back_as_they_were(tmp_path):
    there = [
        record("b, c", 1, 1 / 3, particle_auc=0.1 + 0.2),
        record("a", 0, 0.25, Method("none", "frozen"), learnt=(2, 1)),
    ]
    write_records(tmp_path / "r.csv", there)
    assert read_records(tmp_path / "r.csv") == sorted(there, key=lambda r: r.data_set)
    assert read_records(tmp_path / "none.csv") == []


def test_a_damaged_line_is_named(tmp_path):
    write_records(tmp_path / "r.csv", [record("a", 0, 0.5)])
    text = (tmp_path / "r.csv").read_text().replace("3 1/0 4", "3 1/0 x")
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(FormatError, match=r"r.csv, line 2: cannot be read"):
        read_records(tmp_path / "r.csv")


# data sets


def test_each_species_of_a_star_file_is_a_data_set(tmp_path):
    labels = micrographs(tmp_path)
    apo, bact = read_sets([labels], replace(CONFIG, per_class=0), ())
    assert (apo.name, bact.name) == ("apo", "bact")
    assert apo.class_names == ("particle", "background", "carbon")
    assert np.bincount(apo.labels).tolist() == [8, 8, 8]
    assert [path.name for path in apo.source.shots.micrographs] == ["m0.mrc", "m1.mrc"]
    assert [path.name for path in bact.source.shots.micrographs] == ["m2.mrc", "m3.mrc"]
    assert apo.source.diameters_px == (DIAMETER, DIAMETER)  # 64 Å at 2 Å/px
    assert apo.split == "micrograph"
    assert apo.digest != bact.digest


def test_particles_of_another_species_are_left_out(tmp_path):
    write_mrc(tmp_path / "m.mrc", np.random.default_rng(0).normal(0, 1, (99, 99)).astype(np.float32), 2.0)
    points = [(20 + i, 30 + i) for i in range(12)]
    kinds = [("particle", "apo"), ("particle", "bact"), ("carbon", "film")]
    rows = [("m.mrc", *point, *kinds[i % 3]) for i, point in enumerate(points)]
    apo, _ = read_sets([write_star(tmp_path / "l.star", rows)], CONFIG, ())
    assert apo.class_names == ("particle", "carbon")
    assert apo.source.shots.coordinates[apo.labels == 0].tolist() == [[20, 30], [23, 33], [26, 36], [29, 39]]
    assert apo.split == "box"  # one micrograph


def test_source_classes_are_left_out_where_asked(tmp_path):
    write_mrc(tmp_path / "m.mrc", np.random.default_rng(0).normal(0, 1, (99, 99)).astype(np.float32), 2.0)
    kinds = [("particle", "apo"), ("contaminant", "crack"), ("contaminant", "fragment")]
    rows = [("m.mrc", 20 + i, 30 + i, *kinds[i % 3]) for i in range(18)]
    labels = write_star(tmp_path / "l.star", rows)
    (plain,) = read_sets([labels], CONFIG, ())
    (one,) = read_sets([labels], replace(CONFIG, ignore=("fragment",)), ())
    assert np.bincount(plain.labels).tolist() == [6, 12]
    assert one.source.shots.coordinates[one.labels == 1].tolist() == [[21 + 3 * i, 31 + 3 * i] for i in range(6)]
    assert plain.digest != one.digest
    with pytest.raises(PickeroptError, match=r"--ignore fog: no such name in .*l.star; there are"):
        read_sets([labels], replace(CONFIG, ignore=("fog",)), ())
    folder = build(tmp_path / "d", {"apo": ("particle", "apo", 6), "crack": ("carbon", "apo", 5),
                                    "fragment": ("carbon", "apo", 7)})  # fmt: skip
    (two,) = read_sets([folder], replace(CONFIG, ignore=("fragment",)), ())
    assert np.bincount(two.labels).tolist() == [6, 5]


def test_a_simulated_folder_is_its_truth_and_a_plain_star_has_its_own_name(tmp_path):
    labels = micrographs(tmp_path, count=2)
    text = labels.read_text()
    labels.rename(tmp_path / "truth.star")
    assert [one.name for one in read_sets([tmp_path], CONFIG, ())] == ["apo", "bact"]
    (tmp_path / "mine.star").write_text(text.replace(" apo ", " particle ").replace(" bact ", " particle "))
    assert [one.name for one in read_sets([tmp_path / "mine.star"], CONFIG, ())] == ["mine"]


def test_classes_are_cut_down_over_all_micrographs_and_rare_ones_left_out(tmp_path):
    labels = micrographs(tmp_path, count=2)
    lines = [line for line in labels.read_text().splitlines() if "carbon" not in line or "m0" in line]
    keep = [line for line in lines if "carbon" not in line] + [line for line in lines if "carbon" in line][:3]
    labels.write_text("\n".join(keep).replace(" bact ", " apo ") + "\n")
    (one,) = read_sets([labels], replace(CONFIG, per_class=4), ())
    assert np.bincount(one.labels).tolist() == [4, 4]
    assert np.bincount(one.groups[one.labels == 0]).tolist() == [2, 2]
    assert one.notes == ("apo: carbon is left out, with 3 boxes",)
    (other,) = read_sets([labels], replace(CONFIG, per_class=4, seed=1), ())
    assert other.digest != one.digest


def build(folder, classes, micrographs_of=None):
    """Class folders as `dataset build` writes them. classes: NAME to (class, entry, count)"""
    folder.mkdir(parents=True)
    about = {}
    for name, (kind, entry, count) in classes.items():
        write_mrc(folder / f"{name}.mrcs", boxes("background", count), 1.0)
        about[name] = {"count": count, "class": kind, "entry": entry}
        if micrographs_of is not None:
            about[name]["micrographs"] = micrographs_of(name, count)
    described = {"format": "pickeropt class folders 1", "classes": about, "box_diameters": 1.5}
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


def test_real_entries_keep_their_own_junk(tmp_path):
    folder = build(
        tmp_path / "d",
        {
            "EMPIAR-1": ("particle", "EMPIAR-1", 6),
            "contaminant_EMPIAR-1": ("contaminant", "EMPIAR-1", 5),
            "carbon_EMPIAR-1": ("carbon", "EMPIAR-1", 7),
            "EMPIAR-2": ("particle", "EMPIAR-2", 6),
            "contaminant_EMPIAR-2": ("contaminant", "EMPIAR-2", 4),
        },
    )
    one, two = read_sets([folder], CONFIG, ())
    assert (one.name, two.name) == ("EMPIAR-1", "EMPIAR-2")
    assert one.class_names == ("particle", "contaminant", "carbon")
    assert np.bincount(one.labels).tolist() == [6, 5, 7]
    assert two.class_names == ("particle", "contaminant")  # the paper has such sets of two classes
    assert one.split == "box"
    assert one.notes == two.notes == ()
    loose = one.source
    assert loose.diameter_angstrom / loose.pixel_size == 32  # boxes of 48 px are 1.5 diameters wide


def test_simulated_species_share_their_junk(tmp_path):
    classes = {
        "apo": ("particle", "apo", 60),
        "bact": ("particle", "bact", 60),
        "crack": ("contaminant", "crack", 60),
        "fibre": ("contaminant", "fibre", 60),
        "film": ("carbon", "film", 20),
    }
    here = {"apo": ["m0", "m1"], "bact": ["m2", "m3"]}

    def where(name, count):
        names = here.get(name, ["m0", "m1", "m2", "m3"])
        return [names[i % len(names)] for i in range(count)]

    folder = build(tmp_path / "d", classes, where)
    apo, _ = read_sets([folder], replace(CONFIG, per_class=0), ())
    assert apo.class_names == ("particle", "contaminant", "carbon")
    assert np.bincount(apo.labels).tolist() == [60, 60, 20]
    near = {apo.source.shots.sources[i].split("@")[0] for i in np.flatnonzero(apo.labels == 1)}
    assert {int(source) % 4 for source in near} == {1, 2}  # from 1: the boxes from m0 and m1
    assert len(set(apo.groups[apo.labels == 2])) == 4  # 10 are too few, so those from elsewhere too
    assert apo.split == "micrograph"
    assert apo.notes[0].startswith("apo: carbon from micrographs of other entries too")
    cut, _ = read_sets([folder], replace(CONFIG, per_class=20), ())
    kinds = [cut.source.shots.sources[i].split("@")[1] for i in np.flatnonzero(cut.labels == 1)]
    assert sorted(map(kinds.count, set(kinds))) == [10, 10]  # as many cracks as fibres


def test_plain_class_folders_are_one_data_set(tmp_path):
    folder = class_folder(tmp_path / "mine", 6, kinds=("particle", "carbon", "background"))
    with pytest.raises(GeometryError, match=r"mine: boxes without dataset.json; give --diameter"):
        read_sets([folder], CONFIG, ())
    with pytest.raises(GeometryError, match="--pixel-size"):
        read_sets([folder], replace(CONFIG, diameter_angstrom=64.0), ())
    (one,) = read_sets([folder], replace(CONFIG, diameter_angstrom=64.0, pixel_size=2.0, per_class=4), ())
    assert (one.name, one.class_names) == ("mine", ("particle", "background", "carbon"))
    assert np.bincount(one.labels).tolist() == [4, 4, 4]
    bright = np.array([box[20:28, 20:28].mean() for box in one.source.shots.boxes])
    assert [round(float(bright[one.labels == i].mean())) for i in range(3)] == [-3, 0, 3]


def test_what_cannot_be_benchmarked_is_said(tmp_path):
    with pytest.raises(FormatError, match="gone: no such file or folder"):
        read_sets([tmp_path / "gone"], CONFIG, ())
    with pytest.raises(FormatError, match="no data set given"):
        read_sets([], CONFIG, ())
    labels = micrographs(tmp_path, count=2)
    with pytest.raises(FormatError, match="two data sets are called apo"):
        read_sets([labels, labels], CONFIG, ())
    text = labels.read_text()
    labels.write_text(text.replace(" particle ", " good "))
    with pytest.raises(ShotsError, match=r"labels.star: no class 'particle' \(classes found: background, "):
        read_sets([labels], CONFIG, ())
    labels.write_text("\n".join(line for line in text.splitlines() if "m1" not in line or "bact" in line))
    with pytest.raises(ShotsError, match="bact: particle and one more class need 4 boxes each, there are"):
        read_sets([labels], CONFIG, ())
    junk = {"crack": ("contaminant", "crack", 6), "film": ("carbon", "film", 6)}
    with pytest.raises(ShotsError, match="no class of it is of particles"):
        read_sets([build(tmp_path / "junk", junk)], CONFIG, ())
