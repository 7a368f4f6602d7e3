"""HowTo100M: caption.json, narrations with their times, each grown by its neighbours to a clip.

{video_id: {"start": [...], "end": [...], "text": [...]}}; HowTo100M_v1.csv, or a part of it, may choose the videos.
A narration lasts three or four seconds, less than what it speaks of, so it grows by its nearest neighbours,
as is usual for this set.  HowToCaption's files, where each text is a list of captions, are read as well.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import inf
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from svilm.data.prepare.common import Clip, Listing, PrepareError, Refusal
from svilm.data.prepare.jsons import json_items
from svilm.data.prepare.tables import BadRow, file_name, one_line, open_table, shortened, span


class Narration(NamedTuple):
    """What is said from ``start`` to ``end`` (seconds), in one or several wordings."""

    start: float
    end: float
    texts: tuple[str, ...]


def listing(
    annotations: Annotated[str | Path, "caption.json, or the file of HowToCaption."],
    *,
    only: Annotated[str | Path | None, "HowTo100M_v1.csv or a part of it: take these videos only."] = None,
    min_seconds: Annotated[float, "Grow each narration by its neighbours to this length."] = 8.0,
) -> Listing:
    """The narrated clips of caption.json, each grown to at least ``min_seconds`` where its video allows it.

    ``only`` is HowTo100M_v1.csv or any part of it: only its videos are listed, and where it has a column
    "path" the videos are looked for there.  Narrations that grow to the same clip are one clip.
    """
    wanted = None if only is None else _wanted(Path(only))
    path = Path(annotations)
    return Listing("howto100m", path, partial(_clips, path, wanted, min_seconds), "howto100m train")


def _wanted(path: Path) -> dict[str, tuple[str, ...]]:
    """The names under which each video of the csv may be found."""
    found = {}
    for row in open_table(path, {"video_id": ()}, {"path": ()}):
        if isinstance(row, Refusal):
            raise PrepareError(f"{path}: {row.place}: {row.reason} ({row.detail})")
        video = row.text("video_id")
        found[video] = tuple(name for name in (row.text("path"), video) if name)
    return found


def _clips(path: Path, wanted: Mapping[str, tuple[str, ...]] | None, min_seconds: float) -> Iterator[Clip | Refusal]:
    told = set[str]()
    for video, value in json_items(path):
        if wanted is not None and video not in wanted:
            continue
        told.add(video)
        names = (video,) if wanted is None else wanted[video]
        narrations: list[Narration] = []
        for item in _narrations(video, value):
            if isinstance(item, Refusal):
                yield item
            else:
                narrations.append(item)
        narrations.sort()
        for first, last in dict.fromkeys(grown(narrations, k, min_seconds) for k in range(len(narrations))):
            part = narrations[first : last + 1]
            place = f"{shortened(video)}, narration {first + 1} to {last + 1}"
            end = max(narration.end for narration in part)
            yield Clip(f"{video}:{first}-{last}", names, _said(part), place, part[0].start, end)
    for video in sorted(set(wanted or ()) - told):
        yield Refusal(shortened(video), "no narration of this video")


def grown(narrations: Sequence[Narration], k: int, min_seconds: float) -> tuple[int, int]:
    """First and last narration around the k-th that last ``min_seconds`` together; the nearer joins first."""
    first = last = k
    end = narrations[k].end
    while end - narrations[first].start < min_seconds:
        before = narrations[first].start - narrations[first - 1].end if first > 0 else inf
        after = narrations[last + 1].start - end if last + 1 < len(narrations) else inf
        if before == after == inf:
            break
        if before < after:
            first -= 1
        else:
            last += 1
            end = max(end, narrations[last].end)
    return first, last


def _said(narrations: Sequence[Narration]) -> tuple[str, ...]:
    if all(len(narration.texts) == 1 for narration in narrations):
        return (" ".join(narration.texts[0] for narration in narrations),)
    return tuple(dict.fromkeys(text for narration in narrations for text in narration.texts))


def _narrations(video: str, value: Any) -> Iterator[Narration | Refusal]:
    place = shortened(video)
    lists = [value.get(key) if isinstance(value, dict) else None for key in ("start", "end", "text")]
    lengths = {len(part) if isinstance(part, list) else None for part in lists}
    if None in lengths or len(lengths) > 1:
        yield Refusal(place, "start, end and text are not lists of one length", shortened(value))
        return
    for k, (start, end, text) in enumerate(zip(*lists, strict=True)):
        try:
            file_name(video)
            first, last = span(str(start), str(end))
            texts = text if isinstance(text, list) else [text]
            if not texts or not all(isinstance(text, str) for text in texts):
                raise BadRow("text is not text", shortened(text))
            yield Narration(first or 0.0, last or 0.0, tuple(one_line(text) for text in texts))
        except BadRow as bad:
            yield Refusal(f"{place}, narration {k + 1}", bad.reason, bad.detail)
