"""The steps of a training, whatever the recipe: share, sum, step, average, log, save."""

import time
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pickeropt.pretrain.learner import MEASURED, TERMS, Learner, Recipe
from pickeropt.pretrain.log import Row, RunLog, open_tensorboard, report_row
from pickeropt.pretrain.pretrain_config import OnProgress, PretrainConfig
from pickeropt.pretrain.state import Averages, load_state, save_state, start_averages, update_averages
from pickeropt.pretrain.training_loop import World
from pickeropt.pretrain.workplace import Workplace


@dataclass
class Run:
    """A training: what it starts from, and once it is over what came of it.

    learner : trained in place; in the end it has the weights that are kept
    resumed_at : the step it took over from; rows : of the log, of the first process
    """

    learner: Learner
    recipe: Recipe
    config: PretrainConfig
    world: World
    device: torch.device
    resumed_at: int = 0
    rows: list[Row] = field(default_factory=list)

    @property
    def figures(self) -> dict[str, float]:
        """The last row, less what differs from one machine to another."""
        last = self.rows[-1] if self.rows else {}
        return {name: value for name, value in last.items() if name not in ("step", "images_per_second")}


def train(run: Run, place: Workplace, on_progress: OnProgress) -> None:
    """All steps from the last saved one on, in place."""
    optimiser = run.recipe.optimiser(run.learner)
    highest = [group["lr"] for group in optimiser.param_groups]
    averages = start_averages(run.learner)
    run.resumed_at = load_state(place.state, run.learner, averages, optimiser)
    log = RunLog(place, run.resumed_at) if run.world.first else None
    folder = place.tensorboard if run.config.tensorboard and run.world.first else None
    begun, sums = time.perf_counter(), torch.zeros(len(TERMS), device=run.device)
    with open_tensorboard(folder, run.resumed_at) as tensorboard:
        for step in range(run.resumed_at + 1, run.recipe.steps + 1):
            for group, rate in zip(optimiser.param_groups, highest, strict=True):
                group["lr"] = rate * run.recipe.rate(step)
            sums += _step(run, optimiser, step)
            if run.recipe.averaged:
                update_averages(averages, run.learner, step)
            on_progress("training", step, run.recipe.steps)
            if step % run.config.log_every and step < run.recipe.steps:
                continue
            run.world.add(sums)
            row = _means(run, sums, step) | {"step": step, "learning_rate": optimiser.param_groups[0]["lr"]}
            row["images_per_second"] = float(sums[TERMS.index("samples")]) / (time.perf_counter() - begun)
            if step % run.config.validate_every == 0 or step == run.recipe.steps:
                row |= _measure(run, averages, step)
            if log is not None:
                log.add(row)
                report_row(tensorboard, row)
                if step % run.config.save_every == 0 or step == run.recipe.steps:
                    save_state(place.state, step, run.learner, averages, optimiser)
            sums.zero_()
            begun = time.perf_counter()
    run.learner = _kept(run, averages)
    run.rows = log.rows if log is not None else []


def _step(run: Run, optimiser: torch.optim.Optimizer, step: int) -> Tensor:
    """One step of all processes; the terms of this one's share."""
    optimiser.zero_grad()
    terms = run.recipe.backward(run.learner, step, run.world.share(run.config.schedule.batch_size))
    run.world.add_gradients(run.learner.parameters())
    run.recipe.limit(run.learner)
    optimiser.step()
    return terms


def _measure(run: Run, averages: Averages, step: int) -> dict[str, float]:
    """Means over what is held back, by their column in the log."""
    if not run.recipe.held_back:
        return {}
    sums = run.recipe.measure(_kept(run, averages), run.world.share(run.recipe.held_back))
    run.world.add(sums)
    means = _means(run, sums, step)
    return {f"held_back_{name}": means[name] for name in run.recipe.measured if name in means}


def _kept(run: Run, averages: Averages) -> Learner:
    """The learner with the weights that are kept."""
    if not run.recipe.averaged:
        return run.learner
    kept = deepcopy(run.learner)
    with torch.no_grad():
        for name, parameter in kept.named_parameters():
            parameter.copy_(averages[name])
    return kept


def _means(run: Run, sums: Tensor, step: int) -> dict[str, float]:
    """Losses and accuracy of summed terms, by their column in the log, the loss as weighted at `step`."""
    total = dict(zip(TERMS, sums.tolist(), strict=True))
    weights = dict(zip(MEASURED, (1.0, *run.recipe.weights(step)), strict=False))
    means = {"loss": sum(weight * total[name] for name, weight in weights.items()) / total["samples"]}
    for name in run.recipe.measured:
        count = total["samples" if name == "rotation" else "labelled"]
        means |= {name: total[name] / count} if count else {}
    return means
