"""Temporal action detection judged by the official rules of ActivityNet (the "detection" task of its toolkit).

Per class, the predictions of all videos are ranked by score.  Each takes the ground truth segment of its video
and class with the highest overlap that is still free and overlaps enough (so a second prediction may take the
second best segment); one that finds none is a false positive.  Overlap is temporal IoU, length in common over
length together.  A class is one that occurs in the ground truth of the subset: one without predictions has average
precision 0 and counts.  Nothing is deduplicated, rounded or limited in number.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from svilm.metrics.detection import TIE_RULE, assign, average_precision, pairs_within
from svilm.metrics.files import ScoreFileError, read_json, shortened

Segment = tuple[float | int, float | int, str]
"""Start and end in seconds, label: one action of the ground truth."""
Prediction = tuple[str, float | int, float | int, str, float | int]
"""Video, start and end in seconds, label, score: higher means surer."""
_NUMBERS = {int, float}
Degenerate = Literal["refuse", "official"]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""As the official script has them: the ninth is 0.8999999999999999."""


@dataclass(frozen=True)
class SegmentScores:
    """Average precision, 0 to 1, for each class and threshold of temporal IoU, and what it was computed on."""

    labels: tuple[str, ...]
    thresholds: Float[np.ndarray, " thresholds"]
    ap: Float[np.ndarray, "labels thresholds"]
    num_truths: Int[np.ndarray, " labels"]
    """Ground truth segments of each class."""
    num_videos: int
    """Videos that were scored."""
    num_official: int
    """Videos that the ground truth names, the blocked ones included."""
    num_without_predictions: int
    """Scored videos that nothing was predicted for; their segments count as missed."""
    num_predictions: int
    num_unknown: int
    """Predictions left out because no scored video has their label."""
    num_empty: int
    """Predictions among ``num_predictions`` that do not end after they start."""
    degenerate: Degenerate

    @property
    def mean_ap(self) -> Float[np.ndarray, " thresholds"]:
        """mAP at each threshold."""
        return self.ap.mean(axis=0)

    @property
    def average_map(self) -> float:
        """Mean over the thresholds: the number that tables call average mAP."""
        return float(self.mean_ap.mean())

    @property
    def protocol(self) -> str:
        """How the numbers came about, in one line."""
        parts = [
            "ActivityNet detection mAP, tIoU " + ", ".join(f"{value:.2f}" for value in self.thresholds),
            f"{self.num_videos}/{self.num_official} videos ({self.num_without_predictions} without a prediction)",
            f"{self.num_truths.sum()} segments of {len(self.labels)} classes, {self.num_predictions} predictions",
            TIE_RULE,
        ]
        if self.num_unknown:
            parts.append(f"{self.num_unknown} predictions with unknown labels left out")
        if self.num_empty:
            parts.append(f"{self.num_empty} predictions do not end after they start")
        if self.degenerate == "official":
            parts.append("an overlap of 0/0 counts as a match, as in the official script")
        return "; ".join(parts)

    def metrics(self) -> dict[str, float]:
        """Percent: mAP@0.50 and so on, and average_mAP."""
        named = {f"mAP@{at:.2f}": 100 * float(value) for at, value in zip(self.thresholds, self.mean_ap, strict=True)}
        return {**named, "average_mAP": 100 * self.average_map}


def read_truth(path: str | Path, subset: str = "validation") -> dict[str, list[Segment]]:
    """The annotations of one subset of the official file, {"database": {id: {subset, annotations, ...}}}.

    Raises ScoreFileError for another layout, and for a subset without any segment: its mAP would be NaN.
    """
    truth: dict[str, list[Segment]] = {}
    subsets: dict[str, int] = {}
    for video, record in _mapping(read_json(path), "database", path).items():
        place = f"{path}: database[{video!r}]"
        if not isinstance(record, dict) or not isinstance(record.get("subset"), str):
            raise ScoreFileError(f"{place}: subset is missing or no text")
        rows = record.get("annotations")
        if not isinstance(rows, list):
            raise ScoreFileError(f"{place}: annotations is {shortened(rows)}, must be a list")
        subsets[record["subset"]] = subsets.get(record["subset"], 0) + len(rows)
        if record["subset"] == subset:
            truth[video] = [_segment(row, f"{place}.annotations", index) for index, row in enumerate(rows)]
    if not subsets.get(subset):
        there = ", ".join(f"{name} ({count})" for name, count in sorted(subsets.items()))
        raise ScoreFileError(f"{path}: no ground truth in subset {subset!r}; segments by subset: {there or 'none'}")
    return truth


