"""ActivityNet Captions: train.json, val_1.json or val_2.json, a clip per sentence, or per video with --paragraph.

{"v_...": {"duration": s, "timestamps": [[start, end], ...], "sentences": [...]}}. For pre-training each sentence
is a clip of its own; for retrieval a video is found by all its sentences. Videos are called with and without "v_".
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from svilm.data.prepare import Split
from svilm.data.prepare.common import Clip, Listing, Refusal
from svilm.data.prepare.jsons import json_items
from svilm.data.prepare.tables import BadRow, Row, convert, file_name, one_line, shortened, span

VIDEOS = {"train": 10_009, "val_1": 4_917, "val_2": 4_885}
"""Videos of the official files, by the file's name."""


def listing(
    annotations: Annotated[str | Path, "train.json, val_1.json or val_2.json."],
    *,
    paragraph: Annotated[bool, "One clip per video with all its sentences, for retrieval."] = False,
    split: Annotated[
        Split | None, "What it is used for; default: train for a file named train..., test for others."
    ] = None,
) -> Listing:
    """The clips of train.json, val_1.json or val_2.json, one per sentence.

    ``paragraph`` makes one clip per video, with all its sentences as its caption.  ``split`` is by default
    "train" for a file whose name begins so, and "test" for any other.
    """
    path = Path(annotations)
    of_train = path.stem.startswith("train")
    split = split or ("train" if of_train else "test")
    spoilt = "training on validation videos spoils scores on ActivityNet retrieval and localization"
    return Listing(
        "activitynet-captions",
        path,
        partial(_clips, path, paragraph),
        f"activitynet-captions {path.stem}, {'paragraphs' if paragraph else 'sentences'}",
        split,
        published=VIDEOS.get(path.stem) if paragraph else None,
        notes=(spoilt,) if split == "train" and not of_train else (),
    )


def _clips(path: Path, paragraph: bool) -> Iterator[Clip | Refusal]:
    return convert(_rows(path, paragraph), _clip)


def _rows(path: Path, paragraph: bool) -> Iterator[Row | Refusal]:
    """A row with video, and text for the whole of it or number, time and text for one sentence."""
    for video, value in json_items(path):
        place = shortened(video)
        try:
            times, sentences = _lists(value)
        except BadRow as bad:
            yield Refusal(place, bad.reason, bad.detail)
            continue
        if paragraph:
            yield Row(place, {"video": video, "text": " ".join(sentences)})
            continue
        for k, (time, text) in enumerate(zip(times, sentences, strict=True)):
            yield Row(f"{place}, sentence {k + 1}", {"video": video, "number": k, "time": time, "text": text})


def _lists(value: Any) -> tuple[list[Any], list[str]]:
    if not isinstance(value, dict):
        raise BadRow("not an object", shortened(value))
    times, sentences = value.get("timestamps"), value.get("sentences")
    if not isinstance(times, list) or not isinstance(sentences, list) or len(times) != len(sentences):
        raise BadRow("not one timestamp for each sentence", shortened(value))
    if not sentences or not all(isinstance(sentence, str) for sentence in sentences):
        raise BadRow("sentences are not texts", shortened(sentences))
    return times, sentences


def _clip(row: Row) -> Clip:
    video, captions = file_name(row.text("video")), (one_line(row.text("text")),)
    names = tuple(dict.fromkeys((video, video.removeprefix("v_"))))
    if "time" not in row.values:
        return Clip(video, names, captions, row.place)
    time = row.values["time"]
    if not isinstance(time, list) or len(time) != 2:
        raise BadRow("not a start and an end", shortened(time))
    start, end = span(str(time[0]), str(time[1]))
    return Clip(f"{video}:{row.values['number']}", names, captions, row.place, start, end)
