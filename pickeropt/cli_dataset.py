"""`pickeropt dataset …`: data sets to train on. Style and errors as in `cli`, which mounts this."""

import os
from pathlib import Path
from typing import Annotated

import typer

from pickeropt.commands.options import Overwrite, Seed, option
from pickeropt.datasets.dataset_config import DatasetConfig, DatasetReport, Range

dataset_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Data sets to train on: simulated or cut from yours."
)


Out = Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.")]
Count = Annotated[int, option("--micrographs", "N", "How many.", min=1)]
Size = Annotated[int, option("--size", "PX", "Side of a micrograph.", min=64)]
PixelSize = Annotated[str, option("--pixel-size", "Å/PX", "One value, or LOW-HIGH to draw from.")]
Diameter = Annotated[
    str | None, option("--diameter", "Å", "Scale all particles to it (or LOW-HIGH); else their own.")
]
SpeciesNames = Annotated[
    str | None, option("--species", "NAMES", "With commas between, or all; else 14 that differ most.")
]
Structures = Annotated[
    Path | None, option("--structures", "DIR", "More molecules: a folder of mmCIF or PDB files.")
]
Preset = Annotated[str, option("--preset", "NAME", "Imaging: default, cryolo or deepem.")]
Snr = Annotated[str | None, option("--snr", "RATIO[,…]", "Signal-to-noise ratios in place of the preset's.")]
Occupancy = Annotated[
    str | None, option("--occupancy", "N", "Particles per squared diameter of free ice, or LOW-HIGH.")
]
Points = Annotated[int, option("--points", "N", "Points a class on junk and empty ice, each micrograph.")]
GridKinds = Annotated[
    int | None,
    option(
        "--grid-kinds",
        "N",
        "A species' micrographs share N kinds of contaminant and, on 8 of 14 species, one film.",
        min=1,
    ),
]
Workers = Annotated[
    int | None, option("--workers", "N", "Processes; changes no result. Else one a core.", min=1)
]


@dataset_app.callback()
def _dataset() -> None:
    """Data sets to train on."""


@dataset_app.command("simulate")
def run_simulate(
    out: Out,
    micrographs: Count = DatasetConfig.micrographs,
    size: Size = DatasetConfig.size,
    pixel_size: PixelSize = f"{DatasetConfig.pixel_size[0]:g}",
    species: SpeciesNames = None,
    preset: Preset = DatasetConfig.preset,
    diameter: Diameter = None,
    snr: Snr = None,
    occupancy: Occupancy = None,
    points: Points = DatasetConfig.points_per_class,
    grid_kinds: GridKinds = DatasetConfig.grid_kinds,
    seed: Seed = DatasetConfig.seed,
    workers: Workers = None,
    structures: Structures = DatasetConfig.structures,
    overwrite: Overwrite = False,
) -> None:
    """Simulate micrographs whose truth is known.

    OUT gets micrographs/NAME.mrc, masks/NAME.png, truth.star and dataset.json. A run that was
    stopped goes on when the same command is given again.
    """
    config = DatasetConfig(
        micrographs=micrographs,
        size=size,
        pixel_size=_range(pixel_size, "--pixel-size"),
        diameter_angstrom=None if diameter is None else _range(diameter, "--diameter"),
        species=tuple(name.strip() for name in species.split(",")) if species else (),
        preset=preset,
        snr=None if snr is None else tuple(_number(part, "--snr") for part in snr.split(",")),
        occupancy=None if occupancy is None else _range(occupancy, "--occupancy"),
        points_per_class=points,
        grid_kinds=grid_kinds,
        seed=seed,
        structures=structures,
    )
    from pickeropt.commands.console import progress
    from pickeropt.datasets.simulate.simulated_dataset import simulate_dataset

    with progress("micrographs") as on_progress:
        report = simulate_dataset(out, config, workers or _cores(), overwrite, on_progress)
    _show(report)


def _show(report: DatasetReport) -> None:
    taken = f" ({report.earlier} of them by an earlier run)" if report.earlier else ""
    print(f"{report.micrographs} micrographs{taken} with {report.particles:,} particles")
    print(f"species: {', '.join(report.species)}")
    print(f"truth: {report.folder / 'truth.star'}")


def _range(text: str, option: str) -> Range:
    """`1.5` or `0.8-2`. Raises BadParameter."""
    low, dash, high = text.partition("-")
    least = _number(low, option)
    return least, _number(high, option) if dash else least


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number", param_hint=option) from None


def _cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
