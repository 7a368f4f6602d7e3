"""Keyframes with the boxes of people: what they do, and what the model says that they do."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from svilm import draw
from svilm.data.decode import index_video, read_frames
from svilm.data.manifest import Entry, Manifest
from svilm.data.sample import clip_bounds
from svilm.metrics.ava import MIN_IOU, keyframe_name
from svilm.report import pictures
from svilm.report.common import Files, test_manifest
from svilm.tasks.ava import iou

SHOWN = 6
"""Keyframes shown, each of another video."""
SIDE = 360

Actions = tuple[tuple[str, float], ...]
"""Names with scores, the surest first."""
Told = Mapping[str, Mapping[draw.Box, Actions]]
"""The actions of boxes by keyframe."""


@dataclass(frozen=True)
class Named:
    """What was said of a box, and whether it is so."""

    actions: tuple[tuple[str, float, bool], ...]
    overlap: float | None = None
    """IoU with the true box, for a box of the detector."""


@dataclass(frozen=True)
class Person:
    """A true box with its actions, and what was said of it and of the detected box that lies there."""

    actions: tuple[str, ...]
    in_truth: Named | None
    detected: Named | None


@dataclass(frozen=True)
class Keyframe:
    """A frame with its boxes as markup, the people in it, and what was said of boxes around nobody."""

    id: str
    picture: str
    people: tuple[Person, ...]
    nobody: tuple[Named, ...]


@dataclass(frozen=True)
class Keyframes:
    """Some keyframes of ``total``; ``columns`` says of which boxes there are predictions."""

    shown: tuple[Keyframe, ...]
    detected: bool
    in_truth: bool
    total: int


def keyframes(files: Files) -> Keyframes:
    """The first keyframes with people, each of another video, with what the run's csv files of detections say.

    Raises ConfigError without a test manifest, ValueError where there is no csv or none of its lines fits, and what
    reading videos raises.
    """
    test = test_manifest(files.run)
    entries: dict[str, Entry] = {}
    for entry in test:
        if any(box.origin == "truth" for box in entry.boxes) and entry.video not in entries:
            entries[entry.video] = entry
        if len(entries) == SHOWN:
            break
    paths = {column: files.folder / f"ava_{column}.csv" for column in ("detected", "truth_boxes")}
    if not any(path.is_file() for path in paths.values()):
        raise ValueError("No ava_detected.csv or ava_truth_boxes.csv in the run folder; `svilm evaluate` writes them.")
    names = {number: name for number, _, name in (each.partition(" ") for each in test.header.classes)}
    wanted = {_name(entry) for entry in entries.values()}
    told = {column: read_told(path, wanted, names) for column, path in paths.items() if path.is_file()}
    shown = tuple(_keyframe(test, entry, told, names) for entry in entries.values())
    return Keyframes(shown, "detected" in told, "truth_boxes" in told, len(test))


def read_told(path: Path, wanted: Iterable[str], names: Mapping[str, str]) -> Told:
    """The actions told of each box of the ``wanted`` keyframes in a csv of AVA.

    Raises ValueError naming the line that is no detection.
    """
    found: dict[str, dict[draw.Box, list[tuple[str, float]]]] = {name: {} for name in wanted}
    with open(path, encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            try:
                video, second, left, top, right, bottom, action, score = row
                boxes = found.get(keyframe_name(video, second))
                if boxes is not None:
                    box = (float(left), float(top), float(right), float(bottom))
                    boxes.setdefault(box, []).append((names.get(action, action), float(score)))
            except ValueError:
                raise ValueError(
                    f"{path}: line {number} must be video, second, x1, y1, x2, y2, action, score"
                ) from None
    return {
        name: {box: tuple(sorted(actions, key=lambda pair: -pair[1])) for box, actions in boxes.items()}
        for name, boxes in found.items()
    }


def _keyframe(test: Manifest, entry: Entry, told: Mapping[str, Told], names: Mapping[str, str]) -> Keyframe:
    people: dict[draw.Box, tuple[str, ...]] = {}
    for each in entry.boxes:
        if each.origin == "truth":
            known = (*people.get(each.box, ()), *(names.get(label, label) for label in each.labels))
            people[each.box] = tuple(dict.fromkeys(known))
    on_truth, detected = (told.get(column, {}).get(_name(entry), {}) for column in ("truth_boxes", "detected"))
    matches = matched(list(people), list(detected))
    rows = []
    for number, (box, actions) in enumerate(people.items()):
        there = matches.get(number)
        rows.append(
            Person(
                actions,
                _named(on_truth[box], actions) if box in on_truth else None,
                _named(detected[there], actions, iou(box, there)) if there is not None else None,
            )
        )
    nobody = [_named(actions, ()) for box, actions in detected.items() if box not in matches.values()]
    frame = _frame(test, entry)
    title = f"Keyframe {entry.id}: {len(people)} true boxes, {len(detected)} detected ones"
    size = (frame.shape[1], frame.shape[0])
    picture = pictures.boxes_on_frame(draw.as_data_uri(frame), size, list(people), list(detected), title)
    return Keyframe(entry.id, picture, tuple(rows), tuple(nobody))


def matched(truth: Sequence[draw.Box], found: Sequence[draw.Box]) -> dict[int, draw.Box]:
    """The found box on each true one, by its number: pairs of at least IoU 0.5, the closest first, each box once."""
    pairs = [(iou(true, box), number, box) for number, true in enumerate(truth) for box in found]
    matches: dict[int, draw.Box] = {}
    for overlap, number, box in sorted(pairs, key=lambda pair: -pair[0]):
        if overlap >= MIN_IOU and number not in matches and box not in matches.values():
            matches[number] = box
    return matches


def _named(actions: Actions, truth: Sequence[str], overlap: float | None = None) -> Named:
    """As many of the surest actions as are true, at least one."""
    shown = actions[: max(1, len(truth))]
    return Named(tuple((name, score, name in truth) for name, score in shown), overlap)


def _frame(test: Manifest, entry: Entry) -> np.ndarray:
    """The keyframe, which is in the middle of its clip: the whole picture."""
    index = index_video(test.path_of(entry))
    middle = sum(clip_bounds(index, entry.start, entry.end, centred=True)) / 2
    number = max(int(np.searchsorted(index.seconds, middle, side="right")) - 1, 0)
    frames = read_frames(index, [number])
    return draw.resized(frames, min(SIDE, max(frames.shape[1:3])))[0]


def _name(entry: Entry) -> str:
    video, _, second = entry.id.rpartition(",")
    return keyframe_name(video, second)
