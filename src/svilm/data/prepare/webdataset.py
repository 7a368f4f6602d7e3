"""Tar shards of video2dataset or any WebDataset: KEY.mp4 beside KEY.txt and KEY.json; a folder of 00000.tar, ...

Videos are read where they lie in the tars. The caption is the text, or "captions" or "caption" of the json. A sample
without a video (video2dataset keeps failed downloads so) is refused with the status that its json states.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from tqdm import tqdm

from svilm.data.prepare import Split
from svilm.data.prepare.accounts import EXAMPLES
from svilm.data.prepare.common import Clip, Listing, PrepareError, Refusal
from svilm.data.prepare.tables import BadRow, one_line, shortened
from svilm.data.prepare.videos import EXTENSIONS
from svilm.data.shards import (
    SUFFIX,
    Member,
    ShardError,
    ends_as_usual,
    members,
    read_index,
    sample_key,
    scan,
    write_index,
)

MAX_TEXT = 1 << 26
"""Bytes of a sample's text or json: video2dataset puts the subtitles of hours into it."""


def listing(
    annotations: Annotated[str | Path, "Folder of shards (00000.tar, 00001.tar, ...) or one shard."],
    *,
    split: Annotated[Split, "What the list is used for; val and test must be complete."] = "train",
) -> Listing:
    """The samples of all shards of a folder; an index is left beside each, so that nobody scans them again.

    A key that an earlier shard has as well gets its own shard in front: "00001/KEY".  Raises PrepareError for a
    folder without shards.
    """
    path = Path(annotations)
    shards = sorted(path.rglob("*.tar")) if path.is_dir() else [path]
    if not shards or not all(shard.is_file() for shard in shards):
        raise PrepareError(f"{path}: no shards (*.tar) there")
    root = path if path.is_dir() else path.parent
    unindexed, notes = _index_all(shards)
    return Listing(
        "webdataset", path, partial(_samples, root, shards, unindexed), f"webdataset {split}", split, notes=notes
    )


def _index_all(shards: list[Path]) -> tuple[frozenset[Path], tuple[str, ...]]:
    """Leave a right index beside each shard.  Returns for which that could not be done, and notes on it.

    The headers are read even where there is an index: that of another tar may fit here and there by chance.
    """
    lacking, endless = set[Path](), list[Path]()
    for shard in tqdm(shards, desc="reading headers", unit="shard"):
        try:
            found = scan(os.path.abspath(shard))
            if not ends_as_usual(shard):
                endless.append(shard)
            if sorted(read_index(shard) or ()) != sorted(found):
                write_index(shard, found)
        except (ShardError, OSError):  # the first is told of when it is read
            lacking.add(shard)
    notes = []
    if lacking:
        notes.append(f"{len(lacking)} shards have no index beside them: each process will read their headers again")
    if endless:
        notes.append(
            f"{len(endless)} shards do not end as tars usually do and may have been cut short: {_few(endless)}"
        )
    return frozenset(lacking), tuple(notes)


def _few(shards: list[Path]) -> str:
    return ", ".join(shard.name for shard in shards[:EXAMPLES]) + (", ..." if len(shards) > EXAMPLES else "")


def _samples(root: Path, shards: list[Path], unindexed: Set[Path]) -> Iterator[Clip | Refusal]:
    earlier = set[str]()  # ids of earlier shards
    for shard in shards:
        name = shard.relative_to(root).as_posix()
        try:
            found = scan(os.path.abspath(shard)) if shard in unindexed else members(shard)
            last = {member.name: member for member in found}
            ids = set[str]()
            with open(shard, "rb") as file:
                for key, parts in _grouped(found):
                    try:
                        clip = _clip(name, key, parts, last, partial(_read, file))
                    except BadRow as bad:
                        yield Refusal(_told(f"{name}/{key}"), bad.reason, _told(bad.detail))
                        continue
                    if clip.id in earlier:  # these keys are unique in their shard only
                        clip = replace(clip, id=f"{name.removesuffix(SUFFIX)}/{key}")
                    ids.add(clip.id)
                    yield clip
            earlier |= ids
        except (ShardError, OSError) as error:
            yield Refusal(name, "no shard", shortened(str(error)))


def _grouped(found: Iterable[Member]) -> list[tuple[str, dict[str, Member]]]:
    """Keys of the samples, each with its members by extension; one that is there already begins another sample."""
    samples: list[tuple[str, dict[str, Member]]] = []
    latest: dict[str, dict[str, Member]] = {}
    for member in found:
        key, extension = sample_key(member.name)
        parts = latest.get(key)
        if parts is None or extension.lower() in parts:
            parts = latest[key] = {}
            samples.append((key, parts))
        parts[extension.lower()] = member
    return samples


def _clip(shard: str, key: str, parts: Mapping[str, Member], last: Mapping[str, Member], read: Any) -> Clip:
    if _told(shard + key) != shard + key:
        raise BadRow("its name is not UTF-8", shortened(key))
    about = _about(parts, read)
    endings = (ending.removeprefix(".") for ending in EXTENSIONS if len(ending) > 1)
    video = next((parts[ending] for ending in endings if ending in parts), None)
    if video is None:
        status = about.get("status")
        raise BadRow("no video in the sample", shortened(f"{status}: {about.get('error_message')}" if status else key))
    if video != last[video.name]:
        raise BadRow("its video's name occurs again in the shard", video.name)
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


def _told(text: str) -> str:
    """A text for people: bytes of a name that are no UTF-8 as escapes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _read(file: Any, member: Member) -> bytes:
    if member.size > MAX_TEXT:
        raise BadRow("text is too long", member.name)
    file.seek(member.offset)
    data: bytes = file.read(member.size)
    return data
