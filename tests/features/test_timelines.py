"""Spans of videos as training items: what is seen of them, what is to be found, and batches of it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from svilm.data.loader import Order
from svilm.data.snippets import FeatureFolder, Snippets
from svilm.entries import Entry, Segment
from svilm.features.timelines import Span, mean_features, spans, timeline_batches, training_spans
from svilm.models.gtad import GTADConfig

NETWORK = GTADConfig(channels=4, steps=8, longest=8, width=4, wide=4, narrow=4, bins=2, context_bins=1)


def entry(name="a", *segments: tuple[float, float, str], duration=10.0) -> Entry:
    return Entry(name, f"{name}.mp4", (), (), segments=tuple(Segment(*row) for row in segments), duration=duration)


def snippets(count: int, step: float = 1.0) -> Snippets:
    return Snippets(np.arange(4 * count, dtype=np.float32).reshape(count, 4), step)


def test_a_whole_video_is_resized():
    one = entry("a", (2.0, 4.0, "x"), (9.0, 11.0, "y"))
    (span,) = spans(one, snippets(10), "video", 8)
    seen, begin, covered = span.seen(snippets(10), 8)
    assert seen.shape == (4, 8) and (begin, covered) == (0.0, 10.0)
    assert (seen[:, 1:] > seen[:, :-1]).all()
    shares = span.segments(begin, covered)
    torch.testing.assert_close(shares, torch.tensor([[0.2, 0.4], [0.9, 1.0]]))  # cut at what is covered


def test_windows_are_half_a_window_apart_until_the_end_is_seen():
    rows = snippets(19, 0.5)
    found = spans(entry(), rows, "window", 8)
    assert [span.first for span in found] == [0, 4, 8, 12]
    seen, begin, covered = found[3].seen(rows, 8)
    assert (begin, covered) == (6.0, 4.0)
    np.testing.assert_array_equal(seen.T[:7], rows.rows[12:])
    assert not seen[:, 7].any()  # behind the end of the video
    assert [span.first for span in spans(entry(), snippets(8), "window", 8)] == [0]
    assert [span.first for span in spans(entry(), snippets(3), "window", 8)] == [0]


@given(st.integers(1, 60), st.integers(2, 16))
def test_windows_see_every_snippet(count, steps):
    found = [span.first for span in spans(entry(), snippets(count), "window", steps)]
    seen = {number for first in found for number in range(first, first + steps)}
    assert set(range(count)) <= seen and max(found) < max(count, 1)


def test_a_window_is_trained_on_what_lies_in_it(tmp_path):
    one = entry("a", (1.0, 3.0, "x"), (3.5, 4.6, "y"), (15.0, 17.0, "z"), duration=20.0)
    span = Span(one, 0)
    torch.testing.assert_close(span.segments(0.0, 4.0), torch.tensor([[0.25, 0.75]]))  # less than 0.9 of y
    shares = span.segments(0.0, 4.5)
    assert len(shares) == 2 and shares[1].tolist() == pytest.approx([3.5 / 4.5, 1.0])
    np.save(tmp_path / "a.npy", snippets(20).rows)
    kept = training_spans([one], FeatureFolder(tmp_path), "window", 8)
    assert [span.first for span in kept] == [0, 12]
    assert training_spans([entry("b")], FeatureFolder(tmp_path), "video", 8) == []


def test_the_mean_of_a_segment():
    found = mean_features(
        Snippets(np.arange(4.0, dtype=np.float32)[:, None], 2.0),
        np.array([[0.0, 8.0], [2.0, 4.0], [1.0, 3.0], [7.0, 18.0], [14.0, 16.0]]),
    )
    np.testing.assert_allclose(found[:, 0], [1.5, 1.0, 0.5, 3.0, 1.5])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_holds_what_is_to_be_learned(tmp_path, workers):
    entries = [entry("a", (1.0, 3.0, "x"), (5.0, 9.0, "x")), entry("b", (0.0, 10.0, "y")), entry("c", (0.0, 1.0, "z"))]
    for one in entries:
        np.save(tmp_path / f"{one.id}.npy", snippets(10).rows)
    folder = FeatureFolder(tmp_path)
    items = training_spans(entries, folder, "video", 8)
    order = Order(len(items), 3, seed=0, start=0, stop=2)
    first, second = timeline_batches(items, folder, NETWORK, order, workers)
    assert sorted(first.ids) == sorted(second.ids) == ["a", "b", "c"] and len(first) == 3
    assert first.features.shape == (3, 4, 8) and first.targets.overlap.shape == (3, 8, 8)
    assert first.targets.overlap[first.ids.index("b"), 7, 0] == 1.0
    assert not first.skipped
    part = first.part(1, 3).to(torch.device("cpu"))
    assert part.ids == first.ids[1:] and len(part) == 2
    torch.testing.assert_close(part.features, first.features[1:])
    torch.testing.assert_close(part.targets.start, first.targets.start[1:])
