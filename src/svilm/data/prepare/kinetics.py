"""Kinetics 400, 600 and 700: the official csv of label, youtube_id, time_start, time_end, split.

The videos are clips already, {id}_{start:06d}_{end:06d}.mp4 in a folder per class (blanks or underscores in its
name) or in one.  Copies differ in which clips they still have, so say how many were scored: the summary does.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

from svilm.data.class_names import readable
from svilm.data.prepare import Split
from svilm.data.prepare.common import Clip, Listing, PrepareError, Refusal
from svilm.data.prepare.tables import BadRow, Row, Table, convert, file_name, open_table, seconds, shortened

REQUIRED = {"label": ("class",), "youtube_id": ("id",), "time_start": ("start",), "time_end": ("end",)}


def listing(
    annotations: Annotated[str | Path, "train.csv, val.csv (validate.csv) or test.csv with its labels."],
    *,
    classes_from: Annotated[
        str | Path | None, "Csv whose labels are the classes, such as train.csv; default: the list itself."
    ] = None,
    split: Annotated[Split | None, "Default: train for a file whose name has train in it, test for others."] = None,
) -> Listing:
    """The clips of one csv, classes in sorted order.  Raises PrepareError for a csv that is missing, has other
    columns or no labels."""
    table = open_table(Path(annotations), REQUIRED)
    source = open_table(Path(classes_from), {"label": ("class",)}) if classes_from else table
    classes = tuple(sorted({row.text("label") for row in source if isinstance(row, Row)} - {""}))
    if not classes:
        raise PrepareError(f"{source.path}: no labels; the test lists of some releases have none, take val.csv")
    split = split or ("train" if "train" in table.path.stem else "test")
    return Listing(
        "kinetics",
        table.path,
        partial(_clips, table, frozenset(classes)),
        f"kinetics-{len(classes)} {table.path.stem}",
        split,
        nouns=False,
        classes=classes,
    )


def _clips(table: Table, classes: frozenset[str]) -> Iterator[Clip | Refusal]:
    return convert(table, partial(_clip, classes))


def _clip(classes: frozenset[str], row: Row) -> Clip:
    label, video = row.text("label"), file_name(row.text("youtube_id"))
    if label not in classes:
        raise BadRow("no label" if not label else "label is none of the classes", shortened(label or video))
    start, end = _whole(row, "time_start"), _whole(row, "time_end")
    if end <= start:
        raise BadRow("end is not after start", f"{video}: {start} to {end}")
    name = f"{video}_{start:06d}_{end:06d}"
    folders = dict.fromkeys((label.replace(" ", "_"), label))
    return Clip(
        name, (*(f"{folder}/{name}" for folder in folders), name), (readable(label),), row.place, labels=(label,)
    )


def _whole(row: Row, column: str) -> int:
    """Whole seconds; only they name a file."""
    text = row.text(column)
    if not re.fullmatch(r"\d+(\.0*)?", text, re.ASCII):
        raise BadRow(f"{column} is not whole seconds", shortened(text))
    return int(seconds(text))
