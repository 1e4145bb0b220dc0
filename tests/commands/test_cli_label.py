"""The command line of label: every option reaches the server, faults are one line."""

from pathlib import Path

from typer.testing import CliRunner

from pickeropt.cli import app
from pickeropt.label.label_config import LabelConfig


def test_options_reach_the_server(monkeypatch):
    seen = []
    monkeypatch.setattr("pickeropt.label.serving.serve", lambda *given: seen.append(given[:2]))
    plain = ["label", "a.star", "--diameter", "191", "--out", "l.star"]
    given = [
        "b.star",
        "--micrographs",
        "M",
        "--micrographs",
        "N",
        "--pixel-size",
        "1.77",
        "--model",
        "m.safetensors",
    ]
    given += ["--class", "ice", "--class", "gold", "--host", "0.0.0.0", "--port", "8123", "--device", "cpu"]
    for words in (plain, [*plain, *given, "--trust-frame"]):
        assert CliRunner().invoke(app, words).exit_code == 0
    assert seen[0] == ([Path("a.star")], LabelConfig(Path("l.star"), 191.0))
    assert seen[1] == (
        [Path("a.star"), Path("b.star")],
        LabelConfig(
            out=Path("l.star"),
            diameter_angstrom=191.0,
            micrographs=(Path("M"), Path("N")),
            pixel_size=1.77,
            model=Path("m.safetensors"),
            class_names=("ice", "gold"),
            host="0.0.0.0",
            port=8123,
            device="cpu",
            trust_frame=True,
        ),
    )


def test_files_beside_the_labels():
    config = LabelConfig(Path("a/labels.star"), 191.0)
    assert config.model_file == Path("a/model.safetensors")
    assert config.pruned == Path("a/pruned")
    assert config.skipped_file == Path("a/labels.skipped.star")
    assert LabelConfig(Path("a/l.star"), 191.0, model=Path("b/m.safetensors")).model_file == Path("b/m.safetensors")


def test_faults_are_one_line_and_2(tmp_path):
    for words, said in (
        (["nothing.star", "--diameter", "191"], "nothing.star: cannot be read"),
        (["nothing.star", "--diameter", "0"], "--diameter is 0"),
        (["nothing.star", "--diameter", "1", "--pixel-size", "-1"], "--pixel-size is -1"),
        (["nothing.star", "--diameter", "1", "--out", str(tmp_path)], "is a folder"),
        (["nothing.star", "--diameter", "1", "--model", str(tmp_path)], "is a folder"),
    ):
        out = [] if "--out" in words else ["--out", str(tmp_path / "l.star")]
        result = CliRunner().invoke(app, ["label", *words, *out])
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert result.stderr.startswith("error: ")
        assert said in result.stderr
    assert list(tmp_path.iterdir()) == []
