"""UCF101: classInd.txt with trainlist0N.txt and testlist0N.txt, or lists of "path label" with a csv of names.

Three folds; papers report fold 1 or the mean of all three.  The class is the folder of a path, never its file
name: the videos of HandstandPushups are called v_HandStandPushups_*.
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from svilm.data.prepare.common import Clip, Listing, PrepareError, Refusal
from svilm.data.prepare.labelled_list import labelled, labelled_clip
from svilm.data.prepare.tables import BadRow, Row, convert, file_name, plain_lines, shortened

PUBLISHED = {"train": (9537, 9586, 9624), "test": (3783, 3734, 3696)}
"""Videos in folds 1, 2 and 3."""
FOLDERS = ("", "ucfTrainTestlist", "annotation", "annotations")
"""Where the archives keep their files."""


def listing(
    annotations: Annotated[str | Path, "Folder of classInd.txt, trainlist01.txt ... (or train1.txt, val1.txt ...)."],
    *,
    fold: Annotated[int, "Which of the three splits: 1, 2 or 3."] = 1,
    split: Annotated[Literal["train", "test"], "Which part of the fold."] = "test",
) -> Listing:
    """One list of a fold.  Raises PrepareError for a fold there is not, and for files that are missing or not of
    the form."""
    root = Path(annotations)
    if fold not in (1, 2, 3):
        raise PrepareError(f"UCF101 has folds 1, 2 and 3, no {fold}")
    protocol, published = f"ucf101 fold {fold} {split}", PUBLISHED[split][fold - 1]
    folder = next((root / name for name in FOLDERS if (root / name / "classInd.txt").is_file()), None)
    if folder is None:
        path = generic_list(root, fold, split, "classInd.txt")
        return labelled("ucf101", path, protocol, split, published=published)
    classes = _classes(folder / "classInd.txt")
    path = folder / f"{split}list0{fold}.txt"
    if not path.is_file():
        raise PrepareError(f"{path}: no such file")
    return Listing(
        "ucf101",
        path,
        partial(_clips, path, classes),
        protocol,
        split,
        published=published,
        nouns=False,
        classes=tuple(classes),
    )


def generic_list(root: Path, fold: int, split: Literal["train", "test"], official: str) -> Path:
    """The list of "path label" of a fold in a folder that has no ``official`` file.  Raises PrepareError for none."""
    names = [f"train{fold}.txt", "train.txt"] if split == "train" else [f"val{fold}.txt", f"test{fold}.txt"]
    found = next((root / name for name in names if (root / name).is_file()), None)
    if found is None:
        raise PrepareError(f"{root}: neither {official} nor {' or '.join(names)} in this folder")
    return found


def _classes(path: Path) -> dict[str, int]:
    """Number of each class, from 1, in order."""
    classes: dict[str, int] = {}
    for row in plain_lines(path):
        match = None if isinstance(row, Refusal) else re.fullmatch(r"(\d+)\s+(\S+)", row.text("line"), re.ASCII)
        if match is None or int(match[1]) != len(classes) + 1 or match[2] in classes:
            text = row.reason if isinstance(row, Refusal) else shortened(row.text("line"))
            raise PrepareError(f"{path}: {row.place} must be {len(classes) + 1} and a new class, got {text!r}")
        classes[match[2]] = int(match[1])
    return classes


def _clips(path: Path, classes: Mapping[str, int]) -> Iterator[Clip | Refusal]:
    return convert(plain_lines(path), partial(_clip, classes))


def _clip(classes: Mapping[str, int], row: Row) -> Clip:
    """A line "Class/v_....avi", in a training list followed by the number of the class."""
    match = re.fullmatch(r"(.+?)(?:\s+(\d+))?", row.text("line"), re.ASCII)
    video = file_name(match[1] if match else "")
    folder, _, name = video.rpartition("/")
    label = folder.rpartition("/")[2]
    if label not in classes or not name:
        raise BadRow("its folder is no class of classInd.txt", shortened(video))
    if match and match[2] and int(match[2]) != classes[label]:
        raise BadRow("folder and number are two classes", shortened(row.text("line")))
    return labelled_clip(video, label, row.place)
