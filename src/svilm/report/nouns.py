"""Where the model sees a noun: heat over the frames of clips (Figure 4), beside true boxes where known."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from svilm import draw
from svilm.data.manifest import Entry, Manifest
from svilm.data.sample import Clip
from svilm.data.world import ClipTruth, WorldError, read_truth
from svilm.model import HeatMap, SViLM
from svilm.report.common import caption_of, open_manifest, still
from svilm.run import Run

CLIPS = 4
"""Clips shown, and measured where no true boxes are known."""
CLIPS_MEASURED = 40
"""Clips over which the heat inside true boxes is measured."""
NOUNS = 2
STRIP_SIDE, STRIP_GAP = 96, 3


@dataclass(frozen=True)
class Heat:
    """Where the model sees a noun, and which share of the heat lies in the true box, if that is known."""

    noun: str
    strip: str
    similarity: float
    group: int
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
        clip = still(manifest, entry, model.config.sampling)
        maps = [model.ground(clip.frames, noun) for noun in nouns]
        boxes = [_boxes(truth.get(Path(entry.video).stem), noun, clip) for noun in nouns]
        measured = [inside_boxes(found.heat, box) for found, box in zip(maps, boxes, strict=True)]
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


def inside_boxes(heat: Float[np.ndarray, "frames high wide"], boxes: Sequence[draw.Box | None]) -> Share | None:
    """Share of the heat inside the boxes of its frames, over the whole clip; None without any box or heat.

    Boxes are xyxy in [0, 1]; heat in a frame without a box counts as outside.
    """
    high, wide = heat.shape[1:]
    mask = np.zeros(heat.shape, dtype=bool)
    for frame, box in enumerate(boxes):
        if box is not None:
            left, top = int(box[0] * wide), int(box[1] * high)
            mask[frame, top : max(round(box[3] * high), top + 1), left : max(round(box[2] * wide), left + 1)] = True
    if not mask.any() or not heat.sum():
        return None
    return Share(float(heat[mask].sum() / heat.sum()), float(mask.mean()))


def _row(
    entry: Entry,
    clip: Clip,
    maps: Sequence[HeatMap],
    boxes: Sequence[Sequence[draw.Box | None]],
    shares: Sequence[Share | None],
) -> HeatRow:
    frames = clip.frames.numpy()
    chosen = draw.evenly(len(frames))
    nouns = []
    for found, box, share in zip(maps, boxes, shares, strict=True):
        pictures = draw.resized(draw.with_heat(frames[chosen], found.heat[chosen]), STRIP_SIDE)
        pictures = draw.with_boxes(pictures, [box[frame] for frame in chosen])
        uri = draw.as_data_uri(draw.strip(pictures, STRIP_GAP))
        nouns.append(Heat(found.noun, uri, found.similarity, found.group, share))
    plain = draw.as_data_uri(draw.strip(draw.resized(frames[chosen], STRIP_SIDE), STRIP_GAP))
    seconds = tuple(f"{clip.seconds[frame]:.2f} s" for frame in chosen)
    return HeatRow(entry.id, caption_of(entry), plain, seconds, tuple(nouns))


# Truth


def _truth_beside(manifest: Manifest) -> dict[str, ClipTruth]:
    """Exact boxes by name of the video, when the videos are those of a drawn world."""
    for folder in (manifest.root, manifest.root.parent):
        if (folder / "truth.jsonl").is_file():
            try:
                return {record.id: record for record in read_truth(folder)}
            except WorldError:
                return {}
    return {}


def _boxes(truth: ClipTruth | None, noun: str, clip: Clip) -> tuple[draw.Box | None, ...]:
    """The true box of a noun in each frame of a clip, as part of what the clip shows of the picture.

    None where it is unknown, not seen, or outside.
    """
    nothing = (None,) * len(clip.frames)
    if truth is None:
        return nothing
    try:
        boxes = truth.boxes(noun)
    except KeyError:
        return nothing
    numbers = (min(int(second * truth.fps + 1e-3), len(boxes) - 1) for second in clip.seconds)
    return tuple(seen_through(clip.box, boxes[number]) for number in numbers)


def seen_through(window: draw.Box, box: draw.Box | None) -> draw.Box | None:
    """A box of the whole picture as part of a window of it, cut at the window's edges; None if outside."""
    if box is None:
        return None
    x0, y0, wide, high = window[0], window[1], window[2] - window[0], window[3] - window[1]
    left, right = max((box[0] - x0) / wide, 0.0), min((box[2] - x0) / wide, 1.0)
    top, bottom = max((box[1] - y0) / high, 0.0), min((box[3] - y0) / high, 1.0)
    return (left, top, right, bottom) if left < right and top < bottom else None
