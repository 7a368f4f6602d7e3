"""VideoCC: one csv of video, start, end (microseconds), caption, with a header or without.

The video is a YouTube id, its address, or the name of a file.  No videos are published with it; a folder that
video2dataset filled ("files" layout, clips already cut) is read as it is, without the csv.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from svilm.data.prepare import Split, folder
from svilm.data.prepare.common import Clip, Listing, PrepareError, Refusal, unique
from svilm.data.prepare.tables import BadRow, Row, convert, csv_rows, first_line, shortened, sniffed

from svilm.data.prepare.tables import file_name, microseconds, one_line, span  # isort: skip

COLUMNS = ("video", "start", "end", "caption")
SHORTEST = 0.05
"""Seconds.  A file of shorter clips than this does not count in microseconds."""
_HOSTS = ("youtube.com", "www.youtube.com", "m.youtube.com", "music.youtube.com", "www.youtube-nocookie.com")


def listing(
    annotations: Annotated[str | Path, "video_cc_public.csv, or a folder filled by video2dataset."],
    *,
    split: Annotated[Split, "What the list is used for; val and test must be complete."] = "train",
) -> Listing:
    """The clips of ``video_cc_public.csv``, or of a folder that video2dataset filled.

    Whether the first line is a header is not documented, so it counts as one if its times have no digits.
    Raises PrepareError for a file that is not there, empty, or not of the form.
    """
    path = Path(annotations)
    if path.is_dir():
        return replace(folder.listing(path, split=split), source="videocc", protocol=f"videocc {split}")
    number, line = first_line(path)
    delimiter = sniffed(line, lambda cells: len(cells) >= 4 and cells[1].strip().isdigit())
    named = delimiter is None and sniffed(line, lambda cells: len(cells) == 4 and not _digits(cells[1:3]))
    delimiter = delimiter or named or sniffed(line, lambda cells: len(cells) == 4)
    if not delimiter:
        raise PrepareError(f"{path}: line {number} must be video, start, end, caption and is {shortened(repr(line))}")
    read = partial(_clips, path, delimiter, number if named else 0)
    lengths = [clip.end - (clip.start or 0) for clip in islice(read(), 100) if isinstance(clip, Clip) and clip.end]
    if lengths and max(lengths) < SHORTEST:
        raise PrepareError(
            f"{path}: the first {len(lengths)} clips are shorter than {SHORTEST} s; VideoCC counts in "
            "microseconds, for a file in seconds use `svilm prepare folder`"
        )
    notes = (f"line {number} taken as the header: {shortened(line)}",) if named else ()
    return Listing("videocc", path, read, f"videocc {split}", split, notes=notes)


def _clips(path: Path, delimiter: str, skip: int) -> Iterator[Clip | Refusal]:
    return unique(convert(csv_rows(path, COLUMNS, delimiter, skip), _clip))


def _clip(row: Row) -> Clip:
    video = _video(file_name(row.text("video")))
    start, end = span(row.text("start"), row.text("end"), microseconds)
    if start is None or end is None:
        raise BadRow("start or end is not given")
    name = f"{video}:{round(start * 1e6)}-{round(end * 1e6)}"
    return Clip(name, (video,), (one_line(row.text("caption")),), row.place, start, end)


def _digits(cells: list[str]) -> bool:
    return any(re.search(r"\d", cell) for cell in cells)


def _video(text: str) -> str:
    """The id in a YouTube address; anything else is a name already."""
    if "://" not in text and not re.match(r"(www\.)?youtu(\.be|be\.com)/", text):
        return text
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
    except ValueError:
        raise BadRow("not an address", shortened(text)) from None
    folders = parts.path.strip("/").split("/")
    video = ""
    if parts.hostname == "youtu.be":
        video = folders[0]
    elif parts.hostname in _HOSTS:
        video = folders[-1] if len(folders) == 2 else parse_qs(parts.query).get("v", [""])[0]
    if not re.fullmatch(r"[\w-]{11}", video, re.ASCII):
        raise BadRow("not the address of a YouTube video", shortened(text))
    return video
