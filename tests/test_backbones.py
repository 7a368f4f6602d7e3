"""Backbones give unit vectors of one space, whatever model is behind them."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from svilm.backbones import Backbone, FrameBackbone, VideoBackbone, evaluate_retrieval, load_backbone
from svilm.data.manifest import Entry, Header, Manifest, write_manifest
from svilm.data.sample import load_clip
from svilm.metrics.retrieval import rank_similarity
from svilm.tasks.retrieval import Retrieval
from tiny_models import SIZE, own_model, write_checkpoint

sys.path.append(str(Path(__file__).parent / "data"))
from make_videos import write_video


def test_our_own_model_keeps_its_vectors(tmp_path):
    model = own_model()
    model.save_pretrained(tmp_path)
    backbone = load_backbone(str(tmp_path), "cpu")
    assert isinstance(backbone, VideoBackbone) and isinstance(backbone, Backbone)
    assert (backbone.watching.step, backbone.watching.overlap, backbone.width) == (2, 4, 8)
    clips = np.random.default_rng(0).integers(0, 256, (3, 8, 16, 16, 3), dtype=np.uint8)
    encoded = backbone.encode(torch.from_numpy(clips))
    torch.testing.assert_close(encoded.vectors, model.encode_video(list(clips)))
    features = model.video_features(list(clips))
    torch.testing.assert_close(encoded.steps, features.tokens.mean(dim=2))
    torch.testing.assert_close(backbone.encode_text(["a red circle"]), model.encode_text("a red circle"))
    assert backbone.own is not None and backbone.fingerprint != VideoBackbone(own_model(1), "other").fingerprint


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2"])
def test_a_clip_is_the_mean_of_its_frames(tmp_path, kind):
    backbone = load_backbone(f"hf:{write_checkpoint(tmp_path / kind, kind)}", "cpu")
    assert isinstance(backbone, FrameBackbone) and backbone.own is None
    clips = torch.randint(0, 256, (2, 5, SIZE, SIZE, 3), dtype=torch.uint8)
    vectors, steps = backbone.encode(clips)
    assert steps.shape == (2, 5, backbone.width)
    torch.testing.assert_close(steps.norm(dim=-1), torch.ones(2, 5))
    wanted = torch.nn.functional.normalize(steps.mean(dim=1), dim=-1)
    torch.testing.assert_close(vectors, wanted)
    single = backbone.encode(clips[:1, :1])
    torch.testing.assert_close(single.vectors[0], steps[0, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(backbone.encode_text(["a man"]).norm(dim=1), torch.ones(1))
    other = load_backbone(f"hf:{write_checkpoint(tmp_path / 'other', kind, seed=1)}", "cpu")
    assert other.fingerprint != backbone.fingerprint


def test_a_published_model_is_scored_as_ours_is(tmp_path, capsys):
    """Retrieval by vectors made one by one, and the command that prints it."""
    write_checkpoint(tmp_path / "clip", "clip")
    entries = []
    for number in range(4):
        write_video(tmp_path / f"{number}.mp4", 4 + number, width=48, height=32)
        entries.append(
            Entry(str(number), f"{number}.mp4", ("a red circle", "a man")[: 1 + number % 2], ((), ())[: 1 + number % 2])
        )
    write_manifest(tmp_path / "test.jsonl", Header("toy", ".", 4, split="test"), entries)
    manifest = Manifest(tmp_path / "test.jsonl")
    backbone = load_backbone(f"hf:{tmp_path / 'clip'}", "cpu")
    scores = evaluate_retrieval(backbone, manifest, Retrieval(), batch=3, workers=0)
    sampling = backbone.watching.sampling
    clips = [
        backbone.encode(load_clip(manifest.path_of(e), None, None, sampling, None).frames[None])[0] for e in manifest
    ]
    texts = [backbone.encode_text([caption]) for entry in manifest for caption in entry.captions]
    similarity = (torch.cat(texts).double() @ torch.cat(clips).double().T).numpy()
    wanted = rank_similarity(similarity, [[0], [1], [1], [2], [3], [3]]).metrics("average")
    for name, value in wanted.items():
        assert abs(scores.metrics[f"retrieval/text_to_video/{name}"] - value) < 1e-6 or "tied" in name
    assert (scores.scored, scores.official) == (4, 4) and "12 frames" in scores.protocol
    from svilm.cli.evaluate import evaluate

    evaluate([f"hf:{tmp_path / 'clip'}"], test=tmp_path / "test.jsonl")
    out = capsys.readouterr().out
    assert "retrieval_chance/text_to_video/R@1" in out and "4 of 4 items" in out
    with pytest.raises(ValueError, match="is scored by retrieval alone"):
        evaluate(["grounding", "hf:x/y"], test=tmp_path / "test.jsonl")
