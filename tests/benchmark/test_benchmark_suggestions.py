"""The pieces of the suggestions' benchmark, on a made-up set of six micrographs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from model_world import source_head

from pickeropt.finetune.finetune_config import FinetuneConfig
from pickeropt.models.backbone import Backbone
from pickeropt.models.classifier import PickClassifier

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import suggestions

    return suggestions


def test_first_and_lasting(bench):
    curve = {10: 0.3, 20: 0.7, 40: 0.6, 60: 0.8}
    assert bench.first_at(curve, 0.65) == 20
    assert bench.kept_from(curve, 0.65) == 60
    assert bench.kept_from(curve, 0.2) == 10
    assert bench.first_at(curve, 0.9) == bench.kept_from(curve, 0.9) == float("inf")


def made_up(bench, width):
    """Six micrographs, carbon on two of them, every class in a place of its own."""
    from real_data import Labelled

    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, width))
    labelled, seen = [], {}
    for number in range(6):
        labels = np.repeat([0, 1, 2, 3], [12, 12, 8, 30 if number < 2 else 0])
        hand = np.repeat([0, 1], 5)
        kinds = np.concatenate([labels, hand])
        features = centres[kinds] + 0.3 * rng.normal(size=(len(kinds), width))
        seen[f"m{number}"] = torch.tensor(features, dtype=torch.float32)
        points = rng.uniform(0, 4000, (len(labels), 2))
        labelled.append(Labelled(f"m{number}", points, labels, np.zeros((10, 2)), hand == 0, np.zeros((0, 2))))
    return labelled, seen


def small(bench):
    """The benchmark's method with a network of 192 features, which is fitted in a blink."""
    torch.manual_seed(0)

    class Small(bench.Default):
        def __init__(self):
            head = source_head()
            spec = replace(
                head.spec, class_names=bench.CLASSES, parents=head.parents, prior_weight=0.0, loss_weights=(1.0, 0.3)
            )
            self.classifier = PickClassifier(spec, Backbone("resnet18", ("layer1",))).eval()
            self.config, self.regression = FinetuneConfig(191.0), False

    return Small()


def test_a_draw_is_followed_measured_logged_and_drawn(bench, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "STEPS", {"suggestions": (8, 40), bench.BY_TWENTY: (20,), "random": (8, 40)})
    monkeypatch.setattr(bench, "BALANCED", (2, 5))
    method = small(bench)
    labelled, seen = made_up(bench, method.classifier.spec.layout.width)
    world = bench.make_world(labelled, seen, 0)
    assert len(world.labels) == 4 * 32 + 30
    assert {m.name for m in world.held}.isdisjoint({labelled[i].name for i, _ in world.points})
    figures = bench.one_draw(method, labelled, seen, 0)
    assert [(f.strategy, f.labels) for f in figures] == [
        ("2 a class", 8),
        ("5 a class", 20),
        ("suggestions", 8),
        ("suggestions", 40),
        (bench.BY_TWENTY, 20),
        ("random", 8),
        ("random", 40),
    ]
    assert all(f.particle + f.background + f.contaminant + f.carbon == f.labels for f in figures)
    assert figures[3].auc > 0.95
    assert figures[3].macro_f1 > figures[2].macro_f1 / 2 > 0
    assert 0 <= figures[6].low <= figures[6].estimate <= figures[6].high <= 1
    assert figures[3].macro_f1 == figures[3].target
    log = tmp_path / "log.csv"
    bench.write_log(log, figures)
    again = bench.read_log(log)
    assert [f.macro_f1 for f in again] == [f.macro_f1 for f in figures]
    bench.print_tables(again)
    printed = capsys.readouterr().out
    assert "5 random shots a class" in printed
    assert "| suggestions | 40 |" in printed
    bench.draw_figure(again, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
