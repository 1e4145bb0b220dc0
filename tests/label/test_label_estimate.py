"""The few-shot model of the suggestions and the live estimate, on features whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from model_world import SPEC, source_head
from sklearn.metrics import f1_score

from pickeropt.finetune.recipes import fit_default, fresh_head
from pickeropt.label.label_store import UNLABELLED
from pickeropt.label.suggestions import (
    FOLDS,
    MIN_LABELS,
    estimate,
    fewshot_classifier,
    folds_by_label,
    folds_by_micrograph,
    general_probabilities,
    macro_f1,
    missing_labels,
    posterior,
    rank_weights,
    refit,
    uncertainty_ranks,
)
from pickeropt.models.backbone import Backbone
from pickeropt.models.classifier import PickClassifier

CLASSES = ("particle", "background", "contaminant", "carbon")
"""Of the classifier under test; 192 features from one view."""


@pytest.fixture
def classifier():
    head = source_head()
    spec = replace(head.spec, class_names=CLASSES, parents=head.parents, prior_weight=0.15, loss_weights=(1.0, 0.3))
    made = PickClassifier(spec, Backbone("resnet18", ("layer1",)))
    made.source_prior.load(head)
    return made.eval()


def told_apart(classifier, per_class=20, classes=4, noise=0.3, seed=0):
    """Features (n, d) in which each class has its own place, labels, and five micrographs in turn."""
    rng = np.random.default_rng(seed)
    width = classifier.spec.layout.width
    centres = rng.normal(size=(classes, width))
    labels = np.repeat(np.arange(classes), per_class)
    features = centres[labels] + noise * rng.normal(size=(len(labels), width))
    return torch.tensor(features, dtype=torch.float32), labels, np.arange(len(labels)) % 5


def test_without_labels_it_is_the_general_model(classifier):
    features, labels, groups = told_apart(classifier)
    found = refit(classifier, features, np.full_like(labels, UNLABELLED), groups)
    with torch.no_grad():
        logits = classifier.source_prior(features).double().numpy()
    weights = np.exp(logits - logits.max(1, keepdims=True)) * [3, 1, 1, 1]
    np.testing.assert_allclose(found, weights / weights.sum(1, keepdims=True), rtol=1e-4)


def test_without_an_opinion_and_labels_it_is_even_but_for_half_particles():
    bare = PickClassifier(SPEC, Backbone("resnet18", ("layer1",)))
    found = general_probabilities(bare, torch.zeros(2, SPEC.layout.width))
    np.testing.assert_allclose(found, [[0.5, 0.25, 0.25]] * 2)


def test_with_all_classes_labelled_it_is_finetunes_classifier(classifier):
    features, labels, groups = told_apart(classifier)
    known = np.where(np.arange(80) % 20 < 6, labels, UNLABELLED)
    found = refit(classifier, features, known, groups, seed=3)
    rows = known >= 0
    temperature = classifier.temperature.clone()
    fresh_head(classifier, 3)
    fit_default(classifier, features[rows], torch.from_numpy(known[rows]))
    with torch.no_grad():
        expected = classifier.calibrated(classifier.logits(features), temperature).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (found.argmax(1) == labels)[~rows].mean() > 0.95


def test_a_class_without_labels_has_the_general_models_probability(classifier):
    features, labels, groups = told_apart(classifier)
    known = np.where((np.arange(80) % 20 < 6) & (labels != 3), labels, UNLABELLED)
    known[labels == 3] = np.where(np.arange(20) == 0, 3, -2)  # one label, the others skipped
    found = refit(classifier, features, known, groups)
    np.testing.assert_allclose(found.sum(1), 1.0)
    np.testing.assert_allclose(found[:, 3], general_probabilities(classifier, features)[:, 3])


def test_one_class_labelled_leaves_all_to_the_general_model(classifier):
    features, labels, groups = told_apart(classifier)
    known = np.where(labels == 1, labels, UNLABELLED)
    np.testing.assert_array_equal(
        refit(classifier, features, known, groups), general_probabilities(classifier, features)
    )


def test_features_made_in_inference_mode_can_be_learnt_from(classifier):
    with torch.inference_mode():
        features, labels, groups = told_apart(classifier, 6)
    assert np.isfinite(refit(classifier, features, labels, groups)).all()
    assert estimate(classifier, features, labels, groups).enough


def test_the_classifier_of_the_package_has_the_users_classes_and_an_opinion():
    made = fewshot_classifier(191.0, ("particle", "carbon", "ice"))
    assert made.spec.class_names == ("particle", "carbon", "ice")
    assert made.source_prior is not None


@pytest.mark.parametrize(
    ("counts", "part"),
    [
        ([0, 0, 0], "two classes"),
        ([30, 0, 0], "two classes"),
        ([30, MIN_LABELS - 1, 1], "a 30, b 4, c 1"),
        ([MIN_LABELS, MIN_LABELS, 0], None),
    ],
)
def test_too_few_labels_are_said(counts, part):
    found = missing_labels(np.array(counts), "abc")
    assert found is None if part is None else part in found


def test_too_few_labels_give_no_figure(classifier):
    features, labels, groups = told_apart(classifier, MIN_LABELS - 1)
    found = estimate(classifier, features, labels, groups)
    assert (found.macro_f1, found.low, found.high, found.enough) == (None, None, None, False)
    assert found.text.startswith("too few labels to say: two classes need 5 each, there are particle 4")
    assert found.shots == 16


def test_what_is_told_apart_is_estimated_high_and_noise_is_estimated_at_chance(classifier):
    features, labels, groups = told_apart(classifier)
    good = estimate(classifier, features, labels, groups)
    assert good.enough
    assert good.macro_f1 > 0.95
    assert good.low <= good.macro_f1 <= good.high <= 1
    noise = estimate(classifier, torch.randn(80, 192, generator=torch.Generator().manual_seed(0)), labels, groups)
    assert noise.macro_f1 < 0.45
    assert noise.low < 0.25 + 0.1 < good.low
    assert good == estimate(classifier, features, labels, groups)


def test_more_labels_make_the_interval_narrower(classifier):
    few, many = (estimate(classifier, *told_apart(classifier, n)) for n in (6, 60))
    assert many.high - many.low < 0.7 * (few.high - few.low)


def test_a_class_of_one_micrograph_makes_the_low_end_low(classifier):
    """Held out with its micrograph it cannot be learnt: its F1 is near 0, macro-F1 at most 0.75."""
    features, labels, groups = told_apart(classifier)
    together = estimate(classifier, features, labels, np.where(labels == 3, 7, groups))
    assert together.low < 0.8
    assert together.high > 0.9


def test_a_class_of_few_labels_is_named_and_not_counted(classifier):
    features, labels, groups = told_apart(classifier)
    labels = np.where((labels == 3) & (np.arange(80) % 20 > 2), UNLABELLED, labels)
    found = estimate(classifier, features, labels, groups)
    assert found.shots == 63
    assert found.text.endswith("not counting carbon: fewer than 5 labels")
    assert found.macro_f1 > 0.95


def test_one_micrograph_is_said(classifier):
    features, labels, _ = told_apart(classifier)
    assert "one micrograph" in estimate(classifier, features, labels, np.zeros(80, dtype=np.int64)).text


def test_macro_f1_of_confusions_is_sklearns():
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 3, 200), rng.integers(0, 4, 200)
    confusion = np.zeros((3, 4))
    np.add.at(confusion, (truth, said), 1)
    expected = f1_score(truth, said, labels=[0, 1, 2], average="macro")
    np.testing.assert_allclose(macro_f1(confusion[None]), [expected])


def test_the_posterior_keeps_the_labels_a_class_and_is_less_sure_of_fewer():
    drawn = posterior(np.array([[4.0, 0.0], [0.0, 400.0]]), 1000, np.random.default_rng(0))
    np.testing.assert_allclose(drawn.sum(2), np.tile([4.0, 400.0], (1000, 1)))
    wrong = drawn[:, [0, 1], [1, 0]] / [4, 400]
    # Dirichlet(4.25, 0.25): mean 1 / 18; Dirichlet(0.25, 400.25): mean 0.25 / 400.5
    np.testing.assert_allclose(wrong.mean(0), [1 / 18, 0.25 / 400.5], rtol=0.3)


def test_folds_hold_every_class_and_whole_micrographs():
    labels = np.repeat([0, 1, 2], [8, 12, 4])
    by_label = folds_by_label(labels, np.random.default_rng(0))
    table = np.zeros((3, FOLDS))
    np.add.at(table, (labels, by_label), 1)
    np.testing.assert_array_equal(table, [[2] * 4, [3] * 4, [1] * 4])
    groups = np.repeat([5, 6, 7, 8, 9], [10, 3, 3, 2, 1])
    fold = folds_by_micrograph(groups, np.random.default_rng(0))
    assert all(len(set(fold[groups == g].tolist())) == 1 for g in set(groups.tolist()))
    assert sorted(np.bincount(fold).tolist()) == [3, 3, 3, 10]


def test_uncertainty_ranks_are_places_among_all_picks():
    """Two labels stand for four each: below 0.5 there are three unlabelled picks and one label's four."""
    found = uncertainty_ranks(np.array([0.05, 0.5]), np.array([0.1, 0.2, 0.3, 0.9]))
    np.testing.assert_allclose(found, [2 / 12, (4 + 3 + 2) / 12])


