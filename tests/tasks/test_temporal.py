import numpy as np
import pytest

from svilm.data.manifest import Entry, Header, Manifest, write_manifest
from svilm.tasks.temporal import SceneClip, score


def clip(similarity, scenes):
    entry = Entry("a", "a.mp4", ("x",), ((),), scene_changes=(1.0,))
    return SceneClip(entry, np.array(similarity, dtype=np.float64), np.array(scenes))


@pytest.fixture
def manifest(tmp_path):
    write_manifest(tmp_path / "m.jsonl", Header("test", ".", 3), [Entry("a", "a.mp4", ("x",), ((),))])
    return Manifest(tmp_path / "m.jsonl")


def test_means_by_hand(manifest):
    told = clip([[1, 0.9, 0.2], [0.9, 1, 0.4], [0.2, 0.4, 1]], [0, 0, 1])
    not_told = clip([[1, 0.5, 0.7], [0.5, 1, 0.7], [0.7, 0.7, 1]], [0, 0, 1])
    scores = score([told, not_told], manifest)
    assert scores.metrics["temporal/within"] == pytest.approx((0.9 + 0.5) / 2)
    assert scores.metrics["temporal/across"] == pytest.approx((0.3 + 0.7) / 2)
    assert scores.metrics["temporal/gap"] == pytest.approx((0.6 - 0.2) / 2)
    assert scores.metrics["temporal/told_apart"] == 50.0
    assert (scores.scored, scores.official) == (2, 3)


def test_no_scene_changes_at_all(manifest):
    with pytest.raises(ValueError, match="no clip shows two scenes"):
        score([], manifest)
