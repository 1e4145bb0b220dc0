"""The command line: one short function a command, parse, call, show.

The user's faults (`PickeroptError`) become one line ``error: …`` on standard error and
exit code 2, as typer's own usage errors do; Ctrl-C is 130; anything else is a bug of ours
and keeps its traceback. Defaults are those of the config dataclasses, and everything that
takes time to import is imported by the command that needs it.
"""

import io
import math
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from pickeropt import __version__
from pickeropt.cli_dataset import dataset_app
from pickeropt.commands import options as given
from pickeropt.commands.benchmark import run_benchmark
from pickeropt.commands.check import run_check
from pickeropt.commands.convert import run_convert
from pickeropt.commands.dataset import run_build, run_empiar
from pickeropt.commands.label import run_label
from pickeropt.commands.pick import pick_app
from pickeropt.commands.pretrain import run_pretrain
from pickeropt.commands.prune import MODEL, run_prune
from pickeropt.commands.relion import RAW, run_relion
from pickeropt.commands.report import run_report
from pickeropt.errors import PickeroptError
from pickeropt.finetune.finetune_config import FinetuneConfig

if TYPE_CHECKING:
    from pickeropt.shots import BoxShots, Shots


RESUMES = ("prune", "dataset", "pick", "pretrain", "benchmark", "relion")
"""Commands that go on where they stopped."""


class Commands(TyperGroup):
    """All commands, with our errors and Ctrl-C turned into exit codes."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PickeroptError as error:
            print("error:", " ".join(str(error).splitlines()), file=sys.stderr)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as interrupt:
            print(f"\ninterrupted{_goes_on(ctx)}", file=sys.stderr)
            raise typer.Exit(130) from interrupt
        except (RuntimeError, MemoryError) as error:
            what = _no_memory(error)
            if what is None:
                raise
            print(f"error: {what}{_goes_on(ctx)}", file=sys.stderr)
            raise typer.Exit(2) from error


def _goes_on(ctx: Any) -> str:
    """What is said of a command that was stopped half-way."""
    resumes = ctx.invoked_subcommand in RESUMES
    return "; the same command goes on where it stopped" * resumes


def _no_memory(error: RuntimeError | MemoryError) -> str | None:
    """What to say where memory ran out; others' jobs on a GPU are no fault of ours."""
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return "the machine has no memory left; free some, and check --diameter (Å) and --pixel-size (Å/px)"
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    kinds = torch.cuda.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.cuda.OutOfMemoryError)
    if not (isinstance(error, kinds) and "out of memory" in str(error)):
        return None
    return "the GPU has no memory left; free it, or give another one with --device cuda:N, or --device cpu"


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; file names that the terminal cannot show are escaped."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    app(prog_name="pickeropt")


def relion_external() -> None:
    """`relion_external_pickeropt`: the executable that RELION's External job is given."""
    app(["relion", *sys.argv[1:]], prog_name="pickeropt")


def _show_version(asked: bool) -> None:
    if asked:
        print(f"pickeropt {__version__}")
        raise typer.Exit


Version = Annotated[bool, given.option("--version", None, "Show it.", callback=_show_version, is_eager=True)]


