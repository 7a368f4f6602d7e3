"""Do features tell scenes apart?  Moments within and across scene changes (Figures 2 and 5), and cut-and-paste."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from svilm.config import Config, ManifestFile
from svilm.data.augment import CutPaste, cut_and_paste, sample_paste
from svilm.data.loader import StillClip, evaluation_clips
from svilm.data.manifest import Entry, Manifest
from svilm.metrics.scenes import Assignment, assignment, auc, balanced_accuracy, boundaries, boundary_f1, chance_f1
from svilm.metrics.similarity import scene_labels, scene_pairs, step_similarity, within_and_across
from svilm.models.dual import DualEncoder
from svilm.runtime import gather_objects, rank, world_size
from svilm.tasks.common import Reader, encode_clips, evaluating
from svilm.types import Scores, VideoFeatures

PASTED_TOGETHER = 64
"""Clips of a manifest, one after the other, that are pasted into each other."""


class Temporal(Config):
    """Which clips show scene changes."""

    manifest: ManifestFile = ""
    """Manifest whose entries state `scene_changes`.  Empty: no temporal evaluation."""
    pasted: ManifestFile = ""
    """Manifest whose clips are cut and pasted, to assign steps to foreground and background.  Empty: `manifest`."""
    jump_cuts: ManifestFile = ""
    """Manifest whose scenes change before one and the same background, scored by itself.  Empty: not scored."""


@dataclass(frozen=True)
class SceneClip:
    """A clip with its step-by-step similarity, the scene that each step belongs to, and when the steps are."""

    entry: Entry
    similarity: Float[np.ndarray, "steps steps"]
    scenes: Int[np.ndarray, " steps"]
    seconds: Float[np.ndarray, " steps"]
    """Middle of each step."""
    pixels: Float[np.ndarray, "steps steps"]
    """Similarity of the steps' mean pictures: what can be told without a model."""


def scene_clips(model: DualEncoder, manifest: Manifest, reader: Reader) -> list[SceneClip]:
    """Similarities of every clip of the manifest that shows at least two scenes."""
    kept = encode_clips(model, manifest, reader, _steps, "encoding scenes")
    found = []
    for entry, (steps, thumbnails, seconds) in zip(manifest, kept, strict=True):
        scenes = scene_labels(seconds, entry.scene_changes)
        if 1 < len(np.unique(scenes)) < len(scenes):
            found.append(SceneClip(entry, step_similarity(steps), scenes, seconds, step_similarity(thumbnails)))
    return found


def evaluate(model: DualEncoder, config: Temporal, reader: Reader) -> dict[str, Scores]:
    """The scores of a model by family: `temporal`, and `temporal_cuts` of the jump cuts, each when its manifest is set.

    Raises ValueError when no clip of a manifest shows two scenes.
    """
    found: dict[str, Scores] = {}
    if config.manifest:
        manifest = Manifest(config.manifest)
        pasted = Manifest(config.pasted) if config.pasted else manifest
        told = score(scene_clips(model, manifest, reader), manifest)
        found["temporal"] = replace(told, metrics={**told.metrics, **score_pasted(pasted_clips(model, pasted, reader))})
    if config.jump_cuts:
        manifest = Manifest(config.jump_cuts)
        found["temporal_cuts"] = score(scene_clips(model, manifest, reader), manifest, "temporal_cuts")
    return found


def score(clips: Sequence[SceneClip], manifest: Manifest, family: str = "temporal") -> Scores:
    """How much less alike the moments of a clip are across a scene change than within, and whether they give it away.

    ``temporal/within``, ``across`` and ``gap`` are means of the cosine; a feature that cannot tell has a gap of 0.
    ``told_apart`` is the percent of clips whose similarity is lower across the change than within; ``auc`` (percent)
    how often two moments of a scene are more alike than two across a change, those of any other clip: what one
    threshold for all clips could tell.  ``boundary_f1`` (percent) takes the least similar neighbours for boundaries, as
    many as there are scene changes, and counts those at most one tubelet away; ``boundary_f1_half`` half a tubelet, the
    precision of the steps.  The families ``temporal_pixels`` (mean pictures of the steps), ``temporal_middle`` and
    ``temporal_chance`` stand beside it.  Another ``family`` takes the place of ``temporal`` in all names.  Raises
    ValueError when no clip shows two scenes.
    """
    if not clips:
        raise ValueError(f"{manifest.path}: no clip shows two scenes; its entries need `scene_changes`")
    metrics: dict[str, float] = {}
    for beside, matrix in (("", _model), ("_pixels", _pixels)):
        pairs = [within_and_across(matrix(clip), clip.scenes) for clip in clips]
        metrics |= {
            f"{family}{beside}/within": float(np.mean([pair.within for pair in pairs])),
            f"{family}{beside}/across": float(np.mean([pair.across for pair in pairs])),
            f"{family}{beside}/gap": float(np.mean([pair.gap for pair in pairs])),
            f"{family}{beside}/told_apart": 100.0 * float(np.mean([pair.gap > 0 for pair in pairs])),
            f"{family}{beside}/auc": 100.0 * auc(*_pooled([(matrix(clip), clip.scenes) for clip in clips])),
        }
    metrics[f"{family}_chance/auc"] = 50.0
    for name, part in (("boundary_f1", 1.0), ("boundary_f1_half", 0.5)):
        found = [_f1(clip, part) for clip in clips]
        for beside in found[0]:
            metrics[f"{family}{beside}/{name}"] = 100.0 * float(np.mean([each[beside] for each in found]))
    protocol = "cosine of step means, true scene changes; as many boundaries as changes"
    return Scores(metrics, len(clips), manifest.header.official, protocol)


