"""Videos are cut where they change, into moments of allowed length."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svilm.search.moments import Changes, Splitting, drops, split, split_evenly, window_starts

PLAIN = Splitting(shortest=1.0, longest=4.0, drop=0.1, contrast=0.0)


def check(bounds, duration, splitting):
    """Moments cover the video without gaps and are as long as allowed."""
    assert bounds[0, 0] == 0 and bounds[-1, 1] == duration
    np.testing.assert_array_equal(bounds[1:, 0], bounds[:-1, 1])
    seconds = bounds[:, 1] - bounds[:, 0]
    assert (seconds > 0).all() and (seconds <= splitting.longest + 1e-9).all()
    if len(bounds) > 1:
        assert (seconds >= splitting.shortest - 1e-9).all()


def test_a_cut_is_where_the_similarity_drops():
    found = split(np.array([0.0, 0.5, 0.0, 0.0, 0.05, 0.0, 0.0]), 0.5, 4.0, PLAIN)
    np.testing.assert_allclose(found, [[0, 1], [1, 4]])


def test_the_sharpest_of_near_changes_is_taken():
    found = split(np.array([0, 0, 0.3, 0.9, 0.4, 0, 0, 0.0]), 0.5, 4.5, PLAIN)
    np.testing.assert_allclose(found, [[0, 2], [2, 4.5]])


def test_a_shaking_camera_is_no_change():
    shaking = np.full(7, 0.3)
    shaking[3] = 0.5
    steady = np.array([0.0, 0, 0, 0.5, 0, 0, 0])
    picky = PLAIN.model_copy(update={"contrast": 3.0})
    assert len(split(shaking, 0.5, 4.0, picky)) == 1
    assert len(split(steady, 0.5, 4.0, picky)) == 2


def test_a_long_moment_is_cut_where_it_changes_most_in_the_middle():
    changes = np.full(11, 0.01)
    changes[[0, 6]] = 0.05
    found = split(changes, 0.5, 6.0, PLAIN)
    np.testing.assert_allclose(found, [[0, 3.5], [3.5, 6]])
    still = split(np.zeros(31), 0.5, 16.0, PLAIN)
    np.testing.assert_allclose(still[:, 1] - still[:, 0], 4.0)


@given(
    st.lists(st.floats(0, 2), max_size=60), st.floats(0.05, 3), st.floats(0.1, 3), st.floats(2, 5), st.floats(0, 0.99)
)
def test_moments_cover_any_video(values, step, shortest, times, part):
    duration = (len(values) + 1 - part) * step
    splitting = Splitting(shortest=shortest, longest=shortest * times, drop=0.02, contrast=1.0)
    check(split(np.array(values), step, duration, splitting), duration, splitting)


def test_a_long_moment_is_not_cut_into_too_short_ones():
    changes = np.zeros(8)
    changes[2] = 0.05  # at 1.5 s, in the middle third
    found = split(changes, 0.5, 4.5, Splitting(shortest=2.0, longest=4.0, drop=0.1))
    np.testing.assert_allclose(found, [[0, 2], [2, 4.5]])


@given(st.floats(0.01, 1000), st.floats(0.1, 50))
def test_even_moments_cover_any_video(duration, seconds):
    bounds = split_evenly(duration, Splitting(seconds=seconds))
    check(bounds, duration, Splitting(shortest=0.01, longest=1.6 * seconds + 0.2))
    lengths = bounds[:, 1] - bounds[:, 0]
    np.testing.assert_allclose(lengths[:-1], seconds)
    assert lengths[-1] < 1.5 * seconds + 1e-9 and (len(lengths) == 1 or lengths[-1] >= seconds / 2 - 1e-9)


def test_without_seconds_a_short_video_is_one_moment():
    np.testing.assert_array_equal(split_evenly(0.04, Splitting()), [[0, 0.04]])
    assert not Splitting().needs_watching(3.9) and Splitting().needs_watching(4.0)
    assert not Splitting(seconds=3.0).needs_watching(100.0)


def test_drops_are_one_less_the_cosine():
    steps = np.array([[1.0, 0], [2, 0], [0, 3], [0, -1], [0, 0]])
    np.testing.assert_allclose(drops(steps), [0, 1, 2, 1], atol=1e-12)


def test_each_gap_is_the_mean_of_the_windows_that_see_it():
    changes = Changes(5)
    same, turned = np.array([1.0, 0]), np.array([0, 1.0])
    changes.add(0, np.stack([same, same, turned]))
    changes.add(1, np.stack([same, same, same]))
    changes.add(3, np.stack([same, turned, turned]))  # longer than the video
    np.testing.assert_allclose(changes.drops, [0, 0.5, 0, 1])
    assert Changes(1).drops.shape == (0,)


@given(st.integers(1, 200), st.integers(1, 16), st.integers(0, 15))
def test_windows_see_every_gap(steps, window, overlap):
    starts = window_starts(steps, window, overlap)
    seen = np.zeros(steps + window, int)
    for start in starts:
        seen[start : start + window] += 1
    assert (seen[:steps] > 0).all() and starts == sorted(set(starts))
    if 1 <= overlap < window:
        gaps = {gap for start in starts for gap in range(start, start + window - 1)}
        assert gaps >= set(range(steps - 1))


def test_lengths_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="at least twice shortest"):
        Splitting(shortest=3.0, longest=5.0)
