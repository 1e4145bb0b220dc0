"""Run as a program: kill runs and go on with them, then train as a pair of processes.

    python pretrain_pair.py ROOT      (ROOT as `test_pretrain_processes.py` makes it)

Two processes are started by what torchrun is made of, but forked, so that torch is imported once.
Each first does one recipe's killings in children, which are forked, so that a kill costs no import
of torch: ROOT/whole-RECIPE.safetensors from an undisturbed child, ROOT/killed-RECIPE.safetensors from
children of which all but the last die at the moments of MOMENTS, and ROOT/RECIPE.json with the steps they
began at. Then both together write ROOT/pair-RECIPE.safetensors.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from pretrain_world import tiny
from torch import distributed
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from pickeropt.pretrain.learner import curves_png
from pickeropt.pretrain.pretrain_config import PretrainConfig
from pickeropt.pretrain.pretraining import pretrain

DATA = {"default": "micrographs", "paper": "folders"}
SEVERAL = {"steps": 3, "mixed_precision": False, "save_every": 2, "validate_every": 2}
MOMENTS = {
    "default": (
        "cutting views 3",
        "training 6",
        "describing views 3",
        "rename killed-default.safetensors",
    ),
    "paper": ("training 6",),
}
"""In the middle of the views, between two states, before the head is fitted, before the product is there."""


def run(root: Path, recipe: str, name: str, moment: str) -> bool:
    """Train in a child that kills itself at a moment (never for none). Whether it was killed."""
    child = os.fork()
    if not child:
        for variable in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            del os.environ[variable]

        def happens(what: str) -> None:
            if what == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        def audit(event: str, arguments: tuple[object, ...]) -> None:
            if event == "os.rename":
                happens(f"rename {Path(str(arguments[1])).name}")

        sys.addaudithook(audit)
        report = pretrain(
            root / DATA[recipe],
            root / f"{name}-{recipe}.safetensors",
            tiny(root / "weights.safetensors", recipe),
            on_progress=lambda what, done, total: happens(f"{what} {done}"),
        )
        (root / f"{recipe}.json").write_text(json.dumps(report.resumed_at))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        raise SystemExit(f"the run of {name}, to be killed at {moment!r}, ended with {status}")
    return False


def several(root: Path, recipe: str) -> PretrainConfig:
    """In float32, so that only the order of sums differs."""
    return tiny(root / "weights.safetensors", recipe, **SEVERAL)


def work(root: Path) -> None:
    """What each of the two processes does."""
    recipe = ("default", "paper")[int(os.environ["RANK"])]
    assert not run(root, recipe, "whole", "")
    for moment in MOMENTS[recipe]:
        if not run(root, recipe, "killed", moment):
            raise SystemExit(f"{recipe}: {moment!r} never came")
        if (root / f"killed-{recipe}.safetensors").exists():
            raise SystemExit(f"{recipe}: the product is there after {moment!r}")
    assert not run(root, recipe, "killed", "")
    distributed.init_process_group("gloo")
    for recipe, data in DATA.items():
        pretrain(root / data, root / f"pair-{recipe}.safetensors", several(root, recipe))
    distributed.destroy_process_group()


def main(root: Path) -> None:
    torch.set_num_threads(1)
    curves_png([])  # loads fonts once, before the forks
    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="fork",
        monitor_interval=0.1,
    )
    elastic_launch(launch, work)(root)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
