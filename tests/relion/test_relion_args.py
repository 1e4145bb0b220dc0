"""The command line of an External job."""

from dataclasses import replace
from pathlib import Path

import pytest

from pickeropt.errors import FormatError, OutputError, PickeroptError
from pickeropt.prune.prune_config import PruneConfig, ScorerConfig
from pickeropt.relion.external_args import LABELS, job_folder, parse_arguments


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("autopick.star", "mics.star", "parts.star"):
        (tmp_path / name).touch()
    return tmp_path


def parse(line):
    return parse_arguments(line.split())


def test_what_relion_gives_by_default():
    job = parse("--o External/job005/ --in_coords autopick.star --j 1 --pipeline_control External/job005/")
    assert (job.out, job.folder) == ("External/job005/", Path("External/job005"))
    assert (job.coordinates, job.particles, job.micrographs) == (Path("autopick.star"), None, None)
    assert (job.threads, job.relion_version) == (1, None)
    assert job.prune == PruneConfig(out=Path("External/job005/pruned"), overwrite=True)
    assert job.scorer == ScorerConfig()


def test_every_parameter():
    job = parse(
        "--o J --in_parts parts.star --in_mics mics.star --in_movies x --in_3dref y --in_mask z --j 8"
        " --model m.safetensors --diameter 160.5 --threshold 0.25 --pixel_size 1.77 --batch-size 32"
        " --device cpu --relion_version 5 --write_score yes --prior 0.3 --min_std 0.5 --max_std 2"
        " --max-extreme 0.1 --max_domain 3 --min_distance 80 --shots labels.star --trust_frame Yes"
    )
    assert job.out == "J/"
    assert (job.coordinates, job.particles, job.micrographs) == (None, Path("parts.star"), Path("mics.star"))
    assert (job.threads, job.relion_version) == (8, "5")
    found = job.prune
    assert job.scorer == ScorerConfig(Path("m.safetensors"), 160.5, 32, "cpu")
    assert (found.threshold, found.pixel_size, found.write_score, found.prior) == (0.25, 1.77, True, 0.3)
    assert (found.picker_shots, found.trust_frame) == (Path("labels.star"), True)
    assert parse("--o J --in_coords autopick.star --prior auto --trust_frame no").prune.prior == "auto"
    assert found.filters == replace(
        PruneConfig.filters, min_std=0.5, max_std=2.0, max_extreme=0.1, max_domain=3.0, min_distance=80.0
    )


def test_the_model_of_the_project_folder(project):
    (project / "model.safetensors").touch()
    assert parse("--o J --in_coords autopick.star").scorer.model == Path("model.safetensors")
    assert parse("--o J --in_coords autopick.star --model n").scorer.model == Path("n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--in_coords autopick.star --thresold 0.5", "the label --thresold is unknown; is it --threshold?"),
        ("--in_coords autopick.star --colour red", "the label --colour is unknown"),
        ("--in_coords autopick.star --threshold", "--threshold has no value"),
        ("--in_coords autopick.star --threshold --j 2", "--threshold has no value"),
        ("--in_coords autopick.star --threshold 0.5 --threshold 0.6", "--threshold is given twice"),
        ("--in_coords autopick.star --min-std 1 --min_std 1", "--min_std is given twice"),
        ("--in_coords autopick.star --diameter 160Å", "--diameter is '160Å'; give a number"),
        ("--in_coords autopick.star --diameter nan", "--diameter is 'nan'; give a number"),
        ("--in_coords autopick.star --j 0", "--j is '0'; give a whole number from 1 on"),
        ("--in_coords autopick.star --j -2", "--j is '-2'; give a whole number from 1 on"),
        ("--in_coords autopick.star --write_score perhaps", "--write_score is 'perhaps'; give yes or no"),
        ("--in_coords autopick.star --prior few", "--prior is 'few'; give auto, or a number between 0 and 1"),
        ("--in_coords autopick.star --prior 1", "--prior is '1'; give auto, or a number between 0 and 1"),
        (
            "--in_coords autopick.star --relion_version 2.1",
            "--relion_version is '2.1'; give one of 3.1, 4, 5",
        ),
        ("--in_coords autopick.star --model my model", "'model' follows no label"),
        ("--in_coords autopick.star --in_parts parts.star", "both input coordinates"),
        ("", "nothing to prune; give input coordinates"),
        (
            "--in_movies m.star --in_3dref r.mrc --in_mask k.mrc --in_mics mics.star",
            "nothing to prune (there is --in_mics, --in_movies, --in_3dref, --in_mask, which has no picks)",
        ),
    ],
)
def test_what_is_refused(line, message):
    with pytest.raises(PickeroptError) as caught:
        parse(f"--o External/job005/ {line}")
    assert message in str(caught.value)


@pytest.mark.parametrize("given", ["--in_coords none.star", "--in_parts parts.star --in_mics none.star"])
def test_a_file_that_is_not_there(given):
    with pytest.raises(FormatError, match=r"^none\.star: no such file; run in the RELION project folder"):
        parse(f"--o J {given}")


def test_an_unknown_label_is_answered_with_all_there_are():
    with pytest.raises(PickeroptError) as caught:
        parse("--o J --colour red")
    assert all(label in str(caught.value) for label in LABELS)


@pytest.mark.parametrize("line", ["", "--in_coords autopick.star", "--o", "--o --j 2"])
def test_no_output_folder(line):
    with pytest.raises(OutputError, match="give --o External/job001/"):
        job_folder(line.split())


def test_the_output_folder_is_found_whatever_else_is_wrong():
    assert job_folder(["stray", "--colour", "red", "--o", "External/job005/"]) == Path("External/job005")
