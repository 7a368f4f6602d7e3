"""Opening a video file safely and running its decoder: packets in, frames out, every failure typed.

A path is never a URL, only regular files are read, and only formats that cannot reach other files.  Decoding
is single-threaded, because frame threads hang on some damaged files and give other pixels on each run.
"""

import errno
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from typing import Literal, NoReturn

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from svilm.data.claims import read_claims
from svilm.data.shards import Place, ShardError, open_bytes, place_of

Reason = Literal[
    "not_found",  # no such file, a broken link, a name that cannot be a path
    "no_permission",
    "not_regular_file",  # a folder, pipe, device or socket
    "empty",
    "not_a_video",  # text, an archive, a web page saved under a video's name
    "forbidden_format",  # a playlist or description that would open other files or hosts
    "still_image",  # a picture, or audio with cover art
    "no_video_stream",
    "no_frames",  # a video stream from which nothing can be decoded
    "unsupported",  # no decoder for the codec
    "too_large",  # more pixels, streams, frames or memory than an honest video needs
    "damaged",  # a wanted frame is missing or was decoded from broken data
    "outside_clip",  # frames asked for beyond the end of the video
]

MAX_PIXELS = 8192 * 4320
MAX_STREAMS = 64
MAX_SAMPLES = 4_000_000  # frames and packets of sound that an mp4 may list: a million frames and their sound

_FORMATS = "mov,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif,h264,hevc,m4v,mpegvideo,ivf,obu"
_OPTIONS = {
    "protocol_whitelist": "file",  # a file may name a URL
    "format_whitelist": _FORMATS,  # leaves out playlists, which open other files, and pictures
    "max_pixels": str(MAX_PIXELS),
    "max_streams": str(MAX_STREAMS + 1),  # one more than allowed, so that too many can be told
}

# What PyAV raises on bad files besides its own errors: UnicodeDecodeError, IndexError, AttributeError, ...
_ERRORS = (
    av.FFmpegError,
    OSError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
)


class DecodeError(Exception):
    """A video, or the wanted part of it, that cannot be read.

    ``path`` of the file, ``seconds`` from the beginning of the video (None when the whole file is meant),
    ``reason`` one stable word for counting, ``message`` one line for people.
    """

    def __init__(self, path: str, seconds: float | None, reason: Reason, message: str) -> None:
        super().__init__(path, seconds, reason, message)  # these four rebuild it in another process
        self.path, self.seconds, self.reason, self.message = path, seconds, reason, message

    def __str__(self) -> str:
        path = self.path if self.path.isprintable() else ascii(self.path)
        place = "" if self.seconds is None else f"at {self.seconds:.2f} s: "
        return f"{path}: {place}{self.message} ({self.reason})"


def fail(path: str, reason: Reason, message: str, seconds: float | None = None) -> NoReturn:
    """Raise DecodeError with a message of one line."""
    raise DecodeError(path, seconds, reason, " ".join(message.split())) from None


@contextmanager
def typed_errors(path: str, seconds: float | None = None) -> Iterator[None]:
    """Whatever PyAV raises inside becomes a DecodeError: "damaged", or "too_large" where memory ran out."""
    try:
        yield
    except _ERRORS as error:
        if _lacks_memory(error):
            fail(path, "too_large", "it takes more memory than there is", seconds)
        fail(path, "damaged", _words(error), seconds)


