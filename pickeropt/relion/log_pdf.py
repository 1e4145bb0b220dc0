"""The `logfile.pdf` of a job: what was kept, by score and by micrograph."""

import csv
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from numpy.typing import NDArray

KEPT, REJECTED = "#0b6aa8", "#c2571a"
BINS = 50
NAMED = 40
"""So many micrographs at most are named under their bars."""


@dataclass(frozen=True)
class Outcome:
    """score, kept : (n,) of the picks; micrograph : (n,) int64 into names, in order of first mention"""

    score: NDArray[np.float64]
    kept: NDArray[np.bool_]
    micrograph: NDArray[np.int64]
    names: tuple[str, ...]


def read_outcome(scores_csv: Path) -> Outcome:
    """From `scores.csv` as `prune` wrote it."""
    names: dict[str, int] = {}
    score, kept, micrograph = [], [], []
    with scores_csv.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        header = next(rows)
        s, k, m = (header.index(name) for name in ("score", "kept", "micrograph"))
        for row in rows:
            score.append(float(row[s]))
            kept.append(row[k] == "1")
            micrograph.append(names.setdefault(row[m], len(names)))
    return Outcome(np.array(score), np.array(kept, dtype=np.bool_), np.array(micrograph), tuple(names))


def log_pdf(outcome: Outcome, threshold: float) -> bytes:
    """A PDF of two pages: the histogram of P(particle) with the threshold; picks by micrograph."""
    buffer = BytesIO()
    with PdfPages(buffer, metadata={"CreationDate": None, "Producer": None, "Creator": "pickeropt"}) as pages:
        pages.savefig(_scores(outcome, threshold))
        pages.savefig(_micrographs(outcome))
    return buffer.getvalue()


def _scores(outcome: Outcome, threshold: float) -> Figure:
    figure = _page(0.12)
    axes = figure.add_subplot()
    edges = np.linspace(0, 1, BINS + 1)
    kept, every = (np.histogram(scores, edges)[0] for scores in (outcome.score[outcome.kept], outcome.score))
    number = int(outcome.kept.sum())
    axes.stairs(kept, edges, fill=True, color=KEPT, label=f"kept: {number:,}")
    label = f"rejected: {len(outcome.score) - number:,}"
    axes.stairs(every, edges, baseline=kept, fill=True, color=REJECTED, label=label)
    axes.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:g}")
    axes.set_xlim(0, 1)
    axes.set_xlabel("P(particle)")
    axes.set_ylabel("picks")
    axes.set_title(f"pickeropt: {len(outcome.score):,} picks")
    axes.legend(frameon=False)
    return figure


def _micrographs(outcome: Outcome) -> Figure:
    figure = _page(0.35 if len(outcome.names) <= NAMED else 0.12)
    axes = figure.add_subplot()
    count = len(outcome.names)
    kept = np.bincount(outcome.micrograph[outcome.kept], minlength=count)
    rejected = np.bincount(outcome.micrograph[~outcome.kept], minlength=count)
    edges = np.arange(count + 1) - 0.5
    axes.stairs(kept, edges, fill=True, color=KEPT, label="kept")
    axes.stairs(kept + rejected, edges, baseline=kept, fill=True, color=REJECTED, label="rejected")
    if count <= NAMED:
        axes.set_xticks(range(count), [Path(name).stem for name in outcome.names], rotation=90, fontsize=6)
    axes.set_xlabel("micrograph")
    axes.set_ylabel("picks")
    axes.set_title(f"{count:,} micrographs, {kept.mean():.1f} picks kept on each")
    axes.margins(y=0.2)
    axes.legend(frameon=False, ncols=2)
    return figure


def _page(bottom: float) -> Figure:
    figure = Figure(figsize=(8.27, 5.8))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.1, right=0.97, top=0.93, bottom=bottom)
    return figure
