"""`pickeropt demo`: options and call."""

from pathlib import Path

from pickeropt.commands import options as given


def run_demonstration(out: given.Out = Path("demo"), seed: given.Seed = 0) -> None:
    """Run the whole workflow on simulated micrographs.

    Simulates micrographs and a picker's picks, labels 20 shots of each class, fine-tunes,
    prunes and evaluates, and writes all files and pictures to DIR.
    """
    from pickeropt.commands.console import show_demo, stage
    from pickeropt.demonstration import run_demo

    show_demo(run_demo(out, seed, stage))
