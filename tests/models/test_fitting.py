"""Fitting against scikit-learn, schedules, devices, figures."""

import warnings
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import classification_report
from torch import Tensor, nn

from pickeropt.errors import PickeroptError
from pickeropt.models.fitting import (
    SgdSchedule,
    choose_device,
    fit_head,
    fit_temperature,
    inference_dtype,
    quality,
    rooted_weights,
    seed_everything,
    shares_of_classes,
    train_sgd,
)
from pickeropt.models.head import BranchedHead, FeatureLayout, multi_loss


def clouds(counts: Sequence[int], distance: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Gaussians in six dimensions of unlike scales, a class along each axis."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    points = rng.standard_normal((len(labels), 6))
    points[np.arange(len(labels)), labels] += distance
    points = points * [1, 10, 0.1, 5, 1, 1] + [0, 100, 0, 0, -3, 0]
    return torch.from_numpy(points.astype(np.float32)), torch.from_numpy(labels)


def fitted(features: Tensor, labels: Tensor, loss_weights: tuple[float, ...], decay: float) -> BranchedHead:
    torch.manual_seed(0)
    head = BranchedHead(FeatureLayout((6,), 1), int(labels.max()) + 1, len(loss_weights))
    fit_head(head, features, labels, loss_weights, decay)
    return head


def standardised(features: Tensor, labels: Tensor) -> np.ndarray:
    """By mean and spread in which a class of n shots counts like the root of n."""
    x, counts = features.numpy().astype(np.float64), np.bincount(labels.numpy())
    weights = counts[labels.numpy()] ** -0.5
    centred = x - np.average(x, axis=0, weights=weights)
    return centred / np.sqrt(np.average(centred**2, axis=0, weights=weights))


@pytest.mark.parametrize("decay", [1.0, 0.05])
def test_one_branch_is_logistic_regression_with_rooted_weights(decay: float) -> None:
    """The same convex problem: C is one over decay times the weight of all shots, biases are free.

    The probabilities are those of logistic regression, divided by what each class counted for.
    """
    counts = np.array([30, 12, 20])
    features, labels = clouds(counts.tolist(), 1.5)
    head = fitted(features, labels, (1.0,), decay)
    x = standardised(features, labels)
    reference = LogisticRegression(
        C=1 / (decay * np.sqrt(counts).sum()),
        class_weight=dict(enumerate(counts**-0.5)),
        tol=1e-9,
        max_iter=5000,
    )
    reference.fit(x, labels.numpy())
    expected = reference.predict_proba(x) / np.sqrt(counts)
    with torch.no_grad():
        probabilities = torch.softmax(head(features)[0], 1).numpy()
    np.testing.assert_allclose(probabilities, expected / expected.sum(1, keepdims=True), atol=2e-3)
    weight = head.branches[0].linear.weight.detach().numpy()
    np.testing.assert_allclose(weight, reference.coef_, atol=5e-3)


@pytest.mark.parametrize("limit", [None, 1.0])
def test_one_branch_that_leans_is_logistic_regression_with_an_offset(limit: float | None) -> None:
    """Against scipy on the same convex problem, written out: each shot's logits start from its leaning."""
    features, labels = clouds((30, 12, 20), 1.5)
    leaning = 2 * torch.randn(62, 3, generator=torch.Generator().manual_seed(5))
    torch.manual_seed(0)
    head = BranchedHead(FeatureLayout((6,), 1), 3, 1, limit)
    fit_head(head, features, labels, (1.0,), 0.1, leaning)
    x = standardised(features, labels)
    x = np.column_stack([x if limit is None else np.clip(x, -limit, limit), np.ones(62)])
    truth, roots = np.eye(3)[labels.numpy()], np.sqrt([30, 12, 20])
    offset = leaning.double().numpy() + np.log(roots)
    share = truth @ (1 / roots) / roots.sum()

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight = flat.reshape(7, 3)
        log_p = log_softmax(x @ weight + offset, axis=1)
        slope = x.T @ ((np.exp(log_p) - truth) * share[:, None])
        slope[:6] += 0.1 * weight[:6]
        value = -(share * (log_p * truth).sum(1)).sum() + 0.05 * (weight[:6] ** 2).sum()
        return float(value), slope.ravel()

    best = minimize(loss, np.zeros(21), jac=True, method="BFGS", options={"gtol": 1e-8}).x.reshape(7, 3)
    with torch.no_grad():
        found = torch.softmax(head(features)[0] + leaning, 1).numpy()
    expected = np.exp(log_softmax(x @ best + leaning.double().numpy(), axis=1))
    np.testing.assert_allclose(found, expected, atol=2e-3)
    weight = head.branches[0].linear.weight.detach().numpy()
    np.testing.assert_allclose(weight, best[:6].T, atol=5e-3)
    without = fitted(features, labels, (1.0,), 0.1).branches[0].linear.weight.detach().numpy()
    assert np.abs(without - weight).max() > 0.05


@pytest.mark.parametrize("loss_weights", [(1.0,), (1.0, 0.3), (1.0, 0.3, 0.2)])
def test_the_fit_ends_where_the_gradient_does(loss_weights: tuple[float, ...]) -> None:
    features, labels = clouds((30, 12, 20), 1.5)
    head = fitted(features, labels, loss_weights, 0.1)
    head.zero_grad()
    weights = rooted_weights(labels, 3)
    before = shares_of_classes(labels, weights).log()
    loss = multi_loss([z + before for z in head(features)], labels, loss_weights, weights)
    for name, parameter in head.named_parameters():
        if name.endswith("weight"):
            loss = loss + 0.05 * parameter.square().sum()
    loss.backward()
    assert max(float(p.grad.abs().max()) for p in head.parameters()) < 1e-3


def test_clouds_apart_are_told_apart_and_the_same_way_each_time() -> None:
    features, labels = clouds((20, 20), 6.0)
    other, others = clouds((50, 50), 6.0, seed=1)
    heads = [fitted(features, labels, (1.0, 0.3), 0.1) for _ in range(2)]
    for name, value in heads[0].state_dict().items():
        assert torch.equal(value, heads[1].state_dict()[name])
    with torch.no_grad():
        for logits in heads[0](other):
            assert (logits.argmax(1) == others).float().mean() > 0.95


def test_rare_classes_are_as_likely_beforehand() -> None:
    features, labels = clouds((200, 8), 1.0)
    head = fitted(features, labels, (1.0,), 0.1)
    with torch.no_grad():
        right = head(features)[0].argmax(1) == labels
    assert right[labels == 1].float().mean() > 0.6  # by their number, all would be of class 0


def test_weights_and_shares_by_hand() -> None:
    labels = torch.tensor([0, 0, 0, 0, 2])
    weights = rooted_weights(labels, 3)
    assert weights.tolist() == pytest.approx([0.5, 0.0, 1.0])
    assert shares_of_classes(labels, weights).tolist() == pytest.approx([0.5, 0.25, 0.25])  # 2, none, 1
    even = rooted_weights(torch.tensor([0, 1, 2, 0, 1, 2]), 3)
    assert shares_of_classes(torch.tensor([0, 1, 2, 0, 1, 2]), even).tolist() == pytest.approx([1 / 3] * 3)


def test_the_schedule_of_the_paper() -> None:
    """Section 3.2: SGD, momentum 0.9, 30 epochs, batches of 24, 0.01 falling tenfold every 7 epochs."""
    assert SgdSchedule() == SgdSchedule(30, 24, 0.01, 0.9, 7, 0.1)


def test_rates_of_learning_step_down() -> None:
    """With a loss equal to the weight its gradient is 1: without momentum each step is the rate itself."""
    model = nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    schedule = SgdSchedule(epochs=7, batch_size=2, learning_rate=0.5, momentum=0.0, step=3, factor=0.1)
    places, batches, epochs = [0.0], [], []

    def loss_of(batch):
        batches.append(sorted(batch.tolist()))
        return model.weight.sum()

    def on_epoch(epoch: int, loss: float) -> None:
        epochs.append((epoch, loss))
        places.append(model.weight.item())

    train_sgd(model, loss_of, 5, schedule, 0, on_epoch)
    steps = -np.diff(places) / 3  # three batches an epoch: 2, 2, 1
    np.testing.assert_allclose(steps, [0.5] * 3 + [0.05] * 3 + [0.005], rtol=1e-4)
    assert [epoch for epoch, _ in epochs] == list(range(1, 8))
    assert epochs[0][1] == pytest.approx(-0.5)  # the mean of 0, -0.5 and -1
    for epoch in range(7):
        assert [len(b) for b in batches[3 * epoch : 3 * epoch + 3]] == [2, 2, 1]
        assert sorted(i for batch in batches[3 * epoch : 3 * epoch + 3] for i in batch) == [0, 1, 2, 3, 4]
    assert batches[:3] != batches[3:6]


def test_momentum_and_seeds() -> None:
    ends = []
    for seed in (0, 0, 1):
        model = nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(model.weight)
        schedule = SgdSchedule(epochs=1, batch_size=1, learning_rate=0.1)
        train_sgd(model, lambda batch, m=model: m.weight.sum() * int(batch[0]), 4, schedule, seed, lambda *_: None)
        ends.append(model.weight.item())
    assert ends[0] == ends[1] != ends[2]
    model = nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    train_sgd(model, lambda _: model.weight.sum(), 2, SgdSchedule(1, 1, 0.1, 0.9), 0, lambda *_: None)
    assert model.weight.item() == pytest.approx(-0.1 * (1 + 1.9))


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    here = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device("auto").type == here


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "--device gpu: no such device; use auto"),
        ("", "no such device"),
        ("cuda:x", "no such device"),
        ("cuda:63", "torch sees [0-9]+ GPUs; use --device auto"),
        ("meta", "only cpu and cuda"),
        ("mps", "only cpu and cuda"),
    ],
)
def test_devices_that_are_not_here(name: str, message: str) -> None:
    with pytest.raises(PickeroptError, match=message):
        choose_device(name)


