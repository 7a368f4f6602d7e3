"""Does the model tell scenes apart?  Similarity of the moments of clips, as in Figures 2 and 5."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from svilm import draw
from svilm.data.manifest import Manifest
from svilm.metrics.similarity import SceneSimilarity, within_and_across
from svilm.model import SViLM
from svilm.models.dual import DualEncoder
from svilm.report.common import caption_of, open_manifest, still, without_workers
from svilm.report.numbers import Row
from svilm.run import Run, reader_of
from svilm.start import Start, initial_encoder
from svilm.tasks.temporal import SceneClip, scene_clips

CLIPS = 4
"""Clips whose matrices are shown; the means are over all."""
THUMBNAIL_SIDE = 48
COLUMNS = {
    "auc": "pairs of moments told by one threshold, AUC",
    "boundary_f1": "boundaries within a tubelet, F1",
    "boundary_f1_half": "within half a tubelet, F1",
    "assignment_accuracy": "pasted moments told apart",
}
"""Further temporal scores, with the heads of their columns."""
JUMP_CUTS = {
    "told_apart": "videos told apart",
    "auc": "pairs of moments told by one threshold, AUC",
    "boundary_f1": "boundaries within a tubelet, F1",
    "boundary_f1_half": "within half a tubelet, F1",
}
"""Scores of the jump cuts, with the heads of their columns."""
BLIND = {
    "untrained": "The same model, untrained",
    "pixels": "Mean pictures of the moments, no model",
    "middle": "Middle of the clip",
    "chance": "Chance",
}
"""What stands beside the model in both tables."""


@dataclass(frozen=True)
class Matrix:
    """One model's view of one clip."""

    picture: str
    """Markup."""
    numbers: SceneSimilarity


@dataclass(frozen=True)
class SceneRow:
    """One clip as all models see it."""

    id: str
    caption: str
    changes: str
    matrices: tuple[Matrix, ...]


@dataclass(frozen=True)
class Mean:
    """One model's means over all clips; ``told_apart`` is the percent of clips with a positive difference."""

    within: float
    across: float
    told_apart: float


@dataclass(frozen=True)
class JumpCuts:
    """Scores where the background stays and only the things change."""

    table: tuple[Row, ...] = ()
    columns: tuple[str, ...] = tuple(JUMP_CUTS.values())


@dataclass(frozen=True)
class Scenes:
    """Matrices of a few clips, and the means over all of them; one entry per model throughout."""

    names: tuple[str, ...]
    means: tuple[Mean, ...]
    rows: tuple[SceneRow, ...]
    clips: int
    bar: str
    """Markup."""
    table: tuple[Row, ...] = ()
    """Boundaries and pasted moments."""
    columns: tuple[str, ...] = tuple(COLUMNS.values())
    jump_cuts: JumpCuts = JumpCuts()


@dataclass(frozen=True)
class Viewer:
    """A model under a name, with the run that says how it reads clips."""

    name: str
    run: Run
    model: SViLM

    def clips(self, manifest: Manifest) -> list[SceneClip]:
        """Its similarities of every clip with two scenes."""
        reader = reader_of(without_workers(self.run), self.model.tokenizer)
        return scene_clips(self.model.encoder, manifest, reader)


def scenes(own: Viewer, baseline: Viewer | None) -> Scenes:
    """Similarities of moments in clips with true scene changes, in the eyes of two models.

    Without a baseline the own model before training stands in.  The clips are those of the own run's
    manifest.  Raises ConfigError when there is none, and ValueError when it shows no scene change.
    """
    where = "No manifest with scene changes in the run (temporal.manifest; --scenes)."
    manifest = open_manifest(own.run.temporal.manifest, where)
    viewers = (own, baseline or _untrained(own))
    found = [viewer.clips(manifest) for viewer in viewers]
    common = _common(found)
    if not common:
        raise ValueError(f"{manifest.path}: no clip shows two scenes to these models")
    shown = common[:CLIPS]
    lowest = min(float(clip.similarity.min()) for clips in shown for clip in clips)
    limits = (float(np.floor(lowest * 10) / 10), 1.0)
    rows = []
    for clips in shown:
        pairs = zip(viewers, clips, strict=True)
        matrices = tuple(_matrix(manifest, clip, viewer, limits) for viewer, clip in pairs)
        entry = clips[0].entry
        changes = ", ".join(f"{change:.2f} s" for change in entry.scene_changes)
        rows.append(SceneRow(entry.id, caption_of(entry), changes, matrices))
    bar = draw.as_svg(draw.colour_bar(limits), f"Colours from similarity {limits[0]:g} to 1")
    means = tuple(_mean(clips) for clips in zip(*common, strict=True))
    return Scenes(tuple(viewer.name for viewer in viewers), means, tuple(rows), len(common), bar)


def _common(found: Sequence[Sequence[SceneClip]]) -> list[tuple[SceneClip, ...]]:
    """The clips in which every model has moments of two scenes, each as all of them see it."""
    by_id = [{clip.entry.id: clip for clip in clips} for clips in found]
    return [tuple(clips[name] for clips in by_id) for name in by_id[0] if all(name in clips for clips in by_id)]


def _mean(clips: Sequence[SceneClip]) -> Mean:
    pairs = [within_and_across(clip.similarity, clip.scenes) for clip in clips]
    return Mean(
        float(np.mean([pair.within for pair in pairs])),
        float(np.mean([pair.across for pair in pairs])),
        100.0 * float(np.mean([pair.gap > 0 for pair in pairs])),
    )


def _matrix(manifest: Manifest, clip: SceneClip, viewer: Viewer, limits: tuple[float, float]) -> Matrix:
    frames = still(manifest, clip.entry, viewer.run.data.sampling).frames.numpy()
    steps = len(clip.similarity)
    middle = (np.arange(steps) * 2 + 1) * len(frames) // (2 * steps)
    thumbnails = draw.resized(frames[middle], THUMBNAIL_SIDE)
    figure = draw.similarity_matrix(clip.similarity, clip.scenes, thumbnails, limits)
    title = f"{viewer.name}: similarity of every two moments of {clip.entry.id}"
    return Matrix(draw.as_svg(figure, title), within_and_across(clip.similarity, clip.scenes))


def _untrained(own: Viewer) -> Viewer:
    encoder: DualEncoder = initial_encoder(own.run.model, Start(), own.run.seed)
    model = SViLM(encoder.to(own.model.device), own.model.tokenizer, own.model.config)
    return Viewer("The same model, untrained", own.run, model)
