"""Spatiotemporal action detection judged by the official rules of AVA: frame mAP at IoU 0.5.

Evaluated are the keyframes of the ground truth file, those with no box or only boxes of other classes included;
detections elsewhere are ignored.  Of a keyframe the 50 surest detections count, over all classes together; of equally
sure ones those that the official script keeps.  Per class they are ranked by score.  Each is compared with one box
only, that of its frame and class with the highest IoU: a match if that is at least 0.5 and nothing surer has taken it.
A class without ground truth has no average precision and stays out of the mean; one with ground truth and no detection
has 0.
"""

import heapq
import re
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from svilm.metrics.detection import TIE_RULE, assign, average_precision, pairs_within
from svilm.metrics.files import ScoreFileError, finite, read_csv, read_lines, whole

CAP = 50
"""Detections of a keyframe that count."""
MIN_IOU = 0.5
_NOT_EVALUATED = {2, 16, 18, 19, 21, 23, 25, 31, 32, 33, 35, 39, 40, 42, 44, 50, 53, 55, 71, 75}
CLASSES = tuple(sorted(set(range(1, 81)) - _NOT_EVALUATED))
"""The 60 classes of AVA v2.2 that are evaluated (its action list for ActivityNet 2019)."""

Keyframe = tuple[str, float | int]
"""Video, and second of the keyframe."""


@dataclass(frozen=True)
class Boxes:
    """Boxes of one action each: the ground truth, or detections."""

    keyframes: tuple[str, ...]
    """Names of the distinct keyframes, as `keyframe_name` writes them; some may have no row."""
    frame: Int[np.ndarray, " rows"]
    """Keyframe of each row, an index into ``keyframes``."""
    boxes: Float[np.ndarray, "rows 4"]
    """x1, y1, x2, y2 in shares of the picture, 0 to 1."""
    actions: Int[np.ndarray, " rows"]
    """Class ids as in AVA's list, from 1."""
    scores: Float[np.ndarray, " rows"]
    """How sure a detection is.  Of the ground truth: the person id; where boxes have exactly the same IoU with a
    detection, the official script takes the one with the highest."""

    def __post_init__(self) -> None:
        good = np.isfinite(self.boxes).all(axis=1) & np.isfinite(self.scores)
        if not good.all():
            row = int(np.argmin(good))
            raise ValueError(
                f"keyframe {self.keyframes[self.frame[row]]}: box {self.boxes[row].tolist()} with score "
                f"{self.scores[row]} is not finite"
            )

    def __len__(self) -> int:
        return len(self.frame)


@dataclass(frozen=True)
class BoxScores:
    """Average precision, 0 to 1, of each evaluated class, and what it was computed on."""

    ap: Mapping[int, float | None]
    """By class id; None for a class without ground truth."""
    num_truths: Mapping[int, int]
    """Ground truth boxes of each class."""
    num_keyframes: int
    """Keyframes that were scored."""
    num_official: int
    """Keyframes that the ground truth names, the excluded ones included."""
    num_without_detections: int
    """Scored keyframes that no detection of an evaluated class was handed in for."""
    num_detections: int
    """Detections that were ranked."""
    num_elsewhere: int
    """Detections of evaluated classes ignored because their keyframe is not scored."""
    num_over_cap: int
    """Detections cut off by ``cap``."""
    num_empty: int
    """Detections dropped because their box has no area."""
    cap: int

    @property
    def mean_ap(self) -> float:
        """Frame mAP: the mean over the classes with ground truth."""
        return float(np.mean([value for value in self.ap.values() if value is not None]))

    @property
    def protocol(self) -> str:
        """How the numbers came about, in one line."""
        cap = f"at most {self.cap} detections per keyframe" if self.cap else "no cap on detections"
        rated = sum(value is not None for value in self.ap.values())
        parts = [
            f"AVA frame mAP, IoU {MIN_IOU}, {cap}",
            f"{self.num_keyframes}/{self.num_official} keyframes ({self.num_without_detections} without a detection)",
            f"{sum(self.num_truths.values())} boxes of {rated} of {len(self.ap)} classes",
            f"{self.num_detections} detections ({self.num_over_cap} over the cap, {self.num_elsewhere} elsewhere and "
            f"{self.num_empty} without area left out)",
            TIE_RULE,
        ]
        return "; ".join(parts)

    def metrics(self) -> dict[str, float]:
        """Percent: mAP@0.50."""
        return {f"mAP@{MIN_IOU:.2f}": 100 * self.mean_ap}


