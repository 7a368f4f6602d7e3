"""Reading video: which frames a file holds, and the wanted ones as upright RGB.

A frame is known by its number in presentation order, and ``VideoIndex.seconds`` says when it is shown; no
frame rate is ever trusted.  What cannot be read right raises DecodeError: it never becomes a frame.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import Bool, Float64, Int64, UInt8

from svilm.data.container import DecodeError, OpenVideo, Reason, check_headers, fail, open_video, typed_errors

__all__ = [
    "DecodeError",
    "Orientation",
    "Reason",
    "VideoIndex",
    "index_video",
    "intact_frames",
    "orientation_of",
    "read_frames",
    "scaled_size",
    "stream_frames",
]

MAX_FRAMES = 1_000_000  # 9 hours at 30 frames a second
MAX_ASPECT = 16  # a longer picture is squashed when scaled, or its long side would fill the memory

# Only here has every packet a time of its own and shows exactly one frame, so that the packets alone give the
# index and a seek lands where it should.  AVI, TS and older codecs have packets without a time or without a
# frame; their index is made by decoding.
_TIMED_CONTAINERS = {"mov", "matroska"}
_TIMED_CODECS = {"h264", "hevc", "vp9", "av1", "libdav1d", "prores", "mjpeg", "png", "ffv1"}

_SEEK_GAIN = 6  # frames to be skipped from which on a seek is faster than decoding them
_KEY_TRIES = 32  # key frames tried before a video counts as undecodable

# swscale's triangle filter widens when it shrinks, so nothing aliases.  Without full chroma colours are a
# grey level off; the last two make every processor compute the same pixels.  As numbers, because PyAV 17, the
# last one for Python 3.10, has no names for them.
SCALING = (
    Interpolation.BILINEAR.value
    | 0x2000  # SWS_FULL_CHR_H_INT
    | 0x40000  # SWS_ACCURATE_RND
    | 0x80000  # SWS_BITEXACT
)


@dataclass(frozen=True)
class Orientation:
    """How a stored picture is turned upright: transposed first, then mirrored (left-right), then flipped."""

    transpose: bool = False
    mirror: bool = False
    flip: bool = False

    def upright(self, picture: UInt8[np.ndarray, "a b ..."]) -> UInt8[np.ndarray, "height width ..."]:
        """The upright picture, or one of its colours, as a view of the stored one."""
        picture = picture.swapaxes(0, 1) if self.transpose else picture
        return picture[:: -1 if self.flip else 1, :: -1 if self.mirror else 1]

    @property
    def mirrored(self) -> bool:
        """Whether the stored picture is a mirror image of the upright one."""
        return self.transpose ^ self.mirror ^ self.flip

    @property
    def rotation(self) -> int:
        """Degrees clockwise, 0, 90, 180 or 270, by which it is turned after it was mirrored (if it is)."""
        return (90 if self.mirror else 270) if self.transpose else (180 if self.flip else 0)


@dataclass(frozen=True, eq=False)
class VideoIndex:
    """Which frames a video holds and when each is shown, in presentation order.

    Small and picklable: keep it to read many clips of one video without going through the file again.
    """

    path: str
    """Absolute path of the file."""
    seconds: Float64[np.ndarray, " frames"]
    """When each frame is shown, ascending, counted from the beginning of the video."""
    key_frames: Bool[np.ndarray, " frames"]
    """Which frames decode without any other; all false for a file that is only read from its start."""
    pts: Int64[np.ndarray, " frames"] | None = field(repr=False)
    """The file's own time of each frame; None for a file whose frames can only be counted."""
    start_seconds: float
    """The file's own time of the beginning, taken off ``seconds``."""
    duration: float
    """Seconds from the beginning to the end of the last frame."""
    width: int
    """Pixels, upright."""
    height: int
    """Pixels, upright."""
    orientation: Orientation
    """How stored pictures are turned (the display matrix)."""
    damage: str | None = None
    """What went wrong while the frames were listed, if anything: the list may be short then."""

    def __len__(self) -> int:
        return len(self.seconds)


def index_video(path: str | os.PathLike[str]) -> VideoIndex:
    """List the frames of a video in one pass over its packets, of which only the first is decoded.

    Files whose packets do not name the frames (AVI, TS, raw streams, old codecs) are decoded whole.  The
    first video stream that is not cover art counts.  Raises DecodeError for what is not a readable video.
    """
    path = os.path.abspath(os.fspath(path))
    lacking = check_headers(path)
    try:
        index = _list_frames(path)
    except DecodeError as error:
        if lacking is None or error.reason not in ("not_a_video", "no_video_stream", "no_frames"):
            raise
        fail(path, "damaged", f"{lacking}; {error.message}")
    return index if index.damage or not lacking else replace(index, damage=lacking)


