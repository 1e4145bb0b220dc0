"""The benchmark as a whole: what comes out, what is not computed again, what is refused."""

import csv
import inspect
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmark_world import DIAMETER, class_folder, micrographs
from safetensors.torch import save_file

from pickeropt.benchmark import fits
from pickeropt.benchmark.benchmark_config import BenchmarkConfig
from pickeropt.benchmark.benchmark_sets import read_sets
from pickeropt.benchmark.benchmarking import benchmark
from pickeropt.benchmark.fits import DrawFitter, Method, Start, draw, find_starts, leave_out_notes, logistic_regression
from pickeropt.benchmark.results import read_records
from pickeropt.commands.benchmark import run_benchmark
from pickeropt.errors import CheckpointError, OutputError, PickeroptError, ShotsError
from pickeropt.finetune import finetuning as finetune_run
from pickeropt.finetune import recipes
from pickeropt.finetune.finetune_config import FinetuneConfig
from pickeropt.finetune.finetuning import finetune
from pickeropt.finetune.shot_features import LooseShots
from pickeropt.models.backbone import Backbone
from pickeropt.models.classifier import load_checkpoint
from pickeropt.models.fitting import SgdSchedule

QUICK = BenchmarkConfig(
    tables=(2,),
    shots=(2, 4),
    draws=3,
    per_class=12,
    diameter_angstrom=2.0 * DIAMETER,
    pixel_size=2.0,
    device="cpu",
)
SHIPPED = Start("shipped", None, "", "shipped")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A finished benchmark of two classes that differ at a glance."""
    folder = class_folder(tmp_path_factory.mktemp("data") / "discs")
    out = tmp_path_factory.mktemp("out")
    config = replace(QUICK, tables=(2, 3), rows=("frozen", "default"))
    return folder, config, out, benchmark([folder], config, out)


def test_classes_that_differ_at_a_glance_are_told_apart(sound):
    _, _, out, report = sound
    records = read_records(out / "benchmark.csv")
    assert len(records) == report.fits == 2 * 2 * 3  # recipes, shots, draws: default is in two tables
    assert report.data_sets == ("discs",)
    for method in {record.method for record in records}:
        assert np.mean([r.macro_f1 for r in records if r.method == method and r.shots == 4]) > 0.97
    line = next(line for line in report.text.splitlines() if line.startswith("| discs | 0.") or "1.000 ±" in line)
    default = [r.macro_f1 for r in records if r.method.recipe == "default" and r.shots == 2]
    assert line.startswith(f"| discs | {np.mean(default):.3f} ± {np.std(default, ddof=1):.3f} [")
    assert report.warnings[0] == ("discs: particle rests on 4 queries a draw, so its share of macro-F1 is uncertain")
    assert "frozen features + logistic regression, ImageNet + cryo-EM" in report.text
    assert {path.name for path in report.written} == {
        "benchmark.md", "benchmark.csv", "table2.png", "table3.png"
    }  # fmt: skip
    assert all(path.stat().st_size for path in report.written)
    assert (out / "table2.png").read_bytes()[:4] == b"\x89PNG"


def test_labels_that_mean_nothing_are_not(tmp_path):
    folder = class_folder(tmp_path / "data", shuffled=True)
    benchmark([folder], replace(QUICK, draws=6, shots=(4,)), tmp_path / "out")
    found = [record.macro_f1 for record in read_records(tmp_path / "out/benchmark.csv")]
    assert 0.2 < np.mean(found) < 0.7


def test_the_csv_has_all_that_the_figures_are_made_of(sound):
    _, _, out, _ = sound
    with (out / "benchmark.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        counts = np.array([list(map(int, line.split())) for line in row["confusion"].split("/")])
        f1 = [2 * counts[i, i] / (counts[i].sum() + counts[:, i].sum()) for i in range(2)]
        assert float(row["macro_f1"]) == pytest.approx(np.mean(f1))
        assert float(row["accuracy"]) == pytest.approx(np.trace(counts) / counts.sum())
        assert row["classes"] == "particle background"
        assert row["learnt"] == f"{row['shots']} {row['shots']}"
        assert counts.sum() == 2 * 4  # a third of 12 boxes a class
        assert (row["seed"], row["split"]) == ("0", "box")


class Count:
    """Stands for `DrawFitter.probabilities_of`: counts, and stops like Ctrl-C."""

    def __init__(self, monkeypatch, stop=10**6):
        self.calls, self.stop, real = 0, stop, DrawFitter.probabilities_of

        def probabilities_of(fitter, method, chosen):
            if self.calls == self.stop:
                raise KeyboardInterrupt
            self.calls += 1
            return real(fitter, method, chosen)

        monkeypatch.setattr(fits.DrawFitter, "probabilities_of", probabilities_of)


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(sound, tmp_path, monkeypatch):
    folder, config, out, _ = sound
    with monkeypatch.context() as patch:
        Count(patch, stop=5)
        with pytest.raises(KeyboardInterrupt):
            benchmark([folder], config, tmp_path / "out")
    assert len(read_records(tmp_path / "out/benchmark.csv")) == 5
    count = Count(monkeypatch)
    report = benchmark([folder], config, tmp_path / "out")
    assert (count.calls, report.fits, report.earlier) == (7, 12, 5)
    for name in ("benchmark.csv", "benchmark.md"):
        assert (tmp_path / "out" / name).read_bytes() == (out / name).read_bytes()


def test_what_is_there_is_not_computed_again_and_more_can_be_added(sound, tmp_path, monkeypatch):
    folder, config, out, _ = sound
    earlier = (out / "benchmark.csv").read_bytes()
    (tmp_path / "benchmark.csv").write_bytes(earlier)
    count = Count(monkeypatch)
    benchmark([folder], config, tmp_path)
    assert count.calls == 0
    assert (tmp_path / "benchmark.csv").read_bytes() == earlier
    report = benchmark([folder], replace(config, tables=(2,), rows=(), draws=4), tmp_path)
    assert count.calls == 2
    assert len(read_records(tmp_path / "benchmark.csv")) == 14
    assert "Table 3" not in report.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "draws of --seed 0, not 1"),
        ({"per_class": 10}, "draws of other boxes of discs"),
        ({"init": "none"}, None),
    ],
)
def test_draws_of_other_settings_are_not_mixed(sound, tmp_path, change, said):
    folder, config, out, _ = sound
    (tmp_path / "benchmark.csv").write_bytes((out / "benchmark.csv").read_bytes())
    config = replace(config, tables=(2,), rows=(), draws=1, shots=(2,), **change)
    if said is None:  # another start is another row
        assert benchmark([folder], config, tmp_path).earlier == 0
        return
    with pytest.raises(OutputError, match=f"benchmark.csv: has {said}.*another --out"):
        benchmark([folder], config, tmp_path)


def test_other_weights_under_the_same_name_are_not_mixed(sound, tmp_path):
    folder, config, out, _ = sound
    torch.manual_seed(0)
    save_file(Backbone("resnet18", ("layer2", "layer3")).body.state_dict(), tmp_path / "b.safetensors")
    (tmp_path / "benchmark.csv").write_bytes((out / "benchmark.csv").read_bytes())
    config = replace(config, tables=(2,), rows=(), init=str(tmp_path / "b.safetensors"))
    with pytest.raises(OutputError, match=r"draws of discs with other weights than b\.safetensors"):
        benchmark([folder], config, tmp_path)
    config = replace(config, init="shipped", backbones=str(tmp_path / "{entry}.safetensors"))
    with pytest.raises(CheckpointError, match=r"no file .*discs.safetensors.*--exclude discs --out"):
        benchmark([folder], config, tmp_path)
    (tmp_path / "b.safetensors").rename(tmp_path / "discs.safetensors")
    (tmp_path / "benchmark.csv").unlink()
    report = benchmark([folder], replace(config, draws=1, shots=(2,)), tmp_path)
    assert "Leave-one-out" in report.text
    assert "| discs | particle 12, background 12 | box | discs.safetensors |" in report.text
    assert [w for w in report.warnings if "does not say that it was pretrained without discs" in w]


def test_a_backbone_says_what_it_was_pretrained_without(tmp_path):
    state = Backbone("resnet18", ("layer2", "layer3")).body.state_dict()
    said = {"pickeropt": json.dumps({"provenance": {"exclude": ["apo"]}})}
    save_file(state, tmp_path / "apo.safetensors", said)
    save_file(state, tmp_path / "bact.safetensors", said)
    config = replace(QUICK, backbones=str(tmp_path / "{entry}.safetensors"))
    starts = find_starts(["apo", "bact"], [Method("pretrained", "default", (1.0,))], config)
    (note,) = leave_out_notes(starts, config)
    assert note.endswith("bact.safetensors does not say that it was pretrained without bact")


def test_what_lacks_is_said(tmp_path):
    labels = micrographs(tmp_path, count=4)
    lines = labels.read_text().splitlines()
    labels.write_text("\n".join(line for line in lines if "carbon" not in line or "m1" not in line))
    config = replace(QUICK, diameter_angstrom=None, pixel_size=None, draws=1, shots=(6,), per_class=0)
    report = benchmark([labels], config, tmp_path / "out")
    apo = [note for note in report.warnings if note.startswith("apo: carbon")]
    assert apo == [
        "apo: carbon had only 4 shots in a draw where 6 were requested",
        "apo: carbon is not asked about in 1 of 1 fits",
    ]
    assert f"- {apo[1]}." in report.text.splitlines()


def test_shots_and_queries_of_micrographs(tmp_path):
    labels = micrographs(tmp_path, count=6)
    config = replace(QUICK, diameter_angstrom=None, pixel_size=None, draws=2)
    report = benchmark([labels], config, tmp_path / "out")
    assert report.data_sets == ("apo", "bact")
    assert "| apo | particle 12, background 12, carbon 12 | micrograph | shipped |" in report.text
    found = read_records(tmp_path / "out/benchmark.csv")
    assert all(sum(map(sum, record.confusion)) == 12 for record in found)  # all points of one micrograph
    assert np.mean([record.macro_f1 for record in found if record.shots == 4]) > 0.9
    line = next(line for line in report.text.splitlines() if line.startswith("| mean of 2 data sets"))
    four = [[r.macro_f1 for r in found if r.shots == 4 and r.data_set == n] for n in ("apo", "bact")]
    assert f"| {np.mean(four):.3f} ± {np.std(np.mean(four, 0), ddof=1):.3f} [" in line


def test_the_papers_split_takes_shots_and_queries_from_the_same_micrographs(tmp_path):
    labels = micrographs(tmp_path, count=6)
    config = replace(QUICK, diameter_angstrom=None, pixel_size=None, draws=2, split="box")
    report = benchmark([labels], config, tmp_path / "out")
    assert "| apo | particle 12, background 12, carbon 12 | box | shipped |" in report.text
    (data, _) = read_sets([labels], config, ())
    where = data.source.shots.micrograph_index
    chosen = draw(data.labels, data.groups, 4, 0)
    assert set(where[chosen.shots]) & set(where[chosen.queries])
    with pytest.raises(OutputError, match="has draws of apo with --split box; give the settings"):
        benchmark([labels], replace(config, split="micrograph"), tmp_path / "out")


@pytest.mark.parametrize("recipe", ["default", "paper"])
def test_a_fit_is_what_finetune_gives(tmp_path, monkeypatch, recipe):
    """The same shots and seed through `finetune` and its checkpoint, asked about the same queries."""
    monkeypatch.setattr(recipes, "SgdSchedule", lambda: SgdSchedule(epochs=1))
    for module in (fits, recipes, finetune_run):
        monkeypatch.setattr(module, "inference_dtype", lambda device: torch.float32)
    (data,) = read_sets([class_folder(tmp_path / "d", 8)], QUICK, ())
    chosen = draw(data.labels, data.groups, 3, 7)
    fitter = DrawFitter(data, {"pretrained": SHIPPED}, torch.device("cpu"), lambda what, done, of: None)
    ours = fitter.probabilities_of(Method("pretrained", recipe, (1.0, 0.3)), chosen)

    def part(rows):
        shots = replace(
            data.source.shots,
            labels=data.labels[rows],
            boxes=tuple(data.source.shots.boxes[i] for i in rows),
            sources=tuple(data.source.shots.sources[i] for i in rows),
        )
        return LooseShots(shots, 2.0, 2.0 * DIAMETER)

    config = FinetuneConfig(2.0 * DIAMETER, 2.0, None, recipe=recipe, seed=7, validation_fraction=0.0, device="cpu")
    finetune(part(chosen.shots).shots, config, tmp_path / "m.safetensors")
    classifier = load_checkpoint(tmp_path / "m.safetensors").classifier
    features = part(chosen.queries).features(classifier.backbone, classifier.spec, lambda done, of: None)
    with torch.no_grad():
        theirs = torch.softmax(classifier.logits(features), 1).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert np.ptp(theirs[:, 0]) > 0.01


def test_features_are_computed_once_a_data_set(tmp_path, monkeypatch):
    (data,) = read_sets([class_folder(tmp_path / "d", 8)], QUICK, ())
    fitter = DrawFitter(data, {"pretrained": SHIPPED}, torch.device("cpu"), lambda what, done, of: None)
    looks, real = [], LooseShots.features
    monkeypatch.setattr(LooseShots, "features", lambda *args: looks.append(1) or real(*args))
    for seed in range(3):
        chosen = draw(data.labels, data.groups, 3, seed)
        first = fitter.probabilities_of(Method("pretrained", "frozen"), chosen)
        np.testing.assert_array_equal(first, fitter.probabilities_of(Method("pretrained", "frozen"), chosen))
        fitter.probabilities_of(Method("pretrained", "default", (1.0,)), chosen)
    assert looks == [1]


def test_the_papers_boxes_are_cut_once_for_each_start(tmp_path, monkeypatch):
    """Weights of a pretraining want particles of another size in px than others do."""
    monkeypatch.setattr(fits, "fit_paper", lambda *args: None)
    (data,) = read_sets([class_folder(tmp_path / "d", 8)], QUICK, ())
    starts = {"pretrained": SHIPPED, "none": Start("none", None, "", "scratch")}
    fitter = DrawFitter(data, starts, torch.device("cpu"), lambda what, done, of: None)
    looks, real = [], LooseShots.boxes
    monkeypatch.setattr(
        LooseShots,
        "boxes",
        lambda self, spec, say: looks.append(spec.view_diameters) or real(self, spec, say),
    )
    chosen = draw(data.labels, data.groups, 3, 0)
    for start in (*starts, *starts):
        fitter.probabilities_of(Method(start, "paper", (1.0,)), chosen)
    assert looks == [recipes.VIEW_DIAMETERS, (recipes.PAPER_VIEW_DIAMETER,)]


def test_logistic_regression_balances_the_classes():
    """At the middle between two symmetric classes the answer is half and half however many shots each has."""
    shots = np.array([[-1.0]] * 12 + [[1.0]] * 3, dtype=np.float32)
    labels = np.repeat([0, 2], [12, 3])
    found = logistic_regression(shots, labels, np.array([[0.0], [-9.0], [9.0]], dtype=np.float32), 3)
    assert found[0] == pytest.approx([0.5, 0.0, 0.5], abs=0.02)
    assert found[:, 1].max() == 0
    assert found.argmax(1)[1:].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tables": (2, 5)}, "--tables 2,5: give some of 2,3,4"),
        ({"shots": (10, 1)}, "--shots 10,1: .* 2 or more"),
        ({"draws": 0}, "--draws 0"),
        ({"recipe": "best"}, "--recipe best: there are default and paper"),
        ({"per_class": 6}, "--per-class 6 with 4 shots leaves too few"),
        ({"loss_weights": (1.0, -0.1)}, "loss weights 1,-0.1"),
        ({"backbones": "runs/one.safetensors"}, r"no \{entry\} in it"),
        ({"pixel_size": 0.0}, "--pixel-size is 0"),
        ({"seed": -1}, "--seed -1"),
        ({"split": "shot"}, "--split shot: there are micrograph and box"),
        ({"device": "abacus"}, "--device abacus"),
        ({"tables": (3,), "rows": ("best",)}, "--rows best: there are scratch,"),
        ({"tables": (3,), "rows": ("cryo",), "init": "imagenet"}, "--rows cryo: --init imagenet has no"),
        ({"rows": ("default",)}, "--rows is for table 3: add 3 to --tables"),
        ({"loss_choices": ((1.0, 9.0),)}, "--loss-choice is for table 4: add 4 to --tables"),
        ({"weights": Path("gone")}, "--weights gone: nothing that was asked for starts from ImageNet"),
        ({"init": "gone.safetensors"}, "gone.safetensors: no such weights file"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_any_compute(sound, tmp_path, change, said):
    with pytest.raises(PickeroptError, match=said):
        benchmark([sound[0]], replace(QUICK, **change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written_is_told_before_any_compute(sound, tmp_path, monkeypatch):
    count = Count(monkeypatch)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        benchmark([sound[0]], QUICK, tmp_path / "file")
    assert count.calls == 0


def test_the_command_line_has_the_defaults_of_the_config(monkeypatch, capsys):
    asked = {}

    def stand_in(data, config, out, folders, on_progress):
        asked.update(data=data, config=config, out=out, folders=folders)
        raise ShotsError("enough")

    monkeypatch.setattr("pickeropt.benchmark.benchmarking.benchmark", stand_in)
    given = {name: p.default for name, p in inspect.signature(run_benchmark).parameters.items() if name != "data"}
    with pytest.raises(ShotsError):
        run_benchmark(["x"], **given)
    assert asked["config"] == BenchmarkConfig()
    with pytest.raises(ShotsError):
        run_benchmark(["x"], **{**given, "loss_choice": ["1", "1,0.3"], "rows": "frozen,cryo", "tables": "3"})
    assert asked["config"].loss_choices == ((1.0,), (1.0, 0.3))
    assert asked["config"].rows == ("frozen", "cryo")
    assert asked["config"].tables == (3,)