def keyframe_name(video: str, seconds: float | int | str) -> str:
    """One name for one keyframe, however the second is written: 0902, 902 and 902.0 are the same."""
    return f"{video},{float(seconds):.6f}"


def boxes_of(
    frames: Sequence[Keyframe],
    boxes: Float[np.ndarray, "rows 4"],
    actions: Int[np.ndarray, " rows"],
    scores: Float[np.ndarray, " rows"] | None = None,
    also: Iterable[Keyframe] = (),
) -> Boxes:
    """Boxes from arrays, a keyframe for each row; ``also`` names keyframes that may have no box.

    ``boxes`` are x1, y1, x2, y2 in [0, 1]; ``scores`` default to 1.  Raises ValueError for what is not finite.
    """
    numbers: dict[str, int] = {}
    frame = [numbers.setdefault(keyframe_name(*each), len(numbers)) for each in frames]
    for each in also:
        numbers.setdefault(keyframe_name(*each), len(numbers))
    return Boxes(
        keyframes=tuple(numbers),
        frame=np.array(frame, dtype=np.int64),
        boxes=boxes.astype(np.float64),
        actions=actions.astype(np.int64),
        scores=np.ones(len(frame)) if scores is None else scores.astype(np.float64),
    )


def read_truth(path: str | Path) -> Boxes:
    """An annotation csv of AVA: video, second, x1, y1, x2, y2, action id, person id (or without the last).

    A row of video and second alone says that the keyframe is to be scored though it has no box.
    Raises ScoreFileError naming line and field.
    """
    return _read_boxes(path, widths=(2, 7, 8), layout="video, second[, x1, y1, x2, y2, action id[, person id]]")


def read_detections(path: str | Path) -> Boxes:
    """A csv of detections: video, second, x1, y1, x2, y2, action id, score.  Raises ScoreFileError as above."""
    return _read_boxes(path, widths=(2, 8), layout="video, second[, x1, y1, x2, y2, action id, score]")


def read_excluded(path: str | Path) -> frozenset[str]:
    """Names of the keyframes in an exclusion csv: video, second.  Raises ScoreFileError naming line and field."""
    return frozenset(_read_boxes(path, widths=(2,), layout="video, second").keyframes)


def read_classes(path: str | Path) -> dict[int, str]:
    """Ids and names of the classes in a list of AVA's (pbtxt); both its id and its label_id are known.

    Raises ScoreFileError naming the line for an id that is no number or occurs twice, and for a list without any.
    """
    names: dict[int, str] = {}
    name = ""
    for number, line in read_lines(path):
        field = re.match(r"\s*(name|id|label_id)\s*:\s*(.*?)\s*$", line)
        if field and field[1] == "name":
            name = field[2].strip("\"'")
        elif field:
            place = f"{path}: line {number}"
            identity = whole(field[2], place, field[1])
            if identity in names:
                raise ScoreFileError(f"{place}: {field[1]} {identity} occurs twice")
            names[identity], name = name, ""
    if not names:
        raise ScoreFileError(f"{path}: no class in it; wanted are items with name and id")
    return names


def evaluate_boxes(
    truth: Boxes,
    detections: Boxes,
    *,
    classes: Collection[int] = CLASSES,
    cap: int = CAP,
    excluded: Collection[str] = (),
) -> BoxScores:
    """Average precision of ``detections`` against ``truth`` for each of ``classes``.

    ``cap`` 0 means that all detections count.  ``excluded`` keyframes (their names) leave both; the official script
    reads no such list, as the excluded keyframes have no ground truth in the official files.  Detections without
    area (x2 <= x1 or y2 <= y1) are dropped, after the cap.

    Raises ValueError for ground truth of these classes without area, and if there is none at all; for detections none
    of which is in a keyframe that ``truth`` names; and where one of the two has its boxes in pixels.
    """
    wanted = np.array(sorted(set(classes)), dtype=np.int64)
    left_out = frozenset(excluded)
    scored = [name for name in truth.keyframes if name not in left_out]
    numbers = {name: number for number, name in enumerate(scored)}
    true = _selected(truth, numbers, wanted)
    flat = _without_area(true.boxes)
    if flat.any():
        row = int(np.argmax(flat))
        raise ValueError(
            f"keyframe {scored[true.frame[row]]}: ground truth box {true.boxes[row].tolist()} has no area; correct it, "
            "and see that the ground truth is the first of the two files and the detections the second"
        )
    if len(true) == 0:
        raise ValueError(f"no ground truth of the {len(wanted)} classes in {len(scored)} scored keyframes")
    handed_in = int(np.isin(detections.actions, wanted).sum())
    if handed_in:
        _refuse_strangers(truth, detections)
    here = _selected(detections, numbers, wanted)
    capped = here.rows(_surest(here, cap))
    guess = capped.rows(np.flatnonzero(~_without_area(capped.boxes)))
    num_truths = np.bincount(true.label, minlength=len(wanted))
    ap = _average_precisions(true, guess, num_truths)
    return BoxScores(
        ap={int(i): float(value) if count else None for i, value, count in zip(wanted, ap, num_truths, strict=True)},
        num_truths={int(i): int(count) for i, count in zip(wanted, num_truths, strict=True)},
        num_keyframes=len(scored),
        num_official=len(truth.keyframes),
        num_without_detections=len(scored) - len(np.unique(here.frame)),
        num_detections=len(guess),
        num_elsewhere=handed_in - len(here),
        num_over_cap=len(here) - len(capped),
        num_empty=len(capped) - len(guess),
        cap=cap,
    )


