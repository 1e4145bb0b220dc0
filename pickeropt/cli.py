"""The command line: one short function a command, parse, call, show.

The user's faults (`PickeroptError`) become one line ``error: …`` on standard error and
exit code 2, as typer's own usage errors do; Ctrl-C is 130; anything else is a bug of ours
and keeps its traceback. Defaults are those of the config dataclasses, and everything that
takes time to import is imported by the command that needs it.
"""

import io
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pickeropt import __version__
from pickeropt.commands import options as given
from pickeropt.commands.benchmark import run_benchmark
from pickeropt.commands.check import run_check
from pickeropt.commands.convert import run_convert
from pickeropt.commands.dataset import dataset_app, run_build, run_empiar
from pickeropt.commands.demo import run_demonstration
from pickeropt.commands.evaluate import run_evaluate
from pickeropt.commands.finetune import run_finetune
from pickeropt.commands.label import run_label
from pickeropt.commands.pick import pick_app
from pickeropt.commands.pretrain import run_pretrain
from pickeropt.commands.prune import run_prune
from pickeropt.commands.relion import RAW, run_relion
from pickeropt.commands.report import run_report
from pickeropt.errors import PickeroptError

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


app.command("finetune")(run_finetune)
app.command("prune")(run_prune)
app.command("label")(run_label)
app.command("report")(run_report)
app.command("evaluate")(run_evaluate)
app.command("demo")(run_demonstration)


app.command("pretrain")(run_pretrain)
app.command("benchmark")(run_benchmark)
app.command("check")(run_check)
app.command("convert")(run_convert)
app.command("relion", context_settings=RAW)(run_relion)
dataset_app.command("build")(run_build)
dataset_app.command("empiar")(run_empiar)
app.add_typer(dataset_app, name="dataset")
app.add_typer(pick_app, name="pick")
