"""The truth of a drawn world as labels: UCF101's and HMDB51's folds, ActivityNet's segments, AVA's boxes at keyframes.

In UCF101 and ActivityNet the classes are colours, which an encoder knows after little pre-training, as there much is
known from the looks of a scene; in HMDB51 and AVA they are motions.  Names and numbers depend on a clip's own number
alone, so that a small world is the beginning of a larger one here too.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from svilm.data.world.files import write_csv, write_json, write_lines
from svilm.data.world.scenes import COLOURS, MOTIONS, random_stream
from svilm.data.world.truth import Box, ClipTruth, SegmentTruth, UntrimmedTruth

CLASSES = tuple(f"{colour.capitalize()}Thing" for colour in sorted(COLOURS))
"""The colours as UCF101 writes classes: "RedThing"."""
FOLDS = {1: range(1, 8), 2: range(8, 15), 3: range(15, 22)}
"""Groups of clips that each fold of UCF101 tests on; all others train."""
LAST_GROUP = 35

FIRST_SECOND = 900
"""What AVA calls the beginning of its videos, which are cut from the fifteenth minute on."""
UNCLEAR_SECONDS = 0.2
"""A keyframe so near to a scene change is excluded: nobody could tell what moves there."""
MISSED = 0.04
"""Share of the boxes that the simulated detector does not find."""
INVENTED = 0.4
"""Chance of a box around nothing in a keyframe; few of them have high scores."""


# UCF101


def write_ucf101(folder: Path, records: Sequence[ClipTruth]) -> None:
    """The clips in folders by class, hard links where the file system has them, with the lists of three folds."""
    root = folder / "ucf101"
    for name in CLASSES:
        (root / name).mkdir(parents=True, exist_ok=True)
    groups: dict[str, int] = {}
    for record, name, group in _grouped(records):
        path = f"{name}/v_{name}_{group}.mp4"
        groups[path] = int(group[1:3])
        _link(folder / record.video, root / path)
    write_lines(root / "classInd.txt", (f"{number} {name}" for number, name in enumerate(CLASSES, start=1)))
    for fold, tested in FOLDS.items():
        train = [path for path, group in groups.items() if group not in tested]
        test = [path for path, group in groups.items() if group in tested]
        numbered = (f"{path} {CLASSES.index(path.partition('/')[0]) + 1}" for path in sorted(train))
        write_lines(root / f"trainlist0{fold}.txt", numbered)
        write_lines(root / f"testlist0{fold}.txt", sorted(test))


def _grouped(records: Iterable[ClipTruth]) -> Iterator[tuple[ClipTruth, str, str]]:
    """Class and "g08_c01" of each clip.  Held-out clips are in the groups that fold 1 tests on, as in the world."""
    tested = len(FOLDS[1])
    seen, members = Counter[str](), Counter[tuple[str, int]]()
    for record in records:
        name = f"{record.things[0].colour.capitalize()}Thing"
        index = seen[record.split]
        seen[record.split] += 1
        group = 1 + index % tested if record.split == "test" else 1 + tested + index % (LAST_GROUP - tested)
        members[name, group] += 1
        yield record, name, f"g{group:02d}_c{members[name, group]:02d}"


def _link(video: Path, to: Path) -> None:
    try:
        os.link(video, to)
    except OSError:  # no such links here, or too many of them
        shutil.copyfile(video, to)


# HMDB51


def write_hmdb51(folder: Path, records: Sequence[ClipTruth]) -> None:
    """The clips in folders by their action, under names as odd as HMDB51's, with the lists of three folds.

    In fold 1 the test clips are those of the world; the others are tested on parts of its training clips.
    """
    root, splits = folder / "hmdb51", folder / "hmdb51" / "testTrainMulti_7030_splits"
    splits.mkdir(parents=True, exist_ok=True)
    uses: dict[tuple[str, int], list[str]] = {(name, fold): [] for name in sorted(MOTIONS) for fold in FOLDS}
    for record in records:
        thing, number = record.things[0], int(record.id.removeprefix("video"))
        name = f"{record.id}_[{thing.colour}]_{thing.shape}!_(drawn)_#{number % 3}"
        place = root / record.action.replace(" ", "_")
        place.mkdir(exist_ok=True)
        _link(folder / record.video, place / f"{name}.mp4")
        for fold in FOLDS:
            tested = record.split == "test" if fold == 1 else number % 7 == fold
            uses[record.action, fold].append(f"{name}.avi {2 if tested else 1}")
    for (name, fold), lines in uses.items():
        write_lines(splits / f"{name.replace(' ', '_')}_test_split{fold}.txt", lines)


# ActivityNet


def write_activitynet(folder: Path, long: Sequence[UntrimmedTruth]) -> None:
    """activity_net.v1-3.min.json of the long videos; those for testing are its validation subset."""
    database = {
        record.id: {
            "subset": "training" if record.split == "train" else "validation",
            "duration": record.num_frames / record.fps,
            "url": record.video,
            "annotations": [{"segment": [s.start, s.end], "label": _acting(s)} for s in record.segments],
        }
        for record in long
    }
    path = folder / "activitynet" / "activity_net.v1-3.min.json"
    write_json(path, {"database": database, "taxonomy": _taxonomy(), "version": "VERSION 1.3"})


def _acting(segment: SegmentTruth) -> str:
    """What the largest thing's colour makes of a segment: "red acts"."""
    return f"{segment.things[0].colour} acts"


