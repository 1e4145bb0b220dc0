"""Schedules, the order of samples, augmentation, averages and the state: against hand-computed values."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pretrain_world import make_weights, tiny

from pickeropt.errors import PickeroptError
from pickeropt.models.backbone import Backbone, initial_backbone
from pickeropt.models.features import EIGHT, turn
from pickeropt.pretrain.learner import Learner, Order, batches, cosine, count_steps, slot_generator, split, stairs
from pickeropt.pretrain.pretrain_config import RECIPES, PretrainConfig, Schedule, check_config
from pickeropt.pretrain.pretrain_recipes import turned
from pickeropt.pretrain.training_loop import load_state, save_state, start_averages, update_averages


def test_the_schedule_of_the_paper() -> None:
    assert RECIPES["paper"] == Schedule(steps=0, epochs=200, batch_size=256, learning_rate=0.1)
    schedule = PretrainConfig(recipe="paper").schedule
    assert count_steps(schedule, 3600) == 2813  # 200 * 3600 / 256 = 2812.5
    rates = [stairs(step, samples=100, batch_size=50) for step in range(1, 31)]
    assert rates == pytest.approx([1.0] * 14 + [0.1] * 14 + [0.01] * 2)


def test_what_the_user_asks_for_comes_first() -> None:
    config = PretrainConfig(recipe="paper", steps=7, batch_size=3, learning_rate=0.5)
    assert config.schedule == Schedule(7, 0, 3, 0.5)
    assert count_steps(PretrainConfig(epochs=3, batch_size=4).schedule, 6) == 5
    assert count_steps(PretrainConfig().schedule, 6) == RECIPES["default"].steps


def test_the_cosine_leads_in_and_ends_near_nothing() -> None:
    assert cosine(10, 1000) == pytest.approx(0.2 * (0.5 * (1 + np.cos(np.pi / 100)) + 0.005))
    assert cosine(500, 1000) == pytest.approx(0.505)
    assert cosine(1000, 1000) == pytest.approx(0.005)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "best"}, "--recipe best: there are default and paper"),
        ({"steps": 5, "epochs": 5}, "give one of the two"),
        ({"batch_size": 0}, "--batch-size 0: give a whole number above 0"),
        ({"seed": -1}, "--seed -1"),
        ({"distil_first": 1.5}, r"--distil-first 1.5: give a share of the steps, 0 to 1"),
        ({"recipe": "paper", "unlabelled": Path("x")}, "--unlabelled goes with --recipe default"),
        ({"recipe": "paper", "views": 7}, "--views 7 goes with --recipe default"),
        ({"recipe": "paper", "distil_first": 0.9}, "--distil-first 0.9 goes with --recipe default"),
        ({"recipe": "paper", "init": "none", "weights": Path("w")}, "--weights w goes with --init imagenet"),
    ],
)
def test_settings_out_of_range(changes: dict[str, object], message: str) -> None:
    with pytest.raises(PickeroptError, match=message):
        check_config(tiny(Path("w"), **changes) if "recipe" not in changes else PretrainConfig(**changes))  # type: ignore[arg-type]


def test_each_epoch_has_every_sample_once_in_its_own_order() -> None:
    order = Order(5, 7)
    epochs = [[order(7 * epoch + i) for i in range(7)] for epoch in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(7))] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert Order(5, 7)(15) == epochs[2][1]
    assert [Order(6, 7)(i) for i in range(7)] != epochs[0]


def test_a_slot_draws_the_same_whoever_asks_and_no_two_alike() -> None:
    draws = {(step, slot): slot_generator(1, step, slot).random() for step in range(3) for slot in range(3)}
    assert len(set(draws.values())) == 9
    assert slot_generator(1, 2, 1).random() == draws[2, 1]


def test_pieces_are_held_back_whole() -> None:
    training, held = split([0, 0, 1, 2, 2, 3, 4, 5, 5], 3)
    assert (training.tolist(), held.tolist()) == ([0, 1, 2, 5, 6], [3, 4, 7, 8])
    assert split([0, 1], 3)[1].tolist() == []
    assert list(batches(range(5), 2)) == [[0, 1], [2, 3], [4]]


class FixedDraws:
    """Draws that are known, in place of a numpy generator."""

    def __init__(self, angle: float, flips: tuple[float, float]):
        self.angle, self.flips = angle, flips

    def uniform(self, low: float, high: float) -> float:
        return self.angle

    def choice(self, values: list[float], count: int) -> np.ndarray:
        return np.array(self.flips)


def test_boxes_are_flipped_and_turned() -> None:
    box = torch.randn(1, 1, 5, 5, generator=torch.Generator().manual_seed(0))

    def as_turned(angle: float, *flips: float) -> torch.Tensor:
        return turned(box, [FixedDraws(angle, flips)])  # type: ignore[arg-type, list-item]

    torch.testing.assert_close(as_turned(0, 1, 1), box)
    torch.testing.assert_close(as_turned(0, -1, 1), box.flip(3))
    torch.testing.assert_close(as_turned(0, 1, -1), box.flip(2))
    quarter = as_turned(np.pi / 2, 1, 1)
    assert any(torch.allclose(quarter, torch.rot90(box, k, (2, 3)), atol=1e-5) for k in (1, 3))
    mirrored = as_turned(np.pi / 2, -1, 1)
    assert any(torch.allclose(mirrored, turn(box, way), atol=1e-5) for way in EIGHT if way[1])
    rng = np.random.default_rng(0)
    assert turned(box.expand(4, -1, -1, -1), [rng] * 4).unique(dim=0).shape[0] == 4


def small_learner() -> Learner:
    torch.manual_seed(3)
    return Learner(Backbone("resnet18", ("layer1",)), 128, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def test_averages_by_hand() -> None:
    learner = small_learner()
    averages = start_averages(learner)
    bias = learner.head.linear.bias
    first = bias.detach().clone()
    with torch.no_grad():
        bias.add_(1.0)
    update_averages(averages, learner, 1)  # keeps 2/11
    update_averages(averages, learner, 10_000)  # keeps 0.995
    expected = first + 1 - 2 / 11 * 0.995
    torch.testing.assert_close(averages["head.linear.bias"], expected)


@pytest.mark.parametrize("kind", ["AdamW", "SGD"])
def test_a_loaded_state_takes_the_same_next_step(tmp_path: Path, kind: str) -> None:
    def optimiser_of(learner: Learner) -> torch.optim.Optimizer:
        options = {"weight_decay": 1e-4} if kind == "AdamW" else {"momentum": 0.9}
        groups = [{"params": part.parameters()} for part in (learner.backbone, learner.head)]
        return getattr(torch.optim, kind)(groups, lr=0.01, **options)  # type: ignore[no-any-return]

    def step(learner: Learner, optimiser: torch.optim.Optimizer, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for parameter in learner.parameters():
            parameter.grad = torch.empty_like(parameter)
            parameter.grad.copy_(torch.randn(parameter.shape, generator=generator))
        optimiser.step()

    learner = small_learner()
    optimiser = optimiser_of(learner)
    assert load_state(tmp_path / "none", learner, {}, optimiser) == 0
    averages = start_averages(learner)
    step(learner, optimiser, 1)
    update_averages(averages, learner, 1)
    save_state(tmp_path / "state", 1, learner, averages, optimiser)
    again = Learner(Backbone("resnet18", ("layer1",)), 128, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    other, kept = optimiser_of(again), start_averages(again)
    assert load_state(tmp_path / "state", again, kept, other) == 1
    assert kept.keys() == averages.keys()
    assert all(torch.equal(kept[name], value) for name, value in averages.items())
    step(learner, optimiser, 2)
    step(again, other, 2)
    for (name, a), b in zip(learner.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
        assert a.stride() == b.stride()


def test_weights_for_tests_load(tmp_path: Path) -> None:
    assert initial_backbone("resnet18", "imagenet", make_weights(tmp_path / "w"), None).stages == ("layer3",)
