"""The demonstration: label, fine-tune, prune and evaluate on simulated micrographs with known particles.

Some micrographs are labelled, others are pruned; one seed determines all of them. The simulation is simpler
than real data: the result shows that everything works, not how well it works on your data.

::

    demo/
      micrographs/      label_*.mrc and prune_*.mrc
      labels.star       the shots, on label_*
      picks/            prune_*_autopick.star: what a picker would return, wrong picks among them
      truth/            prune_*.csv: where the particles are
      model.safetensors learnt from the shots
      pruned/           kept/, rejected/, scores.csv, summary.json, report.html
      evaluation/       evaluation.json, pr_curve.png
      table.csv         before and after pruning
      overlay.png       one micrograph with its picks, as picked and as classified
      pickeropt_demo.json   settings; marks the folder as ours
"""

import csv
import io
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import ndimage

import pickeropt
from pickeropt.datasets.simulate import (
    LabelledPoints,
    SimulatedMicrograph,
    SimulationConfig,
    Species,
    labelled_points,
    make_species,
    simulate_micrograph,
    simulate_picks,
)
from pickeropt.errors import OutputError
from pickeropt.evaluate.evaluation import Evaluation, PickQuality, Ranking, evaluate_scores, write_evaluation
from pickeropt.evaluate.truth import micrograph_stem
from pickeropt.files import write_bytes_atomically
from pickeropt.finetune.finetune_config import MODEL_FILE, FinetuneConfig, FinetuneReport
from pickeropt.finetune.finetuning import finetune
from pickeropt.io.micrographs import read_micrograph, write_mrc
from pickeropt.io.relion_star import write_coordinate_star, write_labelled_star
from pickeropt.prune.prune_config import PruneConfig, PruneSummary
from pickeropt.prune.pruning import prune
from pickeropt.prune.scoring import load_scorer
from pickeropt.pruned_run import SCORES, read_scores
from pickeropt.records import DEFAULT_CLASSES, PARTICLE, FloatArray
from pickeropt.report.reporting import finish_with_report
from pickeropt.shots import read_labelled_star

SIDE = 7.0
"""Inches of the longer side of a micrograph in the figure."""
PICKED_COLOUR, KEPT_COLOUR = "#F0E442", "#56B4E9"
REJECTED_LOOKS = (("#E69F00", "s"), ("#D55E00", "D"), ("#CC79A7", "^"), ("#009E73", "v"), ("#FFFFFF", "P"))
"""Colour and marker of rejected classes in turn: Okabe and Ito's, told apart by shape as well."""