def pasted_clips(model: DualEncoder, manifest: Manifest, reader: Reader) -> dict[str, list[Assignment]]:
    """Every clip of the manifest with a stretch of it kept and another clip around it (section 3.2), judged by Eq. 1.

    "temporal" judges the features of the model, "temporal_pixels" the mean pictures of the steps.  Foregrounds and
    partners are seeded; the partner is one of the same 64 neighbours in the manifest, so that neither the reader's
    batch nor the number of ranks, which share these blocks, changes a number.
    """
    blocks = range(rank(), -(-len(manifest) // PASTED_TOGETHER), world_size())
    own = [number for block in blocks for number in range(len(manifest))[block * PASTED_TOGETHER :][:PASTED_TOGETHER]]
    batches = evaluation_clips(manifest, reader.sampling, batch=PASTED_TOGETHER, workers=reader.workers, indices=own)
    found: dict[str, list[Assignment]] = {"temporal": [], "temporal_pixels": []}
    with evaluating(model) as device:
        for block, clips in zip(blocks, batches, strict=True):
            video = torch.stack([clip.frames for clip in clips])
            tubelet = model.config.video.tubelet[0]
            generator = np.random.default_rng([0, block])
            paste = sample_paste(len(clips), video.shape[1] // tubelet, CutPaste(), generator)
            video = cut_and_paste(video, paste, tubelet)
            parts = (model.encode_video(part.to(device)).tokens.mean(dim=2) for part in video.split(reader.batch))
            steps = torch.cat([part.float().cpu() for part in parts]).numpy()
            for row, mask in enumerate(paste.mask.numpy()):
                found["temporal"].append(assignment(steps[row], mask))
                found["temporal_pixels"].append(assignment(_thumbnails(video[row], len(mask)), mask))
    everyone = gather_objects(found)
    return {name: [each for ranks in everyone for each in ranks[name]] for name in found}


def score_pasted(found: dict[str, list[Assignment]]) -> dict[str, float]:
    """``assignment_accuracy`` in percent of cut-and-paste steps, foreground and background weighing the same.

    Absent where a handful of clips has no step of one kind to judge.
    """
    judged = {name: balanced_accuracy(clips) for name, clips in found.items()}
    return {f"{name}/assignment_accuracy": value for name, value in judged.items() if value is not None}


def _pooled(
    clips: Sequence[tuple[Float[np.ndarray, "steps steps"], Int[np.ndarray, " steps"]]],
) -> tuple[Float[np.ndarray, " within"], Float[np.ndarray, " across"]]:
    """Similarities within and across scenes of all clips together."""
    within, across = zip(*(scene_pairs(similarity, scenes) for similarity, scenes in clips), strict=True)
    return np.concatenate(within), np.concatenate(across)


def _model(clip: SceneClip) -> Float[np.ndarray, "steps steps"]:
    return clip.similarity


def _pixels(clip: SceneClip) -> Float[np.ndarray, "steps steps"]:
    return clip.pixels


def _f1(clip: SceneClip, part: float) -> dict[str, float]:
    """F1 of the boundaries of a clip within ``part`` of a tubelet: of the model, and of what stands beside it."""
    between = (clip.seconds[1:] + clip.seconds[:-1]) / 2
    first, last = clip.seconds[0], clip.seconds[-1]
    true = sorted(change for change in clip.entry.scene_changes if first < change <= last)
    count, tolerance = min(len(true), len(between)), part * float(np.diff(clip.seconds).mean())
    places = {
        "": boundaries(clip.similarity, count),
        "_pixels": boundaries(clip.pixels, count),
        "_middle": ((np.arange(count) + 0.5) * len(between) / count).astype(int),
    }
    return {
        **{beside: boundary_f1(between[numbers].tolist(), true, tolerance) for beside, numbers in places.items()},
        "_chance": chance_f1(between, true, tolerance),
    }


def _steps(clip: StillClip, features: VideoFeatures, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Step means of the video tokens, mean pictures of the steps, and the middle of each step in seconds."""
    steps = features.tokens[row].mean(dim=1).float().cpu().numpy()
    seconds = clip.seconds.double().unflatten(0, (len(steps), -1)).mean(dim=1).numpy()
    return steps, _thumbnails(clip.frames, len(steps)), seconds


def _thumbnails(frames: UInt8[Tensor, "frames high wide 3"], steps: int) -> Float[np.ndarray, "steps pixels"]:
    """The mean picture of each step, 8x8 pixels from -1 to 1."""
    small = F.adaptive_avg_pool2d(frames.permute(0, 3, 1, 2).float() / 127.5 - 1, 8)
    mean: np.ndarray = small.unflatten(0, (steps, -1)).mean(dim=1).flatten(1).numpy()
    return mean
