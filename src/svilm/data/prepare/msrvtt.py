"""MSR-VTT: MSRVTT_data.json (or MSR_VTT.json) with the captions, and the lists of three protocols.

"msrvtt-1ka-9k" and "msrvtt-1ka-7k" share a test split of 1,000 videos with one caption each
(MSRVTT_JSFUSION_test.csv), which lies inside the test split of "msrvtt-full": numbers of the two never mix.
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args

from svilm.data.prepare import Protocol, Split
from svilm.data.prepare.common import Clip, Listing, PrepareError, Refusal
from svilm.data.prepare.jsons import load_json
from svilm.data.prepare.tables import BadRow, Row, Table, convert, file_name, one_line, open_table, plain_lines

PUBLISHED = {
    ("msrvtt-1ka-9k", "train"): 9000,
    ("msrvtt-1ka-9k", "test"): 1000,
    ("msrvtt-1ka-7k", "train"): 7010,
    ("msrvtt-1ka-7k", "test"): 1000,
    ("msrvtt-full", "train"): 6513,
    ("msrvtt-full", "val"): 497,
    ("msrvtt-full", "test"): 2990,
}
"""The splits there are, and how many videos each has."""
DUMPS = ("MSRVTT_data.json", "MSR_VTT.json")
TEST_LIST = "MSRVTT_JSFUSION_test.csv"
LISTS = {
    ("msrvtt-1ka-9k", "train"): ("MSRVTT_train.9k.csv", "train_list_jsfusion.txt"),
    ("msrvtt-1ka-7k", "train"): ("MSRVTT_train.7k.csv",),
    ("msrvtt-full", "train"): ("train_list_full.txt",),
    ("msrvtt-full", "val"): ("val_list_full.txt",),
    ("msrvtt-full", "test"): ("test_list_full.txt",),
}
OFFICIAL_SPLITS = {
    ("msrvtt-1ka-9k", "train"): ("train", "validate", "test"),
    ("msrvtt-1ka-7k", "train"): ("train", "validate"),
    ("msrvtt-full", "train"): ("train",),
    ("msrvtt-full", "val"): ("validate",),
    ("msrvtt-full", "test"): ("test",),
}
"""Which of the dump's own splits make up each list; the 1k-A test videos are then taken out."""
FOLDERS = ("", "annotation", "annotations", "high-quality/structured-symlinks")
"""Where the archives that circulate keep their files."""


class Dump(NamedTuple):
    """What a json dump says of each video."""

    path: Path
    captions: Mapping[str, Sequence[str]]
    splits: Mapping[str, str]
    """ "train", "validate" or "test"; empty for the dump that does not state it."""
    empty: int
    """Captions that say nothing, left out."""


def listing(
    annotations: Annotated[str | Path, "Folder of MSRVTT_data.json and the lists of the splits."],
    *,
    protocol: Annotated[Protocol, "How the videos are split."] = "msrvtt-1ka-9k",
    split: Annotated[Split, "Which part of it; only msrvtt-full has val."] = "train",
) -> Listing:
    """One split of a protocol, from the folder that holds the annotation files.

    A list that is not in the folder is made from the dump's own splits, as it was made in the first place.
    Raises PrepareError for a split that a protocol has not, and for files that are not there.
    """
    root, key = Path(annotations), (protocol, split)
    if key not in PUBLISHED:
        known = ", ".join(name for other, name in PUBLISHED if other == protocol)
        raise PrepareError(f"{protocol} has {known}, no {split}" if known else _unknown(protocol))
    make = partial(Listing, "msrvtt", protocol=f"{protocol} {split}", split=split, published=PUBLISHED[key])
    if key not in LISTS:
        table = _test_table(root)
        return make(table.path, partial(convert, table, _query))
    dump = _dump(root)
    tested = frozenset[str]() if protocol == "msrvtt-full" else _tested(root)
    notes = [f"{dump.empty} empty captions left out of {dump.path.name}"] if dump.empty else []
    path = _find(root, LISTS[key])
    if path is None:
        notes.append(f"no {LISTS[key][0]} in {root}: the split is taken from {dump.path.name}")
        read = partial(_from_dump, dump, OFFICIAL_SPLITS[key], tested)
    else:
        read = partial(_from_list, path, dump, tested)
    return make(path or dump.path, read, notes=tuple(notes))


def _unknown(protocol: str) -> str:
    return f"no protocol {protocol!r}; choose one of {', '.join(get_args(Protocol))}"


# The 1k-A test list


def _test_table(root: Path) -> Table:
    return open_table(_need(root, (TEST_LIST,)), {"video_id": (), "sentence": ()})


def _tested(root: Path) -> frozenset[str]:
    return frozenset(row.text("video_id") for row in _test_table(root) if isinstance(row, Row))


def _query(row: Row) -> Clip:
    video = file_name(row.text("video_id"))
    return Clip(video, (video,), (one_line(row.text("sentence")),), row.place)


# Lists of videos


def _from_list(path: Path, dump: Dump, tested: AbstractSet[str]) -> Iterator[Clip | Refusal]:
    is_table = path.suffix == ".csv"
    rows = iter(open_table(path, {"video_id": ()})) if is_table else plain_lines(path, "video_id")
    return convert(rows, partial(_clip, dump, tested))


def _from_dump(dump: Dump, splits: Sequence[str], tested: AbstractSet[str]) -> Iterator[Clip | Refusal]:
    if not dump.splits and len(splits) < 3:
        raise PrepareError(f"{dump.path}: does not say which video is of which split; the list of it is needed")
    videos = (video for video in dump.captions if video not in tested)
    rows = (Row(video, {"video_id": video}) for video in videos if dump.splits.get(video, splits[0]) in splits)
    return convert(rows, partial(_clip, dump, tested))


def _clip(dump: Dump, tested: AbstractSet[str], row: Row) -> Clip:
    video = file_name(row.text("video_id"))
    if video in tested:
        raise BadRow("a test video in a training list", video)
    if not dump.captions.get(video):
        raise BadRow(f"no caption in {dump.path.name}", video)
    return Clip(video, (video,), tuple(dump.captions[video]), row.place)


# The files


def _find(root: Path, names: Sequence[str]) -> Path | None:
    places = (root / folder / name for name in names for folder in FOLDERS)
    return next((place for place in places if place.is_file()), None)


def _need(root: Path, names: Sequence[str]) -> Path:
    found = _find(root, names)
    if found is None:
        raise PrepareError(f"{root}: no {' or '.join(names)} in this folder")
    return found


def _dump(root: Path) -> Dump:
    path = _need(root, DUMPS)
    data = load_json(path)
    try:
        videos = data.get("videos", data.get("images", []))
        splits = {str(video["video_id"]): str(video["split"]) for video in videos if "split" in video}
        captions: dict[str, list[str]] = {video: [] for video in splits}
        empty = 0
        for sentence in data["sentences"] if "sentences" in data else data["annotations"]:
            video = str(sentence["video_id"] if "video_id" in sentence else sentence["image_id"])
            found = captions.setdefault(video, [])
            try:
                found.append(one_line(_text(sentence["caption"])))
            except BadRow:
                empty += 1
    except (AttributeError, KeyError, TypeError) as error:
        raise PrepareError(f"{path}: not a dump of MSR-VTT ({type(error).__name__}: {error})") from None
    return Dump(path, captions, splits, empty)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise BadRow("not a text")
    return value
