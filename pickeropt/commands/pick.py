"""`pickeropt pick train`, `run` and `settings`: options, calls and output."""

import math
import shlex
from pathlib import Path
from typing import Annotated

import typer

from pickeropt.commands import options as given
from pickeropt.commands.options import option
from pickeropt.pickers.picker_config import (
    FORMATS,
    KINDS,
    PickRunConfig,
    PickRunReport,
    PickTrainConfig,
    PickTrainReport,
)

pick_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Pick particles: DeepEM, DeepPicker or a YOLO detector."
)

PICKER = Path("picker.safetensors")
"""Where `pick train` writes and `pick run` looks where the user does not say."""

Kind = Annotated[str, option("--picker", "|".join(KINDS), "The network.")]
Coords = Annotated[
    list[Path] | None,
    option("--coords", "FILE_OR_DIR", "Particle coordinates in any format; may be repeated."),
]
Diameter = Annotated[float | None, option("--diameter", "Å", "Particle diameter; default: that of the labels.")]
OtherDiameter = Annotated[float | None, option("--diameter", "Å", "Particle diameter; default: that of training.")]
Out = Annotated[Path, option("--out", "FILE", "The picker file to write.")]
Particles = Annotated[
    int | None, option("--particles", "N", "Train on N particles drawn at random; default: on all.", min=1)
]
HeldBack = Annotated[float, option("--held-back", "SHARE", "Fraction of micrographs held back for the threshold.")]
Init = Annotated[Path | None, option("--init", "FILE", "Start from this picker of the same kind and its settings.")]
Settings = Annotated[
    list[str] | None,
    option("--set", "NAME=VALUE", "A setting of the network; may be repeated. `pick settings` lists them."),
]
Targets = Annotated[list[Path], typer.Argument(metavar="MICROGRAPHS", help="Micrographs, or folders of them.")]
PickerFile = Annotated[Path, option("--picker", "FILE", "A picker file written by `pick train`.")]
Picks = Annotated[Path, option("--out", "DIR", "The folder to write.")]
Format = Annotated[str, option("--format", "|".join(FORMATS), "Format of the coordinate files, one per micrograph.")]
Threshold = Annotated[str, option("--threshold", "auto|T", "Lowest score of a pick; auto: that of training.")]
Prune = Annotated[Path | None, option("--prune", "MODEL", "Prune the picks afterwards with this model of `finetune`.")]
Pruned = Annotated[
    Path | None,
    option("--pruned", "DIR", "Folder of the pruned picks; default: OUT_pruned."),
]


@pick_app.callback()
def _pick() -> None:
    """Pick particles: DeepEM, DeepPicker or a YOLO detector."""


@pick_app.command("train")
def run_pick_train(
    picker: Kind,
    coords: Coords = None,
    micrographs: given.Folders = None,
    diameter: Diameter = PickTrainConfig.diameter_angstrom,
    pixel_size: given.PixelSize = PickTrainConfig.pixel_size,
    out: Out = PICKER,
    particles: Particles = PickTrainConfig.particles,
    held_back: HeldBack = PickTrainConfig.held_back,
    init: Init = PickTrainConfig.init,
    settings: Settings = None,
    seed: given.Seed = PickTrainConfig.seed,
    device: given.Device = PickTrainConfig.device,
    overwrite: given.Overwrite = False,
) -> None:
    """Train a picker from coordinates of particles.

    Some micrographs are held back to choose the threshold. The same command continues
    a stopped run. A DeepPicker given with --init can train without --coords, on the best of
    its own picks on the micrographs.
    """
    config = PickTrainConfig(
        picker=picker,
        diameter_angstrom=diameter,
        pixel_size=pixel_size,
        particles=particles,
        held_back=held_back,
        init=init,
        settings=dict(_setting(text) for text in settings or ()),
        seed=seed,
        device=device,
    )
    from pickeropt.commands.console import progress
    from pickeropt.pickers.picking import train_picker

    with progress() as on_progress:
        report = train_picker(
            coords or (), micrographs or (), out, config, overwrite=overwrite, on_progress=on_progress
        )
    _show_train(report)