class OpenVideo:
    """An open file and its first video stream that is not a still picture; made by ``open_video``.

    ``trouble`` is the first thing that went wrong while packets were read and decoded, None if nothing did;
    ``intra_only`` says whether the codec has key frames only.
    """

    def __init__(self, path: str, container: InputContainer) -> None:
        self.path, self.container = path, container
        self.stream = _choose_stream(path, container)
        self.codec = self.stream.codec_context
        self.codec.thread_type, self.codec.thread_count = "SLICE", 1
        # Half a JPEG picture is an error only when that is asked for; other decoders mark such a frame as corrupt.
        strict = {"err_detect": "explode"} if self.codec.name == "mjpeg" else {}
        self.codec.options = {"max_pixels": str(MAX_PIXELS), **strict}
        self.trouble: str | None = None
        header = self.codec.extradata if self.codec.name == "h264" else None
        # Bytes that hold the length of each unit of an H.264 packet; 0 for other codecs and raw streams.
        self._length_bytes = (header[4] & 3) + 1 if header and len(header) > 4 and header[0] == 1 else 0
        self.intra_only: bool = self.codec.codec.intra_only

    @property
    def kind(self) -> str:
        """Short name of the container format: "mov" for mp4, "matroska" for webm."""
        return self.container.format.name.split(",")[0]

    @property
    def time_base(self) -> Fraction:
        """Seconds per unit of a packet's times."""
        return Fraction(self.stream.time_base or 1)

    @property
    def rate(self) -> Fraction:
        """Frames per second as the file states it, 25 if it does not; for files without times only."""
        return Fraction(self.stream.guessed_rate or self.stream.average_rate or 25)

    def seek(self, pts: int) -> None:
        """Go to the key frame at or before ``pts``; the next frames come from ``decode(after_seek=True)``."""
        with typed_errors(self.path):
            self.container.seek(pts, stream=self.stream)

    def packets(self) -> Iterator[Packet]:  # type: ignore[type-arg]  # generic for the type checker only
        """The stream's packets that hold data, from the current position to the first unreadable place."""
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
            except _ERRORS as error:
                self._note(_words(error))
                return
            if packet is None:
                return
            if packet.is_corrupt:
                self._note("a packet is incomplete")
            if packet.size:  # an empty one would tell the decoder that the video ends
                yield packet

    def decode(
        self, *, after_seek: bool = False, only: Collection[int] | None = None
    ) -> Iterator[tuple[VideoFrame, bool]]:
        """(frame, whether it is intact) from the current position on, in presentation order.

        After an error no frame is intact until a key frame is shown that was read after the error; after a
        seek none before the first key frame.  With ``only``, frames at other times may be left out.
        """
        intact, key_read = not after_seek, True
        for packet in chain(self.packets(), [None]):  # None makes the decoder give out the frames that it still holds
            if only is not None and packet is not None and packet.pts not in only and self._is_spare(packet):
                continue
            frames = self._decode_one(packet)
            if frames is None or (packet is not None and packet.is_corrupt):
                intact = key_read = False
            elif packet is not None and packet.is_keyframe:
                key_read = True
            for frame in frames or ():
                if frame.is_corrupt:
                    self._note("a frame could be decoded in part only")
                    intact = False
                elif frame.key_frame and key_read:
                    intact = True
                yield frame, intact

    def decode_alone(self, packet: Packet) -> VideoFrame | None:  # type: ignore[type-arg]
        """The frame of a key packet by itself, None if it has none; the decoder forgets about it."""
        frames = [*(self._decode_one(packet) or ()), *(self._decode_one(None) or ())]
        self.codec.flush_buffers()
        return frames[0] if frames else None

    def no_frames(self) -> NoReturn:
        """Raise the error for a video from which nothing can be decoded."""
        fail(self.path, "no_frames", f"no frame can be decoded: {self.trouble or 'the video stream is empty'}")

    def _decode_one(self, packet: Packet | None) -> list[VideoFrame] | None:  # type: ignore[type-arg]
        try:
            return self.codec.decode(packet)
        except _ERRORS as error:
            if _lacks_memory(error):
                fail(self.path, "too_large", "to decode it takes more memory than there is")
            self._note(_words(error))
            return None

    def _is_spare(self, packet: Packet) -> bool:  # type: ignore[type-arg]
        """Whether nothing is predicted from this packet's frame, as far as its codec and H.264 headers tell.

        Not decoding such frames saves up to half the time of H.264, and most of it where every frame stands
        alone.  FFmpeg could skip them itself (skip_frame), but then it no longer reports packets that it cannot decode.
        """
        if self.intra_only:
            return not packet.is_corrupt
        data, at, slices = memoryview(packet), 0, 0
        while self._length_bytes and at + self._length_bytes < len(data):
            size = int.from_bytes(data[at : at + self._length_bytes], "big")
            at += self._length_bytes
            kind, reference = data[at] & 31, data[at] >> 5
            if 1 <= kind <= 5:
                slices += 1
                if reference:
                    return False
            at += size
        return slices > 0 and at == len(data) and not packet.is_corrupt

    def _note(self, trouble: str) -> None:
        self.trouble = self.trouble or trouble


@contextmanager
def open_video(path: str) -> Iterator[OpenVideo]:
    """Open the video at an absolute path, a file or a member of a tar (``shards``); closed on leaving.

    Raises DecodeError for what is not a regular file, not an allowed format, or has no video stream.
    """
    place = _check_file(path)
    url, options = f"file:{place.file}", dict(_OPTIONS)
    if not place.whole:
        url = f"subfile,,start,{place.offset},end,{place.offset + place.size},,:{url}"
        options["protocol_whitelist"] = "file,subfile"
    try:
        container = av.open(url, options=options, metadata_errors="replace")
    except _ERRORS as error:
        _refuse(path, error)
    with container:
        yield OpenVideo(path, container)


