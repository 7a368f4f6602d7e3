"""Reading annotation files that people and programs have been at: every row is read right or refused.

The csv module alone will not do: it lets an unbalanced quote swallow all rows up to the next quote, accepts
NUL characters, and gives up at the first field that is too long.
"""

import csv
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast, get_args

from svilm.data.prepare import Split

MAX_LINE = 1 << 20
"""Bytes.  No caption is a megabyte long, and a file without line ends must not fill the memory."""
MAX_JOINED = 20
"""Lines that one quoted field may span."""
MAX_SECONDS = 10 * 24 * 3600.0
DELIMITERS = ",;\t|"
LISTS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".pkl", ".pickle")
"""Endings of annotation files."""
LISTED = 5
"""Files of a folder that are named in a message."""

Aliases = Mapping[str, Sequence[str]]
"""Names under which a column may also be found."""
T = TypeVar("T")


class PrepareError(ValueError):
    """Annotation files or videos that no manifest can be made of; the message names the file and the line."""


class BadRow(ValueError):
    """One row that cannot be used: a reason to count by, and the value."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Refusal:
    """A row left out: where it stands, why, and the value that was wrong."""

    place: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table: where it stands, and its values by column."""

    place: str
    values: Mapping[str, Any]

    def text(self, column: str) -> str:
        """The value as text, without blanks around it; "" where the column or the value is not there."""
        value = self.values.get(column)
        if value is None:
            return ""
        if isinstance(value, (dict, list, bool)):
            raise BadRow(f"{column} is not text", shortened(value))
        return str(value).strip()


def convert(rows: Iterable[Row | Refusal], read: Callable[[Row], T]) -> Iterator[T | Refusal]:
    """Each row read by ``read``; refusals pass through, and a row for which it raises BadRow becomes one."""
    for row in rows:
        try:
            yield row if isinstance(row, Refusal) else read(row)
        except BadRow as bad:
            yield Refusal(row.place, bad.reason, bad.detail)


def shortened(value: object) -> str:
    """The value as it may stand in a message: on one line, at most 80 characters."""
    text = value if isinstance(value, str) else repr(value)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 80 else text[:77] + "..."


# Values


def one_line(text: str) -> str:
    """A caption with its white space made single blanks.  Raises BadRow for one that says nothing."""
    words = " ".join(text.split())
    if not re.search(r"[^\W_]", words) or words.lower() in ("nan", "none", "null"):
        raise BadRow("empty caption", shortened(text))
    return _sound(words, "caption")


def file_name(text: str) -> str:
    """A video's name or id.  Raises BadRow for none, and for one with control characters."""
    text = text.strip()
    if not text:
        raise BadRow("no video named")
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise BadRow("control character in the video's name", shortened(text))
    return _sound(text, "video's name")


def _sound(text: str, what: str) -> str:
    if "\0" in text or re.search("[\ud800-\udfff]", text):
        raise BadRow(f"{what} is not valid text", shortened(text))
    return text


def seconds(text: str) -> float:
    """Seconds as written: "12.5", "1:02.5" or "0:01:02.5".  Raises BadRow for anything else."""
    match = re.fullmatch(r"(?:(?:(\d{1,3}):)?(\d{1,2}):)?(\d{1,12}(?:\.\d{0,20})?(?:[eE][+-]?\d\d?)?)", text, re.ASCII)
    if match is None:
        raise BadRow("not a time", shortened(text))
    hours, minutes, rest = (float(part or 0) for part in match.groups())
    value = hours * 3600 + minutes * 60 + rest
    if not (math.isfinite(value) and value <= MAX_SECONDS) or (match[2] and rest >= 60):
        raise BadRow("not a time", shortened(text))
    return value


def microseconds(text: str) -> float:
    """Whole microseconds, as seconds.  Raises BadRow for anything else."""
    if not re.fullmatch(r"\d{1,15}(\.0*)?", text, re.ASCII) or float(text) > MAX_SECONDS * 1e6:
        raise BadRow("not a number of microseconds", shortened(text))
    return float(text) / 1e6


