"""AVA v2.2: ava_train_v2.2.csv or ava_val_v2.2.csv, one clip around each keyframe.

A row is video, second, box, action, person; the rows of one box are one box with several actions.  A row of video
and second alone is a keyframe in which nobody acts; keyframes without a row are not evaluated and stay out.  Beside
the csv lie ava_*_excluded_timestamps_v2.2.csv and the list of the actions that are evaluated.  Boxes of a person
detector (--boxes) are kept beside the true ones.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path
from typing import Annotated

from svilm.data.class_names import readable
from svilm.data.prepare import Split
from svilm.data.prepare.common import Clip, Listing, PrepareError, Refusal
from svilm.data.prepare.keyframes import (
    Box,
    Keyframe,
    PersonBoxes,
    keyframe,
    keyframe_rows,
    numbers,
    read_person_boxes,
)
from svilm.data.prepare.tables import BadRow, Row, convert, lines, shortened
from svilm.entries import LabelledBox

LAST = 1800.0
"""Second of a movie at which the annotated part ends."""
SPARE = 100.0
"""A file cut to that part may be so many seconds longer than it; a longer one is a whole movie."""
NO_ACTION = "no action"
"""What is told of a keyframe in which nobody acts."""


@dataclass
class _People:
    """A keyframe's true boxes with their actions, and the line that first names it."""

    place: str
    actions: dict[Box, list[str]] = field(default_factory=dict)


def listing(
    annotations: Annotated[str | Path, "ava_train_v2.2.csv or ava_val_v2.2.csv."],
    *,
    actions: Annotated[
        str | Path | None, "The list of actions (pbtxt); default: the one of 60 classes beside the csv."
    ] = None,
    excluded: Annotated[
        str | Path | None, "Csv of the excluded keyframes; default: the one of the same split beside the csv."
    ] = None,
    boxes: Annotated[
        str | Path | None, "Boxes of a person detector: csv with the score in column 8, or pickle of N x 5 arrays."
    ] = None,
    window_seconds: Annotated[
        float, "Length of the clip around each keyframe; 64 frames at 30 a second by default."
    ] = 64 / 30,
    starts_at: Annotated[
        float, "Second at which the video files begin: 900 for those cut to 15 minutes, 0 for whole movies."
    ] = 900.0,
    split: Annotated[Split | None, "Default: train for a file whose name has train in it, test for others."] = None,
) -> Listing:
    """The annotated keyframes of a csv.  Labels of boxes are ids of actions, as text; classes are "id name".

    Raises PrepareError for files that are missing or not of the form, and for a length that is not positive.
    """
    path = Path(annotations)
    if not window_seconds > 0:
        raise PrepareError(f"window_seconds is {window_seconds}, must be above 0")
    part = "train" if "train" in path.stem else "val"
    classes = read_actions(Path(actions) if actions else _actions_beside(path))
    people, refusals = _read_people(path)
    exclusion = Path(excluded) if excluded else path.with_name(f"ava_{part}_excluded_timestamps_v2.2.csv")
    notes = [*_exclude(people, exclusion, required=excluded is not None), *_unlisted(people, classes)]
    detected = read_person_boxes(Path(boxes), people) if boxes else PersonBoxes()
    if boxes:
        notes += _boxes_notes(Path(boxes), detected, people)
    return Listing(
        "ava",
        path,
        partial(_clips, people, refusals, detected, _Times(window_seconds, starts_at), classes),
        f"ava-2.2 {part}, {len(people)} keyframes, {len(classes)} classes, {window_seconds:.3f} s around each",
        split or ("train" if part == "train" else "test"),
        notes=tuple(notes),
        nouns=False,
        classes=tuple(f"{number} {name}" for number, name in classes.items()),
        longest=LAST - starts_at + SPARE if starts_at > 0 else inf,
        too_long=f"--starts-at {starts_at:g} is for files that begin there; for whole movies: --starts-at 0",
    )


def read_actions(path: Path) -> dict[str, str]:
    """Name of each action by its id, in the order of the list, which may say ``id`` or ``label_id``.

    Raises PrepareError for a file that is missing or not such a list.
    """
    text = "\n".join(line[1] for line in lines(path) if not isinstance(line, Refusal))
    found: dict[str, str] = {}
    for block in re.findall(r'\w+\s*\{((?:[^{}"]|"[^"]*")*)\}', text):
        name = re.search(r'\bname\s*:\s*"([^"]+)"', block)
        number = re.search(r"\b(?:label_)?id\s*:\s*(\d+)", re.sub(r'"[^"]*"', "", block))
        if name is None or number is None or number[1] in found:
            raise PrepareError(f"{path}: needs a name and an id of its own in each item, has {shortened(block)!r}")
        found[number[1]] = name[1]
    if not found:
        raise PrepareError(f'{path}: no item {{ name: "..." id: 1 }} in this list of actions')
    return found


