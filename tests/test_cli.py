"""The command line with stand-ins for the rooms behind it: what they are asked, what is said, exit codes."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from typer.testing import CliRunner

from pickeropt import __version__
from pickeropt.cli import app
from pickeropt.commands import console
from pickeropt.errors import CheckpointError, PickeroptError, ShotsError
from pickeropt.finetune.finetune_config import FinetuneConfig
from pickeropt.prune.prune_config import Filters, PruneConfig
from pickeropt.report.reporting import finish_with_report

THERE = ("a.star", "b.box", "picks.star", "labels.star", "my.safetensors", "other")
"""Empty files in the folder that the commands run in: prune looks whether what it is given is there."""

HEAVY = {"numpy", "torch", "timm", "scipy", "sklearn", "pandas", "matplotlib", "rich.table"}


WORK = {"prune": ("pickeropt.prune.pruning", "prune"), "finetune": ("pickeropt.finetune.finetuning", "learn")}
"""The function that does the work of a command, and its module."""


class Calls(dict):
    """What each stand-in was called with, by name."""

    def stand_in(self, name, answer):
        def call(*args, **more):
            self[name] = (args, more)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return call


@pytest.fixture
def calls():
    return Calls()


@pytest.fixture
def rooms(monkeypatch, calls, tmp_path):
    """Replaces a module by one with the given functions, each answering or raising what it is given."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in THERE:
        (tmp_path / name).touch()

    def replace(module, **answers):
        stand_in = ModuleType(module)
        for name, answer in answers.items():
            setattr(stand_in, name, calls.stand_in(name, answer))
        monkeypatch.setitem(sys.modules, module, stand_in)

    replace(
        "pickeropt.shots",
        read_labelled_star="star shots",
        read_class_files="file shots",
        read_class_boxes="box shots",
    )
    for name in ("show_finetune", "show_prune", "show_demo"):
        monkeypatch.setattr(console, name, calls.stand_in(name, None))
    replace("pickeropt.finetune.finetuning", learn=("checkpoint", "report"))
    replace("pickeropt.prune.scoring", load_scorer="scorer", make_scorer="scorer of shots")
    replace("pickeropt.prune.pruning", prune="summary")
    return replace


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


# help, version, usage


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", [[], ["finetune"], ["prune"], ["evaluate"], ["demo"]])
def test_help(command, flag):
    result = run(*command, flag)
    assert result.exit_code == 0
    assert " ".join(["Usage: pickeropt", *command]).replace("pickeropt", "") in result.stdout.replace("root", "")


def test_version():
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"pickeropt {__version__}\n")


FLAGS = {
    "finetune": "--shots --class --micrographs --diameter --pixel-size --out --shots-per-class --init "
    "--weights --backbone --recipe --loss-weights --seed --device --overwrite --invert "
    "--no-invert --trust-frame",
    "prune": "--micrographs --model --out --threshold --diameter --pixel-size --batch-size --device "
    "--write-score --prior --use-picker-score --shots --min-std --max-std --max-extreme --max-domain "
    "--min-distance --rethreshold --trust-frame --overwrite",
    "evaluate": "--truth --radius --out",
    "demo": "--out --seed",
    "report": "--overlays --ctf",
}


@pytest.mark.parametrize("command", FLAGS)
def test_the_flags_are_these_and_no_others(command):
    words = run(command, "--help").stdout.split("Options:")[1].split()
    found = {word.strip(",") for word in words if word.startswith("--")}
    assert found == {*FLAGS[command].split(), "--help"}