def span(start: str, end: str, unit: Callable[[str], float] = seconds) -> tuple[float | None, float | None]:
    """Start and end in seconds; "" is None, the beginning or the end of the video.

    Raises BadRow unless start < end.
    """
    first = unit(start) if start else None
    last = unit(end) if end else None
    if last is not None and last <= (first or 0.0):
        raise BadRow("end is not after start", shortened(f"{start} to {end}"))
    return first, last


def split_in_name(path: Path) -> Split:
    """The split that a file's name begins a word with, as in "qa_train.json" or "annos_validation.csv".

    Raises PrepareError for a name that says none, or more than one.
    """
    found = set(re.findall(r"(?<![a-z])(train|val|test)", path.stem.lower()))
    for split in get_args(Split):
        if found == {split}:
            return cast(Split, split)
    raise PrepareError(f"{path}: its name does not say which split it is; say so with --split")


# Lines


def existing(path: Path) -> Path:
    """The path of a file that is there.  Raises PrepareError for a folder, with files in it that may be meant."""
    if path.is_dir():
        inside = sorted(file.name for file in path.iterdir() if file.suffix.lower() in LISTS)
        such = f", such as {' or '.join(inside[:LISTED])} in it" if inside else ""
        raise PrepareError(f"{path}: is a folder; give one annotation file{such}")
    if not path.is_file():
        raise PrepareError(f"{path}: no such file")
    return path


def lines(path: Path) -> Iterator[tuple[int, str] | Refusal]:
    """Number and text of each line that is not blank; only "\\n" and "\\r\\n" end a line.

    Raises PrepareError for a file that is not there or empty, and for one whose lines end in "\\r" alone.
    """
    empty = True
    with open(existing(path), "rb") as file:
        number, cut = 0, False
        for piece in iter(lambda: file.readline(MAX_LINE), b""):
            rest_of_line, cut = cut, not piece.endswith(b"\n") and len(piece) == MAX_LINE
            if rest_of_line:
                continue
            number += 1
            if number == 1 and not piece.endswith(b"\n") and b"\r" in piece.rstrip(b"\r"):
                raise PrepareError(
                    f"{path}: its lines end in CR alone, as on old Macs; save it with the line ends LF or CRLF, for "
                    f"instance by tr '\\r' '\\n' < {path.name} > new-{path.name}"
                )
            piece = piece.removeprefix(b"\xef\xbb\xbf") if number == 1 else piece
            if not piece.strip():
                continue
            empty, place = False, f"line {number}"
            if cut:
                yield Refusal(place, "line too long", f"more than {MAX_LINE} bytes")
                continue
            try:
                text = piece.decode("utf-8").removesuffix("\n").removesuffix("\r")
            except UnicodeDecodeError as error:
                yield Refusal(place, "not UTF-8", shortened(piece[max(0, error.start - 20) : error.end + 10]))
                continue
            yield (number, text) if "\0" not in text else Refusal(place, "NUL character", shortened(text))
    if empty:
        raise PrepareError(f"{path}: empty file")


def plain_lines(path: Path, column: str = "line") -> Iterator[Row | Refusal]:
    """Each line of a text file as a row of one column."""
    for line in lines(path):
        yield line if isinstance(line, Refusal) else Row(f"line {line[0]}", {column: line[1]})


def first_line(path: Path) -> tuple[int, str]:
    """Number and text of the first line that is not blank.  Raises PrepareError if it is not readable."""
    line = next(lines(path))
    if isinstance(line, Refusal):
        raise PrepareError(f"{path}: {line.place}: {line.reason} ({line.detail}); save the file as UTF-8 text")
    return line


# CSV


def cells(line: str, delimiter: str) -> list[str] | None:
    """The cells of one csv record; None if a quote is open at its end.  Raises BadRow for stray quotes."""
    if '"' not in line and "\r" not in line:
        return line.split(delimiter)
    physical = [part + "\n" for part in line.split("\n")]
    physical[-1] = physical[-1][:-1]
    try:
        return next(csv.reader(physical, delimiter=delimiter, strict=True))
    except csv.Error as error:
        if "unexpected end" in str(error):
            return None
        raise BadRow("badly quoted", shortened(line)) from None


