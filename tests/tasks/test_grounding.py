"""Grounding on a small drawn world: the right boxes for the right frames, and baselines that know no words."""

import json

import numpy as np
import pytest
import torch

from svilm.config import ConfigError, override
from svilm.data.language import Language, Tokenizer
from svilm.data.loader import StillClip, evaluation_clips
from svilm.data.manifest import Manifest
from svilm.data.prepare import msrvtt
from svilm.data.prepare.common import prepare
from svilm.data.sample import Sampling
from svilm.data.world import ClipTruth, read_truth
from svilm.metrics.grounding import box_masks
from svilm.models.dual import SIZES, DualEncoder
from svilm.tasks import grounding
from svilm.tasks.common import Reader
from svilm.tasks.grounding import Grounding, answers, asked, baselines, evaluate, score, seen_through, truth_of
from svilm.types import Entry

SAMPLING = Sampling(num_frames=8, size=64, short_side=64, min_scale=1.0, max_scale=1.0)


@pytest.fixture(scope="module")
def manifest(world, tmp_path_factory):
    path = tmp_path_factory.mktemp("grounding") / "test.jsonl"
    prepare(msrvtt.listing(world / "msrvtt", split="test"), to=path, videos=world / "videos", check="none")
    return Manifest(path)


@pytest.fixture(scope="module")
def reader(manifest):
    tokenizer = Tokenizer.train((entry.captions[0] for entry in manifest), 300)
    return Reader(tokenizer, SAMPLING, Language(), batch=5)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    narrow = ["video.width=32", "video.heads=2", "text.width=32", "text.heads=2", "common=16"]
    return DualEncoder(override(SIZES["tiny"], narrow))


def test_scores_stand_beside_baselines(model, manifest, reader, tmp_path):
    found = evaluate(model, Grounding(manifest=str(manifest.path)), reader, tmp_path)
    assert found.scored == found.official == len(manifest)
    for family in ("grounding", "grounding_chance", "grounding_centre", "grounding_contrast", "grounding_motion"):
        assert 0 <= found.metrics[f"{family}/pointing"] <= 100
    chance = found.metrics["grounding_chance/pointing"]
    assert found.metrics["grounding_chance/energy"] == pytest.approx(found.metrics["grounding/area"])
    assert found.metrics["grounding_contrast/pointing"] > 2 * chance  # the shapes are what is salient
    lines = json.loads((tmp_path / "grounding.json").read_text())
    assert len(lines) == found.metrics["grounding/phrases"]
    assert np.mean([line["model"]["pointing"] for line in lines]) * 100 == pytest.approx(
        found.metrics["grounding/pointing"]
    )


def test_a_model_that_knows_points_right(model, manifest, reader, monkeypatch):
    """Heat that is the true box of the noun, in each frame, scores all of it; that of another thing nothing."""
    clips = [clip for batch in evaluation_clips(manifest, SAMPLING, batch=5, workers=0) for clip in batch]
    truth = truth_of(manifest)
    told = {
        each.clip: [one for one in asked(clip, truth[clip.entry.video.removesuffix(".mp4")])]
        for clip in clips
        for each in asked(clip, truth[clip.entry.video.removesuffix(".mp4")])
    }
    order = iter([told[clip.entry.id] for clip in clips if clip.entry.id in told])

    def true_heat(config, features, row, nouns, size, kind, temperature):
        return torch.from_numpy(np.stack([box_masks(each.box, *size[1:]) for each in next(order)]).astype(np.float32))

    monkeypatch.setattr(grounding, "noun_heat", true_heat)
    found = answers(model, manifest, reader, Grounding(manifest=str(manifest.path)))
    scores = score(found, manifest, Grounding()).metrics
    for name in ("pointing", "pointing_with_distractor", "pointing_in_clip", "iou", "energy"):
        assert scores[f"grounding/{name}"] == pytest.approx(100), name
    assert scores["grounding/on_distractor"] == 0


def test_boxes_are_those_of_the_frames_that_are_seen(world):
    """Against the truth by hand: the clip shows the frames 3 and 10 of its video."""
    truth = next(record for record in read_truth(world) if len(record.things) == 2 and not record.scene_changes)
    frames = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    noun = truth.things[1].phrases[-1]
    entry = Entry(truth.id, truth.video, ("x",), ((noun, "a phrase of nothing", noun),))
    (each,) = asked(StillClip(entry, frames, torch.tensor([3.0, 10.0]) / truth.fps), truth)
    for row, number in enumerate((3, 10)):
        for seen, thing in ((each.box, truth.things[1]), (each.others[0], truth.things[0])):
            box = thing.boxes[number]
            assert np.isnan(seen[row]).all() if box is None else np.allclose(seen[row], box)
    assert each.others.shape == (1, 2, 4)


def test_a_clip_without_truth_or_nouns_asks_nothing(world):
    truth = read_truth(world)[0]
    clip = StillClip(Entry("a", "a.mp4", (), ()), torch.zeros(1, 8, 8, 3, dtype=torch.uint8), torch.zeros(1))
    assert asked(clip, None) == [] == asked(clip, truth)


def test_truth_that_is_not_there(manifest, tmp_path):
    with pytest.raises(ConfigError, match=r"no truth\.jsonl.*grounding\.truth"):
        truth_of(manifest, str(tmp_path))
    assert all(isinstance(record, ClipTruth) for record in truth_of(manifest).values())


def test_nothing_found_is_an_error(manifest):
    with pytest.raises(ValueError, match="no clip shows a thing"):
        score([], manifest, Grounding())


@pytest.mark.parametrize(
    ("box", "seen"),
    [
        ((0.25, 0.25, 0.75, 0.75), (0.0, 0.0, 1.0, 1.0)),
        ((0.5, 0.5, 0.75, 1.0), (0.5, 0.5, 1.0, 1.0)),
        ((0.0, 0.0, 0.25, 1.0), None),
        (None, None),
    ],
)
def test_boxes_follow_the_crop(box, seen):
    assert seen_through((0.25, 0.25, 0.75, 0.75), box) == seen


def test_baselines_find_what_is_plain():
    frames = np.full((3, 32, 32, 3), 90, dtype=np.uint8)
    frames[:, 4:10, 4:10] = (250, 20, 20)  # stands still
    for number in range(3):
        frames[number, 20:26, 8 + 6 * number : 14 + 6 * number] = 110  # moves, in nearly the colour of the ground
    found = baselines(frames)
    hottest = {name: np.unravel_index(heat[1].argmax(), heat[1].shape) for name, heat in found.items()}
    assert all(heat.shape == (3, 32, 32) and heat.min() >= 0 and heat.max() <= 1 for heat in found.values())
    assert np.ptp(found["chance"]) == 0
    assert hottest["centre"] in [(15, 15), (15, 16), (16, 15), (16, 16)]
    assert max(hottest["contrast"]) < 10 and hottest["motion"][0] > 18
    assert np.ptp(baselines(frames[:1])["motion"]) == 0  # one frame has no motion
