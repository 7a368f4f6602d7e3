"""THUMOS14: a json of all videos (thumos_14_anno.json), or a folder of {Class}_val.txt and {Class}_test.txt.

Training is on the validation videos and testing on the test videos, as everywhere; which is which stands in their
names (video_validation_..., video_test_...), because the files in circulation call the subsets by contradicting
names.  Only videos with segments of the 20 classes are listed (200 and 213); "Ambiguous" is no class.
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from svilm.data.prepare.common import Clip, Listing, PrepareError, Refusal
from svilm.data.prepare.jsons import load_json
from svilm.data.prepare.segments import cut_notes, timeline, video_list
from svilm.data.prepare.tables import Row, convert, file_name, plain_lines, shortened

AMBIGUOUS = "Ambiguous"
PART = {"train": "validation", "test": "test"}

Video = tuple[float | None, list[tuple[Any, Any, str]]]
"""Duration in seconds, where it is known, and start, end and label of each segment."""


def listing(
    annotations: Annotated[str | Path, "thumos_14_anno.json or the like, or the folder of the txt files."],
    *,
    split: Annotated[Literal["train", "test"], "train: the validation videos; test: the test videos."] = "train",
    blocked: Annotated[
        str | Path | None, "Videos to leave out, such as the two test videos with wrong labels (270, 1292)."
    ] = None,
) -> Listing:
    """The annotated videos of one part, classes in alphabetical order.

    Raises PrepareError for files that are missing or not of the form, and where none of their videos is of the part.
    """
    path, left_out = Path(annotations), video_list(blocked)
    videos = _from_folder(path) if path.is_dir() else _from_json(path)
    classes = tuple(sorted({label for _, pieces in videos.values() for _, _, label in pieces}))
    of_part = {video: about for video, about in videos.items() if video.startswith(f"video_{PART[split]}_")}
    wanted = {video: about for video, about in of_part.items() if about[1] and video not in left_out}
    if not wanted:
        raise PrepareError(f"{path}: no annotated video called video_{PART[split]}_...")
    gone = sum(bool(about[1]) for about in of_part.values()) - len(wanted)
    return Listing(
        "thumos14",
        path,
        partial(_clips, wanted),
        f"thumos14 {PART[split]}, {len(wanted)} videos" + (f" ({gone} blocked)" if gone else ""),
        split,
        notes=cut_notes((pieces, duration) for duration, pieces in wanted.values()),
        nouns=False,
        classes=classes,
    )


def _from_json(path: Path) -> dict[str, Video]:
    data = load_json(path)
    try:
        return {video: _video(about) for video, about in data["database"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PrepareError(
            f"{path}: needs database with duration and annotations of each video ({type(error).__name__}: {error})"
        ) from None


def _video(about: Mapping[str, Any]) -> Video:
    duration = float(about["duration"])
    pieces = [(*_pair(piece["segment"]), str(piece["label"])) for piece in about.get("annotations", ())]
    return duration if duration > 0 else None, [piece for piece in pieces if piece[2] != AMBIGUOUS]


def _pair(segment: Any) -> tuple[Any, Any]:
    start, end = segment
    return start, end


def _from_folder(folder: Path) -> dict[str, Video]:
    """The txt files, whose lines are video, start and end.  Raises PrepareError for any other line."""
    videos: dict[str, Video] = {}
    for path in sorted(folder.glob("*_val.txt")) + sorted(folder.glob("*_test.txt")):
        label = path.stem.rpartition("_")[0]
        if label == AMBIGUOUS:
            continue
        for row in plain_lines(path):
            text = "" if isinstance(row, Refusal) else row.text("line")
            match = re.fullmatch(r"(video_\w+?)\s+(\d+(?:\.\d*)?)\s+(\d+(?:\.\d*)?)", text, re.ASCII)
            if match is None:
                raise PrepareError(f"{path}: {row.place} must be video, start and end, got {shortened(text)!r}")
            videos.setdefault(match[1], (None, []))[1].append((float(match[2]), float(match[3]), label))
    if not videos:
        raise PrepareError(f"{folder}: no {{Class}}_val.txt or {{Class}}_test.txt in this folder")
    return videos


def _clips(videos: Mapping[str, Video]) -> Iterator[Clip | Refusal]:
    rows = (Row(shortened(video), {"video": video, "about": about}) for video, about in videos.items())
    return convert(rows, _clip)


def _clip(row: Row) -> Clip:
    video, (duration, pieces) = file_name(row.text("video")), row.values["about"]
    return timeline(video, (video,), pieces, duration, row.place)
