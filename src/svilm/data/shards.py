"""Tar shards of videos: a member is read where it lies, under the name ``shards/00000.tar/KEY.mp4``.

Beside ``00000.tar`` lies ``00000.idx``, which says where each member begins: "v1.2 SAMPLES", then a line for each
sample, "extension offset size name" of all its members (the index that NVIDIA DALI reads as well).  Without it the
headers of the tar are read, once in each process.  An index is believed only where the tar has that very member.
"""

import io
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

SUFFIX = ".tar"
BLOCK = 512
KNOWN = 256
"""Shards of which a process remembers where their members are; about 80 kB for a shard of 1000 samples."""

_DIGITS = 18  # of a number in an index
_USUAL, _MOST = 24 * BLOCK, 2 << 20  # zeros at the end: of a record of 20 blocks, and of any size, or tars joined
_TAR_ERRORS = (tarfile.TarError, EOFError, OSError, ValueError, LookupError, ArithmeticError, MemoryError)


class ShardError(ValueError):
    """A tar that cannot be read as a shard; the message names it."""


class Member(NamedTuple):
    """A file inside a tar: its name there, and where its bytes are."""

    name: str
    offset: int
    size: int


class Place(NamedTuple):
    """Where the bytes of a video are: a whole file, or a part of a tar."""

    file: str
    """Path of the file that is opened."""
    offset: int
    size: int
    modified: int
    """When that file was last changed, in nanoseconds since 1970."""
    whole: bool


def place_of(path: str) -> Place:
    """Where the video called ``path`` lies, be it a file or a member of a tar.

    Raises OSError where there is none, ValueError for a name that no file can have, and ShardError for a tar
    that cannot be read or ends before the member does.
    """
    inside = split_path(path)
    if inside is None:
        status = os.stat(path)
        return Place(path, 0, status.st_size, status.st_mtime_ns, True)
    shard, name = inside
    status = os.stat(shard)
    member = _find(shard, name, status.st_size, status.st_mtime_ns)
    if member is None:
        raise FileNotFoundError(f"{os.path.basename(shard)} has no member {name}")
    return Place(shard, member.offset, member.size, status.st_mtime_ns, False)


def split_path(path: str) -> tuple[str, str] | None:
    """Tar and member of a path that leads into a tar; None for any other."""
    for found in re.finditer(re.escape(SUFFIX + "/"), path):
        shard = path[: found.end() - 1]
        if os.path.isfile(shard):
            return shard, path[found.end() :]
    return None


def open_bytes(path: str) -> io.BufferedReader:
    """The bytes of a video to read, be it a file or a member of a tar.  Raises as ``place_of`` does."""
    place = place_of(path)
    file = open(place.file, "rb")  # noqa: SIM115  # the caller closes it
    return file if place.whole else io.BufferedReader(_Part(file, place))


def members(shard: str | os.PathLike[str]) -> list[Member]:
    """The members of a tar in their order, from its index if that is right, else from its headers.

    Raises ShardError for what is no plain tar: a compressed one cannot be read at any place but its beginning.
    """
    shard = os.path.abspath(os.fspath(shard))
    found = read_index(shard)
    if found:
        size = os.path.getsize(shard)
        if _is_there(shard, found[0], size) and _is_there(shard, max(found, key=lambda m: m.offset), size):
            return found
    return scan(shard)


def scan(shard: str) -> list[Member]:
    """The members of a tar from its headers: plain files, by names that stay inside it.

    Raises ShardError for what is no plain tar, and for one that was cut short or is damaged.
    """
    found: list[Member] = []
    try:
        with tarfile.open(shard, "r:", encoding="utf-8") as tar:
            for each in tar:
                name = os.path.normpath(each.name)
                if each.isreg() and not each.issparse() and not name.startswith(("/", "..")):
                    found.append(Member(name, each.offset_data, each.size))
            read = tar.offset
        _check_end(shard, read)
    except _TAR_ERRORS as error:
        if isinstance(error, ShardError):
            raise
        raise ShardError(f"{shard}: no plain tar, or cut short ({error}); unpack a compressed one") from None
    return found


def ends_as_usual(shard: str | os.PathLike[str]) -> bool:
    """Whether a tar ends with the zeros that say so, and no more than fill up a record of the usual size.

    Another may have lost members and not show it.
    """
    with open(shard, "rb") as file:
        file.seek(max(0, os.path.getsize(shard) - _USUAL))
        end = file.read()
    return end[-BLOCK:].count(0) == BLOCK and end.count(0) < _USUAL


def _check_end(shard: str, read: int) -> None:
    """See that nothing but the zeros at the end of a tar comes after the ``read`` bytes that its members take.

    A header that cannot be read ends a tar for tarfile, and members behind it would be lost in silence.  Raises
    ShardError for anything else, and for more zeros than any record has: a download that has stopped.
    """
    size = os.path.getsize(shard)
    with open(shard, "rb") as file:
        file.seek(read)
        while block := file.read(1 << 20):
            if block.count(0) < len(block):
                raise ShardError(
                    f"{shard}: damaged at byte {read} of {size}, where no header can be read but more follows; "
                    "fetch it again"
                )
    if size - read > _MOST:
        raise ShardError(
            f"{shard}: nothing but {size - read} zeros from byte {read} on: a download that has stopped; fetch it again"
        )


