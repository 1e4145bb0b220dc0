"""`pickeropt relion`: RELION's External job on the command line. `cli` hooks `run_relion` in.

RELION writes standard output and standard error to `run.out` and `run.err`, so there are
no bars here; whatever goes wrong, an exit file in the job folder tells RELION.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from pickeropt.relion.external_args import ExternalJob

RAW = {"ignore_unknown_options": True, "allow_extra_args": True}
"""RELION's labels are read by `parse_arguments`, so that a wrong one ends the job as a failure."""

ABORTED = 2
"""Exit code of RELION's own programs."""

LOG_SECONDS = 10.0


def run_relion(context: typer.Context) -> None:
    """Prune as an External job of RELION.

    RELION calls it in the project folder:
    --o External/job005/ [--in_mics FILE] --in_coords FILE | --in_parts FILE --j N
    and --label value for each parameter of the job; docs/relion.md lists them. Writes
    autopick.star or particles.star, pruned, into the job folder, and whatever `pickeropt
    prune` writes into pruned/ there. Continuing a stopped job goes on where it stopped.
    """
    from pickeropt.relion.external_args import job_folder, parse_arguments
    from pickeropt.relion.external_job import JobAbortedError, job_control

    words = context.args
    try:
        with job_control(job_folder(words)) as check_abort:
            _run(parse_arguments(words), check_abort)
    except JobAbortedError:
        print("aborted; continue the job to go on where it stopped", flush=True)
        raise typer.Exit(ABORTED) from None


def _run(job: "ExternalJob", check_abort: Callable[[], None]) -> None:
    import torch

    from pickeropt.commands.console import show_prune
    from pickeropt.prune.scoring import load_scorer
    from pickeropt.relion.external_job import prepare, run_external
    from pickeropt.report.reporting import finish_with_report
    from pickeropt.report.rerun_command import ReportConfig

    torch.set_num_threads(job.threads)
    prepared = prepare(job)
    for warning in prepared.warnings:
        print(f"warning: {warning}", flush=True)
    asked = job.scorer
    scorer = load_scorer(asked.model, asked.device, asked.batch_size, asked.diameter_angstrom)
    listed = prepared.coordinates.micrographs if prepared.coordinates else None
    finish = partial(finish_with_report, config=ReportConfig(stars=(listed.path,) if listed else ()))
    report = run_external(prepared, scorer, check_abort, _progress(), finish)
    show_prune(report.summary)
    for name, kind in report.nodes:
        print(f"output for RELION {report.version}: {name} ({kind})")
    sys.stdout.flush()


def _progress(clock: Callable[[], float] = time.monotonic) -> Callable[[int, int], None]:
    """A line on standard output every ten seconds, and one at the end."""
    from pickeropt.commands.console import Pace

    pace, last = Pace("picks", clock), clock()

    def on_progress(done: int, total: int) -> None:
        nonlocal last
        line = pace.line("pruning", done, total)
        if done == total or clock() - last >= LOG_SECONDS:
            last = clock()
            print(f"pruning: {line}", flush=True)

    return on_progress
