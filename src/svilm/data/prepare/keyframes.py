"""Keyframes as AVA names them, and the files of person boxes that detectors have found in them.

Two kinds of such files circulate: a csv like AVA's own with the score in column 8, and a pickle of
{"video,0902": array of N x 5}.  A pickle can run any program when it is read; here it may make arrays and nothing
else.
"""

import math
import pickle
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from svilm.data.prepare.tables import (
    BadRow,
    PrepareError,
    Refusal,
    Row,
    convert,
    existing,
    file_name,
    lines,
    seconds,
    shortened,
)
from svilm.entries import LabelledBox

Box = tuple[float, float, float, float]


class Keyframe(NamedTuple):
    """A picture by the id of its video and its time there, in seconds."""

    video: str
    seconds: float

    def __str__(self) -> str:
        """As files name it: "-5KQ66BBWC4,0902"."""
        whole = self.seconds == int(self.seconds)
        return f"{self.video},{self.seconds:04.0f}" if whole else f"{self.video},{self.seconds:g}"


@dataclass
class PersonBoxes:
    """What a detector found, by keyframe, and how many boxes were left out, by reason."""

    found: dict[Keyframe, list[LabelledBox]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, keyframe: Keyframe, corners: Sequence[float], score: float, labels: tuple[str, ...] = ()) -> None:
        """Keep a box, cut to the picture; one that is not in it, or has no sound score, is counted only."""
        left, top, right, bottom = (min(max(float(value), 0.0), 1.0) for value in corners)
        if not (left < right and top < bottom):
            self.left_out["empty or outside the picture"] += 1
        elif not 0 <= score <= 1:
            self.left_out["score not from 0 to 1"] += 1
        else:
            box = LabelledBox((left, top, right, bottom), labels, score, "detector")
            self.found.setdefault(keyframe, []).append(box)


@lru_cache(maxsize=1024)  # the rows of a keyframe follow one another
def keyframe(video: str, timestamp: str) -> Keyframe:
    """What two cells of a file name; 902, 0902 and 902.0 are the same.  Raises BadRow for anything else."""
    return Keyframe(file_name(video), seconds(timestamp.strip()))


def keyframe_rows(path: Path, widths: Sequence[int]) -> Iterator[Row | Refusal]:
    """The rows of a csv without a header as lists of "cells", each as many as one of the ``widths``."""
    for line in tqdm(lines(path), path.name, unit="row", leave=False, delay=1):
        if isinstance(line, Refusal):
            yield line
            continue
        found = [cell.strip() for cell in line[1].split(",")]
        if len(found) in widths:
            yield Row(f"line {line[0]}", {"cells": found})
        else:
            allowed = " or ".join(str(width) for width in widths)
            yield Refusal(f"line {line[0]}", f"not {allowed} columns", shortened(line[1]))


def numbers(texts: Sequence[str]) -> list[float]:
    """The cells as finite numbers.  Raises BadRow where one is not."""
    try:
        values = [float(text) for text in texts]
    except ValueError:
        raise BadRow("not numbers", shortened(",".join(texts))) from None
    if not all(map(math.isfinite, values)):
        raise BadRow("not numbers", shortened(",".join(texts)))
    return values


def read_person_boxes(path: Path, wanted: Container[Keyframe]) -> PersonBoxes:
    """The boxes of a detector in the wanted keyframes, from a csv or a pickle.

    Raises PrepareError for a file that is missing or of neither form.
    """
    existing(path)
    boxes = PersonBoxes()
    read = _read_pickle if path.suffix in (".pkl", ".pickle") else _read_csv
    for key, values, score, labels in read(path, boxes.left_out):
        if key in wanted:
            boxes.add(key, values, score, labels)
    return boxes


_Detection = tuple[Keyframe, Sequence[float], float, tuple[str, ...]]
_BROKEN = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    SystemError,
    TypeError,
    ValueError,
)
"""What reading a broken pickle may raise."""


def _read_csv(path: Path, left_out: Counter[str]) -> Iterator[_Detection]:
    """Rows of video, timestamp, x1, y1, x2, y2, action (mostly empty), score."""
    sound = False
    for found in convert(keyframe_rows(path, (8,)), _detection):
        if isinstance(found, Refusal):
            left_out[found.reason] += 1
        else:
            sound = True
            yield found
    if not sound:
        raise PrepareError(
            f"{path}: no row of video, timestamp, x1, y1, x2, y2, action (or nothing), score; "
            + ", ".join(f"{count} x {reason}" for reason, count in left_out.items())
        )


def _detection(row: Row) -> _Detection:
    video, timestamp, *corners, action, score = row.values["cells"]
    labels = () if action in ("", "-1") else (action,)
    return keyframe(video, timestamp), numbers(corners), numbers([score])[0], labels


def _read_pickle(path: Path, left_out: Counter[str]) -> Iterator[_Detection]:
    """{"video,0902": array of x1, y1, x2, y2, score}; without a score a box counts as sure."""
    try:
        with open(path, "rb") as file:
            data = _ArraysOnly(file, encoding="latin1").load()
    except _BROKEN as error:
        raise PrepareError(f"{path}: not a pickle of arrays only: {shortened(str(error))}") from None
    if not isinstance(data, dict):
        raise PrepareError(f"{path}: must hold an object of arrays by keyframe, holds {type(data).__name__}")
    for name, found in data.items():
        video, comma, timestamp = str(name).rpartition(",")
        try:
            key = keyframe(video, timestamp) if comma else None
        except BadRow:
            key = None
        array = isinstance(found, np.ndarray) and found.ndim == 2 and found.dtype.kind == "f"
        if key is None or not array or found.shape[1] not in (4, 5):
            raise PrepareError(
                f'{path}: needs "video,timestamp" with an array of N x 5 numbers, has {shortened(name)!r} '
                f"with {shortened(found)}"
            )
        for row in found.tolist():
            if not all(map(math.isfinite, row)):
                left_out["not numbers"] += 1
                continue
            yield key, row[:4], row[4] if len(row) == 5 else 1.0, ()


def _latin1(text: str, encoding: str) -> bytes:
    """What old pickles of arrays call to turn text into bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"encodes by {encoding!r}")
    return text.encode("latin1")


class _ArraysOnly(pickle.Unpickler):
    """Reads numbers, texts, lists, dicts and numpy arrays, and refuses all else by name."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core", "numpy.core")  # it moved with numpy 2
        known = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy.core.numeric", "_frombuffer"): np.empty(1).__reduce_ex__(5)[0],
            ("_codecs", "encode"): _latin1,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}; save the boxes as a csv instead")
        return known[module, name]