def test_help_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys\nfrom pickeropt.cli import app\n"
        "try:\n    app(['--help'])\nfinally:\n    print('modules', *sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split("modules", 1)[1].split())
    assert "pickeropt.cli" in loaded
    assert not loaded & HEAVY

    def seconds():
        before = os.times()
        command = [sys.executable, "-m", "pickeropt", "--help"]
        subprocess.run(command, capture_output=True, check=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(seconds() for _ in range(3)) < 0.5  # of processor time, whatever else the machine does


@pytest.mark.parametrize(
    "words",
    [
        ["prune"],
        ["no-such-command"],
        ["prune", "a.star", "--threshold", "1.5"],
        ["prune", "a.star", "--prior", "1"],
        ["prune", "a.star", "--prior", "half"],
        ["prune", "a.star", "--use-picker-score"],
        ["prune", "a.star", "--shots", "labels.star"],
        ["prune", "--rethreshold", "out"],
        ["prune", "a.star", "--rethreshold", "out", "--threshold", "0.7"],
        ["prune", "--rethreshold", "out", "--threshold", "0.7", "--prior", "auto"],
        ["prune", "a.star", "--batch-size", "0"],
        ["prune", "a.star", "--no-such-flag"],
        ["finetune", "--shots", "a.star"],
        ["finetune", "--diameter", "191"],
        ["finetune", "--diameter", "191", "--shots", "a.star", "--class", "particle=b.star"],
        ["finetune", "--diameter", "191", "--class", "good.star"],
        ["finetune", "--diameter", "191", "--class", "=good.star"],
        ["finetune", "--diameter", "191", "--class", "particle="],
        ["finetune", "--diameter", "191", "--shots", "a.star", "--loss-weights", "1;0.3"],
        ["finetune", "--diameter", "191", "--shots", "a.star", "--loss-weights", "1,nan"],
        ["evaluate", "scores.csv"],
    ],
)
def test_wrong_usage_is_2_and_computes_nothing(rooms, calls, words):
    result = run(*words)
    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert result.stdout == ""
    assert calls == {}


# finetune


def test_finetune_passes_the_defaults_of_the_config(rooms, calls):
    assert run("finetune", "--shots", "labels.star", "--diameter", 191).exit_code == 0
    assert calls["read_labelled_star"] == ((Path("labels.star"), ()), {})
    (shots, config, out), more = calls["learn"]
    assert (shots, out, more["overwrite"]) == ("star shots", Path("model.safetensors"), False)
    assert config == FinetuneConfig(diameter_angstrom=191.0)


def test_finetune_passes_every_flag(rooms, calls):
    words = (
        "--class particle=good.star --class carbon=a=b.box --micrographs m1 --micrographs m2 "
        "--diameter 120.5 --pixel-size 1.77 --out my.safetensors --shots-per-class 0 --init imagenet "
        "--weights w.safetensors --backbone resnet50 --recipe paper "
        "--loss-weights 1,0.3,0.1 --seed 7 --device cpu --overwrite"
    )
    assert run("finetune", *words.split()).exit_code == 0
    pairs = [("particle", Path("good.star")), ("carbon", Path("a=b.box"))]
    assert calls["read_class_files"] == ((pairs, (Path("m1"), Path("m2"))), {})
    (shots, config, out), more = calls["learn"]
    assert (shots, out, more["overwrite"]) == ("file shots", Path("my.safetensors"), True)
    assert config == FinetuneConfig(
        diameter_angstrom=120.5,
        pixel_size=1.77,
        shots_per_class=None,
        backbone="resnet50",
        init="imagenet",
        weights=Path("w.safetensors"),
        recipe="paper",
        loss_weights=(1.0, 0.3, 0.1),
        seed=7,
        device="cpu",
    )


def test_a_folder_of_shots_is_class_boxes(rooms, calls, tmp_path):
    assert run("finetune", "--shots", tmp_path, "--diameter", 191).exit_code == 0
    assert calls["read_class_boxes"] == ((tmp_path,), {})
    assert calls["learn"][0][0] == "box shots"


def test_finetune_says_what_next(rooms, calls):
    run("finetune", "--shots", "labels.star", "--diameter", 191, "--micrographs", "my mics", "--out", "a b")
    next_command = "pickeropt prune PICKS.star --model 'a b' --micrographs 'my mics'"
    assert calls["show_finetune"] == (("report", next_command), {})


# prune


def test_prune_passes_the_defaults_of_the_config(rooms, calls):
    assert run("prune", "picks.star").exit_code == 0
    assert calls["load_scorer"] == ((None, "auto", None, None), {})
    (inputs, config, scorer), more = calls["prune"]
    assert (list(inputs), scorer, set(more)) == ([Path("picks.star")], "scorer", {"on_progress", "finish"})
    assert config == PruneConfig()


def test_prune_takes_the_model_in_the_folder(rooms, calls):
    model = Path("model.safetensors")
    model.mkdir()  # of that name, but no file
    assert run("prune", "picks.star").exit_code == 0
    assert calls["load_scorer"][0][0] is None
    model.rmdir()
    model.write_bytes(b"made by finetune")
    assert run("prune", "picks.star").exit_code == 0
    assert calls["load_scorer"][0][0] == model
    assert calls["prune"][0][1] == PruneConfig()
    assert run("prune", "picks.star", "--model", "other").exit_code == 0
    assert calls["load_scorer"][0][0] == Path("other")


def test_prune_passes_every_flag(rooms, calls):
    words = (
        "a.star b.box folder --micrographs m1 --micrographs m2 --model my.safetensors --out o "
        "--threshold 0.25 --diameter 120 --pixel-size 1.5 --batch-size 8 --device cpu --overwrite "
        "--write-score --prior auto --use-picker-score --shots labels.star --min-std 0.8 --max-std 1.5 "
        "--max-extreme 0.01 --max-domain 4 --min-distance 90"
    )
    assert run("prune", *words.split()).exit_code == 0
    assert calls["load_scorer"][0] == (Path("my.safetensors"), "cpu", 8, 120.0)
    (inputs, config, _), _ = calls["prune"]
    assert list(inputs) == [Path("a.star"), Path("b.box"), Path("folder")]
    assert config == PruneConfig(
        micrographs=(Path("m1"), Path("m2")),
        out=Path("o"),
        threshold=0.25,
        pixel_size=1.5,
        overwrite=True,
        write_score=True,
        prior="auto",
        picker_shots=Path("labels.star"),
        filters=Filters(min_std=0.8, max_std=1.5, max_extreme=0.01, max_domain=4.0, min_distance=90.0),
    )


@pytest.mark.parametrize(
    ("words", "out", "overwrite"),
    [([], None, False), (["--out", "pruned", "--overwrite"], Path("pruned"), True)],
)
def test_rethreshold_asks_for_no_model(rooms, calls, words, out, overwrite):
    rooms("pickeropt.prune.rethreshold", rethreshold="another summary")
    assert run("prune", "--rethreshold", "run/scores.csv", "--threshold", "0.5", *words).exit_code == 0
    asked = {"overwrite": overwrite, "finish": finish_with_report}
    assert calls["rethreshold"] == ((Path("run/scores.csv"), 0.5, out), asked)
    assert calls["show_prune"] == (("another summary",), {})
    assert not {"load_scorer", "prune"} & set(calls)


def test_prune_shows_its_summary(rooms, calls):
    assert run("prune", "picks.star").exit_code == 0
    assert calls["show_prune"] == (("summary",), {})


# errors


@pytest.mark.parametrize(
    ("command", "module", "function"),
    [
        (["finetune", "--shots", "a.star", "--diameter", "191"], "pickeropt.finetune.finetuning", "learn"),
        (["prune", "a.star"], "pickeropt.prune.pruning", "prune"),
    ],
)
@pytest.mark.parametrize("error", [PickeroptError, ShotsError, CheckpointError])
def test_the_users_faults_are_one_line_and_2(rooms, command, module, function, error):
    rooms(module, **{function: error("a.star, line 3:\nx is 'abc'; write a number")})
    result = run(*command)
    assert result.exit_code == 2
    assert result.stderr == "error: a.star, line 3: x is 'abc'; write a number\n"
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("words", "missing", "remedy"),
    [
        (["a.star", "no.star"], "no.star", "check the path"),
        (["a.star", "--model", "no.safetensors"], "no.safetensors", "pickeropt finetune"),
        (["a.star", "--use-picker-score", "--shots", "no.star"], "no.star", "check the path"),
    ],
)
def test_prune_says_what_is_missing_before_it_loads_anything(rooms, calls, words, missing, remedy):
    result = run("prune", *words)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {missing}: no such ")
    assert remedy in result.stderr
    assert calls == {}