def write_index(shard: str | os.PathLike[str], found: Iterable[Member] | None = None) -> Path:
    """Write the index of a tar beside it, whole or not at all, and return its path.

    ``found`` are its members if they are known.  Raises ShardError as ``scan`` does, OSError where the folder
    cannot be written to.
    """
    path = Path(os.path.abspath(shard))
    samples: dict[str, list[str]] = {}
    for name, offset, size in scan(str(path)) if found is None else found:
        key, extension = sample_key(name)
        samples.setdefault(key, []).append(f"{_quoted(extension) or '-'} {offset} {size} {_quoted(name)}")
    index = path.with_suffix(".idx")
    part = index.with_name(index.name + ".part")
    try:
        lines = (f"{' '.join(words)}\n" for words in samples.values())
        part.write_text(f"v1.2 {len(samples)}\n{''.join(lines)}", encoding="ascii")
        os.replace(part, index)
    finally:
        part.unlink(missing_ok=True)
    return index


def read_index(shard: str | os.PathLike[str]) -> list[Member] | None:
    """The members that the index of a tar lists, be they there or not; None where there is no index."""
    text = _index(os.fspath(shard))
    return None if text is None else list(_parse(text))


def sample_key(name: str) -> tuple[str, str]:
    """Key and extension of a member: the base name is divided at its first dot, as WebDataset does."""
    path = PurePosixPath(name)
    stem, _, extension = path.name.partition(".")
    return str(path.with_name(stem)) if stem else name, extension


class _Known:
    """The index of a tar as text, in which a name is looked up."""

    def __init__(self, shard: str) -> None:
        text = _index(shard)
        self.scanned = text is None
        self.text = text if text is not None else _text(scan(shard))

    def find(self, name: str) -> Member | None:
        """The last member of that name, as `tar` unpacks it."""
        wanted, behind = f" {_quoted(name)}".encode(), len(self.text)
        while (at := max(self.text.rfind(wanted + end, 0, behind) for end in (b" ", b"\n"))) >= 0:
            numbers = self.text[max(0, at - 2 * _DIGITS) : at].split()[-2:]
            if len(numbers) == 2 and all(number.isdigit() for number in numbers):
                return Member(name, int(numbers[0]), int(numbers[1]))
            behind = at + len(wanted)  # that was an extension or a number
        return None


@lru_cache(maxsize=KNOWN)
def _known(shard: str, size: int, modified: int) -> _Known:
    return _Known(shard)


@lru_cache(maxsize=KNOWN)
def _find(shard: str, name: str, size: int, modified: int) -> Member | None:
    known = _known(shard, size, modified)
    member = known.find(name)
    if not known.scanned and (member is None or not _is_there(shard, member, size)):
        known.text, known.scanned = _text(scan(shard)), True  # the index is that of another tar
        member = known.find(name)
    return member


def _is_there(shard: str, member: Member, size: int) -> bool:
    """Whether the tar has this member at this place: its header stands right before it."""
    if member.offset < BLOCK or member.offset + member.size > size:
        return False
    with open(shard, "rb") as file:
        file.seek(member.offset - BLOCK)
        try:
            header = tarfile.TarInfo.frombuf(file.read(BLOCK), "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            return False
    long = len(os.fsencode(member.name)) >= 100  # such names stand in a header of their own
    return header.isreg() and header.size == member.size and (long or os.path.normpath(header.name) == member.name)


def _text(found: Iterable[Member]) -> bytes:
    return b"\n" + "".join(f"- {offset} {size} {_quoted(name)}\n" for name, offset, size in found).encode()


def _index(shard: str) -> bytes | None:
    """The index beside a tar, None where there is none that could be one."""
    try:
        with open(shard.removesuffix(SUFFIX) + ".idx", "rb") as file:
            text = file.read()
    except OSError:
        return None
    return text if re.match(rb"v1\.2 [0-9]+\n", text) and text.endswith(b"\n") else None


def _parse(text: bytes) -> Iterator[Member]:
    """The members that an index lists; it stops at what is none."""
    words = text.split()[2:]
    for at in range(0, len(words) - 3, 4):
        _, offset, size, name = words[at : at + 4]
        if not (offset.isdigit() and size.isdigit()):
            return
        yield Member(unquote_to_bytes(name).decode("utf-8", "surrogateescape"), int(offset), int(size))


def _quoted(name: str) -> str:
    """A name in ASCII without spaces; bytes that are no text, which Python spells as surrogates, stay what they are."""
    return quote(name.encode("utf-8", "surrogateescape"))


class _Part(io.RawIOBase):
    """A part of an open file, as a file of its own."""

    def __init__(self, file: io.BufferedReader, place: Place) -> None:
        self.file, self.start, self.size, self.at = file, place.offset, place.size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.size}[whence])
        return self.at

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self.size - self.at))
        self.file.seek(self.start + self.at)
        count = self.file.readinto(memoryview(buffer)[:count])
        self.at += count
        return count

    def close(self) -> None:
        self.file.close()
        super().close()
