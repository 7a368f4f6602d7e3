"""Do features tell scenes apart?  Similarity of moments within and across real scene changes (Figures 2 and 5)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from svilm.config import Config
from svilm.data.loader import StillClip
from svilm.data.manifest import Entry, Manifest
from svilm.metrics.similarity import scene_labels, step_similarity, within_and_across
from svilm.models.dual import DualEncoder
from svilm.tasks.common import Reader, encode_clips
from svilm.types import Scores, VideoFeatures


class Temporal(Config):
    """Which clips show scene changes."""

    manifest: str = ""
    """Manifest whose entries state `scene_changes`.  Empty: no temporal evaluation."""


@dataclass(frozen=True)
class SceneClip:
    """A clip with its step-by-step similarity and the scene that each step belongs to."""

    entry: Entry
    similarity: Float[np.ndarray, "steps steps"]
    scenes: Int[np.ndarray, " steps"]


def scene_clips(model: DualEncoder, manifest: Manifest, reader: Reader) -> list[SceneClip]:
    """Similarities of every clip of the manifest that shows at least two scenes."""
    kept = encode_clips(model, manifest, reader, _steps, "encoding scenes")
    found = []
    for entry, (steps, seconds) in zip(manifest, kept, strict=True):
        scenes = scene_labels(seconds, entry.scene_changes)
        if 1 < len(np.unique(scenes)) < len(scenes):
            found.append(SceneClip(entry, step_similarity(steps), scenes))
    return found


def score(clips: list[SceneClip], manifest: Manifest) -> Scores:
    """Mean similarity within and across scenes and their gap; the baseline is a feature that cannot tell (gap 0).

    ``temporal/told_apart`` is the percent of clips whose similarity is lower across the change than within.
    Raises ValueError when no clip shows two scenes.
    """
    if not clips:
        raise ValueError(f"{manifest.path}: no clip shows two scenes; its entries need `scene_changes`")
    pairs = [within_and_across(clip.similarity, clip.scenes) for clip in clips]
    metrics = {
        "temporal/within": float(np.mean([pair.within for pair in pairs])),
        "temporal/across": float(np.mean([pair.across for pair in pairs])),
        "temporal/gap": float(np.mean([pair.gap for pair in pairs])),
        "temporal/told_apart": 100.0 * float(np.mean([pair.gap > 0 for pair in pairs])),
    }
    return Scores(metrics, len(clips), manifest.header.official, "cosine of step means, true scene changes")


def _steps(clip: StillClip, features: VideoFeatures, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Step means of the video tokens, and the middle of each step in seconds."""
    steps = features.tokens[row].mean(dim=1).float().cpu().numpy()
    return steps, clip.seconds.double().unflatten(0, (len(steps), -1)).mean(dim=1).numpy()
