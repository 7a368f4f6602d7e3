"""Vectors in the place of videos: batches, held-out clips, files."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from svilm.config import ConfigError
from svilm.data.fixed_features import FixedFeatures, LabelledFeatures, held_out_clips, write_arrays


def features(clips=10, views=2, width=3) -> FixedFeatures:
    rng = np.random.default_rng(0)
    ids = tuple(f"clip [{number}]" for number in range(clips))
    return FixedFeatures(
        ids,
        rng.normal(size=(clips, views, width)).astype(np.float32),
        rng.normal(size=(clips, views, 2)).astype(np.float32),
    )


def test_every_look_at_every_clip_is_an_item_of_an_epoch():
    known = LabelledFeatures(features(), np.arange(10) % 4, np.arange(10) % 5 == 0)
    batches = list(known.batches(4, seed=1, start=0, stop=5))
    assert [len(batch) for batch in batches] == [4] * 5
    found = {}
    for batch in batches:
        for name, vector, label, held_out in zip(
            batch.ids, batch.vectors, batch.labels.tolist(), batch.held_out.tolist(), strict=True
        ):
            clip = known.features.ids.index(name)
            assert (label, held_out) == (clip % 4, clip % 5 == 0)
            view = np.flatnonzero((known.features.vectors[clip] == vector.numpy()).all(axis=1))
            found[clip, int(view[0])] = True
    assert len(found) == 20
    late = list(known.batches(4, seed=1, start=3, stop=5))
    assert all(torch.equal(a.vectors, b.vectors) for a, b in zip(batches[3:], late, strict=True))


def test_parts_of_a_batch():
    known = LabelledFeatures(features(), np.arange(10), np.arange(10) < 5)
    batch = next(known.batches(6, 0, 0, 1)).to(torch.device("cpu"))
    part = batch.part(2, 5)
    assert part.ids == batch.ids[2:5] and torch.equal(part.vectors, batch.vectors[2:5])
    assert torch.equal(part.labels, batch.labels[2:5]) and torch.equal(part.held_out, batch.held_out[2:5])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.floats(0.01, 0.99), st.integers(0, 5))
def test_each_class_keeps_clips_on_both_sides(labels, share, seed):
    labels = np.array(labels)
    counts = np.bincount(labels)
    if counts.max() == 1:
        with pytest.raises(ConfigError, match=r"single training clip, .* rate by \(task\.probe\.held_out = .* two"):
            held_out_clips(labels, share, seed)
        return
    chosen = held_out_clips(labels, share, seed)
    assert np.array_equal(chosen, held_out_clips(labels, share, seed))
    for label, count in enumerate(counts):
        held_out = chosen[labels == label].sum()
        assert held_out == 0 if count < 2 else 0 < held_out < count
        assert abs(held_out - share * count) <= 1


def test_files_are_whole_or_not_there(tmp_path):
    kept = features()
    kept.save(tmp_path / "deep" / "kept.npz")
    again = FixedFeatures.load(tmp_path / "deep" / "kept.npz")
    assert again.ids == kept.ids
    assert np.array_equal(again.vectors, kept.vectors) and np.array_equal(again.embeddings, kept.embeddings)

    class Broken:
        def __array__(self, *_, **__):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_arrays(tmp_path / "other.npz", {"vectors": Broken()})
    assert {path.name for path in tmp_path.iterdir()} == {"deep"}
