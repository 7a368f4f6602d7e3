"""DiDeMo: train_data.json, val_data.json or test_data.json, descriptions of moments; a clip per video with them all.

Paragraph retrieval: a video is found by all its descriptions, one after the other, in the order of the file.
Published numbers are on the lists of 8,392, 1,065 and 1,004 videos (--only), fewer than the json files name.
Files are called after their upload (.mov, .3gp, a bare dot at the end) and are .mp4 since; the part before the
last dot counts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

from svilm.data.prepare import Split
from svilm.data.prepare.common import Clip, Listing, Refusal
from svilm.data.prepare.jsons import json_objects
from svilm.data.prepare.tables import BadRow, Row, convert, file_name, one_line, plain_lines, split_in_name

ON_LISTS: Mapping[Split, int] = {"train": 8392, "val": 1065, "test": 1004}
"""Videos of the lists that papers use."""
IN_FILES: Mapping[Split, tuple[int, int]] = {"val": (1094, 4180), "test": (1037, 4021)}
"""Videos and descriptions of the json files themselves."""


@dataclass
class Paragraphs:
    """What a json file says of each video, by the part of its name before the last dot."""

    names: dict[str, str] = field(default_factory=dict)
    descriptions: dict[str, list[str]] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    empty: int = 0
    """Descriptions that say nothing, left out."""


def listing(
    annotations: Annotated[str | Path, "train_data.json, val_data.json or test_data.json."],
    *,
    only: Annotated[
        str | Path | None, "List of the videos to take, one per line: test_list.txt or its siblings."
    ] = None,
    split: Annotated[Split | None, "Which split it is; default: as the file's name says."] = None,
) -> Listing:
    """The videos of one file, each with all its descriptions as its caption; with ``only`` those of a list.

    Raises PrepareError for a file that cannot be read, and where neither ``split`` nor its name says which it is.
    """
    path = Path(annotations)
    split = split or split_in_name(path)
    told = _paragraphs(path)
    number = sum(map(len, told.descriptions.values()))
    notes = [f"{told.empty} empty descriptions left out"] if told.empty else []
    if split in IN_FILES and number + told.empty != IN_FILES[split][1]:
        notes.append(f"{path.name} has {number + told.empty} descriptions, the published file {IN_FILES[split][1]}")
    published = IN_FILES.get(split, (None,))[0] if only is None else ON_LISTS[split]
    return Listing(
        "didemo",
        path if only is None else Path(only),
        partial(_all, told) if only is None else partial(_listed, Path(only), told, path.name),
        f"didemo {split}, paragraphs, {'all videos of the json file' if only is None else Path(only).name}",
        split,
        published=published,
        notes=tuple(notes),
    )


def _stem(name: str) -> str:
    """The name without what stands after its last dot, be it a video's usual extension or not."""
    return name.rpartition(".")[0] or name


def _paragraphs(path: Path) -> Paragraphs:
    found = Paragraphs()
    for row in convert(json_objects(path), lambda row: (file_name(row.text("video")), row.text("description"))):
        if isinstance(row, Refusal):
            found.refusals.append(row)
            continue
        video, text = row
        found.names.setdefault(_stem(video), video)
        told = found.descriptions.setdefault(_stem(video), [])
        try:
            told.append(one_line(text))
        except BadRow:
            found.empty += 1
    return found


def _all(told: Paragraphs) -> Iterator[Clip | Refusal]:
    yield from told.refusals
    yield from convert((Row(video, {"video": video}) for video in told.names.values()), partial(_clip, told, ""))


def _listed(path: Path, told: Paragraphs, source: str) -> Iterator[Clip | Refusal]:
    return convert(plain_lines(path, "video"), partial(_clip, told, source))


def _clip(told: Paragraphs, source: str, row: Row) -> Clip:
    video = file_name(row.text("video"))
    stem = _stem(video)
    if not told.descriptions.get(stem):
        raise BadRow(f"no description in {source}" if source else "no description", video)
    return Clip(stem, (video, stem), (" ".join(told.descriptions[stem]),), row.place)
