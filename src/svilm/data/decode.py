"""Reading video: the wanted frames of a file as upright RGB.

A frame is known by its number in the file's ``VideoIndex``.  What cannot be read right raises DecodeError: it never
becomes a frame.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
from av.filter.graph import Graph
from av.video.format import VideoFormat
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

Box = tuple[int, int, int, int]
"""Left, top, width, height in pixels."""

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
    region: Box | None = None,
    resize: int | tuple[int, int] | None = None,
    crop: Box | None = None,
    seek: bool = True,
) -> UInt8[np.ndarray, "frames height width 3"]:
    """The frames with these numbers, in this order (repeats allowed), as upright RGB, 0 to 255.

    First ``region`` is cut out of the picture, then what is left gets the size ``resize``, the length of the short
    side or (width, height), then ``crop`` is cut out of that; both boxes are (left, top, width, height), and all
    mean the upright picture.  A region spares the scaling of all that is not wanted, but nothing beyond its border
    is mixed into the pixels there; where pixels share a colour, one that begins at an odd pixel of the stored picture
    has its colours up to a pixel off.  Frames of another size than the first one are brought to the same size.
    ``seek=False`` decodes from the start of the file: the same frames, slower.
    10-bit and HDR video is cut to 8 bits without tone mapping; pixels that are not square stay as stored.
    Raises DecodeError when a wanted frame is missing or was decoded from damaged data.
    """
    wanted = np.asarray(frame_numbers, dtype=np.int64)
    numbers = np.unique(wanted)
    if len(numbers) and not 0 <= numbers[0] <= numbers[-1] < len(index):
        fail(index.path, "outside_clip", f"asked for frames {numbers[0]} to {numbers[-1]} of {len(index)}")
    region = _checked("region", region, (index.width, index.height))
    size = _scaled(region[2:], resize)
    reader = _Reader(index, wanted, region, size, _checked("crop", crop, size))
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
    reader = _Reader(index, frame_numbers[:1], _whole(index), size, (0, 0, *size))
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
    reader = _Looker(index, np.arange(len(index)), _whole(index), (1, 1), (0, 0, 1, 1))
    reader.read_all()
    intact = np.ones(len(index), dtype=bool)
    intact[list(reader.missing)] = False
    return intact


def scaled_size(index: VideoIndex, resize: int | tuple[int, int] | None) -> tuple[int, int]:
    """Upright (width, height) after ``resize``: the short side, or (width, height), or None for no change.

    With a short side given, the long side keeps the aspect up to 16:1.
    """
    return _scaled((index.width, index.height), resize)


def _scaled(size: tuple[int, int], resize: int | tuple[int, int] | None) -> tuple[int, int]:
    if resize is None:
        return size
    if isinstance(resize, tuple):
        return resize
    short, long = sorted(size)
    other = min(round(long * resize / short), MAX_ASPECT * resize)
    return (resize, other) if size[0] <= size[1] else (other, resize)


def _whole(index: VideoIndex) -> Box:
    return 0, 0, index.width, index.height


def _checked(name: str, box: Box | None, size: tuple[int, int]) -> Box:
    """The box, or all of the picture where there is none."""
    left, top, width, height = box or (0, 0, *size)
    if min(left, top, width - 1, height - 1) < 0 or left + width > size[0] or top + height > size[1]:
        raise ValueError(f"{name} {box} does not fit into the picture of {size[0]}x{size[1]} pixels")
    return left, top, width, height


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
        region: Box,
        size: tuple[int, int],
        crop: Box,
    ) -> None:
        self.index, self.size, self.crop = index, size, crop
        self.region = None if region == _whole(index) else index.orientation.stored(region, index.width, index.height)
        self.rows = {number: row for row, number in reversed([*enumerate(numbers.tolist())])}  # the first of equals
        self.pictures = np.empty((len(numbers), crop[3], crop[2], 3), dtype=np.uint8)
        self.missing = set(self.rows)
        self.reformatter, self.packer = VideoReformatter(), VideoReformatter()
        self.cutter: tuple[str, Graph] | None = None

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
        """Put a decoded frame, cut, scaled and upright, into its row of ``pictures``."""
        turn = self.index.orientation
        width, height = self.size[::-1] if turn.transpose else self.size
        with typed_errors(self.index.path, float(self.index.seconds[number])):
            if self.region is not None:
                frame = self._part(frame, self.region)
            # First into planes, because swscale scales to packed pixels one by one.
            planar = self.reformatter.reformat(frame, width, height, "gbrp", interpolation=SCALING, threads=1)
            plane = self.packer.reformat(planar, format="rgb24", threads=1).planes[0]
        rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(-1, plane.line_size)
        upright = turn.upright(rows[:height, : 3 * width].reshape(height, width, 3))
        left, top, wide, high = self.crop
        self.pictures[self.rows[number]] = upright[top : top + high, left : left + wide]

    def _part(self, frame: VideoFrame, region: Box) -> VideoFrame:
        """A region of a stored picture; nothing is copied."""
        size = self.index.stored_size
        if (frame.width, frame.height) != size:
            frame = self.reformatter.reformat(frame, *size, interpolation=SCALING, threads=1)
        if self.cutter is None or self.cutter[0] != frame.format.name:
            self.cutter = frame.format.name, _cutter(size, frame.format, region)
        graph = self.cutter[1]
        graph.push(frame)
        part = graph.pull()
        assert isinstance(part, VideoFrame)
        return part


def _cutter(size: tuple[int, int], format: VideoFormat, region: Box) -> Graph:
    """What cuts a region out of pictures.  FFmpeg's own filter, since a frame made here would not know where its
    colours lie between its pixels."""
    graph = Graph()
    graph.threads = 1  # or each would start one for every core
    source = graph.add_buffer(width=size[0], height=size[1], format=format, time_base=Fraction(1))
    left, top, width, height = region
    cut = graph.add("crop", f"{width}:{height}:{left}:{top}:exact=1")
    sink = graph.add("buffersink")
    source.link_to(cut)
    cut.link_to(sink)
    graph.configure()
    return graph


class _Looker(_Reader):
    """Reads frames without keeping them; of pictures alike it converts the first, to see that it can be done."""

    known: tuple[str, int, int] | None = None

    def store(self, number: int, frame: VideoFrame) -> None:
        kind = frame.format.name, frame.width, frame.height
        if kind != self.known:
            self.size, self.crop = kind[1:], (0, 0, 1, 1)
            super().store(number, frame)
        self.known = kind
