"""A small pruning with its report: micrographs of noise, picks, and a scorer that is arithmetic."""

import csv
import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from pickeropt.io.micrographs import write_mrc
from pickeropt.prune.prune_config import PruneConfig, ScorerConfig
from pickeropt.prune.pruning import prune
from pickeropt.report.reporting import finish_with_report

SHAPE, PIXEL_SIZE, DIAMETER = (96, 128), 2.0, 24.0
CLASSES = ("particle", "ice", "carbon")
NAMES = ("a.mrc", "b.mrc", "<script>alert('1')&.mrc")


@dataclass
class PlaceScorer:
    """P(particle) is x / 128; nine tenths of the rest are ice in the lower half, else carbon."""

    class_names: tuple[str, ...] = CLASSES
    digest: str = "d" * 64
    diameter_angstrom: float = DIAMETER
    notes: tuple[str, ...] = ("the model is of <another> particle",)
    taught_pixel_size: float | None = None
    config: ScorerConfig = field(default_factory=ScorerConfig)
    fails_on: str = ""
    calls: list[str] = field(default_factory=list)

    def score(self, micrograph, coordinates, pixel_size):
        self.calls.append(micrograph.path.name)
        if micrograph.path.name == self.fails_on:
            raise KeyboardInterrupt
        particle = np.clip(coordinates[:, 0] / SHAPE[1], 0, 1)
        ice = np.where(coordinates[:, 1] < SHAPE[0] / 2, 0.9, 0.1) * (1 - particle)
        return np.column_stack([particle, ice, 1 - particle - ice]).astype(np.float32)


def make_micrographs(folder, names=NAMES):
    for i, name in enumerate(names):
        pixels = np.random.default_rng(i).standard_normal(SHAPE).astype(np.float32)
        write_mrc(folder / name, pixels, PIXEL_SIZE)


def points(count, seed):
    return np.random.default_rng(seed).uniform([2, 2], [126, 94], (count, 2)).round(2)


def write_picks(path, rows, extra=()):
    """rows : (name, x, y, *values of the extra columns)"""
    labels = ["_rlnMicrographName", "_rlnCoordinateX", "_rlnCoordinateY", *extra]
    head = "".join(f"{label} #{i}\n" for i, label in enumerate(labels, 1))
    path.write_text(f"data_\n\nloop_\n{head}" + "".join(" ".join(map(str, row)) + "\n" for row in rows))
    return path


def make_project(root, counts=(40, 30, 20), names=NAMES):
    """`root/mics` and `root/picks.star`, so many picks on each micrograph."""
    make_micrographs(root / "mics", names)
    rows = [
        (name, x, y) for i, (name, n) in enumerate(zip(names, counts, strict=True)) for x, y in points(n, i).tolist()
    ]
    return write_picks(root / "picks.star", rows)


def config_for(root, **more):
    return PruneConfig(**{"micrographs": (root / "mics",), "out": root / "out", "trust_frame": True} | more)


def prune_with_report(root, picks, scorer=None, finish=finish_with_report, **more):
    return prune([picks], config_for(root, **more), scorer or PlaceScorer(), finish=finish)


def table(out):
    with (out / "scores.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def edit_summary(out, **changes):
    path = Path(out) / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


class Page(HTMLParser):
    """What a browser would make of a page: its tags, the texts, and the boxes of each sheet."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.sheets, self.titles = [], [], {}, []
        self._inside = []
        self._head = ""
        self.feed(text)
        self.text = " ".join(self.texts)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self._inside.append(tag)
        if tag == "img" and "sheet" in self.classes:
            self.sheets.setdefault(self._head, []).append(dict(attrs))
        if tag == "span" and dict(attrs).get("class") == "none":
            self.sheets.setdefault(self._head, []).append(dict(attrs))
        if tag == "ul":
            self.classes = dict(attrs).get("class", "")

    classes = ""

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._inside.pop() == tag, "tags must be closed in their order"

    def handle_data(self, data):
        if self._inside[-1:] == ["style"]:
            return
        if self._inside[-1:] == ["h3"]:
            self._head = data
        (self.titles if self._inside[-1:] == ["title"] else self.texts).append(data)

    @property
    def open_tags(self):
        return list(self._inside)


def read_page(out):
    return Page((Path(out) / "report.html").read_text(encoding="utf-8"))
