"""What the readers of labelled segments share: segments made good in the open, and lists of videos to leave out."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from svilm.data.class_names import readable
from svilm.data.prepare.common import Clip, PrepareError
from svilm.data.prepare.jsons import load_json
from svilm.data.prepare.tables import MAX_SECONDS, BadRow, Refusal, plain_lines, shortened
from svilm.entries import Segment

Pieces = Iterable[tuple[Any, Any, Any]]
"""Start, end and label of each segment as a file gives them."""


def timeline(video: str, names: tuple[str, ...], pieces: Pieces, duration: float | None, place: str) -> Clip:
    """A whole video with its segments, labelled and told by their classes in order of appearance.

    Segments are cut to [0, duration]; what is empty then is struck.  Raises BadRow where a segment is not two
    numbers and a label, and where none is left.
    """
    segments = tuple(piece for piece in cut(pieces, duration) if isinstance(piece, Segment))
    if not segments:
        raise BadRow("no segment that can be used", shortened(video))
    labels = tuple(dict.fromkeys(segment.label for segment in segments))
    told = (", ".join(readable(label) for label in labels),)
    return Clip(video, names, told, place, labels=labels, segments=segments, duration=duration)


def cut(pieces: Pieces, duration: float | None) -> Iterator[Segment | str]:
    """The segments cut to [0, duration], and after each that was cut or is empty a word saying which."""
    for start, end, label in pieces:
        if not (is_time(start) and is_time(end) and isinstance(label, str) and label):
            raise BadRow("a segment is not start, end and label", shortened([start, end, label]))
        first, last = max(0.0, float(start)), min(float(end), duration or math.inf)
        if first >= last:
            yield "struck"
            continue
        yield Segment(first, last, label)
        if (first, last) != (start, end):
            yield "cut"


def cut_notes(videos: Iterable[tuple[Pieces, float | None]]) -> tuple[str, ...]:
    """What ``cut`` does to all these videos, in words for the summary; nothing where all is well."""
    counts = Counter[str]()
    for pieces, duration in videos:
        try:
            counts.update("segments" if isinstance(piece, Segment) else piece for piece in cut(pieces, duration))
        except BadRow:
            continue  # the video is refused
    if not counts["cut"] + counts["struck"]:
        return ()
    total = counts["segments"] + counts["struck"]
    return (
        f"{counts['cut']} of {total} segments reached beyond their video and were cut, "
        f"{counts['struck']} were empty and were struck",
    )


def video_list(path: str | Path | None) -> frozenset[str]:
    """Ids of videos, without "v_": a JSON list, the keys of a JSON object, or one on each line of a text file."""
    if path is None:
        return frozenset()
    path = Path(path)
    if path.suffix == ".json":
        found = load_json(path)
        ids: list[Any] = list(found) if isinstance(found, (dict, list)) else []
    else:
        ids = [None if isinstance(row, Refusal) else row.text("line") for row in plain_lines(path)]
    if not ids or not all(isinstance(video, str) and video for video in ids):
        raise PrepareError(f"{path}: not a list of video ids")
    return frozenset(video.removeprefix("v_") for video in ids)


def is_time(value: Any) -> bool:
    """Whether a value of a JSON file is a number of seconds, perhaps a negative one."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MAX_SECONDS