def _refuse_strangers(truth: Boxes, detections: Boxes) -> None:
    """Raise ValueError for detections that cannot be of this ground truth, whose mAP would be a 0 without a word."""
    found = detections.keyframes[detections.frame[0]]
    if not {detections.keyframes[number] for number in np.unique(detections.frame)} & set(truth.keyframes):
        raise ValueError(
            f"none of {len(detections)} detections is in a keyframe of the ground truth: keyframes such as {found} "
            f"there, {truth.keyframes[0]} in the ground truth; write videos (no file ending) and seconds alike"
        )
    if len(truth) and _in_pixels(truth) != _in_pixels(detections):
        raise ValueError(
            f"keyframe {found}: detections have boxes such as {detections.boxes[0].tolist()}, the ground truth "
            f"{truth.boxes[0].tolist()}; both must be x1, y1, x2, y2 in shares of the picture, 0 to 1: divide pixels "
            "by its width and height"
        )


def _in_pixels(boxes: Boxes) -> bool:
    """Whether most boxes end far outside of a picture whose sides are 1."""
    return bool(np.median(boxes.boxes[:, 2:].max(axis=1)) > 2)


@dataclass(frozen=True)
class _Rows:
    """Boxes of the evaluated classes in the scored keyframes; classes by their place in the list."""

    frame: Int[np.ndarray, " rows"]
    boxes: Float[np.ndarray, "rows 4"]
    label: Int[np.ndarray, " rows"]
    score: Float[np.ndarray, " rows"]

    def __len__(self) -> int:
        return len(self.frame)

    def rows(self, which: Int[np.ndarray, " some"]) -> "_Rows":
        return _Rows(self.frame[which], self.boxes[which], self.label[which], self.score[which])


def _selected(boxes: Boxes, numbers: Mapping[str, int], wanted: Int[np.ndarray, " classes"]) -> _Rows:
    frame = np.array([numbers.get(name, -1) for name in boxes.keyframes], dtype=np.int64)[boxes.frame]
    keep = (frame >= 0) & np.isin(boxes.actions, wanted)
    label = np.searchsorted(wanted, boxes.actions[keep])
    return _Rows(frame[keep], boxes.boxes[keep], label, boxes.scores[keep])


def _surest(rows: _Rows, cap: int) -> Int[np.ndarray, " kept"]:
    """The rows that the cap lets through, in the order of the file.

    Where equal scores meet the cap, those that the official script keeps: a full keyframe takes only what is surer than
    its least sure row, which goes; of several such rows the one of the lowest class goes, then of the lowest y1, x1,
    y2, x2.
    """
    if cap == 0:
        return np.arange(len(rows))
    order = np.lexsort((-rows.score, rows.frame))
    frames, scores = rows.frame[order], rows.score[order]
    place = np.arange(len(rows)) - np.searchsorted(frames, frames, side="left")
    kept = place < cap
    cut = np.flatnonzero(place == cap)  # the first row that is left out, of each keyframe that has one
    for frame in frames[cut[scores[cut] == scores[cut - 1]]]:
        first, stop = np.searchsorted(frames, [frame, frame + 1])
        kept[first:stop] = np.isin(order[first:stop], _in_turn(rows, np.sort(order[first:stop]), cap))
    return np.sort(order[kept])


