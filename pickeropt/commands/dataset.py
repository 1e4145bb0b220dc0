"""`pickeropt dataset simulate`, `build` and `empiar`: options, calls and output."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pickeropt.commands.options import Folders, Out, Overwrite, Seed, option
from pickeropt.datasets.dataset_config import BuildConfig, DatasetConfig, DatasetReport, Range
from pickeropt.datasets.empiar.manifest import EmpiarConfig
from pickeropt.errors import PickeroptError

if TYPE_CHECKING:
    from pickeropt.datasets.class_folders import BuildReport
    from pickeropt.datasets.empiar.download_plan import DownloadPlan, EntryPlan
    from pickeropt.datasets.empiar.fetching import EmpiarReport
    from pickeropt.datasets.empiar.manifest import Entry, EntryOverrides, Manifest


dataset_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Data sets to train on: simulated or cut from yours."
)


DatasetOut = Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.")]
Count = Annotated[int, option("--micrographs", "N", "Number of micrographs.", min=1)]
Size = Annotated[int, option("--size", "PX", "Side of a micrograph.", min=64)]
PixelSize = Annotated[str, option("--pixel-size", "Å/PX", "One value, or a range LOW-HIGH.")]
Diameter = Annotated[
    str | None,
    option("--diameter", "Å", "Scale particles to this diameter or LOW-HIGH."),
]
SpeciesNames = Annotated[
    str | None, option("--species", "NAMES", "Names separated by commas, or all; default: the 14 that differ most.")
]
Structures = Annotated[Path | None, option("--structures", "DIR", "More molecules: a folder of mmCIF or PDB files.")]
Preset = Annotated[str, option("--preset", "NAME", "Imaging: default, cryolo or deepem.")]
Snr = Annotated[str | None, option("--snr", "RATIO[,…]", "Signal-to-noise ratios in place of the preset's.")]
Occupancy = Annotated[
    str | None, option("--occupancy", "N", "Particles per squared diameter of free ice, or LOW-HIGH.")
]
Points = Annotated[int, option("--points", "N", "Points per class on contaminants and empty ice in each micrograph.")]
GridKinds = Annotated[
    int | None,
    option(
        "--grid-kinds",
        "N",
        "Micrographs of one species share N kinds of contaminant and, for 8 of 14 species, one carbon film.",
        min=1,
    ),
]
Workers = Annotated[
    int | None,
    option("--workers", "N", "Processes; does not change the result.", min=1),
]


@dataset_app.callback()
def _dataset() -> None:
    """Data sets to train on."""


@dataset_app.command("simulate")
def run_simulate(
    out: DatasetOut,
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
    """Simulate micrographs with known particle positions.

    OUT gets micrographs/NAME.mrc, masks/NAME.png, truth.star and dataset.json. The same command
    continues a stopped run.
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


LabelFiles = Annotated[
    list[Path], typer.Argument(metavar="LABELS.star", help="Labelled STAR files; truth.star is one.")
]
LabelDiameter = Annotated[float | None, option("--diameter", "Å", "Diameter of particles whose labels give none.")]
LabelPixelSize = Annotated[float | None, option("--pixel-size", "Å/PX", "By default from the labels and MRC headers.")]
PerClass = Annotated[int, option("--per-class", "N", "At most N boxes a class.", min=2)]
BoxDiameters = Annotated[float, option("--box-diameters", "D", "Side of a box in particle diameters.")]
By = Annotated[str, option("--by", "source|class", "What makes a class.")]

Entries = Annotated[str, option("--entries", "N,N,…", "EMPIAR numbers; else all that are fully known.")]
List = Annotated[bool, option("--list", None, "Show the manifest and what is known; fetch nothing.")]
Yes = Annotated[bool, option("--yes", None, "Do not ask before fetching.")]
Most = Annotated[int, option("--max-micrographs", "N", "Of each entry; 0 takes all.", min=0)]
BaseUrl = Annotated[str | None, option("--base-url", "URL", "A mirror of the EMPIAR archive.")]
EntryUrl = Annotated[str | None, option("--entry-url", "URL", "A mirror of EMPIAR's descriptions.")]
LabelsUrl = Annotated[str | None, option("--labels-url", "URL", "A mirror of CryoPPP's archives.")]
ShotFiles = Annotated[list[Path] | None, option("--shots", "FILE", "Your labels: contaminant, carbon; repeat it.")]
Sizes = Annotated[list[str] | None, option("--pixel-size", "N=Å/PX", "Of an entry; may be repeated.")]
Diameters = Annotated[list[str] | None, option("--diameter", "N=Å", "Of an entry's particle; repeat it.")]
EntryFolders = Annotated[
    list[str] | None, option("--folder", "N=data/DIR", "Where an entry's micrographs lie; repeat it.")
]


