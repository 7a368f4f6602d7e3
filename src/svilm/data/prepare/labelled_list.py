"""Videos with one class each: a list of "path label", and a csv of id, name that says what the labels mean.

The form in which UCF101, HMDB51, Kinetics and others pass from one code base to the next (train.txt, val1.txt
beside labels.csv).  The label is the last word of a line, so paths may hold blanks, brackets and whatever else
file names hold; it counts from 0 as the ids of the csv do, or is a name of that csv.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated

from svilm.data.class_names import readable
from svilm.data.prepare import Split
from svilm.data.prepare.common import Clip, Listing, PrepareError, Refusal
from svilm.data.prepare.tables import BadRow, Row, convert, existing, file_name, open_table, plain_lines, shortened


def listing(
    annotations: Annotated[str | Path, "train.txt, val1.txt or the like: a path and a label on each line."],
    *,
    labels: Annotated[
        str | Path | None, "Csv of id, name; default: the only *labels*.csv in the folder of the list."
    ] = None,
    split: Annotated[Split | None, "Default: train for a file named train..., test for others."] = None,
) -> Listing:
    """The videos of a list.  Raises PrepareError for a list or a csv of names that is missing or not of the form."""
    path = Path(annotations)
    split = split or ("train" if path.stem.startswith("train") else "test")
    return labelled("labelled-list", path, f"{path.stem} {split}", split, labels=labels)


def labelled(
    source: str,
    path: Path,
    protocol: str,
    split: Split,
    *,
    labels: str | Path | None = None,
    published: int | None = None,
) -> Listing:
    """A list of "path label" as part of a named benchmark; ``listing`` tells the rest."""
    existing(path)
    classes = read_classes(Path(labels) if labels else _labels_beside(path))
    return Listing(
        source,
        path,
        partial(_clips, path, classes),
        protocol,
        split,
        published=published,
        nouns=False,
        classes=classes,
    )


def labelled_clip(video: str, label: str, place: str) -> Clip:
    """A video at ``video``, a path of which the folders may be missing on disk, that shows one class."""
    names = tuple(dict.fromkeys((video, PurePosixPath(video).name)))
    return Clip(video, names, (readable(label),), place, labels=(label,))


def read_classes(path: Path) -> tuple[str, ...]:
    """The names of a csv of id, name in the order of the ids, which count from 0.

    Raises PrepareError for a file without these columns, a refused row, and ids or names that leave a doubt.
    """
    names: dict[int, str] = {}
    for row in open_table(path, {"id": ("label", "class_id", "index"), "name": ("class", "class_name")}):
        if isinstance(row, Refusal):
            raise PrepareError(f"{path}: {row.place}: {row.reason} ({row.detail})")
        number, name = row.text("id"), row.text("name")
        if not re.fullmatch(r"\d{1,6}", number, re.ASCII) or not name:
            raise PrepareError(f"{path}: {row.place}: needs an id and a name, got {number!r} and {name!r}")
        if int(number) in names or name in names.values():
            raise PrepareError(f"{path}: {row.place}: id {number} or name {name!r} occurs twice")
        names[int(number)] = name
    if sorted(names) != list(range(len(names))):
        raise PrepareError(f"{path}: ids must count from 0 to {len(names) - 1}, got {min(names)} to {max(names)}")
    return tuple(names[number] for number in range(len(names)))


def path_and_label(line: str) -> tuple[str, str]:
    """The two parts of a line, cut at its last blank, tab, comma or semicolon.  Raises BadRow for one part."""
    match = re.fullmatch(r"(.*[^\s,;])[\s,;]+([^\s,;]+)", line.strip())
    if match is None:
        raise BadRow("not a path and a label", shortened(line))
    return match[1], match[2]


def _labels_beside(path: Path) -> Path:
    found = sorted(path.parent.glob("*labels*.csv"))
    if len(found) != 1:
        there = ", ".join(file.name for file in found) or "none"
        raise PrepareError(f"{path}: needs the csv of its labels (id,name); beside it: {there}; give one by --labels")
    return found[0]


def _clips(path: Path, classes: Sequence[str]) -> Iterator[Clip | Refusal]:
    return convert(plain_lines(path), partial(_clip, {name: name for name in classes}, classes))


def _clip(names: Mapping[str, str], classes: Sequence[str], row: Row) -> Clip:
    video, label = path_and_label(row.text("line"))
    if re.fullmatch(r"\d{1,6}", label, re.ASCII):
        label = classes[int(label)] if int(label) < len(classes) else ""
    if label not in names:
        raise BadRow(f"no class of the {len(classes)} in the csv", shortened(row.text("line")))
    return labelled_clip(file_name(video), label, row.place)
