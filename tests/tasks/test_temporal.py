from dataclasses import replace

import numpy as np
import pytest
import torch

from svilm.config import override
from svilm.data.language import Language, Tokenizer
from svilm.data.manifest import Entry, Header, Manifest, write_manifest
from svilm.data.prepare import folder, msrvtt
from svilm.data.prepare.common import prepare
from svilm.data.sample import Sampling
from svilm.models.dual import SIZES, DualEncoder
from svilm.tasks import temporal
from svilm.tasks.common import Reader
from svilm.tasks.temporal import SceneClip, Temporal, evaluate, pasted_clips, score, score_pasted


def clip(similarity, scenes):
    entry = Entry("a", "a.mp4", ("x",), ((),), scene_changes=(1.1,))
    matrix = np.array(similarity, dtype=np.float64)
    return SceneClip(entry, matrix, np.array(scenes), np.array([0.25, 0.75, 1.25]), np.ones((3, 3)))


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
    assert scores.metrics["temporal/auc"] == 75.0  # 0.9 is above all four, 0.5 above two
    assert scores.metrics["temporal_pixels/auc"] == scores.metrics["temporal_chance/auc"] == 50.0
    assert (scores.scored, scores.official) == (2, 3)


def test_boundaries_and_their_baselines_by_hand(manifest):
    """The change is at 1.1 s; steps meet at 0.5 s, which is more than a tubelet away, and at 1.0 s."""
    told = clip([[1, 0.9, 0.2], [0.9, 1, 0.4], [0.2, 0.4, 1]], [0, 0, 1])
    not_told = clip([[1, 0.5, 0.7], [0.5, 1, 0.7], [0.7, 0.7, 1]], [0, 0, 1])
    scores = score([told, not_told], manifest).metrics
    assert scores["temporal/boundary_f1"] == scores["temporal/boundary_f1_half"] == 50.0
    assert scores["temporal_chance/boundary_f1"] == 50.0
    assert scores["temporal_pixels/boundary_f1"] == 0.0  # all alike: the first boundary is taken
    assert scores["temporal_middle/boundary_f1"] == 100.0
    assert scores["temporal_pixels/gap"] == 0.0


def test_a_family_of_its_own_has_the_same_scores_under_its_name(manifest):
    told = clip([[1, 0.9, 0.2], [0.9, 1, 0.4], [0.2, 0.4, 1]], [0, 0, 1])
    usual, own = (score([told], manifest, family).metrics for family in ("temporal", "temporal_cuts"))
    assert own == {name.replace("temporal", "temporal_cuts", 1): value for name, value in usual.items()}
    assert {name.partition("/")[0] for name in own} == {
        "temporal_cuts", "temporal_cuts_pixels", "temporal_cuts_middle", "temporal_cuts_chance",
    }  # fmt: skip


@pytest.fixture
def model():
    torch.manual_seed(0)
    return DualEncoder(override(SIZES["tiny"], ["video.width=32", "video.heads=2"]))


def reader(manifest):
    sampling = Sampling(num_frames=8, size=64, short_side=64, min_scale=1.0, max_scale=1.0)
    tokenizer = Tokenizer.train((entry.captions[0] for entry in manifest), 300)
    return Reader(tokenizer, sampling, Language(), batch=6)


def test_jump_cuts_are_scored_by_themselves(world, tmp_path, model):
    scenes, cuts = tmp_path / "scenes.jsonl", tmp_path / "cuts.jsonl"
    for file, path, videos in (("scenes", scenes, "videos"), ("jump_cuts", cuts, "jump_cuts")):
        prepare(folder.listing(world / f"{file}.csv"), to=path, videos=world / videos, check="none")
    both = evaluate(model, Temporal(manifest=str(scenes), jump_cuts=str(cuts)), reader(Manifest(cuts)))
    assert list(both) == ["temporal", "temporal_cuts"] and both["temporal_cuts"].scored == len(Manifest(cuts)) == 3
    alone = evaluate(model, Temporal(jump_cuts=str(cuts)), reader(Manifest(cuts)))
    assert alone == {"temporal_cuts": both["temporal_cuts"]}
    # before the same background even pictures are more alike across the change
    pictures = (
        {**both["temporal"].metrics, **both["temporal_cuts"].metrics}[f"{family}_pixels/across"] for family in both
    )
    assert next(pictures) < next(pictures)
    assert evaluate(model, Temporal(), reader(Manifest(cuts))) == {}


def test_pasted_stretches_are_told_by_their_pictures(world, tmp_path, model):
    """On clips of plainly different backgrounds the pictures themselves say what was pasted."""
    prepare(msrvtt.listing(world / "msrvtt", split="test"), to=tmp_path / "test.jsonl", videos=world / "videos",
            check="none")  # fmt: skip
    manifest = Manifest(tmp_path / "test.jsonl")
    found = pasted_clips(model, manifest, reader(manifest))
    assert [len(clips) for clips in found.values()] == [len(manifest)] * 2
    scores = score_pasted(found)
    assert 70 < scores["temporal_pixels/assignment_accuracy"] <= 100
    again = pasted_clips(model, manifest, reader(manifest))
    assert again == found  # seeded


def test_pasted_clips_do_not_depend_on_ranks_or_batches(world, tmp_path, model, monkeypatch):
    prepare(msrvtt.listing(world / "msrvtt", split="test"), to=tmp_path / "test.jsonl", videos=world / "videos",
            check="none")  # fmt: skip
    manifest = Manifest(tmp_path / "test.jsonl")
    monkeypatch.setattr(temporal, "PASTED_TOGETHER", 5)  # of 12 clips: two whole blocks and a rest

    def found_by(ranks, batch):
        parts = []
        for number in range(ranks):
            monkeypatch.setattr(temporal, "rank", lambda number=number: number)
            monkeypatch.setattr(temporal, "world_size", lambda: ranks)
            parts.append(pasted_clips(model, manifest, replace(reader(manifest), batch=batch)))
        return {name: sorted(each for part in parts for each in part[name]) for name in parts[0]}

    alone = found_by(1, 64)
    assert len(alone["temporal"]) == len(manifest) == 12
    for ranks, batch in ((1, 3), (2, 64), (4, 2)):
        assert found_by(ranks, batch) == alone


def test_no_scene_changes_at_all(manifest):
    with pytest.raises(ValueError, match="no clip shows two scenes"):
        score([], manifest)
