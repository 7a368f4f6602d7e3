"""Spatiotemporal action localization: what is each person in a keyframe doing?  (AVA v2.2; Table 13)

The paper states no protocol; the defaults are VideoGLUE's, which fits both columns of the table.  A clip surrounds
its keyframe, the patch tokens of the last block make a map of it, and a head (`models/ava_heads.py`) names the
actions in each box.  Boxes come from outside: the annotators', and those of a person detector.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from svilm.config import ConfigError, ManifestFile
from svilm.data.loader import StillClip
from svilm.data.manifest import Manifest
from svilm.engine.task import Context, Features, Job, Task, TaskSettings
from svilm.metrics.ava import Boxes, BoxScores, evaluate_boxes, keyframe_name
from svilm.models.ava_heads import BoxHead, BoxHeadConfig
from svilm.models.dual import DualEncoder
from svilm.models.layers import at_least_fp32
from svilm.runtime import gather_with_gradient, rank, world_size
from svilm.tasks.common import Reader, encode_clips, evaluating, reader_of, training_clips
from svilm.types import Batch, Entry, LabelledBox, Scores, Terms, VideoFeatures

Column = Literal["detected", "truth_boxes"]


class Ava(TaskSettings):
    """Boxes, thresholds and head; the defaults are VideoGLUE's."""

    kind: Literal["ava"] = "ava"
    """Naming the actions of people in given boxes."""
    test: ManifestFile = ""
    """Test manifest; empty: no evaluation."""
    head: BoxHeadConfig = BoxHeadConfig()
    """What names the actions of a box."""
    num_boxes: PositiveInt = 32
    """Boxes of a clip that are trained on: the annotators' first, then the surest."""
    train_boxes: Literal["truth", "both"] = "both"
    """truth: train on the annotators' boxes alone.  both: also on the detector's, with the actions of the box
    that the annotators drew there."""
    train_score: float = Field(0.9, ge=0, le=1)
    """How sure the detector must be of a box that is trained on."""
    same_person: float = Field(0.9, gt=0, le=1)
    """IoU from which on a detected box takes over the actions of an annotated one."""
    negatives: bool = False
    """Train on detected boxes that match no annotated one as on people who do nothing, instead of not at all."""
    min_visible: float = Field(0.0, ge=0, lt=1)
    """Share of a box that a training crop must show; boxes are cut to the crop, and always left out when outside."""
    test_score: float = Field(0.8, ge=0, le=1)
    """How sure the detector must be of a box that is scored in the column of detected boxes."""
    weigh_by_box: bool = True
    """Multiply the probability of an action by the detector's score of the box."""

    def job(self, context: Context) -> Job:
        """The encoder and a head on its tokens, scored on the detector's boxes and on the annotators'.

        Raises ConfigError for manifests that do not go together, and for clips with parts of other clips.
        """
        if context.data.paste.probability > 0:
            raise ConfigError("data.paste.probability must be 0: boxes say nothing about frames of another clip")
        actions = _actions_of(context.manifest)
        test = self._test(actions) if self.test else None
        task = AvaTask(self, context.encoder.config.video.width, actions)
        frequencies = cache(partial(_frequencies, context.manifest, actions))

        def evaluate(model: nn.Module) -> dict[str, Scores]:
            if test is None:
                return {}
            named = name_actions(cast(DualEncoder, model), task, test, reader_of(context))
            found = any(box.origin == "detector" for entry in test for box in entry.boxes)
            columns: tuple[Column, ...] = ("detected", "truth_boxes") if found else ("truth_boxes",)
            return {
                f"ava_{column}": score(named, test, task, column, frequencies(), context.results) for column in columns
            }

        def judge(model: nn.Module, manifest: Manifest) -> float:
            named = name_actions(cast(DualEncoder, model), task, manifest, reader_of(context))
            return judged(named, task, "truth_boxes").mean_ap

        return Job(task, context.encoder, **training_clips(context), evaluate=evaluate, judge=judge)

    def _test(self, actions: Sequence[str]) -> Manifest:
        """The test manifest, refused before the training where it could not be scored after it."""
        test = Manifest(self.test)
        if _actions_of(test) != actions:
            raise ConfigError(f"{test.path}: other classes than in the training manifest; prepare both alike")
        for entry in test:
            _keyframe_of(entry)
        return test


