"""Which frames a video holds and when each is shown; no frame rate is ever trusted.

A frame is known by its number in presentation order.  Where the packets of a file name its frames they are listed
without decoding, and where a table in its header names them all without reading them; else everything is decoded once.
"""

import os
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from jaxtyping import Bool, Float64, Int64, UInt8

from svilm.data.container import DecodeError, OpenVideo, check_headers, fail, open_video

MAX_FRAMES = 1_000_000  # 9 hours at 30 frames a second

# Only here has every packet a time of its own and shows exactly one frame, so that the packets alone give the
# index and a seek lands where it should.  AVI, TS and older codecs have packets without a time or without a
# frame; their index is made by decoding.
_TIMED_CONTAINERS = {"mov", "matroska"}
_TIMED_CODECS = {"h264", "hevc", "vp9", "av1", "libdav1d", "prores", "mjpeg", "png", "ffv1"}

_KEY_TRIES = 32  # key frames tried before a video counts as undecodable


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

    def stored(self, box: tuple[int, int, int, int], width: int, height: int) -> tuple[int, int, int, int]:
        """Where a box (left, top, width, height) of an upright picture of ``width`` x ``height`` lies in the stored
        one."""
        left, top, wide, high = box
        left = width - left - wide if self.mirror else left
        top = height - top - high if self.flip else top
        return (top, left, high, wide) if self.transpose else (left, top, wide, high)

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

    @property
    def stored_size(self) -> tuple[int, int]:
        """(width, height) in pixels before pictures are turned."""
        return (self.height, self.width) if self.orientation.transpose else (self.width, self.height)


def index_video(path: str | os.PathLike[str]) -> VideoIndex:
    """List the frames of a video in one pass over its packets, of which only the first is decoded.

    An mp4 or mov where every frame stands alone (Motion JPEG, ProRes) is not gone through: its header says it all.
    Files whose packets do not name the frames (AVI, TS, raw streams, old codecs) are decoded whole.  The
    first video stream that is not cover art counts.  Raises DecodeError for what is not a readable video.
    """
    path = os.path.abspath(os.fspath(path))
    lacking = check_headers(path)
    try:
        index = _list_frames(path, complete=lacking is None)
    except DecodeError as error:
        if lacking is None or error.reason not in ("not_a_video", "no_video_stream", "no_frames"):
            raise
        fail(path, "damaged", f"{lacking}; {error.message}")
    return index if index.damage or not lacking else replace(index, damage=lacking)


_Shown = tuple[int, bool, int]
"""A frame as its packet names it: time, whether it is a key frame, duration."""


def _list_frames(path: str, *, complete: bool) -> VideoIndex:
    with open_video(path) as video:
        _check_count(video, video.stream.frames)
        if video.kind in _TIMED_CONTAINERS and video.codec.name in _TIMED_CODECS:
            index = _index_by_packets(video, _table(video) if complete else [])
            if index is not None:
                return index
    with open_video(path) as video:
        return _index_by_decoding(video)


def _table(video: OpenVideo) -> list[_Shown]:
    """The frames as the header of an mp4 lists them, [] where it does not name them all and say when each is shown.

    It does only where no frame is predicted from another: it gives the order of decoding.
    """
    if video.kind != "mov" or not video.intra_only:
        return []
    entries, size = list(video.stream.index_entries), video.container.size
    there = all(e.size > 0 and e.pos + e.size <= size and not e.is_discard for e in entries)
    if not (there and len(entries) == video.stream.frames > 0):
        return []
    ends = [*(entry.timestamp for entry in entries[1:]), video.stream.duration or 0]
    shown = [(e.timestamp, e.is_keyframe, end - e.timestamp) for e, end in zip(entries, ends, strict=True)]
    return shown if shown[-1][2] > 0 else []


def _index_by_packets(video: OpenVideo, table: list[_Shown]) -> VideoIndex | None:
    """The index from the packets' times, or None when these do not name each frame once.

    Packets are read only until one was decoded where ``table`` lists them all, and agrees with those that were read.
    """
    shown: list[_Shown] = []
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
        if first_frame is not None and table and table[: len(shown)] == shown:
            shown = table
            break
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