def run_build(
    labels: LabelFiles,
    out: Out,
    micrographs: Folders = None,
    diameter: LabelDiameter = BuildConfig.diameter_angstrom,
    pixel_size: LabelPixelSize = BuildConfig.pixel_size,
    per_class: PerClass = BuildConfig.per_class,
    box_diameters: BoxDiameters = BuildConfig.box_diameters,
    by: By = BuildConfig.by,
    seed: Seed = BuildConfig.seed,
) -> None:
    """Cut a data set of boxes, one stack a class, from labelled micrographs.

    LABELS.star has _pickeroptClass, and may have _pickeroptSourceClass, _pickeroptDiameter and
    _pickeroptPixelSize, as `dataset simulate` and `dataset empiar` write them. Every box shows its
    particle at one size.
    """
    from pickeropt.commands.console import progress
    from pickeropt.datasets.class_folders import build_class_folders

    config = BuildConfig(diameter, pixel_size, per_class, box_diameters, by, seed)
    with progress("micrographs") as on_progress:
        report = build_class_folders(labels, config, out, tuple(micrographs or ()), on_progress)
    _show_build(report)


def run_empiar(
    out: Out = Path("empiar"),
    entries: Entries = "",
    show_list: List = False,
    yes: Yes = False,
    max_micrographs: Most = EmpiarConfig.max_micrographs,
    shots: ShotFiles = None,
    pixel_size: Sizes = None,
    diameter: Diameters = None,
    folder: EntryFolders = None,
    base_url: BaseUrl = None,
    entry_url: EntryUrl = None,
    labels_url: LabelsUrl = None,
) -> None:
    """Fetch real micrographs from EMPIAR, with CryoPPP's particles as labels.

    A run that was stopped goes on when the same command is given again. Contaminant and carbon
    are for you to label: give the files with --shots and run it once more. What the manifest
    does not know of an entry that --entries names is asked of EMPIAR, then of you.
    """
    from pickeropt.commands.console import progress
    from pickeropt.datasets.empiar.download_plan import ask_empiar, make_plan
    from pickeropt.datasets.empiar.fetching import fetch
    from pickeropt.datasets.empiar.manifest import EntryOverrides, choose_entries, load_manifest

    manifest = load_manifest()
    if show_list:
        _check_list_alone(entries, shots, pixel_size, diameter, folder, base_url, entry_url, labels_url)
        _show_manifest(manifest)
        return
    said = EntryOverrides(
        {n: _number(v, "--pixel-size") for n, v in _pairs(pixel_size, "--pixel-size")},
        {n: _number(v, "--diameter") for n, v in _pairs(diameter, "--diameter")},
        dict(_pairs(folder, "--folder")),
    )
    wanted = [name for name in entries.split(",") if name.strip()]
    chosen = choose_entries(manifest, wanted, said)
    said, lines = ask_empiar(chosen, said, out, entry_url or manifest.entry_url)
    print(*lines, sep="\n", end="\n" * bool(lines))
    chosen = choose_entries(manifest, [e.accession for e in chosen], said)
    if _can_ask(yes):
        chosen = choose_entries(manifest, [e.accession for e in chosen], _ask_missing(chosen, said, out))
    if not wanted:
        _say_left_out(manifest, chosen)
    config = EmpiarConfig(
        out=out,
        base_url=base_url or manifest.base_url,
        labels_url=labels_url or manifest.labels_url,
        max_micrographs=max_micrographs,
        shots=tuple(shots or ()),
    )
    plan = make_plan(chosen, config)
    _agree(plan, out, yes)
    with progress("MB") as on_progress:
        report = fetch(plan, config, on_progress)
    _show_empiar(report, manifest.labels_licence)


def _check_list_alone(*values: object) -> None:
    """Raises BadParameter where --list comes with a choice that it would not heed."""
    names = ("entries", "shots", "pixel-size", "diameter", "folder", "base-url", "entry-url", "labels-url")
    given = [f"--{name}" for name, value in zip(names, values, strict=True) if value]
    if given:
        hint = f"it shows the whole manifest and fetches nothing; leave out {', '.join(given)}"
        raise typer.BadParameter(hint, param_hint="--list")


def _pairs(texts: Sequence[str] | None, option: str) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in texts or ()]
    for name, sign, value in pairs:
        if not (name.strip() and sign and value.strip()):
            raise typer.BadParameter(f"{name + sign + value!r} is not ENTRY=VALUE", param_hint=option)
    return [(name.strip().upper().removeprefix("EMPIAR-"), value.strip()) for name, _, value in pairs]


def _can_ask(yes: bool) -> bool:
    return not yes and sys.stdin.isatty()