def check_headers(path: str) -> str | None:
    """What the file at an absolute path lacks at its end, in words, None if nothing.

    Raises DecodeError for what is not a regular file, and for one that claims more frames than a video has: FFmpeg
    would reserve memory for all of them.
    """
    size = _check_file(path).size
    try:
        claims = read_claims(path)
    except OSError as error:
        _refuse(path, error)
    if claims.samples > MAX_SAMPLES:
        fail(path, "too_large", f"it claims {claims.samples} frames, at most {MAX_SAMPLES} are allowed")
    return f"the file was cut short: {size} of {claims.end} bytes are there" if claims.end > size else None


def _lacks_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM


def _words(error: Exception) -> str:
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return text[:1].lower() + text[1:]


def _choose_stream(path: str, container: InputContainer) -> VideoStream:
    if len(container.streams) > MAX_STREAMS:
        fail(path, "too_large", f"{len(container.streams)} streams, at most {MAX_STREAMS} are allowed")
    if not container.streams.video:
        fail(path, "no_video_stream", "there is no video in this file")
    pictures = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails
    stream = next((s for s in container.streams.video if not s.disposition & pictures), None)
    if stream is None:
        fail(path, "still_image", "only a still picture or cover art, no video")
    if stream.codec_context is None:
        fail(path, "unsupported", "there is no decoder for the codec of this video")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        fail(path, "too_large", f"frames of {width}x{height}, at most {MAX_PIXELS} pixels are allowed")
    return stream


def _check_file(path: str) -> Place:
    if "\0" in path:
        fail(path, "not_found", "a path cannot hold a NUL character")
    try:
        place = place_of(path)
        mode = os.stat(place.file).st_mode
    except PermissionError:
        fail(path, "no_permission", "no permission to look at this file")
    except ShardError as error:
        fail(path, "damaged", str(error))
    except (OSError, ValueError) as error:
        fail(path, "not_found", _words(error))
    if not stat.S_ISREG(mode):
        fail(path, "not_regular_file", "a folder, pipe, socket or device, not a file")
    if place.size == 0:
        fail(path, "empty", "the file is empty")
    return place


_BEGINNINGS: tuple[tuple[int, bytes, Reason, str], ...] = (
    (4, b"ftyp", "damaged", "an mp4 file without a usable index (moov); it was probably cut short"),
    (0, b"\x1a\x45\xdf\xa3", "damaged", "a Matroska or WebM file with a broken header"),
    (8, b"AVI ", "damaged", "an AVI file with a broken header; it was probably cut short"),
    (8, b"WAVE", "no_video_stream", "an audio file"),
    (0, b"#EXTM3U", "forbidden_format", "a playlist, which may open other files"),
    (0, b"ffconcat", "forbidden_format", "a playlist, which may open other files"),
    (0, b"v=0", "forbidden_format", "a session description, which opens network connections"),
    (0, b"\x89PNG", "still_image", "a PNG picture"),
    (0, b"\xff\xd8\xff", "still_image", "a JPEG picture"),
    (0, b"ID3", "no_video_stream", "an audio file"),
    (0, b"<", "not_a_video", "a web page or XML, perhaps the error message of a download"),
    (0, b"{", "not_a_video", "JSON, perhaps the error message of a download"),
    (0, b"PK", "not_a_video", "a zip archive"),
    (0, b"%PDF", "not_a_video", "a PDF document"),
)


def _refuse(path: str, error: Exception) -> NoReturn:
    """Say why FFmpeg would not open a file, going by how the file begins."""
    if _lacks_memory(error):
        fail(path, "too_large", f"it has more than {MAX_STREAMS} streams, or takes more memory than there is")
    try:
        with open_bytes(path) as file:
            head = file.read(16)
    except PermissionError:  # FFmpeg also says so about files that it may read and does not understand
        fail(path, "no_permission", "no permission to read this file")
    except OSError as unreadable:
        fail(path, "damaged", _words(unreadable))
    for offset, magic, reason, words in _BEGINNINGS:
        if head[offset:].startswith(magic):
            fail(path, reason, words)
    fail(path, "not_a_video", "its content is not that of a video, whatever it is called (or in no format read here)")