@app.callback()
def _options(version: Version = False) -> None:
    """Prune the picks of any particle picker with a classifier learnt from a few labelled shots."""
    # before torch is imported: beside other jobs its threads would spin away each other's time
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@app.command("finetune")
def run_finetune(
    diameter: given.Diameter,
    shots: given.ShotsPath = None,
    class_files: given.ClassFiles = None,
    micrographs: given.Folders = None,
    pixel_size: given.PixelSize = FinetuneConfig.pixel_size,
    out: given.ModelOut = MODEL,
    shots_per_class: given.PerClass = FinetuneConfig.shots_per_class or 0,
    init: given.Init = FinetuneConfig.init,
    weights: given.Weights = FinetuneConfig.weights,
    backbone: given.Backbone = FinetuneConfig.backbone,
    recipe: given.Recipe = FinetuneConfig.recipe,
    loss_weights: given.LossWeights = ",".join(f"{weight:g}" for weight in FinetuneConfig.loss_weights),
    seed: given.Seed = FinetuneConfig.seed,
    device: given.Device = FinetuneConfig.device,
    invert: given.Invert = FinetuneConfig.invert,
    trust_frame: given.TrustFrame = FinetuneConfig.trust_frame,
    overwrite: given.Overwrite = False,
) -> None:
    """Learn a classifier from labelled shots.

    10 to 30 shots of each class are enough. They are one labelled STAR file (--shots
    labels.star), a coordinate file a class (--class particle=good.star --class
    carbon=edges.box), or a folder of boxes (--shots boxes/).
    """
    if (shots is None) == (not class_files):
        raise typer.BadParameter("give exactly one of the two", param_hint="--shots or --class")
    config = FinetuneConfig(
        diameter_angstrom=diameter,
        pixel_size=pixel_size,
        shots_per_class=shots_per_class or None,
        backbone=backbone,
        init=init,
        weights=weights,
        recipe=recipe,
        loss_weights=_numbers(loss_weights, "--loss-weights"),
        seed=seed,
        device=device,
        invert=invert,
        trust_frame=trust_frame,
    )
    folders = tuple(micrographs or ())
    of_boxes = shots is not None and shots.is_dir()
    if of_boxes and folders:
        raise typer.BadParameter("boxes are learnt from without micrographs", param_hint="--micrographs")
    pairs = [_class_file(text) for text in class_files or ()]
    from pickeropt.commands.console import progress, show_finetune
    from pickeropt.finetune.finetuning import finetune

    with progress() as on_progress:
        found = _read_shots(shots, pairs, folders)
        report = finetune(found, config, out, overwrite=overwrite, on_progress=on_progress)
    next_command = ["pickeropt", "prune", "PICKS.star", "--model", str(out)]
    for folder in folders:
        next_command += ["--micrographs", str(folder)]
    if pixel_size is not None and not of_boxes:
        next_command += ["--pixel-size", f"{pixel_size:g}"]
    show_finetune(report, shlex.join(next_command))


app.command("prune")(run_prune)
app.command("label")(run_label)
app.command("report")(run_report)


@app.command("evaluate")
def run_evaluate(
    scores: given.ScoresFile, truth: given.Truth, radius: given.Radius = None, out: given.Pictures = None
) -> None:
    """Measure a pruning against true particles.

    Prints precision, recall and F1 before and after, and both rankings: the classifier's
    and the picker's. Writes evaluation.json and pr_curve.png.
    """
    from pickeropt.commands.console import show_evaluation
    from pickeropt.evaluate.report import evaluate_scores, write_evaluation
    from pickeropt.evaluate.scored import pruned_diameter_px

    evaluation = evaluate_scores(scores, truth, radius, diameter_px=pruned_diameter_px(scores))
    show_evaluation(evaluation, write_evaluation(evaluation, out or scores.parent))


@app.command("demo")
def run_demonstration(out: given.Out = Path("demo"), seed: given.Seed = 0) -> None:
    """Do all of it on simulated micrographs.

    Simulates micrographs and a picker's picks, labels 20 shots of each class, fine-tunes,
    prunes, evaluates, and leaves all files and pictures in DIR.
    """
    from pickeropt.commands.console import show_demo, stage
    from pickeropt.demonstration import run_demo

    show_demo(run_demo(out, seed, stage))


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(map(math.isfinite, numbers)):
        raise typer.BadParameter(f"{text!r} is not numbers with commas between them", param_hint=option)
    return numbers


def _class_file(text: str) -> tuple[str, Path]:
    name, sign, file = text.partition("=")
    if not (name.strip() and sign and file):
        raise typer.BadParameter(f"{text!r} is not NAME=FILE, e.g. particle=good.star", param_hint="--class")
    return name.strip(), Path(file).expanduser()


def _read_shots(
    shots: Path | None, class_files: list[tuple[str, Path]], micrographs: tuple[Path, ...]
) -> "Shots | BoxShots":
    from pickeropt.shots import read_class_boxes, read_class_files, read_labelled_star

    if shots is None:
        return read_class_files(class_files, micrographs)
    return read_class_boxes(shots) if shots.is_dir() else read_labelled_star(shots, micrographs)


app.command("pretrain")(run_pretrain)
app.command("benchmark")(run_benchmark)
app.command("check")(run_check)
app.command("convert")(run_convert)
app.command("relion", context_settings=RAW)(run_relion)
dataset_app.command("build")(run_build)
dataset_app.command("empiar")(run_empiar)
app.add_typer(dataset_app, name="dataset")
app.add_typer(pick_app, name="pick")
