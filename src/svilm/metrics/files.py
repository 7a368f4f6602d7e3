"""Reading the files that the evaluators judge: what is wrong is told with the file and the place."""

import csv
import gc
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from svilm.arrays import read_arrays as plain_arrays


class ScoreFileError(ValueError):
    """A file that cannot be judged; the message names the file, the place and what is wanted."""


def read_json(path: str | Path) -> Any:
    """The whole file.  Raises ScoreFileError if it is missing, no JSON, or an object has a key twice."""
    return _decoded(_text(path), f"{path}")


def read_json_lines(path: str | Path) -> list[Any]:
    """The values of a JSON Lines file, blank lines left out.  Raises ScoreFileError as `read_json` does."""
    return [_decoded(line, f"{path}: line {number}") for number, line in read_lines(path)]


def read_lines(path: str | Path) -> list[tuple[int, str]]:
    """Number and text of each line that is not blank.  Raises ScoreFileError for a file that is missing or no text."""
    lines = enumerate(_text(path).split("\n"), start=1)
    return [(number, line.rstrip("\r")) for number, line in lines if line.strip()]


def read_names(path: str | Path) -> list[str]:
    """Names, each once: a JSON list, the keys of a JSON object, or one per line.

    Raises ScoreFileError for none, for one that is no text, and for one that occurs twice.
    """
    lines = [line.strip() for _, line in read_lines(path)]
    found = read_json(path) if lines and lines[0][0] in "[{" else lines
    if not found:
        raise ScoreFileError(f"{path}: no name in it")
    seen: set[str] = set()
    for index, name in enumerate(found):
        if not isinstance(name, str) or name in seen:
            wrong = "occurs twice" if isinstance(name, str) else "is no text"
            raise ScoreFileError(f"{path}: entry {index}, {shortened(name)}, {wrong}")
        seen.add(name)
    return list(found)


def read_csv(path: str | Path, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row that is not blank.  Raises ScoreFileError for what is no csv."""
    try:
        with open(_existing(path), encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            try:
                for row in reader:
                    if row:
                        yield reader.line_num, row
            except csv.Error as error:
                raise ScoreFileError(f"{path}: line {reader.line_num}: {error}") from None
    except UnicodeDecodeError as error:
        raise ScoreFileError(f"{path}: not UTF-8 text ({error.reason})") from None


def read_arrays(path: str | Path, required: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The arrays of an npz file; ``required`` says of each needed name what it is.  Never unpickles."""
    needed = ", ".join(f"{name} ({meaning})" for name, meaning in required.items())
    try:
        arrays = plain_arrays(_existing(path))
    except ValueError as error:
        raise ScoreFileError(f"{path}: not an npz of plain arrays ({error}); needed: {needed}") from None
    if "" in arrays:
        raise ScoreFileError(f"{path}: one bare array; needed is an npz of {needed}")
    missing = [name for name in required if name not in arrays]
    if missing:
        raise ScoreFileError(f"{path}: no array {missing[0]!r} among {list(arrays)}; needed: {needed}")
    return arrays


def finite(text: str, place: str, field: str) -> float:
    """The number that ``text`` stands for.  Raises ScoreFileError for anything else, NaN and infinity included."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ScoreFileError(f"{place}: {field} is {text!r}, must be a finite number")
    return value


def whole(text: str, place: str, field: str) -> int:
    """The whole number that ``text`` stands for.  Raises ScoreFileError for anything else."""
    try:
        return int(text)
    except ValueError:
        raise ScoreFileError(f"{place}: {field} is {text!r}, must be a whole number") from None


def shortened(value: object) -> str:
    """The value as it may stand in a message."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _existing(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise ScoreFileError(f"{path}: no such file")
    return Path(path)


def _text(path: str | Path) -> str:
    try:
        return _existing(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ScoreFileError(f"{path}: not UTF-8 text ({error.reason})") from None


def _decoded(text: str, place: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):  # the last one would win, and nobody would know of the others
            names = [name for name, _ in pairs]
            double = next(name for name in names if names.count(name) > 1)
            raise ScoreFileError(f"{place}: key {double!r} occurs twice in one object")
        return found

    collecting = gc.isenabled()
    gc.disable()  # it would look through a growing million of objects again and again: half of the time
    try:
        return json.loads(text, object_pairs_hook=unique)
    except ScoreFileError:
        raise
    except (ValueError, RecursionError) as error:
        raise ScoreFileError(f"{place}: not JSON ({error})") from None
    finally:
        if collecting:
            gc.enable()
