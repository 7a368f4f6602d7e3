"""MSVD: raw-captions.pkl, or AllVideoDescriptions.txt, with all captions, and train_list.txt and its siblings.

The captions of a video, up to 81, are one entry: training draws one of them, testing asks with each. A text file
has a caption per line after the video's name; a json file has a list of captions by video. A pickle may hold plain
lists and texts only, because reading any other one would run whatever its author wrote into it.
"""

import pickle
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

from svilm.data.prepare import Split
from svilm.data.prepare.common import Clip, Listing, PrepareError, Refusal
from svilm.data.prepare.jsons import load_json
from svilm.data.prepare.tables import BadRow, Row, convert, existing, file_name, one_line, plain_lines, shortened

VIDEOS: Mapping[Split, int] = {"train": 1200, "val": 100, "test": 670}
CAPTIONS = ("raw-captions.pkl", "captions.json", "AllVideoDescriptions.txt")


def listing(
    annotations: Annotated[str | Path, "Folder of train_list.txt, val_list.txt, test_list.txt and the captions."],
    *,
    captions: Annotated[str | Path | None, "File of the captions (.pkl, .json, .txt), if called otherwise."] = None,
    split: Annotated[Split, "Which of the lists."] = "train",
) -> Listing:
    """The videos of one list with all their captions.  Raises PrepareError for files missing or of another form."""
    root = Path(annotations)
    path = Path(captions) if captions is not None else _find(root)
    told, empty = _captions(path)
    return Listing(
        "msvd",
        root / f"{split}_list.txt",
        partial(_clips, root / f"{split}_list.txt", told, path.name),
        f"msvd {split}, every caption",
        split,
        published=VIDEOS[split],
        notes=(f"{empty} empty captions left out of {path.name}",) if empty else (),
    )


def _find(root: Path) -> Path:
    found = next((root / name for name in CAPTIONS if (root / name).is_file()), None)
    if found is None:
        raise PrepareError(f"{root}: no {' or '.join(CAPTIONS)} in this folder; give the captions with --captions")
    return found


def _clips(path: Path, told: Mapping[str, Sequence[str]], source: str) -> Iterator[Clip | Refusal]:
    def clip(row: Row) -> Clip:
        video = file_name(row.text("video")).removesuffix(".avi")
        if not told.get(video):
            raise BadRow(f"no caption in {source}", video)
        return Clip(video, (video,), tuple(told[video]), row.place)

    return convert(plain_lines(path, "video"), clip)


# The captions


def _captions(path: Path) -> tuple[dict[str, list[str]], int]:
    """The captions by video, and how many said nothing and were left out."""
    found: dict[str, list[str]] = {}
    empty = 0
    for video, text in _texts(path):
        told = found.setdefault(video, [])
        try:
            told.append(one_line(text))
        except BadRow:
            empty += 1
    return found, empty


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    """Video and caption."""
    if path.suffix == ".txt":
        for row in plain_lines(path):
            if isinstance(row, Refusal):
                raise PrepareError(f"{path}: {row.place}: {row.reason} ({row.detail})")
            line = row.text("line")
            if not line.startswith("#"):
                video, _, text = line.partition("\t" if "\t" in line else " ")
                yield video, text
        return
    data = load_json(path) if path.suffix == ".json" else _plain_pickle(path)
    if not isinstance(data, dict):
        raise PrepareError(f"{path}: not a list of captions for each video: {shortened(data)}")
    for video, texts in data.items():
        if not isinstance(video, str) or not isinstance(texts, (list, tuple)):
            raise PrepareError(f"{path}: not a list of captions for each video: {shortened({video: texts})}")
        for text in texts:
            words = [text] if isinstance(text, str) else text
            if not isinstance(words, (list, tuple)) or not all(isinstance(word, str) for word in words):
                raise PrepareError(f"{path}: {shortened(video)}: a caption that is no text: {shortened(text)}")
            yield video, " ".join(words)


class _PlainUnpickler(pickle.Unpickler):
    """Reads texts, numbers, lists, tuples and dictionaries, which need no code; refuses everything that does."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it wants to load {shortened(f'{module}.{name}')}")


def _plain_pickle(path: Path) -> Any:
    with open(existing(path), "rb") as file:
        try:
            return _PlainUnpickler(file, encoding="utf-8").load()
        except Exception as error:  # noqa: BLE001  # a damaged pickle can raise nearly anything
            raise PrepareError(f"{path}: not a pickle of plain lists and texts ({error})") from None