def read_predictions(path: str | Path) -> list[Prediction]:
    """The predictions of a file in the official layout, {"results": {id: [{segment, label, score}]}}, in its order.

    ``version`` and ``external_data``, which the official script wants beside the results, are not needed.  Raises
    ScoreFileError naming the entry that is wrong.
    """
    found: list[Prediction] = []
    for video, rows in _mapping(read_json(path), "results", path).items():
        place = f"{path}: results[{video!r}]"
        if not isinstance(rows, list):
            raise ScoreFileError(f"{place} is {shortened(rows)}, must be a list")
        for index, row in enumerate(rows):
            start, end, label = _segment(row, place, index)
            score = row.get("score")
            if type(score) not in _NUMBERS:
                raise ScoreFileError(f"{place}[{index}]: score is {shortened(score)}, must be a number")
            found.append((video, start, end, label, score))
    return found


def evaluate_segments(
    truth: Mapping[str, Sequence[Segment]],
    predictions: Iterable[Prediction],
    *,
    blocked: Collection[str] = (),
    unknown_labels: Literal["refuse", "ignore"] = "refuse",
    degenerate: Degenerate = "refuse",
    thresholds: Float[np.ndarray, " thresholds"] = THRESHOLDS,
) -> SegmentScores:
    """Average precision of ``predictions`` against ``truth``, which maps each video to its segments.

    ``blocked`` videos leave both.  A prediction in a video that is not in ``truth`` is a false positive.

    Raises ValueError for no ground truth; for predictions none of which is in a video of ``truth``, as then the ids are
    written in another way; for a number that is not finite; for predicted labels that the ground
    truth does not have, unless ``unknown_labels`` ignores them (the official script stops at a KeyError); and for a
    ground truth segment that does not end after it starts, or such a prediction where it meets ground truth
    (elsewhere it is a false positive like any other).  The last two can overlap by 0/0, which the official
    script takes for a match at every threshold: ``degenerate="official"`` does the same.
    """
    left_out = frozenset(blocked)
    scored = {video: segments for video, segments in truth.items() if video not in left_out}
    labels = tuple(sorted({label for segments in scored.values() for _, _, label in segments}))
    if not labels:
        raise ValueError(f"no ground truth segment in {len(scored)} of {len(truth)} videos that are not blocked")
    known = {label: index for index, label in enumerate(labels)}
    rows = [row for row in predictions if row[0] not in left_out]
    if rows and not any(row[0] in truth for row in rows):
        raise ValueError(
            f"none of {len(rows)} predictions is in a video of the ground truth: ids such as {rows[0][0]!r} there, "
            f"{next(iter(scored))!r} in the ground truth; write them alike (with or without 'v_', no file ending), and "
            "choose the subset that was predicted"
        )
    kept = [row for row in rows if row[3] in known]
    if len(kept) < len(rows) and unknown_labels == "refuse":
        unknown = sorted({row[3] for row in rows} - known.keys())
        raise ValueError(
            f"{len(rows) - len(kept)} predictions have labels without ground truth in the scored videos: "
            f"{_few(unknown)}; correct them, or leave them out with --unknown-labels ignore "
            "(unknown_labels='ignore'; the official script stops)"
        )
    true = _columns([(video, *segment, 0.0) for video, each in scored.items() for segment in each], scored, known)
    guess = _columns(kept, scored, known)
    if degenerate == "refuse":
        _refuse(true, true.end <= true.start, "ground truth segment", labels)
        meets = np.isin(guess.group, true.group)
        _refuse(guess, (guess.end <= guess.start) & meets, "prediction", labels)
    return SegmentScores(
        labels=labels,
        thresholds=thresholds,
        ap=_average_precisions(true, guess, len(labels), thresholds),
        num_truths=np.bincount(true.label, minlength=len(labels)),
        num_videos=len(scored),
        num_official=len(truth),
        num_without_predictions=len(scored.keys() - {row[0] for row in kept}),
        num_predictions=len(kept),
        num_unknown=len(rows) - len(kept),
        num_empty=int(np.count_nonzero(guess.end <= guess.start)),
        degenerate=degenerate,
    )


@dataclass(frozen=True)
class _Columns:
    """Segments as arrays, in the order of the file.  A group is a class in a video; -1 for a video without truth."""

    videos: Sequence[str]
    start: Float[np.ndarray, " rows"]
    end: Float[np.ndarray, " rows"]
    label: Int[np.ndarray, " rows"]
    score: Float[np.ndarray, " rows"]
    group: Int[np.ndarray, " rows"]