def test_precision_without_the_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some builds have no operator to ask, and must not be asked where the answer is no."""
    cpu = torch.device("cpu")
    assert inference_dtype(cpu) in (torch.bfloat16, torch.float32)
    monkeypatch.setattr("pickeropt.models.fitting._has_bf16_instructions", lambda: False)
    monkeypatch.setattr(torch.ops, "mkldnn", None)
    assert inference_dtype(cpu) == torch.float32


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((6, 1), torch.float32), ((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_precision_of_a_gpu_is_its_own(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    """Of two GPUs in one machine, whichever was asked about."""
    capabilities = {torch.device("cuda:0"): (8, 6), torch.device("cuda:1"): capability}
    monkeypatch.setattr(torch.cuda, "get_device_capability", capabilities.__getitem__)
    assert inference_dtype(torch.device("cuda:1")) == dtype
    assert inference_dtype(torch.device("cuda:0")) == torch.bfloat16


def test_seeds_reach_all_generators() -> None:
    draws = []
    for _ in range(2):
        seed_everything(3)
        draws.append((torch.rand(2).tolist(), np.random.rand(2).tolist()))  # noqa: NPY002
    assert draws[0] == draws[1]


@pytest.mark.parametrize("temperature", [0.25, 1.0, 1.8])
def test_a_known_temperature_is_found(temperature: float) -> None:
    """Labels drawn from sigmoid(margin), and margins then multiplied by the temperature."""
    rng = np.random.default_rng(0)
    margins = rng.normal(0, 2, 40000)
    positive = torch.from_numpy(rng.random(len(margins)) < 1 / (1 + np.exp(-margins)))
    told = torch.from_numpy(margins * temperature)
    found = fit_temperature(lambda t: torch.sigmoid(told / t), positive)
    assert found == pytest.approx(temperature, rel=0.07)  # a step is 1.059


def test_positives_and_negatives_have_an_equal_say_in_the_temperature() -> None:
    """All of 9000 positives are right, of 1000 negatives half: P(right) of 75 %."""
    positive = torch.tensor([True] * 9000 + [False] * 1000)
    margins = torch.tensor([1.5] * 9000 + [-1.5] * 500 + [1.5] * 500)
    # with b = sigmoid(1.5 / T) the loss is -(3/2) log b - (1/2) log(1 - b), least at b = 3/4
    found = fit_temperature(lambda t: torch.sigmoid(margins / t), positive)
    assert found == pytest.approx(1.5 / np.log(3), rel=0.04)


def test_temperature_stays_within_bounds() -> None:
    positive = torch.tensor([True, False] * 10)
    certain = torch.where(positive, 3.0, -3.0)
    # ten right of ten count as 11/12, whose margin is log 11
    found = fit_temperature(lambda t: torch.sigmoid(certain / t), positive)
    assert found == pytest.approx(3 / np.log(11), rel=0.04)
    many = positive.repeat(10**4)
    assert fit_temperature(lambda t: torch.sigmoid(torch.where(many, 1.0, -1.0) / t), many) == 1 / 8
    assert fit_temperature(lambda t: torch.sigmoid(-certain / t), positive) == 2
    assert fit_temperature(lambda t: torch.sigmoid(certain / t), torch.ones(20, dtype=torch.bool)) == 1


def test_quality_against_sklearn() -> None:
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 3, 60), rng.integers(0, 4, 60)  # 3 occurs in predictions only
    found = quality(labels, predicted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = classification_report(labels, predicted, output_dict=True)
    assert found.accuracy == pytest.approx(report["accuracy"])
    assert found.per_class == pytest.approx({i: report[str(i)]["f1-score"] for i in range(3)})
    assert found.macro_f1 == pytest.approx(sum(found.per_class.values()) / 3)


def test_quality_by_hand() -> None:
    found = quality(np.array([0, 0, 0, 2]), np.array([0, 0, 2, 2]))
    assert found.accuracy == 0.75
    assert found.per_class == pytest.approx({0: 0.8, 2: 2 / 3})
    assert found.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)
    assert quality(np.array([1]), np.array([0])).per_class == {1: 0.0}