def overlay_png(micrograph: Path, scores_csv: Path, diameter_px: float) -> bytes:
    """A PNG of two panels: all picks of the micrograph, and the same by what they were taken for.

    diameter_px : of the particle; the circles have it, and the image is smoothed by a tenth
    """
    table = read_scores(scores_csv, ("micrograph", "x", "y", "class", "kept"))
    stem = micrograph_stem(micrograph.name)
    here = np.array([micrograph_stem(name) == stem for name in table.micrographs], dtype=np.bool_)[table["micrograph"]]
    xy = table.coordinates[here]
    kept = table["kept"][here]
    names = np.array(table.class_names)[table["class"][here]]
    pixels = ndimage.gaussian_filter(read_micrograph(micrograph).pixels, diameter_px / 10)
    width = 2 * SIDE * pixels.shape[1] / max(pixels.shape)
    figure = Figure(figsize=(width, SIDE + 0.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    before, after = figure.subplots(1, 2)
    for axes in (before, after):
        _show(axes, pixels)
    size = (0.9 * diameter_px * SIDE * 72 / max(pixels.shape)) ** 2
    before.scatter(*xy.T, s=size, facecolors="none", edgecolors=PICKED_COLOUR, linewidths=1.2)
    before.set_title(f"{micrograph.name}: {len(xy)} picks")
    after.set_title(f"{int(kept.sum())} kept, {int((~kept).sum())} rejected")
    label = f"kept ({kept.sum()})"
    after.scatter(*xy[kept].T, s=size, facecolors="none", edgecolors=KEPT_COLOUR, linewidths=1.6, label=label)
    for number, name in enumerate(dict.fromkeys(sorted(names[~kept], key=lambda n: (n == PARTICLE, n)))):
        color, marker = REJECTED_LOOKS[number % len(REJECTED_LOOKS)]
        rows = ~kept & (names == name)
        what = "unsure particle" if name == PARTICLE else name
        label = f"rejected as {what} ({rows.sum()})"
        after.scatter(
            *xy[rows].T,
            s=0.3 * size,
            marker=marker,
            facecolors="none",
            edgecolors=color,
            linewidths=1.6,
            label=label,
        )
    figure.legend(loc="outside lower center", ncols=5, frameon=False, markerscale=0.6, fontsize=11)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _show(axes: Axes, pixels: FloatArray) -> None:
    """Grey about the median by the noise, so that dark carbon does not hide the particles."""
    level = float(np.median(pixels))
    noise = max(1.4826 * float(np.median(np.abs(pixels - level))), 1e-6)
    axes.imshow(pixels, cmap="gray", vmin=level - 5 * noise, vmax=level + 4 * noise, interpolation="nearest")
    axes.set_axis_off()


OnStage = Callable[[str], None]
"""Called with what begins now."""

SPECIES, DIAMETER, PIXEL_SIZE = "tetramer_d2", 160.0, 3.2
"""The molecule, its diameter in Å, and Å/px."""
TRIES = 20
"""Micrographs drawn at most to find one that shows what it must."""
MARKER = "pickeropt_demo.json"
FOLDERS = ("micrographs", "picks", "truth", "pruned", "pruned.partial", "evaluation")
FILES = ("labels.star", MODEL_FILE, "table.csv", "overlay.png", MARKER)


@dataclass(frozen=True)
class DemoConfig:
    """size : micrograph side, px; labelled, pruned : micrographs of each sort; shots : of each class"""

    seed: int = 0
    size: int = 1024
    labelled: int = 4
    pruned: int = 4
    shots: int = 20


@dataclass(frozen=True)
class DemoReport:
    """What came out; seconds : of everything; written : the table and the pictures."""

    folder: Path
    finetune: FinetuneReport
    prune: PruneSummary
    evaluation: Evaluation
    written: tuple[Path, ...]
    seconds: float


def run_demo(out: Path, seed: int = 0, on_stage: OnStage | None = None) -> DemoReport:
    """The demonstration as `pickeropt demo` gives it. Raises OutputError as `make_demo` does."""
    return make_demo(out, DemoConfig(seed=seed), on_stage)


def make_demo(out: Path, config: DemoConfig, on_stage: OnStage | None = None) -> DemoReport:
    """Simulate, label, fine-tune, prune and evaluate, all in `out`; the same seed gives the same.

    An earlier demo in `out` is replaced; files beside those of the demo stay.
    Raises OutputError where `out` holds anything else, or cannot be written.
    """
    begun = time.perf_counter()
    say = on_stage or (lambda text: None)
    _clear(out)
    _write_text(out / MARKER, json.dumps({"pickeropt": pickeropt.__version__, **asdict(config)}) + "\n")
    say(f"simulating {config.labelled + config.pruned} micrographs of {config.size} x {config.size} px")
    try:
        _write_data(out, config)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); give another --out") from error
    say(f"learning from {config.shots} shots of each class")
    learning = FinetuneConfig(DIAMETER, shots_per_class=config.shots, seed=config.seed)
    shots = read_labelled_star(out / "labels.star", (out / "micrographs",))
    learnt = finetune(shots, learning, out / MODEL_FILE)
    say(f"pruning the picks of {config.pruned} other micrographs")
    pruning = PruneConfig((out / "micrographs",), out / "pruned")
    scorer = load_scorer(learnt.checkpoint)
    summary = prune([out / "picks"], pruning, scorer, finish=finish_with_report)
    say("comparing with the truth")
    evaluation = evaluate_scores(out / "pruned" / SCORES, out / "truth", diameter_px=DIAMETER / PIXEL_SIZE)
    written = (*write_evaluation(evaluation, out / "evaluation"), out / "table.csv", out / "overlay.png")
    _write_text(out / "table.csv", _table(evaluation))
    shown = out / "micrographs" / f"{_name('prune', 0)}.mrc"
    write_bytes_atomically(out / "overlay.png", overlay_png(shown, out / "pruned" / SCORES, DIAMETER / PIXEL_SIZE))
    return DemoReport(out, learnt, summary, evaluation, written, time.perf_counter() - begun)


def _clear(out: Path) -> None:
    """Remove an earlier demo. Raises OutputError for a folder that is none."""
    try:
        if not out.exists():
            return
        if not out.is_dir() or (any(out.iterdir()) and not (out / MARKER).is_file()):
            raise OutputError(f"{out}: is there already and no demo (no {MARKER} in it); give another --out")
        for path in (out / name for name in (*FOLDERS, *FILES)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be replaced ({error.strerror}); give another --out") from error


def _write_data(out: Path, config: DemoConfig) -> None:
    """Micrographs, labels, picks and truth."""
    species = next(kind for kind in make_species(config.seed) if kind.name == SPECIES)
    streams = np.random.SeedSequence(config.seed).spawn(config.labelled + config.pruned)
    labels: list[tuple[str, LabelledPoints]] = []
    for number, stream in enumerate(streams[: config.labelled]):
        sim, points, _ = _draw(config, species, stream, DEFAULT_CLASSES)
        labels.append((f"micrographs/{_name('label', number)}.mrc", points))
        write_mrc(out / labels[-1][0], sim.pixels, sim.pixel_size)
    write_labelled_star(
        out / "labels.star",
        [name for name, points in labels for _ in points.class_names],
        np.concatenate([points.coordinates for _, points in labels]),
        [name for _, points in labels for name in points.class_names],
    )
    for number, stream in enumerate(streams[config.labelled :]):
        # the first is the one in the picture
        sim, _, rng = _draw(config, species, stream, (PARTICLE,) if number else DEFAULT_CLASSES)
        picks, name = simulate_picks(sim, rng), _name("prune", number)
        write_mrc(out / "micrographs" / f"{name}.mrc", sim.pixels, sim.pixel_size)
        write_coordinate_star(out / "picks" / f"{name}_autopick.star", picks.coordinates, picks.figure_of_merit)
        rows = "".join(f"{x:.3f},{y:.3f}\n" for x, y in sim.coordinates.tolist())
        _write_text(out / "truth" / f"{name}.csv", f"x,y\n{rows}")


def _draw(
    config: DemoConfig, species: Species, stream: np.random.SeedSequence, classes: Sequence[str]
) -> tuple[SimulatedMicrograph, LabelledPoints, np.random.Generator]:
    """A micrograph that shows its share of the shots of each of these classes, as a user would choose.

    Where all are to be shown there is carbon for certain, otherwise as often as not. The optics vary
    as in one session at the microscope.
    """
    simulation = SimulationConfig(
        shape=(config.size, config.size),
        pixel_size=PIXEL_SIZE,
        diameter_angstrom=DIAMETER,
        occupancy=(0.25, 0.4),
        defocus_um=(1.0, 2.5),
        dose=(10.0, 15.0),
        b_factor=(100.0, 200.0),
        ice_angstrom=(300.0, 500.0),
        carbon_probability=1.0 if classes == DEFAULT_CLASSES else 0.5,
        filtered_probability=0.0,
    )
    share = math.ceil(config.shots / config.labelled)
    for attempt in stream.spawn(TRIES):
        rng = np.random.default_rng(attempt)
        sim = simulate_micrograph(simulation, species, rng)
        points = labelled_points(sim, share, rng)
        if all(points.class_names.count(name) >= share for name in classes):
            break
    return sim, points, rng


def _name(sort: str, number: int) -> str:
    return f"{sort}_{number + 1:02d}"


def _table(evaluation: Evaluation) -> str:
    """Two rows: all picks with the picker's ranking, the kept picks with the classifier's."""
    rows: list[list[object]] = [
        ["", "picks", "true", "precision", "recall", "f1", "average_precision", "false_removed_at_95"],
        ["before pruning", *_figures(evaluation.before, evaluation.picker_ranking)],
        ["after pruning", *_figures(evaluation.after, evaluation.ranking)],
    ]
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _figures(quality: PickQuality, ranking: Ranking | None) -> list[object]:
    shares: list[float | None] = [quality.precision, quality.recall, quality.f1]
    shares += [None, None] if ranking is None else [ranking.average_precision, ranking.false_removed]
    return [quality.picks, quality.true_picks, *("" if s is None else f"{s:.4f}" for s in shares)]


def _write_text(path: Path, text: str) -> None:
    write_bytes_atomically(path, text.encode())
