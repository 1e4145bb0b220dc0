from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pickeropt.pickers.picker_records import PickerTrainingJob, fit

STEPS = 40


class KilledError(Exception):
    pass


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 1))


def train(folder: Path, killed_at: int | None = None) -> dict[str, torch.Tensor]:
    model = network()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)

    def loss_of(step: int) -> torch.Tensor:
        if step == killed_at:
            raise KilledError
        inputs = torch.from_numpy(np.random.default_rng([7, step]).normal(size=(16, 3)).astype(np.float32))
        return (model(inputs)[:, 0] - inputs[:, 0]).square().mean()

    job = PickerTrainingJob(7, torch.device("cpu"), folder, lambda what, done, total: None)
    fit(model, optimiser, STEPS, loss_of, job, "steps", rate=lambda step: 1 - step / (STEPS + 1))
    return model.state_dict()


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    with pytest.raises(KilledError):
        train(tmp_path / "killed", killed_at=27)
    resumed = train(tmp_path / "killed")
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0)


def test_a_finished_stage_is_not_trained_again(tmp_path: Path) -> None:
    first = train(tmp_path)
    again = train(tmp_path, killed_at=1)  # would raise at the first step
    torch.testing.assert_close(again, first)


def test_the_loss_falls(tmp_path: Path) -> None:
    model = nn.Linear(3, 1)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    seen: list[float] = []

    def loss_of(step: int) -> torch.Tensor:
        inputs = torch.from_numpy(np.random.default_rng(step).normal(size=(16, 3)).astype(np.float32))
        loss = (model(inputs)[:, 0] - inputs[:, 0]).square().mean()
        seen.append(loss.item())
        return loss

    job = PickerTrainingJob(0, torch.device("cpu"), tmp_path, lambda what, done, total: None)
    last = fit(model, optimiser, 60, loss_of, job, "steps")
    assert last == pytest.approx(np.mean(seen[-3:]))
    assert last < 0.01 < seen[0]
