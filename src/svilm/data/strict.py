"""JSON without what Python's reader lets pass: a key twice in one object, NaN and infinity, halves of characters."""

import json
import math
import re
from typing import Any

_HALF = re.compile(r"\\u[dD][89a-fA-F]")


class NotStrict(ValueError):
    """Something that Python's reader would let pass."""


def parse(text: str) -> Any:
    """The value of a JSON text.  Raises ValueError (RecursionError where it is nested too deep) for anything else."""
    value = DECODER.decode(text)
    if _HALF.search(text):  # two of them may be one character: writing them tells
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise NotStrict(f"{error.object[error.start]!a} is half a character") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):  # the last one would win, and with it a value that nobody checked
        double = next(key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1)
        raise NotStrict(f"key {ascii(double)[:80]} occurs twice in one object")
    return found


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise NotStrict(f"{digits[:80]} is too large for a number")
    return number


def _no_constant(name: str) -> float:
    raise NotStrict(f"{name} is not a number")


DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant)
