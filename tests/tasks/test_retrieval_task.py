"""Clips and captions of a retrieval test, and how it says what was seen."""

import numpy as np
import pytest

from svilm.data.manifest import Entry, Header, Manifest, ManifestError, write_manifest
from svilm.data.sample import Sampling
from svilm.tasks.common import gallery_of, sampling_in_words
from svilm.tasks.retrieval import Retrieval, Vectors, score


def _manifest(path, *entries: Entry) -> Manifest:
    write_manifest(path, Header("toy", ".", len(entries), split="test"), entries)
    return Manifest(path)


def _entry(name: str, video: str, *captions: str, start: float = 0.0, end: float | None = None) -> Entry:
    return Entry(name, video, captions, ((),) * len(captions), start=start, end=end)


def test_rows_of_the_same_clip_are_one_item_with_all_their_captions(tmp_path):
    manifest = _manifest(
        tmp_path / "test.jsonl",
        _entry("a", "a.mp4", "a red circle"),
        _entry("b", "b.mp4", "a man", "a tall man"),
        _entry("a2", "a.mp4", "the circle is red"),
        _entry("a3", "a.mp4", "later it is blue", start=4.0, end=8.0),
    )
    gallery = gallery_of(manifest)
    assert gallery.clips == (0, 1, 3)
    assert gallery.captions == ("a red circle", "a man", "a tall man", "the circle is red", "later it is blue")
    assert gallery.owner == (0, 1, 1, 0, 2)
    clips = np.eye(3, 8, dtype=np.float32)
    scores = score(Vectors(clips, clips[list(gallery.owner)], gallery), manifest, Retrieval(dual_softmax=0.1), "words")
    for direction in ("text_to_video", "video_to_text"):
        assert scores.metrics[f"retrieval/{direction}/R@1"] == 100
        assert scores.metrics[f"retrieval_transductive/{direction}/R@1"] == 100
    assert scores.metrics["retrieval_chance/text_to_video/R@1"] == pytest.approx(100 / 3)
    assert (scores.scored, scores.official) == (4, 4) and "1 rows of clips that other rows have" in scores.protocol
    assert "; ONLY 3 CLIPS, OF WHICH ANY MODEL HAS THE RIGHT ONE AMONG THE FIRST 10" in scores.protocol


def test_what_has_no_caption_is_refused_before_anything_is_encoded(tmp_path):
    manifest = _manifest(tmp_path / "test.jsonl", _entry("a", "a.mp4", "a man"), _entry("b", "b.mp4"))
    with pytest.raises(ManifestError, match=r"test\.jsonl: b has no caption"):
        gallery_of(manifest)
    with pytest.raises(ManifestError, match=r"none\.jsonl has no entries"):
        gallery_of(_manifest(tmp_path / "none.jsonl"))


def test_the_protocol_says_what_is_seen_of_a_clip():
    assert sampling_in_words(Sampling()) == "32 frames, one uniform clip, centre crop 224"
    dense = Sampling(num_frames=8, strategy="dense", stride=4, fit="squash", size=64)
    assert sampling_in_words(dense) == "8 frames, the middle, 4 frames apart, squashed to 64"
