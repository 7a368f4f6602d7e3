import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from svilm.metrics.proposals import ProposalConfig, average_recall, candidates, label, overlaps, proposals, soft_nms


def overlap(a, b):
    both = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return both / (a[1] - a[0] + b[1] - b[0] - both)


def slow_soft_nms(found, sigma, keep):
    """One number at a time."""
    rest, taken = [list(each) for each in found], []
    while rest and len(taken) < keep:
        best = max(range(len(rest)), key=lambda n: (rest[n][2], -n))
        if rest[best][2] <= 0:
            break
        chosen = rest.pop(best)
        taken.append(chosen)
        for each in rest:
            each[2] *= math.exp(-(overlap(chosen, each) ** 2) / sigma)
    return np.array(taken).reshape(-1, 3)


rows = st.tuples(st.integers(0, 9), st.integers(1, 6), st.sampled_from([0.0, 0.2, 0.5, 0.5, 0.9, 1.0]))


@given(st.lists(rows, max_size=15), st.sampled_from([0.1, 0.46, 0.8]), st.integers(1, 20))
def test_soft_nms_equals_the_loop_version(found, sigma, keep):
    table = np.array([(first, first + length, score) for first, length, score in found], dtype=float).reshape(-1, 3)
    before = table.copy()
    np.testing.assert_allclose(soft_nms(table, sigma, keep), slow_soft_nms(table, sigma, keep), rtol=1e-12)
    assert np.array_equal(table, before)


def test_soft_nms_by_hand():
    """The second of three shares half with the first and falls behind the third, which shares nothing."""
    found = np.array([[0.0, 2.0, 0.9], [0.0, 1.0, 0.8], [5.0, 6.0, 0.7]])
    expected = [[0, 2, 0.9], [5, 6, 0.7], [0, 1, 0.8 * math.exp(-0.25 / 0.8)]]
    np.testing.assert_allclose(soft_nms(found, 0.8, 3), expected)
    np.testing.assert_allclose(soft_nms(found, 0.8, 2), expected[:2])


@pytest.mark.parametrize(
    "scores, expected",
    [
        ([0.1, 0.2, 0.1, 0.0, 1.0, 0.6, 0.3], [0, 1, 4, 5]),  # the first, a peak, the largest, above half of it
        ([0.0, 0.5, 1.0, 0.5, 0.0], [0, 2]),  # half is not above half
        ([0.2, 0.2, 0.2, 1.0, 1.0], [0, 3, 4]),  # a plateau is no peak
        ([0.0, 0.0, 0.0], [0]),
        ([0.3], [0]),
        ([0.3, 0.9], [0, 1]),
    ],
)
def test_candidates_by_hand(scores, expected):
    assert np.flatnonzero(candidates(np.array(scores))).tolist() == expected


def slow_proposals(start, end, maps, config):
    """(first, behind, score) of every anchor that is kept, before soft-NMS."""
    steps, found = len(start), []

    def chosen(scores, n, border):
        inside = 0 < n < steps - 1
        peak = inside and scores[n] > scores[n - 1] and scores[n] > scores[n + 1]
        return n == border or peak or scores[n] > 0.5 * max(scores)

    for d in range(maps.shape[1]):
        for s in range(steps):
            behind = s + d + 1
            if behind > steps or (behind == steps and not config.reach_end):
                continue
            node = behind if config.end_step == "behind" else behind - 1
            ends = node == steps or chosen(end, node, steps - 1)
            if not config.candidates or (chosen(start, s, 0) and ends):
                found.append((float(s), float(behind), float(maps[0, d, s]) * float(maps[1, d, s])))
    return found


scores = st.integers(2, 7).flatmap(
    lambda steps: st.tuples(
        *(arrays(float, shape, elements=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.6, 1.0]))
        for shape in ((steps,), (steps,), (2, steps - 1, steps)))
    )
)  # fmt: skip


@settings(max_examples=60)
@given(scores, st.booleans(), st.sampled_from(["behind", "last"]), st.booleans(), st.sampled_from([None, 6.0]))
def test_proposals_equal_the_loop_version(given_scores, chosen, end_step, reach_end, longest):
    config = ProposalConfig(candidates=chosen, end_step=end_step, reach_end=reach_end, longest_seconds=longest)
    steps = len(given_scores[0])
    expected = [
        (3.0 * first, 3.0 * behind, score)
        for first, behind, score in slow_proposals(*given_scores, config)
        if longest is None or 3.0 * (behind - first) < longest
    ]
    ours = proposals(*given_scores, 3.0 * steps, config)
    np.testing.assert_allclose(ours, slow_soft_nms(expected, config.sigma, config.keep), rtol=1e-9)


@pytest.mark.parametrize("end_step", ["behind", "last"])
def test_a_segment_to_the_end_of_the_video_exists_only_with_the_option(end_step):
    start, end = np.zeros(10), np.zeros(10)
    start[4], end[9] = 1.0, 1.0
    maps = np.zeros((2, 10, 10))
    maps[:, 5, 4] = 1.0  # steps 4 to 10
    maps[:, 4, 4] = 0.5  # steps 4 to 9
    ours = proposals(start, end, maps, 20.0, ProposalConfig(reach_end=True, end_step=end_step))
    assert ours[0].tolist() == [8.0, 20.0, 1.0]
    without = proposals(start, end, maps, 20.0, ProposalConfig(end_step=end_step))
    assert (without[:, 1] <= 18.0).all()
    if end_step == "behind":
        np.testing.assert_allclose(without, [[8.0, 18.0, 0.25]])