def _taxonomy() -> list[dict[str, Any]]:
    """Actions under what they are, all under "Root"."""
    parents = {f"{colour} acts": "acting" for colour in COLOURS}
    nodes = [("Root", None), *((parent, "Root") for parent in sorted(set(parents.values()))), *parents.items()]
    number = {name: k for k, (name, _) in enumerate(nodes)}
    return [
        {
            "nodeId": number[name],
            "nodeName": name,
            "parentId": None if parent is None else number[parent],
            "parentName": parent,
        }
        for name, parent in nodes
    ]


# AVA


def write_ava(folder: Path, records: Sequence[ClipTruth], seed: int) -> None:
    """Boxes with actions at one keyframe a second, what a detector would find there, and the list of actions."""
    root = folder / "ava"
    items = (f'item {{\n  name: "{motion}"\n  id: {number}\n}}' for number, motion in enumerate(MOTIONS, start=1))
    write_lines(root / "ava_action_list_v2.2_for_activitynet_2019.pbtxt", items)
    for part, split in (("train", "train"), ("val", "test")):
        rows: list[Sequence[object]] = []
        excluded: list[Sequence[object]] = []
        found: list[Sequence[object]] = []
        for record in (record for record in records if record.split == split):
            for frame in _keyframes(record):
                key = (record.id, _timestamp(frame / record.fps))
                seen = _seen(record, frame)
                found += [(*key, *box, "", score) for box, score in _detected(record, frame, seen.values(), seed)]
                if any(abs(frame / record.fps - change) < UNCLEAR_SECONDS for change in record.scene_changes):
                    excluded.append(key)
                    continue
                actions = {thing: MOTIONS.index(record.things[thing].motion) + 1 for thing in seen}
                rows += [(*key, *box, actions[thing], thing) for thing, box in seen.items()]
                if not seen and split == "test":  # a keyframe to be scored in which nothing is to be found
                    rows.append(key)
        write_csv(root / f"ava_{part}_v2.2.csv", rows)
        write_csv(root / f"ava_{part}_excluded_timestamps_v2.2.csv", excluded)
        write_csv(root / f"ava_{part}_predicted_boxes.csv", found)


def _keyframes(record: ClipTruth) -> list[int]:
    """Frames at whole seconds inside a clip, or the middle one of a clip that has none."""
    frames = range(record.fps, record.num_frames, record.fps)
    return list(frames) or [record.num_frames // 2]


def _timestamp(seconds: float) -> str:
    """Seconds as AVA counts them: "0901", or "900.5" between two."""
    return f"{FIRST_SECOND + seconds:.3f}".rstrip("0").rstrip(".").zfill(4)


def _seen(record: ClipTruth, frame: int) -> dict[int, Box]:
    """The box of each object in a frame, in AVA's three decimals, by the object's number."""
    boxes = ((k, thing.boxes[frame]) for k, thing in enumerate(record.things))
    return {k: _rounded(box) for k, box in boxes if box is not None}


def _detected(record: ClipTruth, frame: int, true: Iterable[Box], seed: int) -> Iterator[tuple[Box, float]]:
    """The true boxes a little off, some missed, and at times one around nothing, with scores."""
    rng = random_stream(seed, record.split, record.id, "detector", frame)
    for left, top, right, bottom in true:
        across, along = 0.1 * (right - left), 0.1 * (bottom - top)
        moved = (
            left + across * _off(rng),
            top + along * _off(rng),
            right + across * _off(rng),
            bottom + along * _off(rng),
        )
        score = 1 - 0.25 * rng.random() ** 3
        if rng.random() >= MISSED:
            yield _rounded(moved), round(score, 4)
    if rng.random() < INVENTED:
        width, height = 0.15 + 0.2 * rng.random(), 0.15 + 0.2 * rng.random()
        left, top = rng.random() * (1 - width), rng.random() * (1 - height)
        yield _rounded((left, top, left + width, top + height)), round(0.05 + 0.9 * rng.random() ** 2, 4)


def _off(rng: Random) -> float:
    return rng.random() - 0.5


def _rounded(box: Sequence[float]) -> Box:
    left, top, right, bottom = (round(min(max(value, 0.0), 1.0), 3) for value in box)
    return left, top, right, bottom
