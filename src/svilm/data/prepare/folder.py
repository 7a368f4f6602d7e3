"""Anybody's videos: a csv, tsv or JSON Lines file of video, start, end, caption, or a folder with captions beside them."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from svilm.data.prepare.common import Clip, Listing, PrepareError, Refusal, Split, unique
from svilm.data.prepare.jsons import json_rows, load_json
from svilm.data.prepare.tables import BadRow, Row, Table, convert, file_name, one_line, open_table, seconds
from svilm.data.prepare.tables import shortened, span  # isort: skip
from svilm.data.prepare.videos import VideoFolder

REQUIRED = {
    "video": ("path", "file", "filename", "file_name", "video_path", "video_file", "video_name", "video_id", "videoid", "url"),
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
    annotations: str | Path | None,
    videos: str | Path,
    *,
    split: Split = "train",
    names_as_captions: bool = False,
    source: str = "folder",
) -> Listing:
    """The clips of a table, or where ``annotations`` is None every video below ``videos`` with a caption beside it.

    Columns go by many names (REQUIRED, OPTIONAL); times are seconds or h:mm:ss, and left out they mean the
    whole video.  "scene_changes" are seconds with ";" between them.  Beside ``x.mp4`` its captions are the lines
    of ``x.txt`` or "caption" in ``x.json`` (as video2dataset leaves them), or its name where
    ``names_as_captions``.  Raises PrepareError for a table that is not there, empty, or without those columns.
    """
    make = partial(Listing, source, protocol=f"{source} {split}", split=split)
    if annotations is None:
        return make(Path(videos), partial(_beside, Path(videos), names_as_captions))
    path = Path(annotations)
    if path.suffix.lower() in JSON_LINES:
        return make(path, partial(_json_clips, path))
    table = open_table(path, REQUIRED, OPTIONAL)
    known = {*REQUIRED, *OPTIONAL}
    unused = ", ".join(name for name in table.columns if name not in known)
    return make(path, partial(_clips, table), notes=(f"columns not used: {unused}",) if unused else ())


def _clips(table: Table) -> Iterator[Clip | Refusal]:
    found = convert(table, _clip)
    return found if "id" in table.columns else unique(found)