def _actions_beside(path: Path) -> Path:
    """The list that evaluation uses, or else the full one."""
    found = sorted(path.parent.glob("ava_action_list*.pbtxt"), key=lambda file: ("2019" not in file.name, file.name))
    if not found:
        raise PrepareError(f"{path}: no ava_action_list*.pbtxt beside it; give the list of actions by --actions")
    return found[0]


# Keyframes


def _read_people(path: Path) -> tuple[dict[Keyframe, _People], list[Refusal]]:
    people: dict[Keyframe, _People] = {}
    refusals: list[Refusal] = []
    for found in convert(keyframe_rows(path, (2, 7, 8)), _person):
        if isinstance(found, Refusal):
            refusals.append(found)
            continue
        key, place, box, action = found
        actions = people.setdefault(key, _People(place)).actions
        if box is not None and action not in actions.setdefault(box, []):
            actions[box].append(action)
    return people, refusals


def _person(row: Row) -> tuple[Keyframe, str, Box | None, str]:
    """Keyframe, line, box and action.  Raises BadRow for a box that is empty or leaves the picture, and for an
    action that is no number."""
    video, timestamp, *rest = row.values["cells"]
    key = keyframe(video, timestamp)
    if not rest:
        return key, row.place, None, ""
    left, top, right, bottom = numbers(rest[:4])
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise BadRow("box is not x1 < x2, y1 < y2 within [0, 1]", shortened(",".join(rest[:4])))
    if not re.fullmatch(r"[1-9]\d{0,3}", rest[4], re.ASCII):
        raise BadRow("action is not a number from 1", shortened(rest[4]))
    return key, row.place, (left, top, right, bottom), rest[4]


def _exclude(people: dict[Keyframe, _People], path: Path, *, required: bool) -> Iterator[str]:
    """Take out the keyframes of the exclusion file, and say how many there were."""
    if not path.is_file() and not required:
        yield f"no {path.name} beside the annotations: no keyframe is excluded"
        return
    named = taken = 0
    nothing = path.is_file() and path.stat().st_size == 0  # a list may name no keyframe
    rows = iter(()) if nothing else keyframe_rows(path, (2,))
    for key in convert(rows, lambda row: keyframe(*row.values["cells"])):
        if isinstance(key, Refusal):
            raise PrepareError(f"{path}: {key.place}: {key.reason} ({key.detail})")
        named += 1
        taken += people.pop(key, None) is not None
    yield f"{path.name} names {named} keyframes; {taken} of them were annotated and left out"


def _unlisted(people: Mapping[Keyframe, _People], classes: Mapping[str, str]) -> Iterator[str]:
    actions = (action for each in people.values() for found in each.actions.values() for action in found)
    count = sum(action not in classes for action in actions)
    if count:
        yield f"{count} labels are of actions that the list of {len(classes)} does not have; they are not evaluated"


def _boxes_notes(path: Path, detected: PersonBoxes, people: Mapping[Keyframe, _People]) -> Iterator[str]:
    total = sum(len(found) for found in detected.found.values())
    yield f"{path.name}: {total} boxes in {len(detected.found)} of {len(people)} keyframes"
    if detected.left_out:
        reasons = ", ".join(f"{count} {reason}" for reason, count in detected.left_out.items())
        yield f"{path.name}: boxes left out: {reasons}"


# Clips


@dataclass(frozen=True)
class _Times:
    window_seconds: float
    starts_at: float

    def around(self, key: Keyframe) -> tuple[float, float]:
        """The clip in seconds of the video file, the keyframe in its middle even where the file begins later."""
        middle = key.seconds - self.starts_at
        if middle <= 0:
            raise BadRow(
                "keyframe is not after the beginning of its video",
                f"second {key.seconds:g}, video begins at {self.starts_at:g}; see --starts-at",
            )
        half = min(self.window_seconds / 2, middle)
        return middle - half, middle + half


def _clips(
    people: Mapping[Keyframe, _People],
    refusals: Sequence[Refusal],
    detected: PersonBoxes,
    times: _Times,
    classes: Mapping[str, str],
) -> Iterator[Clip | Refusal]:
    def clip(row: Row) -> Clip:
        key, actions = row.values["keyframe"], row.values["actions"]
        start, end = times.around(key)
        boxes = [LabelledBox(box, tuple(labels)) for box, labels in actions.items()]
        told = dict.fromkeys(label for labels in actions.values() for label in labels if label in classes)
        caption = ", ".join(readable(classes[label]) for label in told) or NO_ACTION
        boxes += detected.found.get(key, ())
        return Clip(str(key), (key.video,), (caption,), row.place, start, end, boxes=tuple(boxes))

    yield from refusals
    rows = (Row(found.place, {"keyframe": key, "actions": found.actions}) for key, found in people.items())
    yield from convert(rows, clip)
