"""Class metrics worked by hand, with a class that nobody labelled."""

import numpy as np
import pytest

from pickeropt.evaluate.metrics import classification, particle_auc
from pickeropt.records import Scores

NAMES = ("particle", "background", "carbon")


def scores_of(predicted, sure=0.8):
    probabilities = np.full((len(predicted), 3), (1 - sure) / 2, dtype=np.float32)
    probabilities[np.arange(len(predicted)), predicted] = sure
    return Scores(NAMES, probabilities)


def test_five_boxes_by_hand():
    result = classification(np.array([0, 0, 0, 1, 1]), scores_of([0, 0, 1, 1, 2]))
    assert result.confusion == ((2, 1, 0), (0, 1, 1), (0, 0, 0))
    assert result.accuracy == pytest.approx(3 / 5)
    particle, background, carbon = result.classes
    assert (particle.precision, particle.recall, particle.f1) == pytest.approx((1, 2 / 3, 4 / 5))
    assert (background.precision, background.recall, background.f1) == pytest.approx((1 / 2, 1 / 2, 1 / 2))
    assert (carbon.name, carbon.precision, carbon.recall, carbon.f1, carbon.support) == ("carbon", 0, 0, 0, 0)
    # carbon has no label: it counts as an error, not as a class
    assert result.macro_f1 == pytest.approx((4 / 5 + 1 / 2) / 2)
    # P(particle) 0.8, 0.8, 0.1 against 0.1, 0.1: (4 won + 2 drawn / 2) of 6 pairs
    assert result.particle_auc == pytest.approx(5 / 6)


def test_labelled_class_that_is_never_predicted_counts_as_zero():
    result = classification(np.array([0, 2]), scores_of([0, 0]))
    assert result.macro_f1 == pytest.approx((2 / 3 + 0) / 2)


def test_only_particles_have_no_auc():
    result = classification(np.array([0, 0]), scores_of([0, 1]))
    assert result.particle_auc is None
    assert result.macro_f1 == pytest.approx(2 / 3)


def test_particle_auc_counts_pairs():
    is_particle = np.array([True, False, True, False])
    assert particle_auc(is_particle, np.array([0.9, 0.5, 0.4, 0.4])) == pytest.approx(2.5 / 4)
    assert particle_auc(~is_particle[:1], np.array([0.3])) is None
