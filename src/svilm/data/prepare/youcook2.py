"""YouCook2: youcookii_annotations_trainval.json, or a csv of end, start, task, text, video_id (seconds).

A clip per described step. Retrieval is scored on val, since the labels of test are hidden, and published numbers
are over as many clips as could still be had, 3,300 to 3,492: say yours. The videos are training/<recipe>/<id>.mp4,
validation/<recipe>/<id>/<id>.mkv or the like, or <id>.* anywhere.
"""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from svilm.data.prepare.common import Clip, Listing, PrepareError, Refusal, unique
from svilm.data.prepare.jsons import load_json
from svilm.data.prepare.tables import BadRow, Row, Table, convert, file_name, one_line, open_table, shortened, span

from svilm.data.prepare.tables import split_in_name  # isort: skip

CLIPS = {"train": 10_337, "val": 3_492}
SUBSETS = {"train": "training", "val": "validation"}


def listing(
    annotations: Annotated[str | Path, "youcookii_annotations_trainval.json, or a csv of one split."],
    *,
    split: Annotated[
        Literal["train", "val"] | None, "Which split; default: train of the json file, as a csv's name says."
    ] = None,
) -> Listing:
    """The described steps of a split.

    Raises PrepareError for a file that cannot be read or has another form, and for a csv of which neither
    ``split`` nor its name says which split it is.
    """
    path = Path(annotations)
    if path.suffix != ".csv":
        split = split or "train"
        steps = _steps(path, SUBSETS[split])
        read = partial(convert, steps, _clip)
        return Listing("youcook2", path, read, f"youcook2 {split}, clips", split, published=CLIPS[split])
    named = split or split_in_name(path)
    if named == "test":
        raise PrepareError(f"{path}: the labels of YouCook2's test split are hidden; is this val? then --split val")
    table = open_table(path, {"video_id": (), "start": (), "end": (), "text": ()}, {"task": ()})
    return Listing("youcook2", path, partial(_of_table, table, SUBSETS[named]), f"youcook2 {named}, clips", named)


def _steps(path: Path, subset: str) -> list[Row | Refusal]:
    """A row for each step of the videos of a subset."""
    data = load_json(path)
    videos = data.get("database") if isinstance(data, dict) else None
    if not isinstance(videos, dict):
        raise PrepareError(f"{path}: no database of videos in it")
    found: list[Row | Refusal] = []
    for video, value in videos.items():
        if not isinstance(value, dict) or value.get("subset") not in (*SUBSETS.values(), "testing"):
            found.append(Refusal(shortened(video), "of no subset", shortened(value)))
        elif value["subset"] == subset:
            found += _steps_of(video, value)
    return found


def _steps_of(video: str, value: dict[str, Any]) -> Iterator[Row | Refusal]:
    steps = value.get("annotations")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        yield Refusal(shortened(video), "no list of annotations", shortened(steps))
        return
    common = {"video_id": video, **{key: value.get(key) for key in ("subset", "recipe_type", "duration")}}
    for k, step in enumerate(steps):
        yield Row(f"{shortened(video)}, step {k}", {**common, "id": k, **step})


def _clip(row: Row) -> Clip:
    video, segment = file_name(row.text("video_id")), row.values.get("segment")
    if not isinstance(segment, list) or len(segment) != 2:
        raise BadRow("segment is not a start and an end", shortened(segment))
    start, end = span(str(segment[0]), str(segment[1]))
    names = _names(row.text("subset"), row.text("recipe_type"), video)
    name = f"{video}:{row.text('id')}"
    caption = (one_line(row.text("sentence")),)
    return Clip(name, names, caption, row.place, start, end, duration=_duration(row.values.get("duration")))


def _of_table(table: Table, subset: str) -> Iterator[Clip | Refusal]:
    def clip(row: Row) -> Clip:
        video = file_name(row.text("video_id"))
        start, end = span(row.text("start"), row.text("end"))
        names = _names(subset, row.text("task"), video)
        return Clip(f"{video}:{start or 0:g}-{end or 0:g}", names, (one_line(row.text("text")),), row.place, start, end)

    return unique(convert(table, clip))


def _names(subset: str, recipe: str, video: str) -> tuple[str, ...]:
    folder = f"{subset}/{recipe}"
    return (f"{folder}/{video}", f"{folder}/{video}/{video}", video) if recipe else (video,)


def _duration(value: Any) -> float | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    return float(value) if number else None
