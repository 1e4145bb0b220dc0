"""Steps of a training that a kill cannot spoil: it goes on from its last state to the identical result.

What is random must come from the seed and the step, never from a generator that runs on.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pickeropt.pickers.records import Job
from pickeropt.training_state import read_state, write_state

SAVES = 20
"""How often the state of a training is saved."""


def fit(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    steps: int,
    loss_of: Callable[[int], Tensor],
    job: Job,
    stage: str,
    rate: Callable[[int], float] | None = None,
) -> float:
    """Train `network` in place for `steps` steps.

    loss_of : from the step, from 1, to its loss; whatever is random in it comes from the seed and the step
    stage : names the state of this training in the job's folder, and says what is done; a stage that is
        finished already is loaded, not trained again
    rate : from the step to what the optimiser's learning rates are multiplied by
    returns : the mean loss of the last twentieth of the steps that were done here, NaN where none was
    """
    path = job.folder / f"{stage}.safetensors"
    first = [group["lr"] for group in optimiser.param_groups]
    done, saved = read_state(path, optimiser)
    if done:
        network.load_state_dict(saved["network"])
    losses: list[float] = []
    every = max(1, steps // SAVES)
    for step in range(done + 1, steps + 1):
        for group, base in zip(optimiser.param_groups, first, strict=True):
            group["lr"] = base * (rate(step) if rate is not None else 1.0)
        torch.manual_seed((job.seed * 1_000_003 + step) % 2**63)  # dropout
        optimiser.zero_grad()
        loss = loss_of(step)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
        job.on_progress(stage, step, steps)
        if step % every == 0 or step == steps:
            write_state(path, step, {"network": network.state_dict()}, optimiser)
    last = losses[-every:]
    return sum(last) / len(last) if last else float("nan")
