"""A video's bytes for the browser: opened without leaving the folder, sent in the pieces that were asked for."""

import asyncio
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import BinaryIO, NamedTuple

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from svilm.app.refusal import Refusal, gone

CHUNK = 1 << 16
MOST_BYTES = 4 << 20
"""Bytes of one answer to a range.  A browser that pauses a video stops reading; short answers let the connection go."""
SLOWEST = 32 << 10
"""Bytes per second below which a client is given up, after a minute's grace."""
GRACE = 60.0


class Span(NamedTuple):
    """Bytes [start, stop) of a file."""

    start: int
    stop: int


@dataclass(frozen=True)
class Opened:
    """An open file of the index with what HTTP says of it."""

    file: BinaryIO
    size: int
    modified: float
    tag: str
    kind: str

    def headers(self) -> dict[str, str]:
        """Of every answer about the file."""
        return {
            "Accept-Ranges": "bytes",
            "Content-Type": self.kind,
            "ETag": self.tag,
            "Last-Modified": formatdate(int(self.modified), usegmt=True),
        }


@contextmanager
def opened(root: Path, path: Path) -> Iterator[Opened]:
    """The regular file ``path`` below ``root``.

    Each folder on the way is opened from the one above it and no link is followed, so a link that is put in the
    way after the path was looked up leads nowhere.  Raises a Refusal (410) for what cannot be opened so.
    """
    try:
        file = _open_below(root.resolve(), path.resolve(strict=True))
    except (OSError, ValueError):
        raise gone() from None
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise gone()
        kind = container_type(file.read(256))
        yield Opened(file, status.st_size, status.st_mtime, f'"{status.st_size:x}-{status.st_mtime_ns:x}"', kind)


def _open_below(root: Path, path: Path) -> BinaryIO:
    parts = path.relative_to(root).parts
    if os.open not in os.supports_dir_fd:  # Windows
        return open(path, "rb")
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for place, part in enumerate(parts, start=1):
        # Without O_NONBLOCK, a pipe under a video's name would hang the server.
        flags = os.O_RDONLY | os.O_NOFOLLOW | (os.O_DIRECTORY if place < len(parts) else os.O_NONBLOCK)
        try:
            there = os.open(part, flags, dir_fd=here)
        finally:
            os.close(here)
        here = there
    return open(here, "rb")


def container_type(head: bytes) -> str:
    """Content type of a video by its first bytes; "application/octet-stream" for what is no known container."""
    if head[4:8] == b"ftyp":
        return "video/quicktime" if head[8:10] == b"qt" else "video/mp4"
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "video/quicktime"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "video/webm" if b"webm" in head[:64] else "video/x-matroska"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "video/x-msvideo"
    if head[:1] == b"\x47" and head[188:189] == b"\x47":
        return "video/mp2t"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    return "application/octet-stream"


_MAGIC = (
    (b"OggS", "video/ogg"),
    (b"FLV", "video/x-flv"),
    (b"\x30\x26\xb2\x75", "video/x-ms-asf"),
    (b"\x00\x00\x01\xba", "video/mpeg"),
    (b"\x00\x00\x01\xb3", "video/mpeg"),
)


def wanted_span(header: str, size: int) -> Span | None:
    """The bytes that a Range header asks for, None where all are sent: for several ranges or another unit.

    Raises a Refusal (416) for a range that lies behind the end.
    """
    unit, _, text = header.partition("=")
    first, dash, last = (part.strip() for part in text.partition("-"))
    digits = first + last
    if unit.strip().lower() != "bytes" or not dash or not (digits.isascii() and digits.isdecimal()) or len(digits) > 38:
        return None
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return None
    if start >= size or start >= stop:
        raise Refusal(
            416, f"the file has {size} bytes", "ask for some of these", headers={"Content-Range": f"bytes */{size}"}
        )
    return Span(start, stop)


class MediaResponse(Response):
    """A file or a part of it (206); 304 where the browser has it, 416 for a part that it does not have."""

    def __init__(self, root: Path, path: Path) -> None:
        self.root, self.path, self.background = root, path, None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a GET or HEAD request.  Raises the Refusals of `opened` and `wanted_span` before anything is sent."""
        asked = Headers(scope=scope)
        with opened(self.root, self.path) as file:
            headers = file.headers()
            if asked.get("if-none-match") == file.tag:
                await Response(status_code=304, headers=headers)(scope, receive, send)
                return
            span = None
            ranged = scope["method"] == "GET" and "range" in asked
            if ranged and asked.get("if-range", file.tag) in (file.tag, headers["Last-Modified"]):
                span = wanted_span(asked["range"], file.size)
            if span is not None:
                span = Span(span.start, min(span.stop, span.start + MOST_BYTES))
                headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{file.size}"
            start, stop = span or (0, file.size)
            headers["Content-Length"] = str(stop - start)
            raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
            await send({"type": "http.response.start", "status": 206 if span else 200, "headers": raw})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b""})
                return
            patience = GRACE + (stop - start) / SLOWEST
            await asyncio.wait_for(_send_bytes(file.file, start, stop, send), patience)


async def _send_bytes(file: BinaryIO, start: int, stop: int, send: Send) -> None:
    if start == stop:
        await send({"type": "http.response.body", "body": b""})
    await asyncio.to_thread(file.seek, start)
    while start < stop:
        chunk = await asyncio.to_thread(file.read, min(CHUNK, stop - start))
        if not chunk:
            raise ConnectionAbortedError("the file has become shorter while it was sent")
        start += len(chunk)
        await send({"type": "http.response.body", "body": chunk, "more_body": start < stop})
