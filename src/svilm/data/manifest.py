"""The one schema of annotations: JSON Lines, a header first, then one clip per line.

    {"svilm_manifest": 1, "source": "msrvtt", "root": "videos", "official": 1000, "protocol": ...}
    {"id": "video9770", "video": "video9770.mp4", "captions": ["a man ..."], "nouns": [["man", ...]], ...}

Reading maps the file and keeps only where each line ends: 8 bytes for a clip, 80 MB for ten million, which forked
worker processes share.
"""

import hashlib
import json
import mmap
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from math import inf
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from jaxtyping import Int64

from svilm.data.strict import parse
from svilm.entries import Entry, LabelledBox, Segment

__all__ = [
    "Entry",
    "Header",
    "LabelledBox",
    "Manifest",
    "ManifestError",
    "Segment",
    "entry_row",
    "hold_out",
    "merge_manifests",
    "read_row",
    "refuse_to_replace",
    "refuse_unwritable",
    "shared_clips",
    "verified",
    "write_manifest",
]

VERSION = 1
_PIECE = 1 << 24  # bytes of a manifest that are looked through at a time
_NO_MANIFEST = (
    "it is no manifest; make one with `svilm prepare folder` from your own table or folder of videos, or with the "
    "command of the dataset that the list belongs to (`svilm prepare --help`)"
)
_NO_CAPTIONS = re.compile(rb'"captions"\s*:\s*\[\s*\]')


class ManifestError(ValueError):
    """A manifest that cannot be read; the message names file, line and field."""


@dataclass(frozen=True)
class Header:
    """What holds for a whole manifest."""

    source: str
    """Which `svilm prepare` reader made it: "msrvtt", "videocc", "folder", ..."""
    root: str
    """Folder of the videos: absolute, or relative to the manifest's own folder."""
    official: int
    """How many items the official list names, found or not; scores print scored/official against it."""
    protocol: str = ""
    """The split in words that go beside a number, for instance "msrvtt-1ka"."""
    nouns: str = ""
    """Which extractor made the noun phrases, for instance "textblob+repairs" or "spacy:en_core_web_sm"."""
    struck: tuple[str, ...] = ()
    """Items of the official list left out in the open (missing or undecodable), as "id: reason"."""
    split: str = "train"
    """What the list is used for: "train", "val" or "test"."""
    classes: tuple[str, ...] = ()
    """Names of all classes in their official order, where the labels come from a closed list."""


