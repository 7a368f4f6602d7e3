"""Reading JSON annotation files strictly: no duplicate keys, no NaN, and none too large for the memory."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from svilm.data.prepare.tables import PrepareError, Refusal, Row, existing, lines, shortened
from svilm.data.strict import DECODER, NotStrict, parse

PIECE = 1 << 20
"""Characters read at once."""
MAX_VALUE = 1 << 28
"""Characters of one value, for instance all captions of a video."""


def load_json(path: Path) -> Any:
    """The whole file.  Raises PrepareError if it is missing, not UTF-8 or not strict JSON."""
    with _opened(path) as file:
        return parse(file.read().strip())


def json_rows(path: Path) -> Iterator[Row | Refusal]:
    """The objects of a JSON Lines file, one per line; a line that is anything else is refused."""
    for line in lines(path):
        if isinstance(line, Refusal):
            yield line
            continue
        place = f"line {line[0]}"
        try:
            value = parse(line[1].strip())
        except (ValueError, RecursionError) as error:
            yield Refusal(place, "not JSON", shortened(str(error) or "nested too deep"))
            continue
        yield (Row(place, value) if isinstance(value, dict) else Refusal(place, "not an object", shortened(value)))


def json_objects(path: Path) -> Iterator[Row | Refusal]:
    """The objects of a file that is one JSON list or JSON Lines, whichever it is; any other value is refused."""
    with open(existing(path), "rb") as file:
        is_list = file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    if not is_list:
        yield from json_rows(path)
        return
    for number, value in enumerate(load_json(path), start=1):
        place = f"item {number}"
        yield (Row(place, value) if isinstance(value, dict) else Refusal(place, "not an object", shortened(value)))


def json_items(path: Path) -> Iterator[tuple[str, Any]]:
    """Key and value of each item of the object that is the whole file, without ever holding all of it.

    HowTo100M's captions are ten gigabytes in one object.  Raises PrepareError as ``load_json`` does.
    """
    with _opened(path) as file:
        window = _Window(file)
        window.expect("{")
        mark = window.expect("}") if window.peek() == "}" else ","
        seen = set[int]()  # hashes, of which a million take less room than of keys
        while mark == ",":
            key = window.value()
            if not isinstance(key, str):
                raise NotStrict(f"{shortened(key)} cannot be a key")
            if hash(key) in seen:
                raise NotStrict(f"key {shortened(key)!r} occurs twice in one object")
            seen.add(hash(key))
            window.expect(":")
            yield key, window.value()
            mark = window.expect(",}")
        if window.peek():
            raise NotStrict("there is more after the end of the object")


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """The file, with everything that may be wrong about it told as a PrepareError."""
    existing(path)
    try:
        with open(path, encoding="utf-8-sig") as file:
            yield file
    except UnicodeDecodeError as error:
        raise PrepareError(f"{path}: {_first_bad_line(path)}not UTF-8 ({error.reason})") from None
    except RecursionError:
        raise PrepareError(f"{path}: nested too deep") from None
    except PrepareError:
        raise
    except ValueError as error:  # NotStrict, JSONDecodeError, or a number with thousands of digits
        raise PrepareError(f"{path}: not the JSON that is wanted: {error}") from None


def _first_bad_line(path: Path) -> str:
    """The line that is not UTF-8, as messages begin."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return f"line {number}: "
    return ""


class _Window:
    """The part of a JSON text that is being read."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._text, self._at, self._before = file, "", 0, 0

    def _more(self) -> bool:
        """Let go of what was read and add as much again; False at the end of the file."""
        if len(self._text) - self._at > MAX_VALUE:
            raise NotStrict(f"the value at character {self._before + self._at} has no end")
        piece = self._file.read(max(PIECE, len(self._text)))
        self._before += self._at
        self._text, self._at = self._text[self._at :] + piece, 0
        return piece != ""

    def peek(self) -> str:
        """The next character that is not blank, "" at the end."""
        while True:
            while self._at < len(self._text):
                if not self._text[self._at].isspace():
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def expect(self, marks: str) -> str:
        """Step over one of these characters."""
        mark = self.peek()
        if not mark or mark not in marks:
            found = repr(mark) if mark else "the end of the file"
            raise NotStrict(f"expected {' or '.join(marks)} at character {self._before + self._at}, found {found}")
        self._at += 1
        return mark

    def value(self) -> Any:
        """The next value whole."""
        self.peek()
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._at)
            except NotStrict as error:
                raise NotStrict(f"{error}, in the value at character {self._before + self._at}") from None
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos > len(self._text) - 16
                if not (cut and self._more()):
                    raise NotStrict(f"{error.msg} at character {self._before + error.pos}") from None
            else:
                length = end - self._at
                if end + 4 < len(self._text) or not self._more():  # "1.5e" may be the first part of 1.5e+30
                    self._at += length
                    return value
