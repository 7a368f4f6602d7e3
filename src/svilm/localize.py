"""Which actions a video shows, and when: a run of temporal localization applied to any video."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from svilm.config import ConfigError
from svilm.data.decode import index_video, read_frames
from svilm.data.snippets import Origin, Snippets
from svilm.draw import Bar, timeline
from svilm.features.extract import Extraction, encode_video, fingerprint
from svilm.metrics.proposals import overlaps
from svilm.model import SViLM
from svilm.models.weights import load_saved
from svilm.run import load_run
from svilm.tasks.localization import Detection, Localization, LocalizationTask, read_about
from svilm.types import Entry, Segment

THUMBNAILS = 12
"""Frames above a drawn timeline."""
THUMBNAIL_SIDE = 96
"""Pixels of their short side."""
NAMELESS = "action"
"""Label of what is found by a run whose classes come from a file of scores: it has none for other videos."""


@dataclass(frozen=True)
class Timeline:
    """What was found in a video."""

    video: Path
    duration: float
    """Seconds."""
    detections: tuple[Detection, ...]
    """All of it, the best first; many overlap."""
    snippet: float = 0.0
    """Seconds that one snippet of the run's training sees; 0: not known."""

    def clear(self, most: int = 10, overlap: float = 0.3, least: float = 0.1) -> tuple[Detection, ...]:
        """At most so many detections, in order of time, that overlap with no better one by more than ``overlap`` and
        score at least ``least`` of the best."""
        return tuple(sorted(_clear(self.detections, most, overlap, least), key=lambda row: row[0].start))

    def text(self, most: int = 10) -> str:
        """The clear detections as lines of text, each with a bar along the video; a note where it is too short."""
        head = f"{self.video}: {self.duration:.{_digits(self.duration)}f} s, {len(self.detections)} detections"
        lines = [_line(segment, score, self.duration) for segment, score in self.clear(most)]
        if self.duration < self.snippet:
            lines.append(
                f"  note: the video is shorter than one snippet of training ({self.snippet:.3g} s), so what is found "
                "in it means little"
            )
        return "\n".join([head, *lines])

    def draw(self, path: Path, most: int = 10, truth: Sequence[Segment] = ()) -> None:
        """Write a picture of the clear detections over the frames of the video, below the true segments if given."""
        found = [Bar(segment.start, segment.end, segment.label, score) for segment, score in self.clear(most)]
        true = [Bar(segment.start, segment.end, segment.label) for segment in truth]
        index = index_video(self.video)
        instants = (np.arange(THUMBNAILS) + 0.5) * self.duration / THUMBNAILS
        numbers = np.clip(np.searchsorted(index.seconds, instants, side="right") - 1, 0, len(index) - 1)
        frames = read_frames(index, numbers, resize=THUMBNAIL_SIDE)
        rows = {"truth": true, "found": found} if true else {"found": found}
        timeline(rows, self.duration, frames).savefig(path, dpi=120, facecolor="white")


def detect(run: str | Path, video: str | Path, *, encoder: str = "", device: str = "auto") -> Timeline:
    """Find the actions in a video with a finished run of temporal localization.

    ``encoder`` names the S-ViLM that made the run's features, where it is no longer where it was.  Raises
    ConfigError for a run that cannot do it, WeightsError (a ValueError) for weights that are damaged, and DecodeError
    for a video that cannot be read.
    """
    folder, video = Path(run), Path(video)
    settings = load_run(folder).task
    if not isinstance(settings, Localization):
        raise ConfigError(f"{folder}: a run of task {settings.kind!r}; give one of temporal localization")
    classes, origin = read_about(folder)
    weights = folder / "model" / "task.safetensors"
    if not weights.is_file():
        raise ConfigError(f"{folder}: no {weights.relative_to(folder)}; the run has not finished")
    if origin is None:
        raise ConfigError(
            f"{folder} was trained on features of unknown origin, so those of another video cannot be made; "
            "train it on features from `svilm features`"
        )
    model = _encoder(folder, origin, encoder, device)
    task = LocalizationTask(settings, classes)
    load_saved(task, weights)
    task.to(model.device)
    index = index_video(video)
    extraction = Extraction(vector=origin.vector, windows=origin.windows, dtype=origin.dtype)
    rows = encode_video(model.encoder, index, extraction, origin.sampling)
    entry = Entry(video.stem, video.name, (), (), duration=index.duration)
    snippets = Snippets(rows.astype(np.float32), origin.windows.step_seconds)
    found = task.propose(entry, snippets)
    if settings.class_scores:
        detections = [(Segment(start, end, NAMELESS), score) for start, end, score in found.tolist()]
    else:
        detections = task.label(entry, snippets, found)
    return Timeline(video, index.duration, tuple(detections), origin.windows.frames / origin.windows.fps)


def _encoder(folder: Path, origin: Origin, name: str, device: str) -> SViLM:
    """The encoder that made the features: the named one, the run's own, or the one that their origin names."""
    own = (folder / "model" / "config.json").is_file()
    model = SViLM.from_pretrained(name or (folder if own else origin.model), device)
    if fingerprint(model.encoder) != origin.weights:
        raise ConfigError(
            f"{name or origin.model} is not the encoder that made the features of {folder} (weights {origin.weights}); "
            "name that one with --encoder"
        )
    return model


def _clear(detections: Sequence[Detection], most: int, overlap: float, least: float) -> list[Detection]:
    kept: list[Detection] = []
    for segment, score in detections:
        if len(kept) == most or score < least * detections[0][1]:
            break
        others = np.array([[other.start, other.end] for other, _ in kept]).reshape(-1, 2)
        if overlaps(np.array([[segment.start, segment.end]]), others).max(initial=0.0) <= overlap:
            kept.append((segment, score))
    return kept


def _digits(duration: float) -> int:
    """Digits after the point of times in a video of so many seconds."""
    return 1 if duration >= 10 else 2 if duration >= 1 else 3


def _line(segment: Segment, score: float, duration: float, width: int = 40) -> str:
    first, last = (round(width * time / duration) for time in (segment.start, segment.end))
    first = min(first, width - 1)  # also the last moment has a bar
    bar = "·" * first + "█" * max(1, last - first)
    digits = _digits(duration)
    times = f"{segment.start:8.{digits}f} {segment.end:8.{digits}f} s"
    return f"{times}  {score:5.3f}  {bar[:width]:·<{width}}  {segment.label}"
