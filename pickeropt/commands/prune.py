"""`pickeropt prune`: its options, and what it shows."""

import math
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from pickeropt.commands import options as given
from pickeropt.errors import CheckpointError, FormatError
from pickeropt.finetune.finetune_config import MODEL_FILE
from pickeropt.prune.prune_config import GENERAL_MODEL, Filters, PruneConfig, ScorerConfig

MODEL = Path(MODEL_FILE)

_option = given.option
Picks = Annotated[list[Path] | None, typer.Argument(metavar="PICKS", help="Coordinate files, or folders of them.")]
WriteScore = Annotated[
    bool, _option("--write-score", None, "Also write P(particle) into the score column of the output files.")
]
Prior = Annotated[
    str, _option("--prior", "SHARE|auto", "Share of the picks that are particles (prevalence); auto estimates it.")
]
UsePickerScore = Annotated[
    bool,
    _option(
        "--use-picker-score",
        None,
        "Combine P(particle) with the picker's own score; the weights are fitted on the shots.",
    ),
]
Shots = Annotated[
    Path | None,
    _option("--shots", "FILE", "Labelled STAR file with labels on some of the picks, to fit the picker's score."),
]
MinStd = Annotated[
    float | None,
    _option("--min-std", "N", "Reject picks whose pixels have a lower standard deviation, in units of the noise."),
]
MaxStd = Annotated[
    float | None,
    _option("--max-std", "N", "Reject picks whose pixels have a higher standard deviation, in units of the noise."),
]
MaxExtreme = Annotated[
    float | None,
    _option("--max-extreme", "SHARE", "Reject picks with a larger share of pixels beyond three standard deviations."),
]
MaxDomain = Annotated[
    float | None,
    _option(
        "--max-domain", "N", "Reject picks in a connected region of high scores larger than N average ones (ice: 4)."
    ),
]
MinDistance = Annotated[
    float | None, _option("--min-distance", "Å", "Of two picks closer than this, keep the better one.")
]
Rethreshold = Annotated[
    Path | None, _option("--rethreshold", "DIR", "Apply another --threshold to this finished run, without recomputing.")
]


def run_prune(
    context: typer.Context,
    picks: Picks = None,
    micrographs: given.Folders = None,
    model: given.Model = ScorerConfig.model,
    out: given.Out = PruneConfig.out,
    threshold: given.Threshold = PruneConfig.threshold,
    diameter: given.OtherDiameter = ScorerConfig.diameter_angstrom,
    pixel_size: given.PixelSize = PruneConfig.pixel_size,
    batch_size: given.BatchSize = ScorerConfig.batch_size,
    device: given.Device = ScorerConfig.device,
    write_score: WriteScore = PruneConfig.write_score,
    prior: Prior = str(PruneConfig.prior),
    use_picker_score: UsePickerScore = False,
    shots: Shots = PruneConfig.picker_shots,
    min_std: MinStd = Filters.min_std,
    max_std: MaxStd = Filters.max_std,
    max_extreme: MaxExtreme = Filters.max_extreme,
    max_domain: MaxDomain = Filters.max_domain,
    min_distance: MinDistance = Filters.min_distance,
    trust_frame: given.TrustFrame = PruneConfig.trust_frame,
    rethreshold: Rethreshold = None,
    overwrite: given.Overwrite = PruneConfig.overwrite,
) -> None:
    """Drop the picks that are not particles.

    PICKS are files of any picker, an autopick.star list, or folders of them. DIR gets
    kept/NAME, rejected/NAME, scores.csv, summary.json, and report.html to look at; inputs are
    never written to. A run that was stopped goes on when the same command is given again.
    """
    if rethreshold is not None:
        _rethreshold(context, rethreshold, threshold, overwrite)
        return
    if not picks:
        raise typer.BadParameter("give files of picks, or folders of them", param_hint="PICKS")
    if use_picker_score != (shots is not None):
        raise typer.BadParameter("give both, or none", param_hint="--use-picker-score and --shots")
    config = PruneConfig(
        micrographs=tuple(micrographs or ()),
        out=out,
        threshold=threshold,
        pixel_size=pixel_size,
        overwrite=overwrite,
        write_score=write_score,
        filters=Filters(min_std, max_std, max_extreme, max_domain, min_distance),
        prior=_prior(prior),
        picker_shots=shots,
        trust_frame=trust_frame,
    )
    prune_and_show(picks, config, ScorerConfig(_model(model), diameter, batch_size, device))


def _model(given: Path | None) -> Path | None:
    """The model file; None is the general model."""
    if given is None:
        return MODEL if MODEL.is_file() else None
    return None if given == Path(GENERAL_MODEL) else given


def prune_and_show(picks: list[Path], config: PruneConfig, scorer: ScorerConfig) -> None:
    """Prune, with progress and report, and show the result."""
    _check_there(picks, config, scorer)
    from pickeropt.api import Model, prune
    from pickeropt.commands.console import progress, show_prune

    model = Model.load(
        scorer.model, device=scorer.device, batch_size=scorer.batch_size, diameter=scorer.diameter_angstrom
    )
    with progress("picks") as on_progress:
        pruning = partial(on_progress, "pruning")
        summary = prune(picks, model, on_progress=pruning, **vars(config))
    show_prune(summary)


def _check_there(picks: list[Path], config: PruneConfig, scorer: ScorerConfig) -> None:
    """Report a mistyped path before the network library is loaded, which takes seconds."""
    if scorer.model is not None and not scorer.model.is_file():
        raise CheckpointError.missing_model(scorer.model)
    for path in picks if config.picker_shots is None else [*picks, config.picker_shots]:
        if not path.exists():
            raise FormatError.missing(path)


def _rethreshold(context: typer.Context, run: Path, threshold: float, overwrite: bool) -> None:
    """`--out` is another folder only where it was given; every other option belongs to the run."""
    said = {
        name
        for name in context.params
        if (source := context.get_parameter_source(name)) is not None and source.name == "COMMANDLINE"
    }
    others = sorted(said - {"rethreshold", "threshold", "out", "overwrite"})
    if others:
        what = ", ".join("PICKS" if name == "picks" else f"--{name.replace('_', '-')}" for name in others)
        raise typer.BadParameter(f"{what} belongs to the run, which is finished", param_hint="--rethreshold")
    if "threshold" not in said:
        raise typer.BadParameter("give the other --threshold with it", param_hint="--rethreshold")
    from pickeropt.api import rethreshold
    from pickeropt.commands.console import show_prune

    out = context.params["out"] if "out" in said else None
    show_prune(rethreshold(run, threshold, out=out, overwrite=overwrite))


def _prior(text: str) -> float | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        hint = f"{text!r} is neither auto nor a number between 0 and 1"
        raise typer.BadParameter(hint, param_hint="--prior")
    return value