def read_frames(
    index: VideoIndex,
    frame_numbers: Sequence[int] | Int64[np.ndarray, " frames"],
    *,
    resize: int | tuple[int, int] | None = None,
    crop: tuple[int, int, int, int] | None = None,
    seek: bool = True,
) -> UInt8[np.ndarray, "frames height width 3"]:
    """The frames with these numbers, in this order (repeats allowed), as upright RGB, 0 to 255.

    ``resize`` is the length of the short side, or (width, height); frames of another size than the first one
    are brought to the same size.  ``crop`` is (left, top, width, height) in the resized picture.  Both mean
    the upright picture.  ``seek=False`` decodes from the start of the file: the same frames, slower.
    10-bit and HDR video is cut to 8 bits without tone mapping; pixels that are not square stay as stored.
    Raises DecodeError when a wanted frame is missing or was decoded from damaged data.
    """
    numbers, order = np.unique(np.asarray(frame_numbers, dtype=np.int64), return_inverse=True)
    if len(numbers) and not 0 <= numbers[0] <= numbers[-1] < len(index):
        fail(index.path, "outside_clip", f"asked for frames {numbers[0]} to {numbers[-1]} of {len(index)}")
    size = scaled_size(index, resize)
    left, top, width, height = crop or (0, 0, *size)
    if min(left, top, width - 1, height - 1) < 0 or left + width > size[0] or top + height > size[1]:
        raise ValueError(f"crop {crop} does not fit into the picture of {size[0]}x{size[1]} pixels")
    reader = _Reader(index, numbers, size, (left, top, width, height))
    if seek:
        reader.read_runs(_runs(index, numbers))
    if reader.missing:  # a seek may land wrong, or the decoder want more than the key frame
        reader.read_all()
    if reader.missing:
        number = min(reader.missing)
        fail(index.path, "damaged", f"frame {number} cannot be decoded", float(index.seconds[number]))
    return reader.pictures if np.array_equal(order, np.arange(len(numbers))) else reader.pictures[order]