class AvaTask(Task):
    """A head on the encoder's tokens, trained to tell each action from its absence."""

    def __init__(self, config: Ava, width: int, actions: Sequence[str]) -> None:
        super().__init__()
        self.config = config
        self.actions = tuple(actions)
        """Ids of the actions as labels have them, in the order of the logits."""
        self.head = BoxHead(config.head, width, len(actions))

    def features(self, model: nn.Module, batch: Batch) -> Features:
        """Logits (B, K, C), actions (B, K, C) and which of the K boxes there are (B, K)."""
        views = batch.view.cpu()
        people = [
            visible_boxes(training_boxes(entry, self.config), view, self.config.min_visible)[: self.config.num_boxes]
            for entry, view in zip(batch.entries, views, strict=True)
        ]
        most = max(1, *map(len, people))
        boxes = torch.zeros(len(batch), most, 4)
        targets = torch.zeros(len(batch), self.config.num_boxes, len(self.actions), dtype=torch.bool)
        valid = torch.zeros(len(batch), self.config.num_boxes, dtype=torch.bool)
        number = {action: place for place, action in enumerate(self.actions)}
        for row, found in enumerate(people):
            for place, person in enumerate(found):
                boxes[row, place] = torch.tensor(person.box)
                valid[row, place] = True
                for action in person.labels:
                    if action in number:
                        targets[row, place, number[action]] = True
        device = batch.video.device
        dual = cast(DualEncoder, model)
        maps = token_map(dual, dual.encode_video(batch.video).tokens, batch.video.shape[2])
        logits = self.head(maps, boxes.to(device))
        # parts of a batch are put together again, so all have the same number of boxes; the head sees no padding
        logits = F.pad(logits, (0, 0, 0, self.config.num_boxes - most))
        return {"logits": logits, "targets": targets.to(device), "valid": valid.to(device)}

    def loss(self, model: nn.Module, features: Features, batch: Batch) -> Terms:
        """Binary cross entropy, summed over the actions, averaged over the boxes of all ranks."""
        logits, valid = at_least_fp32(features["logits"]), features["valid"]
        targets = features["targets"].to(logits.dtype)
        each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=2)
        count = valid.sum()
        share = gather_with_gradient(count[None]).sum().clamp(min=1) / world_size()
        total = (each * valid).sum() / share
        return Terms(total, {"actions": total.detach()}, {"boxes/per_clip": count / len(batch)})