def _columns(rows: Sequence[Prediction], scored: Mapping[str, Any], known: Mapping[str, int]) -> _Columns:
    places = {video: number for number, video in enumerate(scored)}
    video = np.array([places.get(row[0], -1) for row in rows], dtype=np.int64)
    label = np.array([known[row[3]] for row in rows], dtype=np.int64)
    start, end, score = (np.array([row[field] for row in rows], dtype=np.float64) for field in (1, 2, 4))
    for name, values in (("start", start), ("end", end), ("score", score)):
        if not np.isfinite(values).all():
            row = rows[int(np.argmin(np.isfinite(values)))]
            raise ValueError(f"video {row[0]!r}: {name} of a segment is not finite: {row[1:]}")
    group = np.where(video < 0, -1, video * len(known) + label)
    return _Columns([row[0] for row in rows], start, end, label, score, group)


def _refuse(columns: _Columns, wrong: Bool[np.ndarray, " rows"], what: str, labels: Sequence[str]) -> None:
    if not wrong.any():
        return
    row = int(np.argmax(wrong))
    raise ValueError(
        f"video {columns.videos[row]!r}: {what} of {labels[columns.label[row]]!r} from {columns.start[row]} to "
        f"{columns.end[row]} s does not end after it starts ({np.count_nonzero(wrong)} such in all); correct them, "
        "or allow them with --degenerate official (degenerate='official'), where an overlap of 0/0 is a match"
    )


def _average_precisions(
    true: _Columns, guess: _Columns, num_labels: int, thresholds: Float[np.ndarray, " thresholds"]
) -> Float[np.ndarray, "labels thresholds"]:
    turns = np.lexsort((-np.arange(len(guess.score)), -guess.score, guess.label))  # by class, then by score
    bounds = np.searchsorted(guess.label[turns], np.arange(num_labels + 1))
    turn, index = pairs_within(guess.group[turns], true.group)
    overlap = _temporal_iou(guess.start[turns][turn], guess.end[turns][turn], true.start[index], true.end[index])
    liked = np.lexsort((-index, -overlap, turn))
    turn, index, overlap = turn[liked], index[liked], overlap[liked]
    num_truths = np.bincount(true.label, minlength=num_labels)
    ap = np.zeros((num_labels, len(thresholds)))
    for column, threshold in enumerate(thresholds):
        enough = overlap >= threshold
        hits = assign(turn[enough], index[enough], len(true.group))
        parts = np.searchsorted(hits, bounds)
        for label in range(num_labels):
            ranks = hits[parts[label] : parts[label + 1]] - bounds[label] + 1
            ap[label, column] = average_precision(ranks, int(num_truths[label]))
    return ap


def _temporal_iou(
    start: Float[np.ndarray, " pairs"],
    end: Float[np.ndarray, " pairs"],
    true_start: Float[np.ndarray, " pairs"],
    true_end: Float[np.ndarray, " pairs"],
) -> Float[np.ndarray, " pairs"]:
    """Overlap of each pair; infinite for 0/0, which passes every threshold as NaN does in the official script."""
    common = np.clip(np.minimum(end, true_end) - np.maximum(start, true_start), 0, None)
    together = (true_end - true_start) + (end - start) - common
    with np.errstate(divide="ignore", invalid="ignore"):
        overlap = common / together
    return np.where(np.isnan(overlap), np.inf, overlap)


def _mapping(data: Any, key: str, path: str | Path) -> dict[str, Any]:
    if not isinstance(data, dict) or not isinstance(data.get(key), dict):
        found = sorted(data) if isinstance(data, dict) else type(data).__name__
        raise ScoreFileError(f"{path}: must be an object with the object {key!r} inside, found {shortened(found)}")
    inside: dict[str, Any] = data[key]
    return inside


def _segment(row: Any, place: str, index: int) -> Segment:
    """The segment of an entry.  A submission has a million, so messages are put together only when needed."""
    if not isinstance(row, dict):
        raise ScoreFileError(f"{place}[{index}] is {shortened(row)}, must be an object with segment and label")
    segment, label = row.get("segment"), row.get("label")
    if not (type(segment) is list and len(segment) == 2 and {type(segment[0]), type(segment[1])} <= _NUMBERS):
        raise ScoreFileError(f"{place}[{index}]: segment is {shortened(segment)}, must be [start, end] in seconds")
    if type(label) is not str:
        raise ScoreFileError(f"{place}[{index}]: label is {shortened(label)}, must be a text")
    return segment[0], segment[1], label


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(repr(name) for name in names[:10]) + more
