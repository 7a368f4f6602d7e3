"""HMDB51: testTrainMulti_7030_splits/{class}_test_split{1,2,3}.txt, or lists of "path label" with a csv of names.

Each line is a file name and 1 (train, 70 of a class), 2 (test, 30) or 0 (not used).  The classes are the names of
these files, sorted.  File names hold [ ] ! ( ) # and the like, and are taken as they are.
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from svilm.data.prepare.common import Clip, Listing, PrepareError, Refusal
from svilm.data.prepare.labelled_list import labelled, labelled_clip, path_and_label
from svilm.data.prepare.tables import BadRow, Row, convert, file_name, plain_lines, shortened
from svilm.data.prepare.ucf101 import generic_list

PUBLISHED = {"train": 3570, "test": 1530}
"""Videos in each fold."""
USES = {"0": "", "1": "train", "2": "test"}
FOLDERS = ("", "testTrainMulti_7030_splits", "test_train_splits/testTrainMulti_7030_splits")
"""Where the archives keep their files."""


def listing(
    annotations: Annotated[str | Path, "Folder of the 153 lists {class}_test_split{fold}.txt (or of val1.txt ...)."],
    *,
    fold: Annotated[int, "Which of the three splits: 1, 2 or 3."] = 1,
    split: Annotated[Literal["train", "test"], "Which part of the fold."] = "test",
) -> Listing:
    """One part of a fold.  Raises PrepareError for a fold there is not, and for a folder without its lists."""
    root = Path(annotations)
    if fold not in (1, 2, 3):
        raise PrepareError(f"HMDB51 has folds 1, 2 and 3, no {fold}")
    protocol, published = f"hmdb51 fold {fold} {split}", PUBLISHED[split]
    suffix = f"_test_split{fold}.txt"
    lists = next((found for name in FOLDERS if (found := sorted((root / name).glob(f"*{suffix}")))), [])
    if not lists:
        path = generic_list(root, fold, split, f"*{suffix}")
        return labelled("hmdb51", path, protocol, split, published=published)
    classes = tuple(path.name.removesuffix(suffix) for path in lists)
    return Listing(
        "hmdb51",
        lists[0].parent,
        partial(_clips, lists, classes, split),
        protocol,
        split,
        published=published,
        nouns=False,
        classes=classes,
    )


def _clips(lists: Sequence[Path], classes: Sequence[str], split: str) -> Iterator[Clip | Refusal]:
    for path, label in zip(lists, classes, strict=True):
        for clip in convert(_rows(path), partial(_clip, label, split)):
            if clip is not None:
                yield clip


def _rows(path: Path) -> Iterator[Row | Refusal]:
    """The lines of one of many lists, with its name in their place."""
    for row in plain_lines(path):
        place = f"{path.name}, {row.place}"
        yield Refusal(place, row.reason, row.detail) if isinstance(row, Refusal) else Row(place, row.values)


def _clip(label: str, split: str, row: Row) -> Clip | None:
    """A video of the split; None for one of the others."""
    name, use = path_and_label(row.text("line"))
    if use not in USES or not re.search(r"\w", name):
        raise BadRow("not a file and 0, 1 or 2", shortened(row.text("line")))
    return labelled_clip(f"{label}/{file_name(name)}", label, row.place) if USES[use] == split else None
