"""One clip cut out of its video and encoded anew: small pictures that decode quickly, frame times kept.

What is cut holds every frame from the one on screen when the clip begins to the last one before it ends, each at its
own time, counted from the first.  So a sampler that asks for the moments of the clip gets the same frames as before.
"""

import os
import tempfile
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter
from jaxtyping import Int64
from pydantic import Field

from svilm.config import Config
from svilm.data.container import open_video
from svilm.data.decode import SCALING, DecodeError, VideoIndex, index_video, scaled_size, stream_frames
from svilm.data.sample import clip_bounds

_EXACT = 1e-4  # of a tick: more than this a time may not lie beside it
_FINEST = 1_000_000  # ticks a second where the file's own clock is of no use
_FASTEST = 10_000_000  # ticks a second that an mp4 can count for minutes


class Mjpeg(Config):
    """Motion JPEG: every picture stands alone, so that the wanted ones are all that is decoded."""

    codec: Literal["mjpeg"] = "mjpeg"
    """Its name."""
    qscale: int = Field(6, ge=1, le=31)
    """Quality, 1 the best, 31 the worst; 8 is about as near to the original as H.264 with crf 23."""

    def __str__(self) -> str:
        return f"mjpeg qscale {self.qscale}"


class H264(Config):
    """H.264 with key frames close together: takes a quarter of the room, and twice the time to read."""

    codec: Literal["h264"] = "h264"
    """Its name."""
    crf: int = Field(23, ge=0, le=51)
    """Quality of libx264, 0 without loss, 51 the worst."""
    key_frames: int = Field(12, ge=1)
    """At most so many frames from one key frame to the next: fewer are quicker to reach and take more room."""

    def __str__(self) -> str:
        return f"h264 crf {self.crf}"


class Packing(Config):
    """How clips are encoded and put into shards."""

    short_side: int = Field(256, ge=16, le=4096)
    """Pixels of the shorter side; a smaller picture stays as it is.  Both sides are made even."""
    codec: Mjpeg | H264 = Mjpeg()
    """How pictures are encoded."""
    fps: float = Field(0.0, ge=0)
    """Keep at most so many frames a second, each at its own time; 0 keeps all."""
    shard_size: int = Field(1000, ge=1, le=1_000_000)
    """Clips in a shard."""


class Job(NamedTuple):
    """A clip to be cut out of a video, [start, end) seconds; None means from the beginning, to the end."""

    path: str
    start: float | None
    end: float | None
    packing: Packing
    centred: bool = False
    """Whether it has boxes in its middle."""


class Piece(NamedTuple):
    """A clip as a video of its own, or why there is none."""

    data: bytes = b""
    """The mp4 file."""
    shift: float = 0.0
    """Seconds of the old video at which the new one begins."""
    start: float = 0.0
    """Seconds in the new video at which the clip begins: the first frame was on screen for so long before it did."""
    end: float = 0.0
    """Seconds in the new video at which the clip ends."""
    duration: float = 0.0
    """Seconds of the new video."""
    frames: int = 0
    width: int = 0
    height: int = 0
    reason: str = ""
    """A word to count by, "" where all is well."""
    message: str = ""


def cut_out(job: Job) -> Piece:
    """Cut a clip out of its video and encode it; a video that cannot be read gives a piece with the reason."""
    try:
        index = _index(job.path)
        try:
            return _cut(index, job, seek=True)
        except DecodeError as error:
            if error.reason != "damaged":
                raise
            return _cut(index, job, seek=False)  # the seek may have been at fault
    except DecodeError as error:
        return Piece(reason=error.reason, message=error.message)


@lru_cache(maxsize=4)
def _index(path: str) -> VideoIndex:
    return index_video(path)


def _cut(index: VideoIndex, job: Job, *, seek: bool) -> Piece:
    begin, until = clip_bounds(index, job.start, job.end, job.centred)
    numbers, after = frames_between(index, begin, until, job.packing.fps)
    shift = float(index.seconds[numbers[0]])
    scale = clock(index)
    ticks = np.rint((np.append(index.seconds[numbers], after) - shift) * scale).astype(np.int64)
    width, height = even_size(index, job.packing.short_side)
    with tempfile.TemporaryDirectory(prefix="svilm-pack-") as folder:
        path = os.path.join(folder, "clip.mp4")
        _encode(path, stream_frames(index, numbers, resize=(width, height), seek=seek), ticks, scale, job.packing)
        data = Path(path).read_bytes()
    start, end = max(0.0, begin - shift), until - shift
    return Piece(data, shift, start, end, after - shift, len(numbers), width, height)