def stream_frames(
    index: VideoIndex,
    frame_numbers: Int64[np.ndarray, " frames"],
    *,
    resize: int | tuple[int, int] | None = None,
    seek: bool = True,
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """The frames with these ascending numbers one by one, each until the next is asked for: as ``read_frames``
    gives them, of videos too long for the memory.

    Raises DecodeError at the first that cannot be read; with ``seek`` that may be the fault of the seek.
    """
    size = scaled_size(index, resize)
    reader = _Reader(index, frame_numbers[:1], size, (0, 0, *size))
    expected = iter(frame_numbers.tolist())
    wanted = next(expected)
    key_frame, _ = _runs(index, frame_numbers[:1])[0]
    number_at: dict[int | None, int] | None = None
    with open_video(index.path) as video:
        if index.pts is not None:
            number_at = {int(index.pts[number]): number for number in frame_numbers.tolist()}
            if seek and key_frame is not None:
                video.seek(int(index.pts[key_frame]))
        after_seek = seek and number_at is not None and key_frame is not None
        for count, (frame, intact) in enumerate(video.decode(after_seek=after_seek)):
            number = count if number_at is None else number_at.get(frame.pts, -1)
            if number < wanted:
                continue
            if number > wanted or not intact:
                break
            reader.rows = {number: 0}
            reader.store(number, frame)
            yield reader.pictures[0]
            wanted = next(expected, -1)
            if wanted < 0:
                return
    fail(index.path, "damaged", f"frame {wanted} cannot be decoded", float(index.seconds[wanted]))


def intact_frames(index: VideoIndex) -> Bool[np.ndarray, " frames"]:
    """Which frames can be read, found by decoding all of them once.

    False also where a frame precedes a damaged one and may depend on it; by itself it may still be read.
    """
    reader = _Looker(index, np.arange(len(index)), (1, 1), (0, 0, 1, 1))
    reader.read_all()
    intact = np.ones(len(index), dtype=bool)
    intact[list(reader.missing)] = False
    return intact


def scaled_size(index: VideoIndex, resize: int | tuple[int, int] | None) -> tuple[int, int]:
    """Upright (width, height) after ``resize``: the short side, or (width, height), or None for no change.

    With a short side given, the long side keeps the aspect up to 16:1.
    """
    if resize is None:
        return index.width, index.height
    if isinstance(resize, tuple):
        return resize
    short, long = sorted((index.width, index.height))
    other = min(round(long * resize / short), MAX_ASPECT * resize)
    return (resize, other) if index.width <= index.height else (other, resize)


_Run = tuple[int | None, list[int]]


def _runs(index: VideoIndex, numbers: Int64[np.ndarray, " frames"]) -> list[_Run]:
    """Ascending frames, cut where a seek pays: (key frame to seek to or None for no seek, frames).

    A seek pays only when a key frame lies between the frame that comes next anyway and the wanted one.
    """
    starts = np.maximum.accumulate(np.where(index.key_frames, np.arange(len(index)), 0))[numbers]
    following = np.concatenate([[0], numbers[:-1] + 1])
    cuts = np.flatnonzero(starts - following >= _SEEK_GAIN)
    key_frames: list[int | None] = [None, *starts[cuts].tolist()]
    parts = [part.tolist() for part in np.split(numbers, cuts)]
    return [(key, part) for key, part in zip(key_frames, parts, strict=True) if part]


class _Reader:
    """Fills ``pictures`` with wanted frames until none is ``missing``."""

    def __init__(
        self,
        index: VideoIndex,
        numbers: Int64[np.ndarray, " frames"],
        size: tuple[int, int],
        crop: tuple[int, int, int, int],
    ) -> None:
        self.index, self.size, self.crop = index, size, crop
        self.rows = {int(number): row for row, number in enumerate(numbers)}
        self.pictures = np.empty((len(numbers), crop[3], crop[2], 3), dtype=np.uint8)
        self.missing = set(self.rows)
        self.reformatter = VideoReformatter()

    def read_all(self) -> None:
        """Decode the file from its start until no frame is missing."""
        with open_video(self.index.path) as video:
            self._collect(video.decode(), set(self.missing))

    def read_runs(self, runs: list[_Run]) -> None:
        """Decode each run from its key frame on until its frames are there."""
        with open_video(self.index.path) as video:
            for key_frame, numbers in runs:
                only = None if self.index.pts is None else set(self.index.pts[numbers].tolist())
                if key_frame is not None and self.index.pts is not None:
                    video.seek(int(self.index.pts[key_frame]))
                frames = video.decode(after_seek=key_frame is not None, only=only)
                self._collect(frames, set(numbers))

    def _collect(self, frames: Iterator[tuple[VideoFrame, bool]], wanted: set[int]) -> None:
        pts = self.index.pts
        number_at: dict[int | None, int] | None = None
        if pts is not None:
            number_at = {int(pts[number]): number for number in wanted}
        since_key: set[int] = set()
        for count, (frame, intact) in enumerate(frames):
            number = count if number_at is None else number_at.get(frame.pts, -1)
            if frame.key_frame:
                since_key.clear()
            if not intact:
                # What was shown since the key frame may have been predicted from the damaged frame.
                self.missing |= since_key
                since_key.clear()
            elif number in wanted:
                self.store(number, frame)
                since_key.add(number)
                self.missing.discard(number)
                if self.missing.isdisjoint(wanted):
                    return

    def store(self, number: int, frame: VideoFrame) -> None:
        turn = self.index.orientation
        width, height = self.size[::-1] if turn.transpose else self.size
        with typed_errors(self.index.path, float(self.index.seconds[number])):
            # Planes, because swscale writes packed pixels one by one.
            planes = self.reformatter.reformat(frame, width, height, "gbrp", interpolation=SCALING, threads=1).planes
            left, top, wide, high = self.crop
            for colour, plane in zip((1, 2, 0), planes, strict=True):
                rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(-1, plane.line_size)
                upright = turn.upright(rows[:height, :width])
                self.pictures[self.rows[number], :, :, colour] = upright[top : top + high, left : left + wide]


class _Looker(_Reader):
    """Reads frames without keeping them; of pictures alike it converts the first, to see that it can be done."""

    known: tuple[str, int, int] | None = None

    def store(self, number: int, frame: VideoFrame) -> None:
        kind = frame.format.name, frame.width, frame.height
        if kind != self.known:
            self.size, self.crop = kind[1:], (0, 0, 1, 1)
            super().store(number, frame)
        self.known = kind


def _list_frames(path: str) -> VideoIndex:
    with open_video(path) as video:
        _check_count(video, video.stream.frames)
        if video.kind in _TIMED_CONTAINERS and video.codec.name in _TIMED_CODECS:
            index = _index_by_packets(video)
            if index is not None:
                return index
    with open_video(path) as video:
        return _index_by_decoding(video)


def _index_by_packets(video: OpenVideo) -> VideoIndex | None:
    """The index from the packets' times, or None when these do not name each frame once."""
    shown: list[tuple[int, bool, int]] = []  # time, whether a key frame, duration
    first_key: int | None = None
    first_frame: VideoFrame | None = None
    tries = 0
    for packet in video.packets():
        if packet.pts is None:
            return None
        if first_frame is None and tries == _KEY_TRIES:
            video.no_frames()
        _check_count(video, len(shown))
        if packet.is_keyframe:
            first_key = packet.pts if first_key is None else first_key
            if first_frame is None:
                first_frame = video.decode_alone(packet)
                tries += 1
        if not packet.is_discard:  # an edit list hides frames that others are predicted from
            shown.append((packet.pts, packet.is_keyframe, packet.duration or 0))
    shown.sort()
    pts = np.array([time for time, _, _ in shown], dtype=np.int64)
    key_frames = np.array([key for _, key, _ in shown], dtype=bool)
    if first_frame is None or first_key is None or not (pts >= first_key).any():
        video.no_frames()
    if (np.diff(pts) == 0).any():
        return None
    decodable = pts >= first_key  # what precedes the first key frame has nothing to be predicted from
    return _index(
        video,
        first_frame,
        origin=int(pts[0]),
        ticks=pts[decodable],
        tick=video.time_base,
        last_seconds=float(shown[-1][2] * video.time_base),
        key_frames=key_frames[decodable],
    )


def _index_by_decoding(video: OpenVideo) -> VideoIndex:
    """The index from decoding everything: frames are numbered as they leave the decoder."""
    first_frame: VideoFrame | None = None
    times: list[int | None] = []
    for frame, _ in video.decode():
        _check_count(video, len(times))
        first_frame = first_frame or frame
        times.append(frame.pts)
    if first_frame is None:
        video.no_frames()
    ticks, tick = np.array([time for time in times if time is not None], dtype=np.int64), video.time_base
    if len(ticks) < len(times) or (np.diff(ticks) <= 0).any():
        ticks, tick = np.arange(len(times)), 1 / video.rate  # the stated rate is all there is
    return _index(video, first_frame, origin=int(ticks[0]), ticks=ticks, tick=tick)


def _index(
    video: OpenVideo,
    first_frame: VideoFrame,
    *,
    origin: int,
    ticks: Int64[np.ndarray, " frames"],
    tick: Fraction,
    last_seconds: float = 0.0,
    key_frames: Bool[np.ndarray, " frames"] | None = None,
) -> VideoIndex:
    """``ticks`` count ``tick`` seconds; with ``key_frames`` given they also find the frames again."""
    seconds = (ticks - origin).astype(np.float64) * tick.numerator / tick.denominator
    if last_seconds <= 0:  # the file does not say how long its last frame is shown
        last_seconds = float(np.median(np.diff(seconds))) if len(seconds) > 1 else float(1 / video.rate)
    orientation = orientation_of(first_frame)
    size = first_frame.width, first_frame.height
    width, height = size[::-1] if orientation.transpose else size
    return VideoIndex(
        path=video.path,
        seconds=seconds,
        key_frames=np.zeros(len(ticks), dtype=bool) if key_frames is None else key_frames,
        pts=None if key_frames is None else ticks,
        start_seconds=float(origin * tick),
        duration=float(seconds[-1]) + last_seconds,
        width=width,
        height=height,
        orientation=orientation,
        damage=video.trouble,
    )


def orientation_of(frame: VideoFrame) -> Orientation:
    """How a decoded frame is turned upright: its display matrix, if it turns by a multiple of 90 degrees."""
    try:
        side_data: Any = frame.side_data
    except ValueError:  # PyAV does not know some other entry (a camera's EXIF): only the angle is left
        turns = round(frame.rotation / 90) % 4  # quarters, counterclockwise
        return Orientation(transpose=turns % 2 == 1, mirror=turns >= 2, flip=turns in (1, 2))
    if "DISPLAYMATRIX" not in side_data:
        return Orientation()
    # The stored pixel (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(side_data["DISPLAYMATRIX"], dtype=np.int32)[:5].tolist()
    if max(abs(b), abs(c)) * 100 < min(abs(a), abs(d)):
        return Orientation(transpose=False, mirror=a < 0, flip=d < 0)
    if max(abs(a), abs(d)) * 100 < min(abs(b), abs(c)):
        return Orientation(transpose=True, mirror=c < 0, flip=b < 0)
    return Orientation()


def _check_count(video: OpenVideo, count: int) -> None:
    if count > MAX_FRAMES:
        fail(video.path, "too_large", f"more than {MAX_FRAMES} frames")