def _ask_missing(entries: "Sequence[Entry]", said: "EntryOverrides", out: Path) -> "EntryOverrides":
    """What the manifest does not know, from the user at the terminal; empty answers stay unknown."""
    from pickeropt.datasets.empiar.download_plan import WHERE, micrographs_here
    from pickeropt.datasets.empiar.manifest import EntryOverrides

    sizes, diameters, folders = dict(said.pixel_size), dict(said.diameter), dict(said.folder)
    for entry in entries:
        name = entry.accession
        if entry.missing:
            print(f"{entry.name}: not all is known; its page is {WHERE.format(name)}")
        if "pixel_size" in entry.missing:
            sizes[name] = typer.prompt("  pixel size of the micrographs, Å/px", type=float)
        if "diameter" in entry.missing:
            diameters[name] = typer.prompt("  particle diameter, Å", type=float)
        if "folder" in entry.missing and not micrographs_here(out / name):
            folders[name] = typer.prompt("  folder of the micrographs, such as data/Micrographs")
    return EntryOverrides(sizes, diameters, folders)


def _say_left_out(manifest: "Manifest", chosen: "Sequence[Entry]") -> None:
    names = {entry.accession for entry in chosen}
    left = [entry.accession for entry in manifest.entries if entry.accession not in names]
    if left:
        print(
            f"left out, because not all is known of them: {', '.join(left)} "
            "(--list says what; ask for them with --entries)",
            file=sys.stderr,
        )


def _agree(plan: "DownloadPlan", out: Path, yes: bool) -> None:
    for entry in plan.entries:
        print(f"{entry.entry.name}: {entry.count} of {len(entry.names)} micrographs{_costs(entry)}")
    print(f"about {plan.needed / 1e9:.1f} GB in {out} ({plan.free / 1e9:,.0f} GB are free)")
    if yes or plan.complete:
        return
    if not sys.stdin.isatty():
        raise PickeroptError("nobody is here to agree to this; give --yes to fetch it")
    if not typer.confirm("fetch it?"):
        raise typer.Exit(1)


def _costs(entry: "EntryPlan") -> str:
    """Behind the number of micrographs: how large they are, how many are here, and the labels."""
    labels = ""
    if entry.archive:
        labels = f" and {entry.archive[1] / 1e9:.1f} GB of labels" if entry.archive[1] else " and labels"
    if not entry.missing:
        return f", here already{labels}"
    each = f" of {entry.bytes_each / 1e6:,.0f} MB" if entry.bytes_each else " of unknown size"
    here = f" ({entry.count - entry.missing} are here)" if entry.missing < entry.count else ""
    return f"{each}{here}{labels}"


def _show_manifest(manifest: "Manifest") -> None:
    head = ("entry", "specimen", "Å/px", "Ø Å", "folder", "labels", "to be given")
    rows = [head] + [
        (
            entry.name,
            entry.specimen or "?",
            "?" if entry.pixel_size is None else f"{entry.pixel_size:g}",
            "?" if entry.diameter is None else f"{entry.diameter:.0f}",
            entry.folder or "?",
            "CryoPPP" if entry.labels else "yours",
            ", ".join(entry.missing).replace("_", " ") or "-",
        )
        for entry in manifest.entries
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for entry in manifest.entries:
        if entry.note:
            print(f"{entry.name}: {entry.note}")
    print(f"particle labels: {manifest.labels_licence}; contaminant and carbon: your own (--shots)")


def _show_empiar(report: "EmpiarReport", licence: str) -> None:
    for entry in report.entries:
        counts = ", ".join(f"{n:,} {kind}" for kind, n in entry.counts.items()) or "no labels yet"
        print(f"{entry.entry.name}: {len(entry.micrographs)} micrographs, {counts}")
        if entry.outside:
            print(f"warning: {entry.entry.name}: {entry.outside} of CryoPPP's centres lie outside, left out")
    for warning in report.warnings:
        print(f"warning: {warning}")
    print(f"particle labels: {licence}")
    written = [str(entry.labels) for entry in report.entries if entry.labels]
    if written:
        print(f"next:  pickeropt dataset build {' '.join(written)} --out boxes")


def _show_build(report: "BuildReport") -> None:
    width = max(map(len, report.counts))
    for name, count in report.counts.items():
        print(f"{name.ljust(width)}  {report.kinds[name].ljust(12)}{count:6,}")
    for warning in report.warnings:
        print(f"warning: {warning}")
    boxes, classes = sum(report.counts.values()), len(report.counts)
    where = f"{report.micrographs} micrographs"
    print(f"{boxes:,} boxes of {report.box_px} px in {classes} classes, from {where}: {report.out}/")
