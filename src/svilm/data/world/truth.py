"""The exact truth of a drawn world as records, one line of ``truth.jsonl`` for each video."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from svilm.data.world.long import Untrimmed
from svilm.data.world.scenes import Scene, Split, boxes
from svilm.data.world.words import action, captions, phrases, questions

Box = tuple[float, float, float, float]


class WorldError(ValueError):
    """A folder or file that is not (part of) a drawn world; the message names it and the remedy."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ThingTruth(_Record):
    """An object of a video."""

    phrases: tuple[str, ...]
    """The noun phrases that mean this object and no other of the clip."""
    colour: str
    shape: str
    size: str
    motion: str
    shot: int
    """Which shot it is in, from 0."""
    boxes: tuple[Box | None, ...]
    """xyxy in [0, 1] for each frame of the video, None where the object is not seen."""


class QuestionTruth(_Record):
    """A question about the clip, in the words of MSRVTT-QA."""

    question: str
    answer: str
    answer_type: str


class ClipTruth(_Record):
    """Everything about a short clip.  ``nouns[j]`` are the noun phrases of ``captions[j]``."""

    id: str
    video: str
    """Path of the mp4, relative to the folder of the world."""
    split: Split
    fps: int
    num_frames: int
    scene_changes: tuple[float, ...]
    """Seconds."""
    backgrounds: tuple[str, ...]
    """Texture of each shot."""
    action: str
    captions: tuple[str, ...]
    nouns: tuple[tuple[str, ...], ...]
    things: tuple[ThingTruth, ...]
    questions: tuple[QuestionTruth, ...]

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.num_frames / self.fps

    def boxes(self, noun: str) -> tuple[Box | None, ...]:
        """The box in each frame of what a noun phrase means.  Raises KeyError for any other phrase."""
        for thing in self.things:
            if noun in thing.phrases:
                return thing.boxes
        known = [phrase for thing in self.things for phrase in thing.phrases]
        raise KeyError(f"{self.id} has no {noun!r}; its noun phrases are {known}")


class SegmentTruth(_Record):
    """An action of a long video: ``start`` and ``end`` in seconds, half-open."""

    start: float
    end: float
    label: str
    caption: str
    nouns: tuple[str, ...]
    things: tuple[ThingTruth, ...]


class UntrimmedTruth(_Record):
    """Everything about a long video."""

    id: str
    video: str
    split: Split
    fps: int
    num_frames: int
    scene_changes: tuple[float, ...]
    segments: tuple[SegmentTruth, ...]


R = TypeVar("R", bound=_Record)


def clip_truth(scene: Scene, name: str, num_captions: int, folder: str = "videos") -> ClipTruth:
    """The record of a clip called ``name`` in a folder of the world, with so many wordings of its caption."""
    told = captions(scene, num_captions)
    return ClipTruth(
        id=name,
        video=f"{folder}/{name}.mp4",
        split=scene.split,
        fps=scene.fps,
        num_frames=scene.num_frames,
        scene_changes=scene.scene_changes,
        backgrounds=tuple(shot.background.texture for shot in scene.shots),
        action=action(scene),
        captions=tuple(caption.text for caption in told),
        nouns=tuple(caption.nouns for caption in told),
        things=tuple(thing for k in range(len(scene.shots)) for thing in _things(scene, k)),
        questions=tuple(QuestionTruth(**vars(question)) for question in questions(scene)),
    )


def untrimmed_truth(long: Untrimmed, name: str) -> UntrimmedTruth:
    """The record of a long video called ``name``."""
    scene = long.scene
    number = {shot.start: k for k, shot in enumerate(scene.shots)}
    return UntrimmedTruth(
        id=name,
        video=f"untrimmed/{name}.mp4",
        split=scene.split,
        fps=scene.fps,
        num_frames=scene.num_frames,
        scene_changes=scene.scene_changes,
        segments=tuple(
            SegmentTruth(
                start=segment.shot.start / scene.fps,
                end=segment.shot.end / scene.fps,
                label=segment.label,
                caption=segment.caption.text,
                nouns=segment.caption.nouns,
                things=_things(scene, number[segment.shot.start]),
            )
            for segment in long.segments
        ),
    )


def write_records(path: Path, records: Iterable[R]) -> list[R]:
    """Write records as lines of JSON while they come in, and return them."""
    kept = []
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        for record in records:
            out.write(record.model_dump_json() + "\n")
            kept.append(record)
    return kept


def read_truth(folder: str | Path) -> list[ClipTruth]:
    """All clips of a world, training clips first, each split in order of its index.

    Raises WorldError for a folder without ``truth.jsonl`` and for a line that is not a record of it.
    """
    return _read(Path(folder) / "truth.jsonl", ClipTruth)


def read_jump_cuts(folder: str | Path) -> list[ClipTruth]:
    """All jump cuts of a world, in order.  Raises WorldError as ``read_truth`` does."""
    return _read(Path(folder) / "jump_cuts" / "truth.jsonl", ClipTruth)


def read_untrimmed(folder: str | Path) -> list[UntrimmedTruth]:
    """All long videos of a world, in order.  Raises WorldError as ``read_truth`` does."""
    return _read(Path(folder) / "untrimmed" / "truth.jsonl", UntrimmedTruth)


def _read(path: Path, kind: type[R]) -> list[R]:
    if not path.is_file():
        raise WorldError(f"{path}: no such file; draw a world with `svilm world {path.parent}`")
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            records.append(kind.model_validate(json.loads(line)))
        except (json.JSONDecodeError, ValidationError) as error:
            reason = " ".join(str(error).split())[:200]
            raise WorldError(f"{path}: line {number} is not a record of a drawn world: {reason}") from None
    return records


def _things(scene: Scene, number: int) -> tuple[ThingTruth, ...]:
    shot = scene.shots[number]
    things = []
    for actor in shot.actors:
        seen: Sequence[Box | None] = [
            None if np.isnan(box[0]) else _rounded(box) for box in boxes(actor, len(shot), scene.fps).tolist()
        ]
        things.append(
            ThingTruth(
                phrases=phrases(actor.thing),
                **vars(actor.thing),
                shot=number,
                boxes=(*[None] * shot.start, *seen, *[None] * (scene.num_frames - shot.end)),
            )
        )
    return tuple(things)


def _rounded(box: Sequence[float]) -> Box:
    left, top, right, bottom = (round(min(max(value, 0.0), 1.0), 5) for value in box)
    return left, top, right, bottom
