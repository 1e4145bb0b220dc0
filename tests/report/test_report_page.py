"""`report.html` as a browser would read it, against the table and the summary."""

import base64
import io
import json
import re
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from report_world import (
    NAMES,
    SHAPE,
    PlaceScorer,
    edit_summary,
    make_project,
    prune_with_report,
    read_page,
    table,
    write_picks,
)

from pickeropt.errors import FormatError, OutputError
from pickeropt.io.micrographs import write_mrc
from pickeropt.prune.prune_config import Filters
from pickeropt.prune.rethreshold import rethreshold
from pickeropt.report import reporting as make
from pickeropt.report.reporting import finish_with_report, write_report
from pickeropt.report.rerun_command import ReportConfig


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    prune_with_report(root, make_project(root))
    return root / "out"


@pytest.fixture
def copied(run, tmp_path):
    shutil.copytree(run, tmp_path / "out")
    return tmp_path / "out"


def decoded(attributes):
    kind, data = attributes["src"].split(",", 1)
    assert kind == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def kept_boxes(page):
    return next(boxes for head, boxes in page.sheets.items() if head.startswith("Kept"))


def size_of(path):
    with Image.open(path) as picture:
        return picture.size


def test_the_page_needs_nothing_else(run):
    page = read_page(run)
    assert page.open_tags == []
    assert not {"script", "link", "iframe", "object", "base", "form"} & {tag for tag, _ in page.tags}
    targets = [a[n] for _, a in page.tags for n in ("src", "href", "srcset", "data") if n in a]
    assert targets
    assert all(target.startswith(("data:image/", "#")) for target in targets)
    assert not [n for _, a in page.tags for n in a if n.startswith("on")]
    text = (run / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|https?:", text)
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'")
    assert "prefers-color-scheme: dark" in text


def test_what_the_user_named_is_text(run):
    raw = (run / "report.html").read_text(encoding="utf-8")
    assert "<script" not in raw
    assert "<another>" not in raw
    page = read_page(run)
    assert "<script>alert('1')&.mrc" in page.text
    assert "the model is of <another> particle" in page.text
    assert any("<script>alert('1')&.mrc, x" in a["title"] for a in kept_boxes(page))


def test_every_picture_and_chart_has_a_text(run):
    page = read_page(run)
    assert all(a["alt"] for tag, a in page.tags if tag == "img")
    drawn = [a for tag, a in page.tags if tag == "svg"]
    assert all(a.get("aria-label") or a.get("aria-hidden") == "true" for a in drawn)


def fates(rows):
    found = Counter()
    for row in rows:
        what = "as particle, but not sure" if row["class"] == "particle" else f"as {row['class']}"
        found["kept" if row["kept"] == "1" else f"rejected {what}"] += 1
    return found


def test_the_counts_are_those_of_the_table(run):
    expected, page = fates(table(run)), read_page(run)
    assert sum(expected.values()) == 90
    assert {"kept", "rejected as ice", "rejected as carbon"} < set(expected)
    for name, count in expected.items():
        share = f"{100 * count / 90:.1f} %"
        assert f"{name} {count} {share}" in page.text
    bars = Counter()
    for title in page.titles:
        match = re.fullmatch(r"(.+): (\d+) picks from (\S+) to (\S+)", title)
        if match and "." in match[3]:
            bars[match[1]] += int(match[2])
    charts = [a for tag, a in page.tags if tag == "svg" and "Histogram" in a.get("aria-label", "")]
    assert 1 <= len(charts) <= 2
    assert bars == {name: count * len(charts) for name, count in expected.items()}


def test_the_boxes_are_of_their_kind_and_name_file_and_row(run):
    rows, page = table(run), read_page(run)
    expected = fates(rows)
    seen = Counter()
    for head, boxes in page.sheets.items():
        name, _, numbers = head.partition(": ")
        shown, total = map(int, numbers.split(" of "))
        assert len(boxes) == shown
        for box in boxes:
            match = re.match(r"(.+), row (\d+); (.+), x (\d+), y (\d+); P\(particle\) ([\d.]+); (.+)", box["title"])
            row = rows[int(match[2])]
            assert (match[1], match[3]) == (row["file"], row["micrograph"])
            assert float(match[6]) == pytest.approx(float(row["score"]), abs=6e-4)
            assert abs(float(match[4]) - float(row["x"])) <= 0.51
            if name != "Closest calls":
                assert fates([row]) == {name[0].lower() + name[1:]: 1}
        if name != "Closest calls":
            seen[name[0].lower() + name[1:]] = total
            assert shown == min(24, total)
    assert seen == expected


def test_the_closest_calls_are_the_closest(run):
    rows, page = table(run), read_page(run)
    away = sorted(abs(float(row["score"]) - 0.5) for row in rows)[:24]
    boxes = page.sheets["Closest calls: 24 of 90"]
    found = [abs(float(rows[int(re.search(r"row (\d+)", b["title"])[1])]["score"]) - 0.5) for b in boxes]
    assert sorted(found) == away


def test_a_box_shows_its_pick_with_row_0_at_the_bottom(tmp_path):
    pixels = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    pixels[53:57, 92:96] += 40  # its middle is 4.5 px above the pick and 3.5 px right of it
    write_mrc(tmp_path / "mics/a.mrc", pixels, 2.0)
    prune_with_report(tmp_path, write_picks(tmp_path / "p.star", [("a.mrc", 90, 50)]))
    box = decoded(kept_boxes(read_page(tmp_path / "out"))[0])
    side = round(1.6 * 24 / 2)
    assert box.shape == (112, 112)
    rows, columns = np.nonzero(box > 240)
    assert columns.mean() == pytest.approx((0.5 + 3.5 / side) * 112, abs=4)
    assert rows.mean() == pytest.approx((0.5 - 4.5 / side) * 112, abs=4)


def test_overlays_have_the_marks_where_the_picks_are(tmp_path):
    make_project(tmp_path, (1, 1), ("a.mrc", "b.mrc"))
    picks = write_picks(tmp_path / "p.star", [("a.mrc", 100, 20), ("a.mrc", 30, 20), ("b.mrc", 100, 50)])
    prune_with_report(tmp_path, picks)
    assert sorted(p.name for p in (tmp_path / "out/overlays").iterdir()) == ["a.png", "b.png"]
    with Image.open(tmp_path / "out/overlays/a.png") as image:
        picture = np.asarray(image).astype(int)
    assert picture.shape == (96, 128, 3)
    kept = np.abs(picture - (0x00, 0x9E, 0x73)).sum(axis=2) < 12
    rows, columns = np.nonzero(kept)
    assert columns.mean() == pytest.approx(100.5, abs=1)
    assert rows.mean() == pytest.approx(96 - 20.5, abs=1)
    assert columns.max() - columns.min() == pytest.approx(12, abs=2)  # the particle's diameter
    coloured = np.ptp(picture, axis=2) > 60
    assert coloured[66:86, 20:42].any()
    assert not coloured[:, 45:85].any()


def test_the_micrographs_that_lost_most_and_least(run):
    page = read_page(run)
    rows = table(run)
    kept = {n: np.mean([r["kept"] == "1" for r in rows if r["micrograph"] == n]) for n in NAMES}
    said = [a["alt"] for tag, a in page.tags if tag == "img" and "with its picks" in a["alt"]]
    shown = [text.split(" with its picks")[0] for text in said]
    ranked = sorted(kept, key=kept.get)
    assert shown == [*ranked[:2], ranked[2]]
    assert all(f"({100 * kept[name]:.1f} %)" in text for name, text in zip(shown, said, strict=True))


def test_more_or_no_overlays(copied):
    write_report(copied, ReportConfig(overlays=0))
    assert [a for tag, a in read_page(copied).tags if tag == "img" and "with its picks" in a["alt"]] == []
    assert list((copied / "overlays").iterdir()) == []  # those of before are gone
    report = write_report(copied, ReportConfig(overlays=1))
    assert len(list((copied / "overlays").iterdir())) == 2
    assert all(path.is_file() for path in report.written)


def test_the_same_run_gives_the_same_report(copied, run):
    before = {p.name: p.read_bytes() for p in copied.rglob("*") if p.is_file()}
    write_report(copied)
    assert {p.name: p.read_bytes() for p in copied.rglob("*") if p.is_file()} == before


def test_without_micrographs_there_is_a_report_without_pictures(tmp_path):
    prune_with_report(tmp_path, make_project(tmp_path))
    shutil.rmtree(tmp_path / "mics")
    report = write_report(tmp_path / "out")
    assert len(report.warnings) == 1
    assert "3 micrographs" in report.warnings[0]
    page = read_page(tmp_path / "out")
    assert "the report lacks pictures of 3 micrographs" in page.text
    assert page.text.count("no picture") == sum(map(len, page.sheets.values())) > 24
    assert [tag for tag, _ in page.tags if tag == "img"] == []
    assert size_of(tmp_path / "out/contact_sheet.png")[0] > 1000


def test_a_run_that_did_not_note_its_micrographs(copied):
    content = json.loads((copied / "summary.json").read_text())
    edit_summary(copied, **{"places": None})
    assert content["places"].keys() == set(NAMES)
    assert "summary.json does not say where it is" in write_report(copied).warnings[0]


def test_one_micrograph_that_is_damaged_costs_only_its_own_pictures(tmp_path):
    prune_with_report(tmp_path, make_project(tmp_path))
    (tmp_path / "mics/b.mrc").write_bytes(b"no micrograph")
    report = write_report(tmp_path / "out")
    assert "one micrograph" in report.warnings[0]
    assert "b.mrc" in report.warnings[0]
    page = read_page(tmp_path / "out")
    missing = [b for boxes in page.sheets.values() for b in boxes if b.get("class") == "none"]
    assert missing
    assert all("; b.mrc, x" in box["title"] for box in missing)


def test_filters_are_kinds_of_their_own(tmp_path):
    prune_with_report(tmp_path, make_project(tmp_path), filters=Filters(max_std=0.9))
    rows, page = table(tmp_path / "out"), read_page(tmp_path / "out")
    gone = sum(row["filter"] == "max-std" and float(row["score"]) >= 0.5 for row in rows)
    assert gone > 3
    assert f"rejected by --max-std {gone} " in page.text


def test_nothing_kept_and_nothing_rejected(tmp_path):
    picks = make_project(tmp_path)
    prune_with_report(tmp_path, picks, threshold=1.0)
    page = read_page(tmp_path / "out")
    assert "every pick is rejected" in page.text
    assert "kept 0 (0.0 %)" in page.text or "0 (0.0 %)" in page.text
    prune_with_report(tmp_path, picks, threshold=0.0, overwrite=True)
    assert list(read_page(tmp_path / "out").sheets) == ["Kept: 24 of 90", "Closest calls: 24 of 90"]


def test_another_threshold_brings_another_report(copied):
    rethreshold(copied, 0.8, finish=finish_with_report)
    page = read_page(copied)
    kept = sum(float(row["score"]) >= 0.8 for row in table(copied))
    assert f"Kept: {kept} of {kept}" in page.sheets
    assert "threshold 0.8" in page.text
    assert (copied / "contact_sheet.png").is_file()


def test_a_run_that_was_stopped_and_goes_on_has_its_report(tmp_path):
    picks = make_project(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        prune_with_report(tmp_path, picks, PlaceScorer(fails_on="b.mrc"))
    assert not (tmp_path / "out").exists()
    summary = prune_with_report(tmp_path, picks)
    assert summary.resumed == 1
    assert len(kept_boxes(read_page(tmp_path / "out"))) == 24


def test_a_run_that_is_stopped_in_its_report_leaves_nothing_half_done(tmp_path):
    picks, scorer = make_project(tmp_path), PlaceScorer()

    def stop(folder):
        (folder / "report.html").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune_with_report(tmp_path, picks, scorer, finish=stop)
    assert not (tmp_path / "out").exists()
    assert prune_with_report(tmp_path, picks, scorer).resumed == 3
    assert len(scorer.calls) == 3
    assert len(kept_boxes(read_page(tmp_path / "out"))) == 24


def test_a_report_that_fails_costs_no_pruning(tmp_path, monkeypatch):
    def fail(content):
        raise ZeroDivisionError("by chance")

    monkeypatch.setattr(make, "page", fail)
    summary = prune_with_report(tmp_path, make_project(tmp_path))
    assert [w for w in summary.warnings if "no report (ZeroDivisionError: by chance)" in w]
    assert len(table(tmp_path / "out")) == 90
    assert not (tmp_path / "out/report.html").exists()


def test_the_pruning_has_the_warnings_of_its_report(tmp_path):
    picks = make_project(tmp_path)

    def finish(folder):
        assert (folder / "summary.json").is_file()
        assert not (tmp_path / "out").exists()
        return ("a doubt",)

    summary = prune_with_report(tmp_path, picks, finish=finish)
    assert summary.warnings[-1] == "a doubt"


@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        (lambda out: (out / "summary.json").unlink(), OutputError, "no finished pruning"),
        (lambda out: (out / "summary.json").write_text("[]"), OutputError, "no summary of a pruning"),
        (lambda out: (out / "summary.json").write_text("{"), OutputError, "no summary of a pruning"),
        (lambda out: edit_summary(out, threshold="high"), OutputError, "no summary of a pruning"),
        (lambda out: (out / "scores.csv").unlink(), OutputError, "no scores.csv"),
        (lambda out: (out / "scores.csv").write_text("a,b\n1,2\n"), FormatError, "no column 'file'"),
        (lambda out: cut_rows(out, 1), FormatError, "no rows"),
        (lambda out: append(out, "x,1\n"), FormatError, "line 92: 2 values where the header names"),
        (lambda out: append(out, "\xff"), FormatError, "cannot be read"),
    ],
)
def test_what_is_no_finished_run(copied, spoil, error, said):
    before = (copied / "report.html").read_bytes()
    spoil(copied)
    with pytest.raises(error, match=re.escape(said)):
        write_report(copied)
    assert (copied / "report.html").read_bytes() == before


def cut_rows(out, count):
    lines = (out / "scores.csv").read_text().splitlines(keepends=True)
    (out / "scores.csv").write_text("".join(lines[:count]))


def append(out, text):
    with (out / "scores.csv").open("ab") as file:
        file.write(text.encode("latin1"))
