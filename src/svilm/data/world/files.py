"""Writing files that have the same bytes everywhere."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """UTF-8 with plain line ends."""
    path.write_text(text, encoding="utf-8", newline="\n")


def write_lines(path: Path, texts: Iterable[str]) -> None:
    """Each text with a line end."""
    write_text(path, "".join(f"{text}\n" for text in texts))


def write_json(path: Path, data: object) -> None:
    """One JSON value, readable."""
    write_text(path, json.dumps(data, ensure_ascii=False, indent=1) + "\n")


def write_json_lines(path: Path, rows: Iterable[object]) -> None:
    """JSON Lines."""
    write_lines(path, (json.dumps(row, ensure_ascii=False) for row in rows))


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Comma separated, quoted where needed."""
    with open(path, "w", encoding="utf-8", newline="") as out:
        csv.writer(out, lineterminator="\n").writerows(rows)
