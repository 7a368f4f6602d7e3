"""Slow twins of the detection evaluators, written from the rules: loops over plain numbers, one thing at a time."""

import heapq

import numpy as np


def voc_average_precision(hits: list[bool], num_truths: int) -> float:
    """Area under the precision envelope over recall, point by point with sentinels at both ends."""
    recall, precision, found = [0.0], [0.0], 0
    for rank, hit in enumerate(hits, start=1):
        found += hit
        recall.append(found / num_truths)
        precision.append(found / rank)
    recall.append(1.0)
    precision.append(0.0)
    for place in range(len(precision) - 2, -1, -1):
        precision[place] = max(precision[place], precision[place + 1])
    return sum((recall[i] - recall[i - 1]) * precision[i] for i in range(1, len(recall)))


def temporal_iou(a: tuple[float, float], b: tuple[float, float]) -> float:
    common = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    together = (a[1] - a[0]) + (b[1] - b[0]) - common
    return common / together if together else float("nan")


def slow_activitynet(truth, predictions, thresholds):
    """Class -> average precision per threshold.  ``truth`` maps videos to (start, end, label)."""
    result = {}
    for label in sorted({segment[2] for segments in truth.values() for segment in segments}):
        ranked = [p for p in reversed(predictions) if p[3] == label]  # later first, then by score
        ranked.sort(key=lambda p: p[4], reverse=True)
        num_truths = sum(segment[2] == label for segments in truth.values() for segment in segments)
        result[label] = []
        for threshold in thresholds:
            taken, hits = set(), []
            for video, start, end, _, _ in ranked:
                mine = [(n, s) for n, s in enumerate(truth.get(video, [])) if s[2] == label]
                overlaps = [(temporal_iou((start, end), s[:2]), n) for n, s in mine]
                overlaps.sort(key=lambda pair: (np.isnan(pair[0]), pair[0], pair[1]), reverse=True)
                free = [n for overlap, n in overlaps if not overlap < threshold and (video, n) not in taken]
                hits.append(bool(free))
                taken.update((video, n) for n in free[:1])
            result[label].append(voc_average_precision(hits, num_truths))
    return result


def box_iou(a, b) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(0.0, width) * max(0.0, height)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def slow_cap(rows, cap):
    """Places of the rows (number, keyframe, box, action, score) of a keyframe that AVA's script keeps."""
    heap = []
    for place, (_, _, (x1, y1, x2, y2), action, score) in enumerate(rows):
        if len(heap) < cap:
            heapq.heappush(heap, ((score, action, y1, x1, y2, x2), place))
        elif score > heap[0][0][0]:
            heapq.heapreplace(heap, ((score, action, y1, x1, y2, x2), place))
    return sorted(place for _, place in heap)


def slow_ava(truth, detections, classes, cap):
    """Class -> average precision or None.

    Rows are (keyframe, box, action, score or person id); a truth row of a keyframe alone has None for the rest.
    """
    frames = {row[0] for row in truth}
    kept = []
    for frame in frames:
        mine = [(n, *row) for n, row in enumerate(detections) if row[0] == frame and row[2] in classes]
        mine = [mine[n] for n in slow_cap(mine, cap)] if cap else mine
        kept += [row for row in mine if row[2][0] < row[2][2] and row[2][1] < row[2][3]]
    kept.sort(key=lambda row: (row[4], row[0]), reverse=True)
    result = {}
    for action in classes:
        boxes = [(n, *row) for n, row in enumerate(truth) if row[2] == action]
        boxes.sort(key=lambda row: -row[4])
        taken, hits = set(), []
        for _, frame, box, kind, _ in kept:
            if kind != action:
                continue
            overlaps = [(box_iou(box, other[2]), -place) for place, other in enumerate(boxes) if other[1] == frame]
            overlap, place = max(overlaps, default=(0.0, 0))
            hit = overlap >= 0.5 and place not in taken
            hits.append(hit)
            if hit:
                taken.add(place)
        result[action] = voc_average_precision(hits, len(boxes)) if boxes else None
    return result
