from itertools import combinations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pickeropt.errors import ShotsError
from pickeropt.shots import Split, choose_shots, shortfalls, validation_split

Array = NDArray[np.int64]
seeds = st.integers(0, 2**32)


@st.composite
def shots(draw: st.DrawFn) -> tuple[Array, Array]:
    """Labels and groups; groups need neither be numbered from 0 nor without gaps."""
    pairs = st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 2, 5, 7, 40]))
    rows = draw(st.lists(pairs, max_size=60))
    table = np.array(rows, dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


@given(shots(), st.integers(2, 12), seeds)
def test_choice_is_a_fair_round_robin(table: tuple[Array, Array], per_class: int, seed: int) -> None:
    labels, groups = table
    chosen = choose_shots(labels, groups, per_class, seed)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    np.testing.assert_array_equal(chosen, choose_shots(labels, groups, per_class, seed))
    assert set(chosen.tolist()) <= set(choose_shots(labels, groups, per_class + 3, seed).tolist())
    for label in range(4):
        there, taken = labels == label, labels[chosen] == label
        assert taken.sum() == min(per_class, there.sum())
        counts = {g: int((groups[chosen][taken] == g).sum()) for g in set(groups[there].tolist())}
        for group, count in counts.items():  # one behind the fullest group only when it is used up
            assert count >= max(counts.values()) - 1 or count == (there & (groups == group)).sum()


def test_choice_by_hand() -> None:
    labels = np.array([0] * 9 + [1] * 3)
    groups = np.array([5] * 7 + [6, 7] + [5, 6, 7])
    assert choose_shots(labels, groups, None, 0).tolist() == list(range(12))
    for seed in range(20):
        chosen = choose_shots(labels, groups, 3, seed)
        assert chosen[1:].tolist() == [7, 8, 9, 10, 11]
        assert chosen[0] < 7
        two = choose_shots(labels, groups, 2, seed)
        assert set(groups[two[:2]]) == set(groups[two[2:]])  # both classes from the same micrographs
    assert len({tuple(choose_shots(labels, groups, 3, seed)) for seed in range(50)}) == 7
    with pytest.raises(ShotsError, match="1 shots a class cannot train a classifier; ask for 2"):
        choose_shots(labels, groups, 1, 0)


def test_choice_stays_what_it_was() -> None:
    labels, groups = np.arange(40) % 2, np.arange(40) // 8
    assert choose_shots(labels, groups, 4, 7).tolist() == PINNED


PINNED = [3, 6, 22, 23, 24, 31, 36, 37]


def test_shortfalls() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    assert shortfalls(labels, ("particle", "ice"), 2) == ()
    assert shortfalls(labels, ("particle", "ice"), None) == ()
    assert shortfalls(labels, ("particle", "ice", "carbon"), 3) == (
        "class 'ice' has 2 shots where 3 are asked for; all of them are used",
        "class 'carbon' has 0 shots where 3 are asked for; all of them are used",
    )


def can_hold_out_a_group(labels: Array, groups: Array) -> bool:
    """By trying every group: each class keeps half, and 2, and all where it has fewer than 4."""

    def spared(group: int) -> bool:
        for label in set(labels.tolist()):
            before = int((labels == label).sum())
            after = int(((labels == label) & (groups != group)).sum())
            if after < before and (before < 4 or after < 2 or 2 * after < before):
                return False
        return True

    return any(spared(group) for group in set(groups.tolist()))


@given(shots(), st.floats(0, 0.99), seeds)
@example((np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1])), 2.2e-311, 0)
def test_split_invariants(table: tuple[Array, Array], fraction: float, seed: int) -> None:
    labels, groups = table
    split = validation_split(labels, groups, fraction, seed)
    train, held = split.train.tolist(), split.validation.tolist()
    assert sorted(train + held) == list(range(len(labels)))
    assert train == sorted(train)
    assert held == sorted(held)
    for label in set(labels.tolist()):
        before, after = int((labels == label).sum()), int((labels[split.train] == label).sum())
        assert after == before if before < 4 else after >= max(2, before / 2)
    if split.by == "micrograph":
        assert held
        assert not set(groups[split.train].tolist()) & set(groups[split.validation].tolist())
    assert (split.by == "none") == (not held)
    assert (split.by == "micrograph") == (fraction > 0 and can_hold_out_a_group(labels, groups))
    again = validation_split(labels, groups, fraction, seed)
    assert again.by == split.by
    np.testing.assert_array_equal(again.train, split.train)