def test_labels_of_uncertain_picks_count_less_where_there_are_too_many_of_them():
    """Sixteen labels in the highest fifth and one in each other: a pick of the rest counts for many."""
    ranks = np.array([0.1, 0.3, 0.5, 0.7, *[0.9] * 16])
    found = rank_weights(ranks)
    assert found[0] / found[-1] == pytest.approx(17 / 2)
    assert found.sum() < 15
    np.testing.assert_allclose(rank_weights((np.arange(50) + 0.5) / 50), np.ones(50))


def test_uncertain_labels_do_not_make_the_estimate_that_of_the_hardest(classifier):
    """Half of the pool lies between two classes; labels are mostly from there, or evenly drawn."""
    features, labels, groups = told_apart(classifier, 100, classes=2)
    mixed = np.arange(200) % 2 == 0
    blurred = features.clone()
    blurred[mixed] = features.mean(0) + 0.3 * torch.randn(100, 192, generator=torch.Generator().manual_seed(1))
    order = np.random.default_rng(0).permutation(200)
    hard = np.concatenate([order[mixed[order]][:50], order[~mixed[order]][:10]])
    even = order[:60]
    found = {}
    for name, rows in (("hard", hard), ("even", even)):
        known = np.full(200, UNLABELLED)
        known[rows] = labels[rows]
        found[name] = estimate(classifier, blurred, known, groups).macro_f1
    assert found["hard"] > found["even"] - 0.12