def test_our_faults_keep_their_traceback(rooms):
    rooms("pickeropt.prune.pruning", prune=ZeroDivisionError("bug"))
    result = run("prune", "a.star")
    assert isinstance(result.exception, ZeroDivisionError)
    assert result.exit_code == 1


@pytest.mark.parametrize("command", ["prune", "finetune"])
def test_interrupted(rooms, command):
    rooms(WORK[command][0], **{WORK[command][1]: KeyboardInterrupt()})
    words = ["a.star"] if command == "prune" else ["--shots", "a.star", "--diameter", "191"]
    result = run(command, *words)
    assert result.exit_code == 130
    assert ("the same command goes on where it stopped" in result.stderr) == (command == "prune")
    assert "interrupted" in result.stderr


@pytest.mark.parametrize("command", ["prune", "finetune"])
def test_no_memory(rooms, command):
    said = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    rooms(WORK[command][0], **{WORK[command][1]: said})
    words = ["a.star"] if command == "prune" else ["--shots", "a.star", "--diameter", "191"]
    result = run(command, *words)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: the GPU has no memory left; free it")
    assert ("the same command goes on where it stopped" in result.stderr) == (command == "prune")
    for full in (
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] can't allocate memory: 9 bytes"),
    ):
        rooms(WORK[command][0], **{WORK[command][1]: full})
        result = run(command, *words)
        assert result.exit_code == 2
        assert result.stderr.startswith("error: the machine has no memory left; free some, and check --diameter")
    rooms(WORK[command][0], **{WORK[command][1]: RuntimeError("out of memory, a bug of ours")})
    assert isinstance(run(command, *words).exception, RuntimeError)


# demo


def test_demo(rooms, calls):
    rooms("pickeropt.demonstration", run_demo="demo report")
    assert run("demo", "--seed", 3).exit_code == 0
    assert calls["run_demo"] == ((Path("demo"), 3, console.stage), {})
    assert calls["show_demo"] == (("demo report",), {})


@pytest.mark.parametrize("given", [None, "ACTIVE"])
def test_threads_wait_without_spinning_unless_the_user_says_so(
    monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    CliRunner().invoke(app, ["prune"])
    assert os.environ["OMP_WAIT_POLICY"] == (given or "PASSIVE")
