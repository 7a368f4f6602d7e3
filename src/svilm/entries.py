"""What is known of a clip: the records of a manifest, kept apart from `svilm.types` because they need no torch."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Segment:
    """A labelled stretch of a video: seconds from its beginning, half-open."""

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class LabelledBox:
    """A box in a video's upright picture with what it shows."""

    box: tuple[float, float, float, float]
    """xyxy in [0, 1]."""
    labels: tuple[str, ...] = ()
    score: float = 1.0
    """Confidence of the detector that proposed it; 1 for a box drawn by people."""
    origin: Literal["truth", "detector"] = "truth"


@dataclass(frozen=True)
class Entry:
    """One clip of a manifest: part of a video with what is known about it.

    ``start`` and ``end`` are seconds, half-open; None means from the beginning, to the end.
    ``nouns[j]`` are the noun phrases of ``captions[j]``; both have the same length.
    """

    id: str
    video: str
    captions: tuple[str, ...]
    nouns: tuple[tuple[str, ...], ...]
    start: float | None = None
    end: float | None = None
    scene_changes: tuple[float, ...] = ()
    """Known scene changes, seconds from the beginning of the video; used to test temporal grouping."""
    labels: tuple[str, ...] = ()
    """Classes of the whole clip: its action, or the answer to the question that is its caption."""
    category: str = ""
    """Kind of item that scores are broken down by, for instance "what" or "how" of a question."""
    segments: tuple[Segment, ...] = ()
    """Labelled stretches, for temporal localization."""
    boxes: tuple[LabelledBox, ...] = ()
    """Labelled boxes of the clip's middle frame, for spatiotemporal localization."""
    duration: float | None = None
    """Seconds of the whole video, where its annotations state them."""

    def __post_init__(self) -> None:
        if not self.id or not self.video:
            raise ValueError(f"id and video must not be empty, got {self.id!r}, {self.video!r}")
        shown = (*(segment.label for segment in self.segments), *(label for box in self.boxes for label in box.labels))
        texts = (self.id, self.video, self.category, *_flat(self.captions, self.nouns), *self.labels, *shown)
        if not all(isinstance(value, str) for value in texts):
            raise ValueError(f"{self.id}: id, video, captions, nouns, labels and category must be texts")
        if "\0" in self.video:
            raise ValueError(f"video {self.video!r} has a NUL character")
        if len(self.captions) != len(self.nouns):
            raise ValueError(f"{self.id}: {len(self.captions)} captions but {len(self.nouns)} lists of nouns")
        start = 0.0 if self.start is None else self.start
        duration = 0.0 if self.duration is None else self.duration
        times = (start, 0.0 if self.end is None else self.end, duration, *self.scene_changes)
        if not all(isinstance(time, (int, float)) and not isinstance(time, bool) for time in times):
            raise ValueError(f"{self.id}: start, end, duration and scene_changes must be numbers, got {times}")
        if not all(math.isfinite(time) and time >= 0 for time in (duration, *self.scene_changes)):
            raise ValueError(f"{self.id}: duration and scene_changes must be finite and >= 0, got {times[2:]}")
        if not (math.isfinite(start) and start >= 0):
            raise ValueError(f"{self.id}: start is {self.start}, must be a finite number of seconds >= 0")
        if self.end is not None and not (math.isfinite(self.end) and self.end > start):
            raise ValueError(f"{self.id}: end is {self.end}, must be finite and after start ({start})")
        for segment in self.segments:
            if not (0 <= segment.start < segment.end < float("inf")):
                raise ValueError(f"{self.id}: segment from {segment.start} to {segment.end} s is empty or not finite")
        for box in self.boxes:
            left, top, right, bottom = box.box
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise ValueError(f"{self.id}: box {box.box} must be x0 < x1, y0 < y1 within [0, 1]")
            if not math.isfinite(box.score):
                raise ValueError(f"{self.id}: score {box.score} of a box is not finite")


def _flat(captions: Any, nouns: Any) -> Iterator[Any]:
    """All texts of an entry; None where there is no tuple of them."""
    for texts in (captions, *(nouns if isinstance(nouns, tuple) else (None,))):
        yield from texts if isinstance(texts, tuple) else (None,)
