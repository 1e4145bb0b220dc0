import numpy as np

from pickeropt.prune.filters import relative_domains


def test_domains_are_measured_against_their_average():
    likely = np.array(
        [
            [1, 1, 0, 0, 0],
            [1, 0, 0, 1, 0],
            [0, 1, 0, 0, 0],  # touches the first by a corner only
        ]
    )
    sizes = relative_domains(np.where(likely, 0.6, 0.5))
    mean = (3 + 1 + 1) / 3
    assert (
        sizes.tolist()
        == (np.array([[3, 3, 0, 0, 0], [3, 0, 0, 1, 0], [0, 1, 0, 0, 0]]) / mean).astype(np.float32).tolist()
    )


def test_a_map_without_a_likely_point_has_no_domain():
    assert relative_domains(np.full((2, 3), 0.5)).tolist() == [[0] * 3] * 2


def test_the_bound_can_be_that_of_log_odds():
    log_odds = np.array([[-1.0, 0.1, 3.0], [0.0, -2.0, -2.0]])
    assert (relative_domains(log_odds, 0.0) > 0).tolist() == [[False, True, True], [False] * 3]
