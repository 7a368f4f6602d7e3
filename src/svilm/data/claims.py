"""What the headers of a file claim, looked at before a decoder believes them.

FFmpeg reserves memory for every frame that an mp4 lists, and a kilobyte can list 80 million.  And a file that was cut
short often decodes without complaint; but it ends before its outermost headers say.
"""

import os
from collections.abc import Iterator
from io import BufferedReader
from typing import NamedTuple

from svilm.data.shards import open_bytes

MAX_BOXES = 1_000_000
"""Headers of an mp4 that are looked at; ten hours in pieces of a second have a tenth of that."""

_OUTERMOST = frozenset(b"ftyp styp moov moof mdat free skip wide uuid sidx mfra meta udta".split())
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


class Claims(NamedTuple):
    """What the headers say; 0 where they say nothing."""

    samples: int = 0
    """Frames and packets of sound that an mp4 lists, as far as each takes memory."""
    end: int = 0
    """Bytes that the file should have at least."""


class _Box(NamedTuple):
    """A header of an mp4 and where the content below it lies."""

    kind: bytes
    start: int
    end: int


def read_claims(path: str) -> Claims:
    """Look at the headers of an mp4, Matroska or AVI file, or member of a tar; other kinds claim nothing.

    Raises OSError.
    """
    with open_bytes(path) as file:
        head = file.read(64)
        if head[4:8] in _OUTERMOST:
            return _Mp4(file).claims()
        if head.startswith(_EBML):
            return Claims(end=_matroska_end(head))
        if head[:4] == b"RIFF":
            return Claims(end=_riff_end(file))
    return Claims()


class _Mp4:
    """An open mp4: boxes within boxes, each with its length and kind in front."""

    def __init__(self, file: BufferedReader) -> None:
        self.file, self.size, self.left = file, file.seek(0, os.SEEK_END), MAX_BOXES

    def claims(self) -> Claims:
        """All tracks and fragments together."""
        samples = end = 0
        for box in self.boxes(0, self.size):
            if box.kind in _OUTERMOST:  # anything else is what was left behind the last one
                end = max(end, box.end)
            if box.kind == b"moov":
                samples += sum(self.listed(track) for track in self.inside([box], b"trak"))
            elif box.kind == b"moof":
                runs = self.inside([box], b"traf", b"trun")
                samples += sum(self.number(run.start + 4) for run in runs)
        return Claims(samples, end)

    def listed(self, track: _Box) -> int:
        """Samples of a track; none for raw sound, one tick each, which is kept in larger pieces."""
        media = list(self.inside([track], b"mdia"))
        tables = list(self.inside(media, b"minf", b"stbl"))
        sizes = [*self.inside(tables, b"stsz"), *self.inside(tables, b"stz2")]
        sound = any(_read(self.file, box.start + 8, 4) == b"soun" for box in self.inside(media, b"hdlr"))
        times = [(self.number(box.start + 4), self.number(box.start + 12)) for box in self.inside(tables, b"stts")]
        return 0 if sound and times == [(1, 1)] else sum(self.number(box.start + 8) for box in sizes)

    def inside(self, boxes: list[_Box], *kinds: bytes) -> Iterator[_Box]:
        """The boxes of the last kind in those of the one before it, and so on."""
        for outer in boxes:
            found = (box for box in self.boxes(outer.start, outer.end) if box.kind == kinds[0])
            yield from self.inside(list(found), *kinds[1:]) if kinds[1:] else found

    def boxes(self, start: int, end: int) -> Iterator[_Box]:
        """The boxes from ``start`` on; the last one may reach beyond the end of the file, but not of its own box."""
        while start + 8 <= min(end, self.size) and self.left:
            self.left -= 1
            head = _read(self.file, start, 16)
            length, header = int.from_bytes(head[:4], "big"), 8
            if length == 1:  # the length stands behind the kind, in 8 bytes
                length, header = int.from_bytes(head[8:16], "big"), 16
            elif length == 0:
                length = end - start
            if length < header:
                return
            yield _Box(head[4:8], start + header, start + length if end == self.size else min(start + length, end))
            start += length

    def number(self, place: int) -> int:
        """Four bytes as a number."""
        return int.from_bytes(_read(self.file, place, 4), "big")


def _read(file: BufferedReader, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


def _matroska_end(head: bytes) -> int:
    """Where the segment ends that holds everything; 0 for a live recording, which does not say."""
    at = len(_EBML)
    header, at, _ = _ebml_size(head, at)
    at += header
    if head[at : at + 4] != _SEGMENT:
        return 0
    length, at, known = _ebml_size(head, at + 4)
    return at + length if known else 0


def _ebml_size(head: bytes, at: int) -> tuple[int, int, bool]:
    """A length of 1 to 8 bytes, the place behind it, and whether it is one (all bits set means unknown)."""
    first = head[at] if at < len(head) else 0
    width = 9 - first.bit_length()
    if not 1 <= width <= 8 or at + width > len(head):
        return 0, len(head), False
    value = int.from_bytes(head[at : at + width], "big") - (1 << 7 * width)
    return value, at + width, value != (1 << 7 * width) - 1


def _riff_end(file: BufferedReader) -> int:
    """Where the last RIFF of an AVI ends: a long one has several, one behind the other."""
    start = end = 0
    for _ in range(MAX_BOXES):
        head = _read(file, start, 8)
        if head[:4] != b"RIFF" or len(head) < 8:
            break
        length = int.from_bytes(head[4:], "little")
        if length in (0, 0xFFFFFFFF):  # written to a pipe
            return 0
        end = start + 8 + length
        start = end + length % 2
    return end
