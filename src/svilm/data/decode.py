"""Reading video: the wanted frames of a file as upright RGB.

A frame is known by its number in the file's ``VideoIndex``.  What cannot be read right raises DecodeError: it never
becomes a frame.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import Bool, Int64, UInt8

from svilm.data.container import DecodeError, Reason, fail, open_video, typed_errors
from svilm.data.video_index import Orientation, VideoIndex, index_video, orientation_of

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

MAX_ASPECT = 16  # a longer picture is squashed when scaled, or its long side would fill the memory

_SEEK_GAIN = 6  # frames to be skipped from which on a seek is faster than decoding them

# swscale's triangle filter widens when it shrinks, so nothing aliases.  Without full chroma colours are a
# grey level off; the last two make every processor compute the same pixels.  As numbers, because PyAV 17, the
# last one for Python 3.10, has no names for them.
SCALING = (
    Interpolation.BILINEAR.value
    | 0x2000  # SWS_FULL_CHR_H_INT
    | 0x40000  # SWS_ACCURATE_RND
    | 0x80000  # SWS_BITEXACT
)


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
    wanted = np.asarray(frame_numbers, dtype=np.int64)
    numbers = np.unique(wanted)
    if len(numbers) and not 0 <= numbers[0] <= numbers[-1] < len(index):
        fail(index.path, "outside_clip", f"asked for frames {numbers[0]} to {numbers[-1]} of {len(index)}")
    size = scaled_size(index, resize)
    left, top, width, height = crop or (0, 0, *size)
    if min(left, top, width - 1, height - 1) < 0 or left + width > size[0] or top + height > size[1]:
        raise ValueError(f"crop {crop} does not fit into the picture of {size[0]}x{size[1]} pixels")
    reader = _Reader(index, wanted, size, (left, top, width, height))
    if seek:
        reader.read_runs(_runs(index, numbers))
    if reader.missing:  # a seek may land wrong, or the decoder want more than the key frame
        reader.read_all()
    if reader.missing:
        number = min(reader.missing)
        fail(index.path, "damaged", f"frame {number} cannot be decoded", float(index.seconds[number]))
    if len(numbers) < len(wanted):
        for row, number in enumerate(wanted.tolist()):
            if reader.rows[number] != row:
                reader.pictures[row] = reader.pictures[reader.rows[number]]
    return reader.pictures


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
        self.rows = {number: row for row, number in reversed([*enumerate(numbers.tolist())])}  # the first of equals
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