class Manifest:
    """Random access to the entries of a manifest file.

    ``len(m)``, ``m[i]``, iteration; ``m.header``; ``m.path_of(entry)`` is the video's absolute path.
    Raises ManifestError when the file, its header or (on access) a line is not of the schema.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise ManifestError(
                f"{self.path} is a folder, no manifest; give a manifest in it, or make one of the videos in it with "
                f"`svilm prepare folder {self.path} --to FILE.jsonl`"
            )
        if not self.path.is_file():
            raise ManifestError(f"{self.path}: no such manifest; make one with `svilm prepare`")
        size = self.path.stat().st_size
        if size == 0:
            raise ManifestError(f"{self.path}: empty file; make a manifest with `svilm prepare`")
        self._map = _map(self.path)
        self._ends = _line_ends(self._map)
        if len(self._ends) == 0 or self._ends[-1] != size - 1:
            if not self._map[:4].removeprefix(b"\xef\xbb\xbf").startswith(b"{"):
                raise ManifestError(
                    f"{self.path}: no manifest, it does not begin with {{; make one with `svilm prepare`"
                )
            raise ManifestError(f"{self.path}: last line has no end; the file was cut short, prepare it again")
        data = self._line(0)
        if data.pop("svilm_manifest", None) != VERSION:
            raise ManifestError(
                f"{self.path}: line 1 must be a header with svilm_manifest = {VERSION}; "
                "make the manifest with `svilm prepare`"
            )
        self.header: Header = _record(Header, data, self.path, 1)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]  # maps cannot be pickled: open again

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> Entry:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.path} has {len(self)} entries, asked for {index}")
        number = index % len(self) + 1
        return read_row(self._line(number), self.path, number + 1)

    def __iter__(self) -> Iterator[Entry]:
        """All entries.  Who comes to the end has also made sure that no id occurs twice, or gets a ManifestError."""
        hashes = np.empty(len(self), dtype=np.int64)
        for number in range(len(self)):
            entry = self[number]
            hashes[number] = hash(entry.id)
            yield entry
        self._refuse_doubles(hashes)

    def without_captions(self) -> Iterator[int]:
        """Numbers of the entries that have no captions, found in their text: a gigabyte takes a second."""
        for found in _NO_CAPTIONS.finditer(self._map):
            number = int(np.searchsorted(self._ends, found.start())) - 1
            if number >= 0 and not self[number].captions:
                yield number

    def digest(self) -> str:
        """A hash of the classes and entries in their order: that of a list whose videos were moved stays."""
        digest = hashlib.sha256(json.dumps(self.header.classes).encode())
        for first in range(int(self._ends[0]), len(self._map), _PIECE):
            digest.update(self._map[first : first + _PIECE])
        return digest.hexdigest()

    @property
    def root(self) -> Path:
        """Absolute folder of the videos."""
        return Path(os.path.abspath(self.path.parent / self.header.root))

    def path_of(self, entry: Entry) -> Path:
        """Absolute path of an entry's video.  Raises ManifestError for a path that leaves the root."""
        path = Path(os.path.abspath(self.root / entry.video))
        if not path.is_relative_to(self.root):
            place = self._place_of(entry.video)
            raise ManifestError(f"{self.path}: {place}{entry.id}: video {entry.video!r} lies outside {self.root}")
        return path

    def _place_of(self, text: str) -> str:
        """The line that has this text first, as messages begin; nothing where it is spelt in some other way."""
        found = (self._map.find(json.dumps(text, ensure_ascii=ascii).encode()) for ascii in (False, True))
        return next((f"line {np.searchsorted(self._ends, at) + 1}: " for at in found if at >= 0), "")

    def _refuse_doubles(self, hashes: np.ndarray) -> None:
        order = np.argsort(hashes, kind="stable")
        again = np.flatnonzero(np.diff(hashes[order]) == 0)
        pairs = zip(order[again].tolist(), order[again + 1].tolist(), strict=True)
        for first, second in sorted(pairs, key=lambda pair: pair[1]):
            name = self[second].id
            if self[first].id == name:
                raise ManifestError(f"{self.path}: line {second + 2}: id {name!r} is that of line {first + 2}")

    def _line(self, number: int) -> dict[str, Any]:
        text = self._map[self._ends[number - 1] + 1 if number else 0 : self._ends[number]]
        if number == 0:
            text = text.removeprefix(b"\xef\xbb\xbf")  # some editors put it in front
        try:
            data = parse(text.decode("utf-8"))
        except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, a number of 5,000 digits, nested too deep
            remedy = "prepare it again" if number else _NO_MANIFEST
            raise ManifestError(f"{self.path}: line {number + 1} is not JSON ({error}); {remedy}") from None
        if not isinstance(data, dict):
            raise ManifestError(f"{self.path}: line {number + 1} is not a JSON object")
        return data


def verified(path: Path) -> Path:
    """Where `svilm scan` writes those clips of a manifest that can be read: X-verified.jsonl beside X.jsonl."""
    return path.with_name(f"{path.stem}-verified{path.suffix}")


