"""What an index is, on disk: what it was made with, what it knows of its videos, and the journal of work under way.

index.json     model, splitting, store: what must stay the same from run to run
videos.jsonl   one line per video: what is known of it, or why it could not be indexed
journal/       what is encoded but not in the store yet; a line commits a video, so a killed run loses one at most
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from svilm.search.records import IndexedVideo
from svilm.search.store import Rows

VERSION = 1
ABOUT, VIDEOS, JOURNAL = "index.json", "videos.jsonl", "journal"


@dataclass(frozen=True)
class Failure:
    """A file that could not be indexed."""

    video: str
    size: int
    modified: int
    reason: str
    """A word to count by (as in ``container.Reason``), a colon, and a sentence."""


Known = IndexedVideo | Failure


@dataclass(frozen=True)
class About:
    """What an index was made with."""

    id: str
    """Tells it from other indexes in one database."""
    root: str
    """Folder of the videos, absolute."""
    model: str
    """Name of the model, as it was given (folders absolute)."""
    weights: str
    """Fingerprint of its video side."""
    width: int
    """Numbers of a vector."""
    grounds: bool
    """Whether the model can say where a noun is."""
    watching: Mapping[str, Any]
    """How the model watches videos."""
    splitting: Mapping[str, Any]
    """How videos are cut into moments."""
    store: str

    def differs(self, other: "About") -> list[str]:
        """In words, what keeps vectors of the other one out of this index."""
        free = {"id", "root", "model"}
        pairs = ((f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self) if f.name not in free)
        return [f"{name} {here}, not {there}" for name, here, there in pairs if here != there]


def read_about(folder: Path) -> About | None:
    """What index.json says, None where there is none.  Raises ValueError for another version or form."""
    path = folder / ABOUT
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("svilm_index") != VERSION:
            raise ValueError("another version")
        return About(**data)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not made by this `svilm index` ({error!r}); index the videos again") from None


def write_about(folder: Path, about: About) -> None:
    """Write index.json, whole or not at all."""
    _write(folder / ABOUT, json.dumps({"svilm_index": VERSION, **asdict(about)}, indent=1) + "\n")


def read_videos(folder: Path) -> dict[str, Known]:
    """All videos of an index by name, those that failed among them.  Raises ValueError for a file of another form."""
    path = folder / VIDEOS
    if not path.is_file():
        return {}
    known = {}
    for number, line in enumerate(path.read_text(encoding="ascii").splitlines(), start=1):
        try:
            one = _known(json.loads(line))
        except (TypeError, ValueError, AttributeError, RecursionError):
            raise ValueError(f"{path}: line {number} is no video of an index; index the videos again") from None
        known[one.video] = one
    return known


def stamp_of_videos(folder: Path) -> tuple[int, ...]:
    """Something that is another when the videos of an index were written again; () where none were."""
    try:
        status = os.stat(folder / VIDEOS)
    except FileNotFoundError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns


def write_videos(folder: Path, known: Mapping[str, Known]) -> None:
    """Write videos.jsonl in order of names, whole or not at all."""
    _write(folder / VIDEOS, "".join(json.dumps(asdict(known[video])) + "\n" for video in sorted(known)))


class Journal:
    """Appends finished videos to the journal of one process, ``number``."""

    def __init__(self, folder: Path, number: int) -> None:
        place = folder / JOURNAL
        place.mkdir(parents=True, exist_ok=True)
        self._lines = open(place / f"{number}.jsonl", "a", encoding="ascii")  # noqa: SIM115
        self._vectors = open(place / f"{number}.vectors", "ab")  # noqa: SIM115

    def add(self, known: Known, rows: Rows | None = None) -> None:
        """A video with its moments, or one that failed."""
        line: dict[str, Any] = {"known": asdict(known)}
        if rows is not None:
            data = np.ascontiguousarray(rows.vectors, np.float32).tobytes()
            line |= {"bounds": rows.bounds.tolist(), "at": self._vectors.tell(), "digest": _digest(data)}
            self._vectors.write(data)
            self._vectors.flush()
        self._lines.write(json.dumps(line) + "\n")
        self._lines.flush()

    def close(self) -> None:
        """Close the files."""
        self._lines.close()
        self._vectors.close()


class Journaled(NamedTuple):
    """A video that a journal holds; no rows for one that failed."""

    known: Known
    rows: Rows | None


def read_journals(folder: Path, width: int) -> list[Journaled]:
    """What the journals of all processes hold; vectors are mapped.  What was not written whole is left out."""
    found = []
    for path in sorted((folder / JOURNAL).glob("*.jsonl")):
        vectors = path.with_suffix(".vectors")
        there = vectors.is_file() and vectors.stat().st_size > 0
        mapped = np.memmap(vectors, np.uint8, "r") if there else np.empty(0, np.uint8)
        for line in path.read_bytes().splitlines():
            with suppress(ValueError, KeyError, TypeError):  # a line cut short, or lost with the power
                found += _journaled(json.loads(line), mapped, width)
    return found


def clear_journals(folder: Path) -> None:
    """Forget the journals; their videos are in the store."""
    for path in sorted((folder / JOURNAL).glob("*")):  # lines before vectors
        path.unlink()


def size_on_disk(folder: Path) -> int:
    """Bytes of all files of an index."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _journaled(line: Mapping[str, Any], vectors: np.ndarray, width: int) -> list[Journaled]:
    known = _known(line["known"])
    if isinstance(known, Failure):
        return [Journaled(known, None)]
    bounds = np.array(line["bounds"], np.float64).reshape(-1, 2)
    data = vectors[line["at"] : line["at"] + 4 * width * len(bounds)]
    if _digest(data.tobytes()) != line["digest"]:
        return []
    return [Journaled(known, Rows(known.video, bounds, data.view(np.float32).reshape(-1, width)))]


def _known(data: Mapping[str, Any]) -> Known:
    return Failure(**data) if "reason" in data else IndexedVideo(**data)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    with open(part, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
