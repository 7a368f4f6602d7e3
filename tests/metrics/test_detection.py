"""Pairs, greedy assignment and average precision, each against the obvious way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from slow_detection import voc_average_precision

from svilm.metrics.detection import assign, average_precision, pairs_within

GROUPS = st.lists(st.integers(-1, 4), max_size=12)


@given(GROUPS, GROUPS)
def test_pairs_are_all_of_the_same_group(predicted, true):
    left, right = pairs_within(np.array(predicted, dtype=np.int64), np.array(true, dtype=np.int64))
    expected = [(i, j) for i, a in enumerate(predicted) for j, b in enumerate(true) if a == b]
    assert list(zip(left.tolist(), right.tolist(), strict=True)) == expected


@given(st.data())
def test_asking_all_at_once_ends_where_taking_turns_does(data):
    num_truths = data.draw(st.integers(1, 6))
    lists = data.draw(st.lists(st.permutations(range(num_truths)).map(tuple), max_size=10))
    lists = [wishes[: data.draw(st.integers(0, num_truths))] for wishes in lists]
    taken, expected = set(), []
    for number, wishes in enumerate(lists):
        free = [truth for truth in wishes if truth not in taken]
        if free:
            taken.add(free[0])
            expected.append(number)
    prediction = np.array([number for number, wishes in enumerate(lists) for _ in wishes], dtype=np.int64)
    truth = np.array([truth for wishes in lists for truth in wishes], dtype=np.int64)
    assert assign(prediction, truth, num_truths).tolist() == expected


def test_average_precision_by_hand():
    assert average_precision(np.array([1, 2, 3]), 3) == 1
    assert average_precision(np.array([1, 4]), 4) == pytest.approx((1 + 0.5) / 4)
    # precision 1/2, then 2/3: the envelope lifts the first to 2/3
    assert average_precision(np.array([2, 3]), 2) == pytest.approx(2 / 3)
    assert average_precision(np.array([], dtype=np.int64), 5) == 0


@given(st.lists(st.booleans(), max_size=30), st.integers(0, 5))
def test_average_precision_is_the_area_under_the_envelope(hits, missed):
    num_truths = max(1, sum(hits) + missed)
    ranks = np.array([rank for rank, hit in enumerate(hits, start=1) if hit], dtype=np.int64)
    assert average_precision(ranks, num_truths) == pytest.approx(voc_average_precision(hits, num_truths), abs=1e-12)