def cost(labels: Array, held: NDArray[np.bool_], fraction: float) -> float:
    """Classes that the held-out shots lack, and how far their number is off."""
    lacking = len(set(labels.tolist()) - set(labels[held].tolist()))
    return lacking + abs(held.sum() - fraction * len(labels)) / (fraction * len(labels))


def test_split_is_near_the_best_of_all_sets_of_groups() -> None:
    rng = np.random.default_rng(3)
    for seed in range(20):
        labels = rng.integers(0, 4, 80)
        groups = rng.choice(8, 80, p=np.arange(1, 9) / 36)
        split = validation_split(labels, groups, 0.2, seed)
        assert split.by == "micrograph"
        best = np.inf
        for size in (1, 2, 3, 4, 5):
            for some in combinations(range(8), size):
                held = np.isin(groups, some)
                left = np.bincount(labels[~held], minlength=4)
                if (2 * left >= np.bincount(labels, minlength=4)).all():
                    best = min(best, cost(labels, held, 0.2))
        found = cost(labels, np.isin(np.arange(80), split.validation), 0.2)
        assert best <= found < best + 0.1


def test_split_prefers_sets_with_every_class() -> None:
    groups = np.repeat(np.arange(10), 4)  # four shots a micrograph: carbon on two micrographs only
    labels = np.tile([0, 0, 1, 1], 10)
    labels[[2, 3, 38, 39]] = 2
    for seed in range(10):
        split = validation_split(labels, groups, 0.2, seed)
        assert split.by == "micrograph"
        assert set(labels[split.validation]) == {0, 1, 2}
        assert len(split.validation) == 8
        assert len({0, 9} & set(groups[split.validation])) == 1
    assert len({tuple(validation_split(labels, groups, 0.2, seed).validation) for seed in range(20)}) > 3


def test_split_by_shot() -> None:
    labels = np.array([0] * 10 + [1] * 5 + [2] * 4 + [3] * 3)
    one = np.zeros(22, dtype=np.int64)
    for groups in (one, labels):  # one micrograph; or every class on its own
        split = validation_split(labels, groups, 0.2, 1)
        assert split.by == "shot"
        assert np.bincount(labels[split.validation], minlength=4).tolist() == [2, 1, 1, 0]
    most = validation_split(labels, one, 0.99, 1)
    assert np.bincount(labels[most.validation], minlength=4).tolist() == [5, 2, 2, 0]
    assert len({tuple(validation_split(labels, one, 0.2, seed).validation) for seed in range(20)}) > 10


def test_nothing_to_hold_out() -> None:
    labels, groups = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 0, 1])
    for fraction in (0.0, 0.2):
        split = validation_split(labels, groups, fraction, 0)
        assert split.by == "none"
        assert split.train.tolist() == [0, 1, 2, 3, 4]
    assert isinstance(split, Split)
    assert len(validation_split(labels[:0], groups[:0], 0.2, 0).train) == 0


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2.0, float("nan")])
def test_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(ShotsError, match=r"a validation fraction of .*; give one from 0 to below 1"):
        validation_split(np.arange(4), np.arange(4), fraction, 0)


def test_hundreds_of_micrographs() -> None:
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 4, 20000), rng.integers(0, 1500, 20000)
    split = validation_split(labels, groups, 0.2, 0)
    assert split.by == "micrograph"
    assert abs(len(split.validation) - 4000) <= 2
    assert (np.bincount(labels[split.validation]) > 700).all()
