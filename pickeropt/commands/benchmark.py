"""`pickeropt benchmark`: options, call and output."""

from pathlib import Path
from typing import Annotated

import typer

from pickeropt.benchmark.benchmark_config import ENTRY, SPLITS, BenchmarkConfig, LossWeights
from pickeropt.commands import options as given

DEFAULT = BenchmarkConfig()
LOSS_WEIGHTS = ",".join(f"{weight:g}" for weight in DEFAULT.loss_weights)

Data = Annotated[list[Path], typer.Argument(metavar="DATA", help="Class folders, labelled STAR files, simulated sets.")]
Tables = Annotated[str, given.option("--tables", "2,3,4", "Tables of the paper to compute.")]
Shots = Annotated[str, given.option("--shots", "K[,…]", "Labelled boxes per class to learn from.")]
Draws = Annotated[int, given.option("--draws", "N", "Random choices of shots and queries.", min=1)]
Rows = Annotated[str | None, given.option("--rows", "NAMES", "Rows of table 3, such as cryo,frozen; default: all.")]
Recipe = Annotated[str, given.option("--recipe", "default|paper", "Training recipe of tables 2 and 4.")]
Backbones = Annotated[
    str | None,
    given.option("--backbones", "PATTERN", f"Leave-one-out: a weights file per data set; {ENTRY} is its name."),
]
LossText = Annotated[str, given.option("--loss-weights", "W1[,W2[,W3]]", "The multi-loss of tables 2 and 3.")]
LossChoices = Annotated[
    list[str] | None,
    given.option("--loss-choice", "W1[,W2[,W3]]", "A row of table 4; may be repeated; default: eleven."),
]
Ignore = Annotated[list[str] | None, given.option("--ignore", "CLASS", "Leave out a source class; may be repeated.")]
Apart = Annotated[
    str, given.option("--split", "|".join(SPLITS), "What shots and queries never share; the paper uses box.")
]
PerClass = Annotated[int, given.option("--per-class", "N", "Use at most N boxes of each class; 0 uses all.", min=0)]
Diameter = Annotated[float | None, given.option("--diameter", "Å", "Particle diameter where the labels give none.")]


def run_benchmark(
    data: Data,
    out: given.Out = Path("benchmark"),
    tables: Tables = ",".join(map(str, DEFAULT.tables)),
    shots: Shots = ",".join(map(str, DEFAULT.shots)),
    draws: Draws = DEFAULT.draws,
    rows: Rows = None,
    recipe: Recipe = DEFAULT.recipe,
    init: given.Init = DEFAULT.init,
    backbones: Backbones = DEFAULT.backbones,
    weights: given.Weights = DEFAULT.weights,
    loss_weights: LossText = LOSS_WEIGHTS,
    loss_choice: LossChoices = None,
    ignore: Ignore = None,
    split: Apart = DEFAULT.split,
    per_class: PerClass = DEFAULT.per_class,
    diameter: Diameter = DEFAULT.diameter_angstrom,
    pixel_size: given.PixelSize = DEFAULT.pixel_size,
    micrographs: given.Folders = None,
    seed: given.Seed = DEFAULT.seed,
    device: given.Device = DEFAULT.device,
) -> None:
    """Measure fine-tuning as the paper's tables do.

    DATA are class folders of `dataset build`, folders of `dataset simulate`, or labelled STAR
    files; each species or EMPIAR entry in them is a data set. DIR gets benchmark.md,
    benchmark.csv (one row per draw) and one PNG per table. Recipe paper takes about one
    minute per fit on two cores. The same command continues a stopped run; later runs add to
    the results.
    """
    config = BenchmarkConfig(
        tables=tuple(_whole(part, "--tables") for part in tables.split(",")),
        shots=tuple(_whole(part, "--shots") for part in shots.split(",")),
        draws=draws,
        rows=tuple(part.strip() for part in rows.split(",")) if rows else (),
        recipe=recipe,
        init=init,
        backbones=backbones,
        weights=weights,
        loss_weights=_weights(loss_weights, "--loss-weights"),
        loss_choices=tuple(_weights(text, "--loss-choice") for text in loss_choice or ()) or DEFAULT.loss_choices,
        ignore=tuple(ignore or ()),
        split=split,
        per_class=per_class,
        diameter_angstrom=diameter,
        pixel_size=pixel_size,
        seed=seed,
        device=device,
    )
    from pickeropt.benchmark.benchmarking import benchmark
    from pickeropt.commands.console import duration, progress

    with progress() as on_progress:
        report = benchmark(data, config, out, tuple(micrographs or ()), on_progress)
    print(report.text)
    earlier = f", {report.earlier:,} of them by an earlier run" if report.earlier else ""
    print(f"{report.fits:,} fits{earlier}, in {duration(report.seconds)}")
    for path in report.written:
        print(f"written: {path}")


def _whole(text: str, option: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a whole number", param_hint=option) from None


def _weights(text: str, option: str) -> LossWeights:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not numbers with commas between", param_hint=option) from None
