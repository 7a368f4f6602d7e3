"""Timelines of videos: when something happens, and when the model says that it does."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from svilm import draw
from svilm.data.decode import index_video, read_frames
from svilm.data.manifest import Entry, Manifest, Segment
from svilm.metrics.activitynet import read_predictions
from svilm.report.common import Files, test_manifest

SHOWN = 4
"""Videos shown."""
FRAMES, SIDE = 12, 96
MIN_IOU = 0.5
"""Overlap from which on a segment of the right class counts as found, on the timeline."""
LEAST = 3
"""Predictions shown of a video that has fewer segments."""

Found = tuple[Segment, float]
"""A segment with its score."""


@dataclass(frozen=True)
class Timeline:
    """A video as markup: its frames, true segments and the surest predictions."""

    id: str
    picture: str
    truths: int
    found: int
    """True segments of which one of the predictions shown has the class and enough of the time."""
    shown: int
    of: int
    """Predictions shown, of how many."""


@dataclass(frozen=True)
class Timelines:
    """Some videos of ``total``, and how much the predictions must overlap to count."""

    shown: tuple[Timeline, ...]
    total: int
    overlap: float = MIN_IOU


def timelines(files: Files) -> Timelines:
    """The first test videos with what the run's predictions.json says of them.

    Raises ConfigError without a test manifest, ScoreFileError where the file is missing or not of ActivityNet's
    form, ValueError when it names none of the videos, and what reading videos raises.
    """
    test = test_manifest(files.run)
    path = files.folder / "predictions.json"
    by_video: dict[str, list[Found]] = {}
    for video, start, end, label, score in read_predictions(path):
        by_video.setdefault(video, []).append((Segment(float(start), float(end), label), float(score)))
    entries = [entry for entry in (test[number] for number in range(min(SHOWN, len(test)))) if entry.segments]
    if not any(entry.id in by_video for entry in entries):
        raise ValueError(f"{path} names none of the first videos of {test.path}; evaluate the run again")
    shown = tuple(_timeline(test, entry, by_video.get(entry.id, [])) for entry in entries)
    return Timelines(shown, len(test))


def _timeline(test: Manifest, entry: Entry, found: Sequence[Found]) -> Timeline:
    surest = sorted(found, key=lambda pair: -pair[1])[: max(LEAST, len(entry.segments))]
    matches = matched(entry.segments, surest)
    rows: dict[str, list[draw.Bar]] = {"true": [draw.Bar(each.start, each.end, each.label) for each in entry.segments]}
    for name, right in (("right", True), ("wrong", False)):
        chosen = [pair for number, pair in enumerate(surest) if (number in matches) is right]
        rows[name] = [draw.Bar(each.start, each.end, each.label, score) for each, score in chosen]
    frames, duration = _frames(test, entry)
    picture = draw.as_svg(
        draw.timeline(rows, duration, frames),
        f"Timeline of {entry.id}: {len(matches)} of {len(entry.segments)} true segments among the {len(surest)} surest",
    )
    return Timeline(entry.id, picture, len(entry.segments), len(matches), len(surest), len(found))


def matched(truth: Sequence[Segment], found: Sequence[Found]) -> dict[int, int]:
    """The true segment that each prediction finds: of its class, not found by a surer one, the one nearest in time."""
    matches: dict[int, int] = {}
    for number, (each, _) in enumerate(found):
        open_ones = [place for place in range(len(truth)) if place not in matches.values()]
        near = [(iou(each, truth[place]), place) for place in open_ones if truth[place].label == each.label]
        overlap, place = max(near, default=(0.0, -1))
        if overlap >= MIN_IOU:
            matches[number] = place
    return matches


def iou(one: Segment, other: Segment) -> float:
    """Intersection over union in time."""
    common = max(0.0, min(one.end, other.end) - max(one.start, other.start))
    return common / (one.end - one.start + other.end - other.start - common)


def _frames(test: Manifest, entry: Entry) -> tuple[draw.Pictures, float]:
    """Frames evenly spread over the whole video, and how long it lasts."""
    index = index_video(test.path_of(entry))
    duration = entry.duration or index.duration
    instants = (np.arange(FRAMES) + 0.5) * duration / FRAMES
    numbers = np.clip(np.searchsorted(index.seconds, instants, side="right") - 1, 0, len(index) - 1)
    frames = read_frames(index, numbers)
    return draw.resized(frames, min(SIDE, max(frames.shape[1:3]))), duration