def write_manifest(path: str | Path, header: Header, entries: Iterable[Entry]) -> int:
    """Write a manifest whole or not at all, and return the number of entries.

    Raises ValueError for an id that occurs twice, and as `refuse_to_replace`.
    """
    path = Path(path)
    refuse_to_replace(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    seen: set[str] = set()
    try:
        with open(part, "w", encoding="utf-8", newline="\n") as out:
            out.write(json.dumps({"svilm_manifest": VERSION, **asdict(header)}, ensure_ascii=False) + "\n")
            for entry in entries:
                if entry.id in seen:
                    raise ValueError(f"id {entry.id!r} occurs twice")
                seen.add(entry.id)
                out.write(json.dumps(entry_row(entry), ensure_ascii=False) + "\n")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return len(seen)


def entry_row(entry: Entry) -> dict[str, Any]:
    """An entry as a line of a manifest has it: fields that say nothing are left out."""
    optional = {f.name: f.default for f in fields(Entry) if f.default is not MISSING}
    return {k: v for k, v in asdict(entry).items() if k not in optional or v != optional[k]}


def read_row(row: dict[str, Any], path: Path, number: int) -> Entry:
    """The entry of such a row, found in line ``number`` of ``path``.  Raises ManifestError for anything else."""
    entry: Entry = _record(Entry, row, path, number)
    return entry


def refuse_unwritable(path: Path) -> None:
    """Raises ManifestError where no file can be written to ``path``; tried out, and nothing of it is left."""
    place = Path(os.path.abspath(path)).parent
    while not os.path.lexists(place):
        place = place.parent
    if not os.path.isdir(place):
        what = "a file" if os.path.exists(place) else "a link to nothing"
        raise ManifestError(f"cannot write {path}: {place} is {what}, not a folder; choose another --to")
    try:
        with TemporaryFile(dir=place):  # rights and mode bits do not tell of network and read-only file systems
            pass
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise ManifestError(f"cannot write {path} ({reason}); choose another --to") from None


def shared_clips(learned: Manifest, tested: Manifest) -> set[str]:
    """Ids of those clips of ``tested`` that overlap with a clip of ``learned``: a part of the same file."""
    spans: dict[str, list[tuple[float, float, str]]] = {}
    for entry in tested:
        path = os.path.join(tested.root, entry.video)
        spans.setdefault(path, []).append((entry.start or 0.0, inf if entry.end is None else entry.end, entry.id))
    found, root = set[str](), learned.root
    for entry in learned:
        for start, end, name in spans.get(os.path.join(root, entry.video), ()):
            if (entry.start or 0.0) < end and start < (inf if entry.end is None else entry.end):
                found.add(name)
    return found


def refuse_to_replace(path: Path) -> None:
    """Raises ManifestError where a manifest would be written over a file that is none, be it whole or not."""
    if path.is_file() and path.stat().st_size:
        with open(path, "rb") as file:
            if b'"svilm_manifest"' not in file.readline(1 << 20):
                raise ManifestError(
                    f"{path} is there and no manifest; write to another file, or remove it if it is of no use"
                )


def merge_manifests(paths: Sequence[Path], to: Path) -> int:
    """Write the entries of several manifests as one, and return their number.

    Videos are named from the folder that is common to all roots; an id met before gets its source in front.
    Raises ManifestError for fewer than two manifests, one given twice or as ``to``, a ``to`` that cannot be written,
    and splits or classes that differ.
    """
    if len(paths) < 2:
        raise ManifestError(f"{' '.join(map(str, paths)) or 'nothing'} to join; give two manifests or more")
    places = [path.resolve() for path in paths]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise ManifestError(f"{paths[number]} is to be joined twice; give each manifest once")
        if place == to.resolve():
            raise ManifestError(f"{to} is one of the manifests to join; write to another file")
    refuse_unwritable(to)
    parts = [Manifest(path) for path in paths]
    for part in parts[1:]:
        _refuse_difference(parts[0], part)
    root = Path(os.path.commonpath([part.root for part in parts]))
    first = parts[0].header
    header = Header(
        source="+".join(dict.fromkeys(part.header.source for part in parts)),
        root=str(root),
        official=sum(part.header.official for part in parts),
        protocol=" + ".join(part.header.protocol for part in parts),
        nouns=" + ".join(dict.fromkeys(part.header.nouns for part in parts)),
        struck=tuple(item for part in parts for item in part.header.struck),
        split=first.split,
        classes=first.classes,
    )
    seen = set[str]()

    def entries() -> Iterator[Entry]:
        for part in parts:
            for entry in part:
                name = entry.id
                while name in seen:
                    name = f"{part.header.source}:{name}"
                seen.add(name)
                yield replace(entry, id=name, video=part.path_of(entry).relative_to(root).as_posix())

    return write_manifest(to, header, entries())


def _refuse_difference(first: Manifest, other: Manifest) -> None:
    """Raise ManifestError for two manifests that make no list together."""
    one, two = first.header, other.header
    if one.split != two.split:
        raise ManifestError(
            f"{other.path} is a {two.split} split and {first.path} a {one.split} split; join lists of one split"
        )
    if one.classes != two.classes:
        raise ManifestError(
            f"{other.path} has other classes ({len(two.classes)}) than {first.path} ({len(one.classes)}); "
            "join lists that were prepared with the same ones"
        )


def hold_out(path: Path, count: int, *, rest: Path, held: Path, seed: int = 0) -> tuple[int, int]:
    """Divide a training manifest by videos: about ``count`` clips to validate on, the others to train on.

    Clips of one video stay together.  Returns how many went to ``rest`` and ``held``.  Raises ValueError for a
    manifest that is no training list or lists clips in shards, and where nothing would be left on either side.
    """
    whole = Manifest(path)
    if whole.header.split != "train":
        raise ValueError(f"{path} is a {whole.header.split} split; hold clips out of a training split")
    videos: dict[str, list[int]] = {}
    for number, entry in enumerate(whole):
        if ".tar/" in entry.video:
            raise ValueError(
                f"{path}: clips in shards do not say which of them come from one video; divide before packing"
            )
        videos.setdefault(entry.video, []).append(number)
    names = sorted(videos)
    chosen = set[int]()
    for name in np.random.default_rng(seed).permutation(len(names)):
        if len(chosen) >= count:
            break
        chosen.update(videos[names[name]])
    if not 0 < len(chosen) < len(whole):
        raise ValueError(f"{path} has {len(whole)} clips of {len(names)} videos; {count} cannot be held out of them")
    root = str(whole.root)
    for target, split, numbers in (
        (rest, "train", [n for n in range(len(whole)) if n not in chosen]),
        (held, "val", sorted(chosen)),
    ):
        words = f"{whole.header.protocol}, {len(chosen)} held out, {split} part"
        header = replace(whole.header, root=root, official=len(numbers), protocol=words, split=split)
        write_manifest(target, header, (whole[number] for number in numbers))
    return len(whole) - len(chosen), len(chosen)


def _map(path: Path) -> mmap.mmap:
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _line_ends(text: mmap.mmap) -> Int64[np.ndarray, " lines"]:
    """Where each line ends; looked for in pieces, since a mask of all bytes would be as large as the file."""
    found = []
    for start in range(0, len(text), _PIECE):
        piece = np.frombuffer(text, dtype=np.uint8, count=min(_PIECE, len(text) - start), offset=start)
        found.append(np.flatnonzero(piece == ord("\n")) + start)
    return np.concatenate(found).astype(np.int64, copy=False)


def _record(kind: Any, data: dict[str, Any], path: Path, number: int) -> Any:
    known = {f.name for f in fields(kind)}
    unknown = sorted(set(data) - known)
    if unknown:
        raise ManifestError(f"{path}: line {number} has unknown field {unknown[0]!r}; known: {sorted(known)}")
    try:
        return kind(**{k: _nested(k, v) if k in _NESTED and kind is Entry else _tuples(v) for k, v in data.items()})
    except (AttributeError, TypeError, ValueError) as error:
        raise ManifestError(f"{path}: line {number}: {error}") from None


_NESTED: Mapping[str, Any] = {"segments": Segment, "boxes": LabelledBox}


def _nested(name: str, rows: Any) -> Any:
    return tuple(_NESTED[name](**{k: _tuples(v) for k, v in row.items()}) for row in rows)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
