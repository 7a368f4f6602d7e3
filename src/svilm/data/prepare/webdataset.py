"""Tar shards of video2dataset or any WebDataset: KEY.mp4 beside KEY.txt and KEY.json; a folder of 00000.tar, ...

Videos are read where they lie in the tars. The caption is the text, or "captions" or "caption" of the json. A sample
without a video (video2dataset keeps failed downloads so) is refused with the status that its json states.
"""

import json
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from svilm.data.prepare import Split
from svilm.data.prepare.common import Clip, Listing, PrepareError, Refusal
from svilm.data.prepare.tables import BadRow, one_line, shortened
from svilm.data.prepare.videos import EXTENSIONS
from svilm.data.shards import Member, ShardError, members, sample_key, write_index

MAX_TEXT = 1 << 26
"""Bytes of a sample's text or json: video2dataset puts the subtitles of hours into it."""


def listing(
    annotations: Annotated[str | Path, "Folder of shards (00000.tar, 00001.tar, ...) or one shard."],
    *,
    split: Annotated[Split, "What the list is used for; val and test must be complete."] = "train",
) -> Listing:
    """The samples of all shards of a folder; an index is left beside each, so that nobody scans them again.

    Raises PrepareError for a folder without shards.
    """
    path = Path(annotations)
    shards = sorted(path.rglob("*.tar")) if path.is_dir() else [path]
    if not shards or not all(shard.is_file() for shard in shards):
        raise PrepareError(f"{path}: no shards (*.tar) there")
    root = path if path.is_dir() else path.parent
    unindexed = _index_all(shards)
    notes = (
        (f"{unindexed} shards have no index beside them: each process will read their headers again",)
        if unindexed
        else ()
    )
    return Listing("webdataset", path, partial(_samples, root, shards), f"webdataset {split}", split, notes=notes)


def _index_all(shards: list[Path]) -> int:
    """Leave an index beside each shard, and return for how many that could not be done."""
    lacking = 0
    for shard in shards:
        if not shard.with_suffix(".idx").is_file():
            try:
                write_index(shard)
            except (ShardError, OSError):  # the first is told of when it is read
                lacking += 1
    return lacking


def _samples(root: Path, shards: list[Path]) -> Iterator[Clip | Refusal]:
    for shard in shards:
        name = shard.relative_to(root).as_posix()
        try:
            samples: dict[str, dict[str, Member]] = {}
            for member in members(shard):
                key, extension = sample_key(member.name)
                samples.setdefault(key, {}).setdefault(extension.lower(), member)
            with open(shard, "rb") as file:
                for key, parts in samples.items():
                    try:
                        yield _clip(name, key, parts, partial(_read, file))
                    except BadRow as bad:
                        yield Refusal(f"{name}/{key}", bad.reason, bad.detail)
        except (ShardError, OSError) as error:
            yield Refusal(name, "no shard", shortened(str(error)))


def _clip(shard: str, key: str, parts: Mapping[str, Member], read: Any) -> Clip:
    about = _about(parts, read)
    endings = (ending.removeprefix(".") for ending in EXTENSIONS if len(ending) > 1)
    video = next((parts[ending] for ending in endings if ending in parts), None)
    if video is None:
        status = about.get("status")
        raise BadRow("no video in the sample", shortened(f"{status}: {about.get('error_message')}" if status else key))
    folder = os.path.dirname(shard)
    place = f"{shard}/{video.name}"
    return Clip(f"{folder}/{key}" if folder else key, (place,), _captions(parts, about, read), place)


def _about(parts: Mapping[str, Member], read: Any) -> Mapping[str, Any]:
    if "json" not in parts:
        return {}
    try:
        about = json.loads(read(parts["json"]))
    except (ValueError, RecursionError):
        raise BadRow("its json is none", parts["json"].name) from None
    return about if isinstance(about, dict) else {}


def _captions(parts: Mapping[str, Member], about: Mapping[str, Any], read: Any) -> tuple[str, ...]:
    several = about.get("captions")
    if isinstance(several, list) and several and all(isinstance(text, str) for text in several):
        return tuple(one_line(text) for text in several)
    try:
        text = read(parts["txt"]).decode("utf-8-sig") if "txt" in parts else ""
    except UnicodeDecodeError:
        raise BadRow("not UTF-8", parts["txt"].name) from None
    caption = text if text.strip() else about.get("caption")
    if not isinstance(caption, str):
        raise BadRow("no caption in the sample", shortened(caption))
    return (one_line(caption),)


def _read(file: Any, member: Member) -> bytes:
    if member.size > MAX_TEXT:
        raise BadRow("text is too long", member.name)
    file.seek(member.offset)
    data: bytes = file.read(member.size)
    return data