def test_what_lies_behind_the_end_of_the_video_takes_nobodys_place():
    """Of 12 seconds in a window of 48, that is filled up: as many proposals as in a video that ends there."""
    draw = np.random.default_rng(0)
    maps, flat = draw.random((2, 12, 48)), np.full(48, 0.5)
    config = ProposalConfig(candidates=False, keep=20, reach_end=True)
    ours = proposals(flat, flat, maps, 48.0, config, 12.0)
    assert len(ours) == 20 and (ours[:, 1] <= 12.0).all() and (ours[:, 0] < ours[:, 1]).all()
    before = np.array([row for row in slow_proposals(flat, flat, maps, config) if row[0] < 12.0])
    before[:, 1] = before[:, 1].clip(max=12.0)
    np.testing.assert_allclose(ours, slow_soft_nms(before, config.sigma, config.keep))
    assert len(proposals(flat, flat, maps, 48.0, config, 0.0)) == 0


def test_presets():
    assert ProposalConfig.activitynet() == ProposalConfig()
    thumos = ProposalConfig.thumos()
    assert (thumos.candidates, thumos.sigma, thumos.keep, thumos.longest_seconds) == (False, 0.46, 200, 10.0)
    assert ProposalConfig.opentad().reach_end and ProposalConfig.opentad().end_step == "last"


def test_windows_of_a_long_video_are_joined_by_soft_nms():
    first = np.array([[1.0, 3.0, 0.9]])
    second = np.array([[1.0, 3.0, 0.8], [7.0, 9.0, 0.5]])
    joined = soft_nms(np.concatenate([first, second]), 0.46, 200)
    assert joined[:, 0].tolist() == [1.0, 7.0, 1.0]


@pytest.mark.parametrize("name, place", [("start", 0), ("end", 1), ("maps", 2)])
@pytest.mark.parametrize("value", [-3.0, 1.5, math.nan])
def test_logits_are_refused(name, place, value):
    given_scores = [np.full(4, 0.5), np.full(4, 0.5), np.full((2, 4, 4), 0.5)]
    given_scores[place].flat[0] = value
    with pytest.raises(ValueError, match=rf"{name} holds values outside \[0, 1\]"):
        proposals(*given_scores, 1.0, ProposalConfig())


@pytest.mark.parametrize("duration", [0.0, -1.0, math.nan, math.inf])
def test_a_wrong_duration_is_refused(duration):
    with pytest.raises(ValueError, match="duration_seconds"):
        proposals(np.ones(4), np.ones(4), np.ones((2, 4, 4)), duration, ProposalConfig())


def test_labels_by_hand():
    found = np.array([[0.0, 1.0, 0.8], [2.0, 3.0, 0.4]])
    labelled, classes = label(found, np.array([0.1, 0.3, 0.6]))
    np.testing.assert_allclose(labelled, [[0, 1, 0.48], [0, 1, 0.24], [2, 3, 0.24], [2, 3, 0.12]])
    assert classes.tolist() == [2, 1, 2, 1]
    labelled, classes = label(found, np.array([0.5]))
    np.testing.assert_allclose(labelled[:, 2], [0.4, 0.2])
    assert label(np.zeros((0, 3)), np.array([0.1, 0.9]))[0].shape == (0, 3)
    assert label(found, np.array([0.5, 0.5, 0.5]), top=1)[1].tolist() == [0, 0]  # of equal classes the first


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_class_scores_that_are_no_probabilities_are_refused(value):
    with pytest.raises(ValueError, match="class_scores must be probabilities"):
        label(np.array([[0.0, 1.0, 0.8]]), np.array([0.1, value]))


@given(st.lists(rows, min_size=1, max_size=6), st.lists(rows, min_size=1, max_size=6))
def test_overlaps_with_loops(ours, theirs):
    a, b = (np.array([(first, first + length) for first, length, _ in each], dtype=float) for each in (ours, theirs))
    np.testing.assert_allclose(overlaps(a, b), [[overlap(x, y) for y in b] for x in a])


def test_recall_by_hand():
    """Of three true segments one is met exactly, one by 0.6 with the second proposal, one never."""
    found = [np.array([[0.0, 10.0, 0.9], [20.0, 26.0, 0.8]]), np.zeros((0, 3))]
    truth = [np.array([[0.0, 10.0], [20.0, 30.0]]), np.array([[1.0, 2.0]])]
    recall = average_recall(found, truth, (1, 2, 100))
    assert recall[1] == pytest.approx(100 / 3)
    assert recall[2] == recall[100] == pytest.approx(100 * (10 + 3) / 30)  # 0.5, 0.55 and 0.6 of ten thresholds


def test_recall_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no video has a true segment"):
        average_recall([np.zeros((0, 3))], [np.zeros((0, 2))])
    with pytest.raises(ValueError, match="proposals of 1 videos, true segments of 0"):
        average_recall([np.zeros((0, 3))], [])