def token_map(
    model: DualEncoder, tokens: Float[Tensor, "batch steps places width"], high: int
) -> Float[Tensor, "batch steps rows columns width"]:
    """The encoder's last video tokens (section 3.2) as a map over pictures that are ``high`` pixels high."""
    return tokens.unflatten(2, (high // model.config.video.tubelet[1], -1))


# Which boxes


def training_boxes(entry: Entry, config: Ava) -> list[LabelledBox]:
    """The boxes of a clip to train on: the annotators', then those of the detector that may join, surest first."""
    truth = _distinct(box for box in entry.boxes if box.origin == "truth")
    if config.train_boxes == "truth":
        return truth
    found = []
    for box in detected_boxes(entry, config.train_score):
        labels = box.labels or _labels_there(box, truth, config.same_person)
        if labels or config.negatives:
            found.append(replace(box, labels=labels))
    return truth + found


def detected_boxes(entry: Entry, least: float) -> list[LabelledBox]:
    """The detector's boxes with a score of at least ``least``, the surest first."""
    found = _distinct(box for box in entry.boxes if box.origin == "detector" and box.score >= least)
    return sorted(found, key=lambda box: -box.score)


def visible_boxes(boxes: Iterable[LabelledBox], view: Float[Tensor, " 4"], least: float) -> list[LabelledBox]:
    """The boxes as shares of what is seen, cut to it; left out are those of which nothing or less than ``least`` is.

    ``view`` is a row of `Batch.view`: x0, y0, x1, y1 of the picture, x0 > x1 when mirrored.
    """
    left, top, right, bottom = view.tolist()
    seen = []
    for each in boxes:
        x = sorted((corner - left) / (right - left) for corner in each.box[0::2])
        y = sorted((corner - top) / (bottom - top) for corner in each.box[1::2])
        cut = [[min(max(corner, 0.0), 1.0) for corner in axis] for axis in (x, y)]
        share = (cut[0][1] - cut[0][0]) / (x[1] - x[0]) * (cut[1][1] - cut[1][0]) / (y[1] - y[0])
        if share > 0 and share >= least:
            seen.append(replace(each, box=(cut[0][0], cut[1][0], cut[0][1], cut[1][1])))
    return seen


def iou(box: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes xyxy."""
    wide = min(box[2], other[2]) - max(box[0], other[0])
    high = min(box[3], other[3]) - max(box[1], other[1])
    common = max(wide, 0.0) * max(high, 0.0)
    areas = ((each[2] - each[0]) * (each[3] - each[1]) for each in (box, other))
    return common / (sum(areas) - common)


def _labels_there(box: LabelledBox, truth: Sequence[LabelledBox], least: float) -> tuple[str, ...]:
    best = max(truth, key=lambda other: iou(box.box, other.box), default=None)
    return best.labels if best is not None and iou(box.box, best.box) >= least else ()


def _distinct(boxes: Iterable[LabelledBox]) -> list[LabelledBox]:
    """Each box once, with all its actions; files of labelled boxes have a row for each action."""
    merged: dict[tuple[float, ...], LabelledBox] = {}
    for box in boxes:
        before = merged.get(box.box)
        if before is not None:
            box = replace(box, labels=(*before.labels, *box.labels), score=max(before.score, box.score))
        merged[box.box] = box
    return list(merged.values())


# Scores


@dataclass(frozen=True)
class NamedBoxes:
    """A keyframe with the boxes in it and how likely each action is; the detector's boxes come first."""

    keyframe: tuple[str, str]
    """Video, and the second as files write it."""
    boxes: tuple[LabelledBox, ...]
    chances: Float[np.ndarray, "boxes actions"]

    def rows_of(self, column: Column) -> list[int]:
        """Which boxes stand in a column of Table 13."""
        origin = "detector" if column == "detected" else "truth"
        return [row for row, box in enumerate(self.boxes) if box.origin == origin]


def name_actions(model: DualEncoder, task: AvaTask, manifest: Manifest, reader: Reader) -> list[NamedBoxes]:
    """The probability of each action in each box of a manifest's keyframes, on every rank.

    The whole picture is seen, pressed into the square: a crop would lose the people at its sides.
    """

    def name(clip: StillClip, features: VideoFeatures, row: int) -> NamedBoxes:
        truth = _distinct(box for box in clip.entry.boxes if box.origin == "truth")
        people = (*detected_boxes(clip.entry, task.config.test_score), *truth)
        chances = np.zeros((0, len(task.actions)), dtype=np.float32)
        if people:
            maps = token_map(model, features.tokens[row : row + 1], clip.frames.shape[1])
            boxes = torch.tensor([[person.box for person in people]], device=maps.device)
            chances = task.head(maps, boxes)[0].float().sigmoid().cpu().numpy()
        return NamedBoxes(_keyframe_of(clip.entry), people, chances)

    whole = replace(reader, sampling=reader.sampling.model_copy(update={"fit": "squash"}))
    with evaluating(task):
        return encode_clips(model, manifest, whole, name, "naming actions")


def score(
    named: Sequence[NamedBoxes],
    manifest: Manifest,
    task: AvaTask,
    column: Column,
    frequencies: Float[np.ndarray, " actions"],
    folder: Path,
) -> Scores:
    """One column of Table 13, beside that of always saying how frequent an action is; names begin with ``ava_``.

    The detections are written to ``folder`` in the form of AVA, for `svilm score ava`.
    """
    found = judged(named, task, column)
    constant = [replace(each, chances=np.tile(frequencies, (len(each.boxes), 1))) for each in named]
    if rank() == 0:
        write_detections(folder / f"ava_{column}.csv", named, detections(named, task, column))
    metrics = {f"ava_{column}/{name}": value for name, value in found.metrics().items()}
    metrics |= {
        f"ava_{column}_frequency/{name}": value for name, value in judged(constant, task, column).metrics().items()
    }
    boxes = "annotated boxes"
    if column == "detected":
        weighed = ", probability x score of the box" if task.config.weigh_by_box else ""
        boxes = f"detected boxes with a score of {task.config.test_score:g} or more{weighed}"
    protocol = f"{manifest.header.protocol or manifest.header.source}; {boxes}; whole picture; {found.protocol}"
    return Scores(metrics, found.num_keyframes, manifest.header.official, protocol)


def judged(named: Sequence[NamedBoxes], task: AvaTask, column: Column) -> BoxScores:
    """The official frame mAP of one column.  Raises ValueError where nothing is annotated."""
    classes = [int(action) for action in task.actions]
    return evaluate_boxes(_truth_of(named), detections(named, task, column), classes=classes)


def detections(named: Sequence[NamedBoxes], task: AvaTask, column: Column) -> Boxes:
    """Each box of a column with each action, by keyframe, box and action."""
    kept = [each.rows_of(column) for each in named]
    people = [each.boxes[row] for each, rows in zip(named, kept, strict=True) for row in rows]
    chances = np.concatenate([each.chances[rows] for each, rows in zip(named, kept, strict=True)]).astype(np.float64)
    if task.config.weigh_by_box:
        chances *= np.array([person.score for person in people]).reshape(-1, 1)
    num_actions = len(task.actions)
    return Boxes(
        keyframes=tuple(keyframe_name(*each.keyframe) for each in named),
        frame=np.repeat(np.arange(len(named)), [len(rows) * num_actions for rows in kept]),
        boxes=np.repeat(np.array([person.box for person in people]).reshape(-1, 4), num_actions, axis=0),
        actions=np.tile(np.array([int(action) for action in task.actions]), len(people)),
        scores=chances.flatten(),
    )


def write_detections(path: Path, named: Sequence[NamedBoxes], found: Boxes) -> None:
    """A csv of AVA: video, second, x1, y1, x2, y2, action id, score.  Numbers read back as they are."""
    columns = (found.frame.tolist(), found.boxes.tolist(), found.actions.tolist(), found.scores.tolist())
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows(
            [*named[frame].keyframe, *box, action, value] for frame, box, action, value in zip(*columns, strict=True)
        )


def _truth_of(named: Sequence[NamedBoxes]) -> Boxes:
    """The annotated boxes; all keyframes are scored, those without a box too."""
    rows = [
        (number, each.boxes[row].box, int(action))
        for number, each in enumerate(named)
        for row in each.rows_of("truth_boxes")
        for action in each.boxes[row].labels
    ]
    return Boxes(
        keyframes=tuple(keyframe_name(*each.keyframe) for each in named),
        frame=np.array([frame for frame, _, _ in rows], dtype=np.int64),
        boxes=np.array([box for _, box, _ in rows], dtype=np.float64).reshape(-1, 4),
        actions=np.array([action for _, _, action in rows], dtype=np.int64),
        scores=np.ones(len(rows)),
    )


def _frequencies(manifest: Manifest, actions: Sequence[str]) -> Float[np.ndarray, " actions"]:
    """Share of the annotated boxes that show each action."""
    counts = Counter[str]()
    num_boxes = 0
    for entry in manifest:
        for box in entry.boxes:
            if box.origin == "truth":
                counts.update(box.labels)
                num_boxes += 1
    return np.array([counts[action] / max(num_boxes, 1) for action in actions])


def _actions_of(manifest: Manifest) -> tuple[str, ...]:
    """Ids of the actions, as labels have them.  Raises ConfigError where classes are not "id name"."""
    found = tuple(name.partition(" ")[0] for name in manifest.header.classes)
    if not found or not all(each.isdecimal() for each in found):
        some = ", ".join(manifest.header.classes[:3]) or "none"
        raise ConfigError(f'{manifest.path}: classes must be "id name", found {some}; make it with `svilm prepare ava`')
    return found


def _keyframe_of(entry: Entry) -> tuple[str, str]:
    """Video and second, from an id such as "-5KQ66BBWC4,0902".  Raises ConfigError for another."""
    video, _, second = entry.id.rpartition(",")
    if not video or not second.replace(".", "", 1).isdecimal():
        raise ConfigError(f'{entry.id}: id must be "video,second of the keyframe"; make it with `svilm prepare ava`')
    return video, second
