"""Pointing, overlap and energy of heat maps, against a slow twin and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svilm.metrics.grounding import Grounded, box_masks, grounded, mean_grounded

NOBODY = np.zeros((0, 1, 4))
UNSEEN = [np.nan] * 4


def slow(heat, box, others, threshold):
    """The same numbers pixel by pixel, in Python."""
    frames, high, wide = heat.shape

    def pixels(one):
        left, top, right, bottom = (min(max(value, 0.0), 1.0) if value == value else 0.0 for value in one)
        if left >= right or top >= bottom:
            return set()
        rows = [r for r in range(high) if top <= (r + 0.5) / high < bottom]
        columns = [c for c in range(wide) if left <= (c + 0.5) / wide < right]
        rows = rows or [min(int((top + bottom) / 2 * high), high - 1)]
        columns = columns or [min(int((left + right) / 2 * wide), wide - 1)]
        return {(r, c) for r in rows for c in columns}

    everything = [(r, c) for r in range(high) for c in range(wide)]
    low, top = float(heat.min()), float(heat.max())
    pointing, contested, missed, overlaps = [], [], [], []
    heat_in = area = 0.0
    best = []
    for t in range(frames):
        own = pixels(box[t])
        rivals = set().union(*(pixels(other[t]) for other in others))
        frame_top = max(heat[t, r, c] for r, c in everything)
        hottest = [p for p in everything if heat[t][p] == frame_top]
        best += [p in own for p in everything if heat[t][p] == top]
        heat_in += sum(float(heat[t][p]) for p in own)
        area += len(own)
        if not own:
            continue
        hit = sum(p in own for p in hottest) / len(hottest)
        pointing.append(hit)
        warm = {p for p in everything if heat[t][p] >= low + threshold * (top - low)}
        overlaps.append(len(warm & own) / len(warm | own))
        if rivals:
            contested.append(hit)
            missed.append(sum(p in rivals and p not in own for p in hottest) / len(hottest))
    if not pointing:
        return None
    area /= frames * high * wide
    total = sum(float(heat[t][p]) for t in range(frames) for p in everything)
    mean = lambda values: sum(values) / len(values) if values else None  # noqa: E731
    return Grounded(
        mean(pointing), mean(best), mean(overlaps), heat_in / total if total else area, area, mean(contested),
        mean(missed),
    )  # fmt: skip


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    frames, high, wide, others = (draw(st.integers(low, 4)) for low in (1, 1, 1, 0))
    heat = rng.integers(0, draw(st.sampled_from([1, 2, 9])), (frames, high, wide)).astype(float)  # many ties
    corners = np.sort(rng.uniform(-0.4, 1.4, (1 + others, frames, 2, 2)), axis=2).reshape(1 + others, frames, 4)
    corners[rng.random((1 + others, frames)) < 0.3] = np.nan
    return heat, corners[0], corners[1:], float(rng.choice([0.0, 0.5, 0.9]))


@settings(max_examples=150)
@given(cases())
def test_the_slow_twin_agrees(case):
    ours, theirs = grounded(*case), slow(*case)
    assert (ours is None) == (theirs is None)
    if ours is not None:
        for name in Grounded.__dataclass_fields__:
            assert getattr(ours, name) == pytest.approx(getattr(theirs, name), abs=1e-12), name


def test_a_perfect_map_and_one_that_shows_the_other_thing():
    box = np.array([[0.0, 0.0, 0.5, 0.5]] * 2)
    other = np.array([[[0.5, 0.5, 1.0, 1.0]] * 2])
    heat = box_masks(box, 8, 8).astype(float)
    assert grounded(heat, box, other) == Grounded(1.0, 1.0, 1.0, 1.0, 0.25, 1.0, 0.0)
    assert grounded(heat, other[0], box[None]) == Grounded(0.0, 0.0, 0.0, 0.0, 0.25, 0.0, 1.0)


def test_a_flat_map_is_chance():
    box = np.array([[0.0, 0.0, 0.5, 0.5], UNSEEN])
    found = grounded(np.full((2, 8, 8), 3.0), box, np.zeros((0, 2, 4)))
    assert found == Grounded(0.25, 0.125, 0.25, 0.125, 0.125, None, None)
    assert grounded(np.zeros((2, 8, 8)), box, np.zeros((0, 2, 4))) == found  # no heat at all: spread evenly too


def test_ties_of_the_maximum_count_by_their_share():
    heat = np.zeros((1, 2, 2))
    heat[0, 0] = 5.0  # both upper pixels
    assert grounded(heat, np.array([[0.0, 0.0, 0.5, 1.0]]), NOBODY).pointing == 0.5


def test_frames_without_the_thing_count_for_energy_and_not_for_pointing():
    heat = np.ones((2, 2, 2))
    heat[0, 0, 0] = 2.0
    heat[1] = 9.0
    found = grounded(heat, np.array([[0.0, 0.0, 0.5, 0.5], UNSEEN]), np.zeros((0, 2, 4)))
    assert found.pointing == 1.0
    assert found.pointing_in_clip == 0.0  # hottest where the thing is not
    assert found.energy == pytest.approx(2 / 41)


def test_a_distractor_counts_only_while_it_is_seen():
    box = np.array([[0.0, 0.0, 0.5, 1.0]] * 2)
    other = np.array([[[0.5, 0.0, 1.0, 1.0], UNSEEN]])
    heat = np.zeros((2, 2, 2))
    heat[0, :, 1] = 1.0  # on the distractor
    heat[1, :, 0] = 1.0  # on the thing
    found = grounded(heat, box, other)
    assert (found.pointing, found.pointing_with_distractor, found.on_distractor) == (0.5, 0.0, 1.0)


def test_where_things_overlap_a_pixel_belongs_to_the_named_one():
    box = np.array([[0.0, 0.0, 1.0, 1.0]])
    found = grounded(np.ones((1, 2, 2)), box, box[None])
    assert (found.pointing_with_distractor, found.on_distractor) == (1.0, 0.0)


def test_a_thing_that_is_nowhere():
    outside = np.array([[1.1, 0.0, 1.3, 0.5]])
    empty = np.array([[0.5, 0.2, 0.5, 0.8]])
    for box in (np.array([UNSEEN]), outside, empty):
        assert grounded(np.ones((1, 4, 4)), box, NOBODY) is None


def test_a_box_between_pixel_centres_owns_the_pixel_around_it():
    mask = box_masks(np.array([[0.26, 0.26, 0.3, 0.3]]), 4, 4)
    assert mask.sum() == 1 and mask[0, 1, 1]


@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf])
def test_heat_that_is_none(value):
    heat = np.ones((1, 2, 2))
    heat[0, 0, 0] = value
    with pytest.raises(ValueError, match="finite and not negative"):
        grounded(heat, np.array([[0.0, 0.0, 1.0, 1.0]]), NOBODY)


def test_means_are_percent_over_things():
    one = Grounded(1.0, 1.0, 0.5, 0.2, 0.1, None, None)
    other = Grounded(0.0, 0.0, 0.0, 0.0, 0.1, 0.5, 0.25)
    means = mean_grounded([one, other])
    assert means["pointing"] == 50.0 and means["iou"] == 25.0
    assert means["pointing_with_distractor"] == 50.0 and means["on_distractor"] == 25.0
    assert "on_distractor" not in mean_grounded([one])
    with pytest.raises(ValueError, match="nothing to average"):
        mean_grounded([])