def _in_turn(rows: _Rows, which: Int[np.ndarray, " some"], cap: int) -> list[int]:
    """Those of ``which`` that a keyframe keeps when it takes them one after the other, as the official script does."""
    heap: list[tuple[float, ...]] = []
    columns = (rows.score[which], rows.label[which], *rows.boxes[which][:, [1, 0, 3, 2]].T, which)
    for entry in zip(*(column.tolist() for column in columns), strict=True):
        if len(heap) < cap:
            heapq.heappush(heap, entry)
        elif entry[0] > heap[0][0]:
            heapq.heapreplace(heap, entry)
    return [int(entry[-1]) for entry in heap]


def _average_precisions(
    true: _Rows, guess: _Rows, num_truths: Int[np.ndarray, " classes"]
) -> Float[np.ndarray, " classes"]:
    num_classes = len(num_truths)
    turns = np.lexsort((-np.arange(len(guess)), -guess.score, guess.label))  # by class, then by score
    bounds = np.searchsorted(guess.label[turns], np.arange(num_classes + 1))
    liked = np.argsort(-true.score, kind="stable")
    true = true.rows(liked)
    turn, index = pairs_within((guess.frame * num_classes + guess.label)[turns], true.frame * num_classes + true.label)
    overlap = _iou(guess.boxes[turns][turn], true.boxes[index])
    best = np.lexsort((index, -overlap, turn))
    first = best[np.unique(turn[best], return_index=True)[1]]
    first = first[overlap[first] >= MIN_IOU]
    hits = assign(turn[first], index[first], len(true))
    parts = np.searchsorted(hits, bounds)
    ap = np.zeros(num_classes)
    for label in range(num_classes):
        ranks = hits[parts[label] : parts[label + 1]] - bounds[label] + 1
        ap[label] = average_precision(ranks, int(num_truths[label]))
    return ap


def _iou(boxes: Float[np.ndarray, "pairs 4"], others: Float[np.ndarray, "pairs 4"]) -> Float[np.ndarray, " pairs"]:
    """Intersection over union of each pair of boxes, all of which have an area."""
    low, high = np.maximum(boxes[:, :2], others[:, :2]), np.minimum(boxes[:, 2:], others[:, 2:])
    common = np.clip(high - low, 0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (others[:, 2:] - others[:, :2]).prod(axis=1)
    return common / (areas - common)


def _without_area(boxes: Float[np.ndarray, "rows 4"]) -> Bool[np.ndarray, " rows"]:
    return np.any(boxes[:, 2:] <= boxes[:, :2], axis=1)


def _read_boxes(path: str | Path, widths: tuple[int, ...], layout: str) -> Boxes:
    numbers: dict[str, int] = {}
    seen: dict[tuple[str, str], int] = {}
    frame, actions, corners, scores = array("q"), array("q"), array("d"), array("d")
    for line, row in read_csv(path):
        if len(row) not in widths:
            raise ScoreFileError(f"{path}: line {line} has {len(row)} columns; wanted: {layout}")
        key = (row[0], row[1])
        number = seen.get(key)
        if number is None:
            second = finite(row[1], f"{path}: line {line}", "second")
            number = seen[key] = numbers.setdefault(keyframe_name(row[0], second), len(numbers))
        if len(row) == 2:
            continue
        try:
            box, action, score = [float(text) for text in row[2:6]], int(row[6]), float(row[7]) if row[7:] else 1.0
            sound = abs(sum(box) + score) < float("inf")
        except ValueError:
            sound = False
        if not sound:
            _explain(row, f"{path}: line {line}", layout)
        frame.append(number)
        actions.append(action)
        corners.extend(box)
        scores.append(score)
    if not numbers:
        raise ScoreFileError(f"{path}: no row in it; wanted: {layout}")
    columns = np.array(frame, dtype=np.int64), np.array(actions, dtype=np.int64), np.array(scores, dtype=np.float64)
    return Boxes(tuple(numbers), columns[0], np.array(corners).reshape(-1, 4), columns[1], columns[2])


def _explain(row: Sequence[str], place: str, layout: str) -> None:
    """Raise the error that names the first wrong field of a row."""
    fields = re.sub(r"[\[\]]", "", layout).split(", ")
    for field, text in zip(fields[2:6], row[2:6], strict=True):
        finite(text, place, field)
    whole(row[6], place, fields[6])
    if row[7:]:
        finite(row[7], place, fields[7])
    raise ScoreFileError(f"{place}: numbers too large to compare")
