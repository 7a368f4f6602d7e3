from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svilm.metrics.scenes import (
    Assignment,
    assignment,
    auc,
    balanced_accuracy,
    boundaries,
    boundary_f1,
    chance_f1,
)

times = st.lists(st.integers(0, 12).map(float), max_size=4).map(sorted)


@given(times, times, st.integers(0, 4).map(float))
def test_f1_matches_as_many_as_possible(found, true, tolerance):
    """Against every way to pair found with true boundaries."""
    short, long = sorted((found, true), key=len)
    best = max(
        sum(abs(a - b) <= tolerance for a, b in zip(short, chosen, strict=False))
        for chosen in permutations(long, len(short))
    )
    total = len(found) + len(true)
    assert boundary_f1(found, true, tolerance) == (2 * best / total if total else 1.0)


def test_boundaries_are_the_least_similar_neighbours():
    similarity = np.eye(5)
    for k, value in enumerate((0.9, 0.2, 0.8, 0.2)):
        similarity[k, k + 1] = similarity[k + 1, k] = value
    assert boundaries(similarity, 1).tolist() == [1]
    assert boundaries(similarity, 2).tolist() == [1, 3]
    assert boundaries(similarity, 0).tolist() == []
    with pytest.raises(ValueError, match="5 boundaries asked of 5 steps"):
        boundaries(similarity, 5)


def test_chance_is_the_mean_over_all_choices():
    places = np.array([1.0, 2.0, 3.0])
    assert chance_f1(places, [1.0], 0.5) == pytest.approx(1 / 3)
    assert chance_f1(places, [1.0], 1.0) == pytest.approx(2 / 3)
    assert chance_f1(places, [1.0, 2.0], 0.0) == pytest.approx((1 + 0.5 + 0.5) / 3)


def test_chance_of_very_many_choices_is_that_of_all():
    places, true = np.arange(15) + 0.5, [9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0]
    exact = np.mean([boundary_f1(choice, true, 0.5) for choice in combinations(places.tolist(), len(true))])
    assert exact == pytest.approx(0.467, abs=0.001)
    assert chance_f1(places, true, 0.5) == pytest.approx(exact, abs=0.01)
    assert chance_f1(places, true, 0.5) == chance_f1(places, true, 0.5)


def test_chance_with_more_changes_than_places():
    assert chance_f1(np.array([0.5, 1.0, 1.5]), [0.8, 0.85, 0.9, 1.0], 0.5) == pytest.approx(2 * 3 / 7)


def test_assignment_by_hand():
    steps = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [1.0, 0.2]])
    found = assignment(steps, np.array([True, True, False, False]))
    # the last step looks like the foreground, and so pulls the centre that the third is compared with
    assert found == Assignment(2, 2.0, 2, 1.0)
    assert balanced_accuracy([found]) == 75.0


def test_a_step_alone_has_no_centre_of_its_own():
    found = assignment(np.eye(3), np.array([True, True, False]))
    assert found == Assignment(2, 1.0, 0, 0.0)  # ties are half right
    assert assignment(np.eye(2), np.array([True, True])) == Assignment(0, 0.0, 0, 0.0)  # nothing pasted
    assert balanced_accuracy([found]) is None


def test_features_that_know_nothing_get_half():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(2000):
        mask = np.zeros(6, dtype=bool)
        mask[: rng.integers(2, 5)] = True
        found.append(assignment(rng.normal(size=(6, 16)), mask))
    assert balanced_accuracy(found) == pytest.approx(50, abs=2)


values = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=6).map(np.array)


@given(values, values)
def test_auc_is_the_share_of_pairs_in_order(higher, lower):
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in higher for b in lower]
    assert auc(higher, lower) == pytest.approx(np.mean(pairs))


def test_auc_needs_both_kinds():
    with pytest.raises(ValueError, match="0 values of one kind and 1 of the other"):
        auc(np.array([]), np.array([1.0]))
