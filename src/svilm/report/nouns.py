"""Where the model sees a noun: heat over the frames of clips (Figure 4), beside true boxes where known."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from svilm import draw
from svilm.config import ConfigError
from svilm.data.loader import StillClip
from svilm.data.manifest import Entry, Manifest
from svilm.data.world import ClipTruth, WorldError
from svilm.metrics.grounding import Boxes, grounded
from svilm.model import HeatMap, SViLM
from svilm.report import numbers
from svilm.report.common import caption_of, open_manifest, still
from svilm.run import Run
from svilm.tasks.grounding import asked, truth_of

CLIPS = 4
"""Clips shown, and measured where no true boxes are known."""
CLIPS_MEASURED = 40
"""Clips over which the heat inside true boxes is measured."""
CLIPS_DRAWN = 8
"""Clips in grounding.png."""
NOUNS = 2
STRIP_SIDE, STRIP_GAP = 96, 3
COLUMNS = {
    "pointing": "hottest pixel on it",
    "pointing_with_distractor": "with another thing in sight",
    "on_distractor": "hottest pixel on that",
    "iou": "IoU of the warm half",
    "energy": "heat inside its box",
}
"""Metrics of grounding in the table, with the heads of their columns."""
BLIND = {
    "untrained": "The same model, untrained",
    "contrast": "Most salient place (colour contrast)",
    "motion": "Where most changes",
    "centre": "Middle of the picture",
    "chance": "Chance",
}
"""What stands beside the model in that table."""


@dataclass(frozen=True)
class Heat:
    """Where the model sees a noun, and which share of the heat lies in the true box, if that is known."""

    noun: str
    strip: str
    similarity: float
    group: int | None
    """None where the heat is of region tokens."""
    share: "Share | None"


@dataclass(frozen=True)
class Share:
    """Part of the heat that lies inside true boxes, and part of the picture that they cover."""

    inside: float
    area: float


@dataclass(frozen=True)
class HeatRow:
    """A clip with its nouns."""

    id: str
    caption: str
    strip: str
    seconds: tuple[str, ...]
    nouns: tuple[Heat, ...]


@dataclass(frozen=True)
class Heats:
    """Heat maps of a few clips; where true boxes are known, the mean share over ``nouns`` of ``clips``."""

    rows: tuple[HeatRow, ...]
    share: Share | None
    nouns: int
    clips: int
    table: tuple[numbers.Row, ...] = ()
    """Scores of all test clips, where the run was asked for them (grounding.manifest)."""
    columns: tuple[str, ...] = tuple(COLUMNS.values())


def heats(run: Run, model: SViLM) -> Heats:
    """Heat maps of the first nouns of the first clips, of the test manifest if there is one.

    Raises ConfigError without a manifest, ValueError when no clip has a noun, and what reading videos raises.
    """
    source = run.retrieval.manifest or run.data.manifest
    manifest = open_manifest(source, "No manifest in the run, so no clip to look at.")
    truth = _truth_beside(manifest)
    rows: list[HeatRow] = []
    shares: list[Share] = []
    clips = 0
    for number in range(min(len(manifest), CLIPS_MEASURED if truth else CLIPS)):
        entry = manifest[number]
        nouns = entry.nouns[0][:NOUNS] if entry.nouns else ()
        if not nouns:
            continue
        clip = _still(manifest, entry, model)
        kind, temperature = run.grounding.kind, run.grounding.temperature
        maps = [model.ground(clip.frames, noun, kind=kind, temperature=temperature) for noun in nouns]
        known = {each.noun: each.box for each in asked(clip, truth.get(Path(entry.video).stem))}
        boxes = [known.get(noun) for noun in nouns]
        measured = [_share(found.heat, box) for found, box in zip(maps, boxes, strict=True)]
        shares += [share for share in measured if share is not None]
        clips += 1
        if len(rows) < CLIPS:
            rows.append(_row(entry, clip, maps, boxes, measured))
    if not rows:
        raise ValueError(f"{manifest.path}: none of its first clips has a noun.")
    mean = None
    if shares:
        inside, area = np.mean([(share.inside, share.area) for share in shares], axis=0)
        mean = Share(float(inside), float(area))
    return Heats(tuple(rows), mean, len(shares), clips)


def draw_nouns(run: Run, folder: Path, to: Path) -> Path:
    """Draw where the model in ``folder`` sees the first nouns of the grounding manifest, with their true boxes.

    Returns the picture, ``to``/grounding.png.
    """
    model = SViLM.from_pretrained(folder, run.device)
    manifest = Manifest(run.grounding.manifest)
    truth = truth_of(manifest, run.grounding.truth)
    strips = []
    for entry in list(manifest)[:CLIPS_DRAWN]:
        clip = _still(manifest, entry, model)
        for each in asked(clip, truth.get(Path(entry.video).stem)):
            found = model.ground(clip.frames, each.noun, kind=run.grounding.kind, temperature=run.grounding.temperature)
            strips.append(_strip(found, each.box))
    path = to / "grounding.png"
    Image.fromarray(np.concatenate(strips, axis=0)).save(path)
    return path


def _row(
    entry: Entry,
    clip: StillClip,
    maps: Sequence[HeatMap],
    boxes: Sequence[Boxes | None],
    shares: Sequence[Share | None],
) -> HeatRow:
    frames = clip.frames.numpy()
    chosen = draw.evenly(len(frames))
    nouns = []
    for found, box, share in zip(maps, boxes, shares, strict=True):
        uri = draw.as_data_uri(_strip(found, box))
        nouns.append(Heat(found.noun, uri, found.similarity, found.group, share))
    plain = draw.as_data_uri(draw.strip(draw.resized(frames[chosen], STRIP_SIDE), STRIP_GAP))
    seconds = tuple(f"{clip.seconds[frame]:.2f} s" for frame in chosen)
    return HeatRow(entry.id, caption_of(entry), plain, seconds, tuple(nouns))


def _strip(found: HeatMap, box: Boxes | None) -> np.ndarray:
    """A few frames with heat, and with the true box where it is known and seen."""
    chosen = draw.evenly(len(found.frames))
    pictures = draw.resized(draw.with_heat(found.frames[chosen], found.heat[chosen]), STRIP_SIDE)
    if box is not None:
        pictures = draw.with_boxes(pictures, [None if np.isnan(one[0]) else tuple(one) for one in box[chosen].tolist()])
    return draw.strip(pictures, STRIP_GAP)


def _share(heat: Float[np.ndarray, "frames high wide"], box: Boxes | None) -> Share | None:
    found = None if box is None else grounded(heat, box, np.zeros((0, len(heat), 4)))
    return None if found is None else Share(found.energy, found.area)


def _truth_beside(manifest: Manifest) -> dict[str, ClipTruth]:
    """Exact boxes by name of the video, when the videos are those of a drawn world."""
    try:
        return truth_of(manifest)
    except (ConfigError, WorldError):
        return {}


def _still(manifest: Manifest, entry: Entry, model: SViLM) -> StillClip:
    clip = still(manifest, entry, model.config.sampling)
    return StillClip(entry, clip.frames, clip.seconds, clip.box)
