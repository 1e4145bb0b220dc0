"""Tables and progress, read back from what is printed."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pickeropt.commands import console
from pickeropt.finetune.finetune_config import FinetuneReport
from pickeropt.prune.prune_config import PruneSummary

REPORT = FinetuneReport(
    checkpoint=Path("model.safetensors"),
    class_names=("particle", "carbon"),
    train_shots={"particle": 24, "carbon": 16},
    validation_shots={"particle": 6, "carbon": 4},
    validation_by="micrograph",
    validation_splits=1,
    accuracy=0.9,
    macro_f1=0.875,
    per_class_f1={"particle": 0.95, "carbon": 0.8},
    passes="4 dense passes a micrograph",
    seconds=65.0,
    warnings=("few carbon",),
)

SUMMARY = PruneSummary(
    picks=1000,
    kept=600,
    rejected=400,
    by_class={"particle": 640, "ice": 60, "carbon": 300},
    rejected_by_class={"particle": 40, "ice": 60, "carbon": 300, "background": 0},
    micrographs=12,
    worst=(("mics/[bold]a.mrc", 100, 90), ("b.mrc", 50, 0)),
    threshold=0.5,
    diameter_angstrom=191.0,
    pixel_sizes=(1.77,),
    seconds=3700.0,
    model_digest="0" * 64,
    out=Path("pruned"),
    warnings=("3 picks are outside",),
    resumed=2,
)


def rows(text):
    return [line.split() for line in text.splitlines() if line.split()]


def test_finetune_says_how_good_and_what_next(capsys):
    console.show_finetune(REPORT, "pickeropt prune 'my picks.star'")
    shown = capsys.readouterr().out
    assert ["particle", "24", "6", "0.95"] in rows(shown)
    assert ["carbon", "16", "4", "0.80"] in rows(shown)
    assert "accuracy 0.90, macro-F1 0.88 on 10 shots held out by micrograph" in shown
    assert "4 dense passes a micrograph; trained in 1 min 05 s" in shown
    assert "warning: few carbon" in shown
    assert "model: model.safetensors" in shown
    assert "next:  pickeropt prune 'my picks.star'" in shown


def test_finetune_does_not_invent_an_accuracy(capsys):
    unknown = {"accuracy": None, "macro_f1": None, "per_class_f1": {}, "validation_shots": {}}
    report = replace(REPORT, validation_by="none", validation_splits=0, **unknown)
    console.show_finetune(report, "")
    shown = capsys.readouterr().out
    assert "accuracy unknown" in shown
    assert ["carbon", "16", "0", "-"] in rows(shown)


def test_validation_line_says_what_the_figures_rest_on():
    by_shot = replace(REPORT, validation_by="shot", validation_splits=5)
    assert console.validation_line(REPORT).endswith("on 10 shots held out by micrograph")
    assert "on 10 shots on micrographs that also gave training shots" in console.validation_line(by_shot)
    assert console.validation_line(by_shot).endswith("; mean of 5 splits")


def test_prune_closes_with_a_table(capsys):
    console.show_prune(SUMMARY)
    shown = capsys.readouterr().out
    lines = rows(shown)
    assert ["kept", "600", "60.0", "%"] in lines
    assert ["rejected", "400", "40.0", "%"] in lines
    classes = [" ".join(line[:-2]) for line in lines if line[0] == "as"]
    assert classes == ["as carbon 300", "as ice 60", "as particle, but not sure 40"]
    assert ["mics/[bold]a.mrc", "100", "90", "90.0", "%"] in lines  # a file name is not markup
    assert not any(line[0] == "b.mrc" for line in lines)  # lost nothing
    assert "1,000 picks of 12 micrographs in 1 h 01 min; an earlier run had done 2 micrographs\n" in shown
    assert "warning: 3 picks are outside" in shown
    assert "written: pruned/ (kept, rejected, scores.csv, summary.json)" in shown


def test_prune_of_no_picks(capsys):
    nothing = {"by_class": {}, "rejected_by_class": {}, "worst": (), "warnings": ()}
    console.show_prune(replace(SUMMARY, picks=0, kept=0, rejected=0, micrographs=0, resumed=0, **nothing))
    shown = capsys.readouterr().out
    assert ["kept", "0", "-"] in rows(shown)
    assert "lost most" not in shown
    assert "0 picks of 0 micrographs in 1 h 01 min\n" in shown


def test_demo_shows_all_three(monkeypatch, capsys):
    monkeypatch.setattr(console, "show_evaluation", lambda evaluation, written: print(evaluation, *written))
    report = SimpleNamespace(finetune=REPORT, prune=SUMMARY, evaluation="better", written=["a.png"], seconds=95.0)
    console.show_demo(report)
    shown = capsys.readouterr().out
    for part in ("accuracy 0.90", "threshold 0.5", "better a.png", "all in 1 min 35 s"):
        assert part in shown


def test_long_names_are_never_cut(capsys):
    name = "/very/long/folder" * 20 + "/m.mrc"
    console.show_prune(replace(SUMMARY, worst=((name, 10, 5),), warnings=(f"{name}: odd",), out=Path(name)))
    shown = capsys.readouterr().out
    assert f"warning: {name}: odd\n" in shown
    assert f"written: {name}/ (" in shown
    assert name in "".join(line.split()[0] for line in shown.splitlines() if line.split())


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_log_gets_a_line_every_ten_seconds(capsys):
    clock = Clock()
    with console.progress("picks", clock) as on_progress:
        for second in range(26):
            clock.now = float(second)
            on_progress("pruning", 500 + 100 * second, 10_500)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "pruning: 1,500 of 10,500 picks (14 %), 100 picks/s, 1 min 30 s left",
        "pruning: 2,500 of 10,500 picks (23 %), 100 picks/s, 1 min 20 s left",
    ]


def test_pace_does_not_count_the_picks_of_an_earlier_run():
    clock = Clock()
    pace = console.Pace("picks", clock)
    assert pace.line("pruning", 9000, 10_000) == "9,000 of 10,000 picks (90 %)"
    clock.now = 2.0
    assert pace.line("pruning", 9100, 10_000) == "9,100 of 10,000 picks (91 %), 50 picks/s, 18 s left"


def test_pace_begins_anew_with_each_stage():
    clock = Clock()
    pace = console.Pace(clock=clock)
    assert pace.line("looking", 0, 4) == "0 of 4 (0 %)"
    clock.now = 6.0
    assert pace.line("looking", 2, 4) == "2 of 4 (50 %), 6 s left"
    clock.now = 10.0
    assert pace.line("fitting", 0, 3) == "0 of 3 (0 %)"
    clock.now = 11.0
    assert pace.line("fitting", 1, 3) == "1 of 3 (33 %), 2 s left"


def test_pace_of_nothing():
    assert console.Pace("picks").line("pruning", 0, 0) == "0 of 0 picks (0 %)"


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "120"}.items():
        monkeypatch.setenv(name, value)
    clock = Clock()
    with console.progress("picks", clock) as on_progress:
        on_progress("pruning", 0, 10)
        clock.now = 1.0
        on_progress("pruning", 5, 10)
    out, err = capsys.readouterr()
    assert out == ""
    assert "pruning" in err
    assert "5 of 10 picks (50 %), 5 picks/s, 1 s left" in err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (3599.7, "1 h 00 min")],
)
def test_duration(seconds, text):
    assert console.duration(seconds) == text