def sniffed(line: str, fits: Callable[[list[str]], bool]) -> str | None:
    """The first delimiter that cuts the line into cells that fit."""
    for delimiter in DELIMITERS:
        try:
            found = cells(line, delimiter) or cells(line + '"', delimiter)  # its last field may span lines
        except BadRow:
            continue
        if found is not None and fits(found):
            return delimiter
    return None


def csv_rows(path: Path, columns: Sequence[str], delimiter: str, skip: int = 0) -> Iterator[Row | Refusal]:
    """The rows of a csv file below line ``skip``, each with exactly these columns.

    A quoted field may span lines.  But where the quote is never closed, or closed only after whole rows, the
    line that opens it is refused and the lines after it are read as rows of their own.
    """
    queue = _Queue(line for line in lines(path) if isinstance(line, Refusal) or line[0] > skip)
    for line in queue:
        if isinstance(line, Refusal):
            yield line
            continue
        number, text = line
        place = f"line {number}"
        try:
            found, used = cells(text, delimiter), 0
            if found is None:
                found, used = _joined(text, queue.ahead(MAX_JOINED), delimiter, len(columns))
            if len(found) != len(columns):
                wrong = "too few columns" if len(found) < len(columns) else "too many columns"
                raise BadRow(wrong, f"{len(found)} instead of {len(columns)}: {shortened(text)}")
        except BadRow as bad:
            yield Refusal(place, bad.reason, bad.detail)
            continue
        queue.drop(used)
        yield Row(place, dict(zip(columns, found, strict=True)))


def _joined(text: str, ahead: Sequence[tuple[int, str] | Refusal], delimiter: str, width: int) -> tuple[list[str], int]:
    """The record that opens a quote in ``text``, and how many of the lines ahead belong to it."""
    unbalanced = BadRow("unbalanced quote", shortened(text))
    for used, line in enumerate(ahead, start=1):
        if isinstance(line, Refusal) or _is_record(line[1], delimiter, width):
            raise unbalanced
        text += "\n" + line[1]
        found = cells(text, delimiter)
        if found is not None:
            return found, used
    raise unbalanced


def _is_record(line: str, delimiter: str, width: int) -> bool:
    try:
        found = cells(line, delimiter)
    except BadRow:
        return False
    return found is not None and len(found) == width


class _Queue(Iterator[T]):
    """An iterator that one may look ahead in."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items, self._seen = iter(items), list[T]()

    def __next__(self) -> T:
        return self._seen.pop(0) if self._seen else next(self._items)

    def ahead(self, number: int) -> Sequence[T]:
        self._seen += islice(self._items, max(0, number - len(self._seen)))
        return self._seen[:number]

    def drop(self, number: int) -> None:
        del self._seen[:number]


@dataclass(frozen=True)
class Table:
    """A csv file whose first line names its columns, whatever its delimiter and the order of the columns."""

    path: Path
    header_line: int
    delimiter: str
    columns: tuple[str, ...]

    def __iter__(self) -> Iterator[Row | Refusal]:
        return csv_rows(self.path, self.columns, self.delimiter, skip=self.header_line)


def open_table(path: Path, required: Aliases, optional: Aliases = MappingProxyType({})) -> Table:
    """The table in ``path``, its columns named by the keys asked for, whichever alias of them the file uses.

    Case, blanks and punctuation in the header do not matter; of several aliases the first one listed counts.
    Raises PrepareError when the first line does not name every required column.
    """
    number, line = first_line(path)
    wanted = {**required, **optional}

    def keys(header: list[str]) -> dict[int, str]:
        plain = [re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") for name in header]
        found: dict[int, str] = {}
        for key, aliases in wanted.items():
            alias = next((name for name in (key, *aliases) if name in plain), None)
            if alias is not None:
                found.setdefault(plain.index(alias), key)
        return found

    delimiter = sniffed(line, lambda header: set(required) <= set(keys(header).values()))
    if delimiter is None:
        needed = ", ".join(" or ".join((key, *aliases)) for key, aliases in required.items())
        raise PrepareError(
            f"{path}: line {number} must name the columns and reads {shortened(repr(line))}; needed: {needed}"
        )
    header = cells(line, delimiter) or []
    names = keys(header)
    columns = (names.get(i, f"{name.strip()} (column {i + 1})") for i, name in enumerate(header))
    return Table(path, number, delimiter, tuple(columns))
