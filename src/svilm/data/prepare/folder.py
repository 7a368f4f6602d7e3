"""Your own videos: a csv, tsv or jsonl file of video, start, end, caption, or texts beside the videos.

Times are seconds or h:mm:ss, and left out they mean the whole video. Columns go by many names (path, text, ...).
Without a table, the captions of x.mp4 are the lines of x.txt beside it.
"""

import os
import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from svilm.data.prepare import Split
from svilm.data.prepare.common import Clip, Listing, PrepareError, Refusal, unique
from svilm.data.prepare.jsons import json_rows, load_json
from svilm.data.prepare.tables import BadRow, Row, convert, file_name, one_line, open_table, seconds

from svilm.data.prepare.tables import shortened, span  # isort: skip
from svilm.data.prepare.videos import VideoFolder

REQUIRED = {
    "video": (
        "path",
        "file",
        "filename",
        "file_name",
        "video_path",
        "video_file",
        "video_name",
        "video_id",
        "videoid",
        "url",
    ),
    "caption": ("text", "sentence", "description", "query", "title", "captions"),
}
OPTIONAL = {
    "start": ("start_time", "start_seconds", "start_s", "start_sec", "begin", "from", "t_start"),
    "end": ("end_time", "end_seconds", "end_s", "end_sec", "stop", "to", "t_end"),
    "id": ("clip_id", "key"),
    "scene_changes": ("cuts",),
}
JSON_LINES = (".jsonl", ".ndjson")


def listing(
    annotations: Annotated[
        str | Path, "csv, tsv or jsonl of video, start, end, caption; or a folder of videos with texts."
    ],
    *,
    split: Annotated[Split, "What the list is used for; val and test must be complete."] = "train",
    names_as_captions: Annotated[bool, "In a folder: a video without a text is told by its name."] = False,
) -> Listing:
    """The clips of a table, or the videos of a folder with a text beside them.

    Columns go by many names (REQUIRED, OPTIONAL); times are seconds or h:mm:ss, and left out they mean the
    whole video; "scene_changes" are seconds with ";" between them.  The captions beside ``x.mp4`` are the
    lines of ``x.txt`` or "caption" in ``x.json`` (video2dataset leaves both), or with ``names_as_captions``
    else its name.  Raises PrepareError for a table that is not there, empty, or without those columns.
    """
    path = Path(annotations)
    make = partial(Listing, "folder", path, protocol=f"folder {split}", split=split)
    if path.is_dir():
        return make(partial(_beside, path, names_as_captions))
    if path.suffix.lower() in JSON_LINES:
        has_ids = "id" in next((row.values for row in _objects(path) if isinstance(row, Row)), {})
        return make(lambda: _clips(_objects(path), has_ids))
    table = open_table(path, REQUIRED, OPTIONAL)
    unused = ", ".join(name for name in table.columns if name not in {*REQUIRED, *OPTIONAL})
    return make(
        partial(_clips, table, "id" in table.columns),
        notes=(f"columns not used: {unused}",) if unused else (),
    )


def _clips(rows: Iterable[Row | Refusal], has_ids: bool) -> Iterator[Clip | Refusal]:
    found = convert(rows, partial(_clip, has_ids))
    return found if has_ids else unique(found)


def _clip(has_ids: bool, row: Row) -> Clip:
    video = file_name(row.text("video"))
    start, end = span(row.text("start"), row.text("end"))
    whole = start is None and end is None
    name = video if whole else f"{video}:{start or 0:.3f}-{'end' if end is None else format(end, '.3f')}"
    if has_ids:
        if not row.text("id"):
            raise BadRow("no id, where others have one", shortened(video))
        name = file_name(row.text("id"))
    return Clip(name, (video,), _captions(row.values.get("caption")), row.place, start, end, _scene_changes(row))


def _captions(value: Any) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise BadRow("caption is not text", shortened(value))
    return tuple(one_line(text) for text in texts)


def _scene_changes(row: Row) -> tuple[float, ...]:
    value = row.values.get("scene_changes") or ()
    parts = value.split(";") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)):
        raise BadRow("scene_changes is not a list of times", shortened(value))
    times = tuple(seconds(str(part).strip()) for part in parts if str(part).strip())
    if list(times) != sorted(set(times)):
        raise BadRow("scene_changes are not in order", shortened(value))
    return times


def _objects(path: Path) -> Iterator[Row | Refusal]:
    """The objects of a JSON Lines file with their keys renamed as a table's columns are."""
    for row in json_rows(path):
        if isinstance(row, Refusal):
            yield row
            continue
        values = {}
        for key, aliases in {**REQUIRED, **OPTIONAL}.items():
            name = next((name for name in (key, *aliases) if row.values.get(name) is not None), None)
            if name is not None:
                values[key] = row.values[name]
        yield Row(row.place, values)


# Captions beside the videos


def _beside(videos: Path, names_as_captions: bool) -> Iterator[Clip | Refusal]:
    for path in VideoFolder(videos):
        stem = (videos / path).with_suffix("")
        try:
            captions = _text_file(stem.with_name(stem.name + ".txt")) or _json_file(stem.with_name(stem.name + ".json"))
            if not captions and names_as_captions:
                captions = (one_line(re.sub(r"[\W_]+", " ", stem.name)),)
            if not captions:
                raise BadRow("no caption beside the video", f"{stem.name}.txt")
            yield Clip(path, (path,), captions, path)
        except BadRow as bad:
            yield Refusal(path, bad.reason, bad.detail)


def _text_file(path: Path) -> tuple[str, ...]:
    if not os.path.isfile(path):  # unlike Path.is_file this takes a name that is too long for "no"
        return ()
    try:
        return tuple(one_line(line) for line in path.read_text("utf-8-sig").split("\n") if line.strip())
    except UnicodeDecodeError:
        raise BadRow("not UTF-8", path.name) from None


def _json_file(path: Path) -> tuple[str, ...]:
    if not os.path.isfile(path):
        return ()
    try:
        data = load_json(path)
    except PrepareError as error:
        raise BadRow("not JSON", str(error)) from None
    return _captions(data["caption"]) if isinstance(data, dict) and data.get("caption") else ()