@pick_app.command("run")
def run_pick_run(
    micrographs: Targets,
    picker: PickerFile = PICKER,
    out: Picks = PickRunConfig.out,
    format: Format = PickRunConfig.format,
    threshold: Threshold = "auto",
    diameter: OtherDiameter = PickRunConfig.diameter_angstrom,
    pixel_size: given.PixelSize = PickRunConfig.pixel_size,
    device: given.Device = PickRunConfig.device,
    prune: Prune = None,
    pruned: Pruned = None,
    overwrite: given.Overwrite = PickRunConfig.overwrite,
) -> None:
    """Pick on micrographs.

    DIR gets a file of picks for each micrograph, and summary.json. The same command
    continues a stopped run. With --prune the picks are then pruned.
    """
    if pruned is not None and prune is None:
        raise typer.BadParameter("give --prune MODEL with it", param_hint="--pruned")
    if out.name in ("", ".."):
        raise typer.BadParameter(f"{str(out)!r} is no name of a folder to write", param_hint="--out")
    config = PickRunConfig(
        picker=picker,
        out=out,
        format=format,
        threshold=_threshold(threshold),
        diameter_angstrom=diameter,
        pixel_size=pixel_size,
        device=device,
        overwrite=overwrite,
    )
    _run(micrographs, config, prune, pruned or out.with_name(f"{out.name}_pruned"))


def _run(micrographs: list[Path], config: PickRunConfig, model: Path | None, pruned: Path) -> None:
    """Pick, then prune where there is a model; what pruning needs is checked before the first pick."""
    from pickeropt.commands.console import progress
    from pickeropt.commands.prune import prune_and_show
    from pickeropt.pickers.picking import pick
    from pickeropt.prune.prune_config import PruneConfig, ScorerConfig
    from pickeropt.resumable import check_out

    if model is not None:
        from pickeropt.models.classifier import load_checkpoint

        load_checkpoint(model)
        check_out(pruned, config.overwrite)
    with progress("micrographs") as on_progress:
        report = pick(micrographs, config, on_progress=on_progress)
    _show_run(report, shlex.join(["pickeropt", "prune", str(report.out)]) if model is None else None)
    if model is not None and report.picks:
        folders = tuple(dict.fromkeys(path if path.is_dir() else path.parent for path in micrographs))
        prune_and_show(
            [config.out],
            PruneConfig(
                micrographs=folders,
                out=pruned,
                pixel_size=config.pixel_size,
                overwrite=config.overwrite,
            ),
            ScorerConfig(model, device=config.device),
        )


@pick_app.command("settings")
def run_pick_settings(picker: Kind) -> None:
    """List the settings of a network, and their defaults."""
    from pickeropt.errors import PickeroptError
    from pickeropt.pickers.picker_records import default_settings

    if picker not in KINDS:
        raise PickeroptError(f"--picker is {picker!r}; give one of {', '.join(KINDS)}")
    for name, value in default_settings(picker).items():
        shown = ",".join(map(str, value)) if isinstance(value, list | tuple) else value
        print(f"{name}={shown}")


def _show_train(report: PickTrainReport) -> None:
    from pickeropt.commands.console import duration

    held_back = f", {report.held_back} more held back" if report.held_back else ""
    print(f"{report.picker}: {report.particles:,} particles on {report.micrographs} micrographs{held_back}")
    for name, value in report.figures.items():
        shown = f"{value:,.0f}" if value >= 1 and value == int(value) else f"{value:.3f}"
        print(f"  {name.replace('_', ' '):26s}{shown:>8s}")
    print(f"threshold: {report.threshold:.3f}")
    for warning in report.warnings:
        print(f"warning: {warning}")
    print(f"{report.out} in {duration(report.seconds)}")
    print(f"next:  pickeropt pick run MICROGRAPHS --picker {report.out}")


def _show_run(report: PickRunReport, next_command: str | None) -> None:
    from pickeropt.commands.console import duration

    earlier = f", {report.resumed} of them by an earlier run" if report.resumed else ""
    where = f"on {report.micrographs} micrographs{earlier}"
    print(f"{report.picks:,} picks of {report.threshold:.3f} or more {where}")
    if report.empty:
        print(f"{report.empty} micrographs without a pick")
    print(f"{report.out}/ in {duration(report.seconds)}")
    if next_command is not None:
        print(f"next:  {next_command} --model MODEL --micrographs DIR")


def _setting(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name.strip() and sign and value):
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--set")
    return name.strip(), value.strip()


def _threshold(text: str) -> float | None:
    if text == "auto":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        hint = f"{text!r} is neither auto nor a number between 0 and 1"
        raise typer.BadParameter(hint, param_hint="--threshold")
    return value