def frames_between(
    index: VideoIndex, begin: float, until: float, fps: float
) -> tuple[Int64[np.ndarray, " frames"], float]:
    """Frames that a sampler can want of [begin, until) seconds, and the time up to which the last is on screen.

    With ``fps`` those on screen at each 1/fps from ``begin`` on, and in the middle, where boxes are drawn.
    """
    first = max(0, int(np.searchsorted(index.seconds, begin, side="right")) - 1)
    stop = max(first + 1, int(np.searchsorted(index.seconds, until, side="left")))
    after = float(index.seconds[stop]) if stop < len(index) else index.duration
    numbers: np.ndarray = np.arange(first, stop)
    if fps:
        instants = np.append(begin + np.arange((until - begin) * fps) / fps, (begin + until) / 2)
        numbers = np.unique(np.clip(np.searchsorted(index.seconds, instants, side="right") - 1, first, stop - 1))
    return numbers.astype(np.int64), after


def even_size(index: VideoIndex, short_side: int) -> tuple[int, int]:
    """Upright (width, height): the short side at most ``short_side``, both even."""
    width, height = scaled_size(index, min(short_side, index.width, index.height))
    return max(2, width - width % 2), max(2, height - height % 2)


def clock(index: VideoIndex) -> int:
    """Ticks a second in which all frame times are whole, up to a ten-thousandth of a tick; else microseconds."""
    with open_video(index.path) as video:
        clocks = [video.time_base.denominator, video.rate.numerator]
    for rate in clocks:
        ticks = (index.seconds - index.seconds[0]) * rate
        if rate <= _FASTEST and np.abs(ticks - np.rint(ticks)).max() < _EXACT:
            return rate
    return _FINEST


def _encode(path: str, pictures: Any, ticks: Int64[np.ndarray, " times"], scale: int, packing: Packing) -> None:
    """Write an mp4 whose frame i is shown from ``ticks[i]`` to ``ticks[i + 1]``, in 1/scale seconds.

    One thread and no marks of time or program around the pictures: the same frames give the same bytes.
    """
    last = len(ticks) - 2
    spans = dict(zip(ticks[:-1].tolist(), np.maximum(np.diff(ticks), 1).tolist(), strict=True))
    reformatter = VideoReformatter()
    with av.open(path, "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"}) as file:
        rate = Fraction(len(spans) * scale, max(1, int(ticks[-1]))).limit_denominator(1001)
        name, pixels, options = _encoder(packing.codec)
        stream: Any = file.add_stream(name, rate=max(rate, Fraction(1, 1001)), options=options)
        coder = stream.codec_context
        for number, picture in enumerate(pictures):
            if number == 0:
                coder.height, coder.width = picture.shape[:2]
                coder.pix_fmt, coder.time_base, coder.thread_count = pixels, Fraction(1, scale), 1
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = reformatter.reformat(frame, format=pixels, interpolation=SCALING, threads=1)
            frame.pts, frame.time_base = int(ticks[number]), Fraction(1, scale)
            if number >= last - 1:  # no frame may follow the last one in the file: it alone states its length
                frame.pict_type = PictureType.P
            _write(file, stream.encode(frame), spans)
        _write(file, stream.encode(None), spans)


def _encoder(codec: Mjpeg | H264) -> tuple[str, str, dict[str, str]]:
    """FFmpeg's encoder, the form of its pixels, and its options."""
    if isinstance(codec, Mjpeg):
        return "mjpeg", "yuvj420p", {"qmin": str(codec.qscale), "qmax": str(codec.qscale)}
    options = {
        "preset": "veryfast",
        "tune": "fastdecode",
        "crf": str(codec.crf),
        "x264-params": f"threads=1:lookahead-threads=1:keyint={codec.key_frames}:min-keyint=1:scenecut=0:"
        "bframes=3:b-adapt=0:b-pyramid=none:open-gop=0:mbtree=0:"  # mbtree gives other bytes each time
        "chromaloc=1",  # swscale puts colours between the pixels; without a word decoders look for them on the left
    }
    return "libx264", "yuv420p", options


def _write(file: Any, packets: Any, spans: dict[int, int]) -> None:
    for packet in packets:
        packet.duration = spans[packet.pts]
        file.mux(packet)
