"""Reading clips: against plain sequential decoding and other libraries.

OpenCV and torchcodec are measured where they can be imported; svilm needs neither.
"""

import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import av
import numpy as np

from svilm.bench.frame import How, Row, lower, not_measured, seconds_of
from svilm.bench.material import film
from svilm.data.decode import index_video, read_frames

SIDE, FRAMES, SECONDS = 224, 32, 10
SIZES = ((340, 256, 250), (480, 270, 48))
"""Width, height and frames between key frames: a clip as Kinetics' are passed on, and one as of the web."""

Reader = Callable[[Path], object]


def rows(how: How) -> Iterator[Row]:
    """32 frames of 10 s at 224 x 224 by each library."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for width, height, gop in SIZES[:1] if how.quick else SIZES:
            path = film(folder / f"{width}.mp4", width, height, gop, 2 if how.quick else SECONDS)
            yield from _readers(path, f"32 frames of a clip of {width}x{height}", how)


def _readers(path: Path, name: str, how: How) -> Iterator[Row]:
    """Ours beside each other library, all with one thread, all from an unopened file."""
    peers: dict[str, Reader] = {"sequential PyAV": _sequential}
    missing: dict[str, str] = {}
    for title, make in (("OpenCV", _opencv), ("torchcodec", _torchcodec)):
        try:
            peers[title] = make()
            peers[title](path)
        except (ImportError, OSError, RuntimeError) as error:  # torchcodec says so where it finds no FFmpeg
            peers.pop(title, None)
            missing[title] = str(error).partition("\n")[0]
    ours, *theirs = seconds_of([lambda: _ours(path), *((lambda r=r: r(path)) for r in peers.values())], how)
    for title, seconds in zip(peers, theirs, strict=True):
        yield lower(f"{name}, against {title}", ours, seconds, "s")
    for title, why in missing.items():
        yield not_measured(f"{name}, against {title}", why)


def wanted(count: int) -> list[int]:
    """Numbers of 32 frames spread over ``count``."""
    return ((np.arange(FRAMES) + 0.5) * count / FRAMES).astype(int).tolist()


def _ours(path: Path) -> object:
    index = index_video(path)
    return read_frames(index, wanted(len(index)), resize=(SIDE, SIDE))


def _sequential(path: Path) -> object:
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "SLICE", 1
        numbers = set(wanted(stream.frames))
        frames = (frame for number, frame in enumerate(file.decode(stream)) if number in numbers)
        return [frame.reformat(SIDE, SIDE, format="rgb24").to_ndarray() for frame in frames]


def _opencv() -> Reader:
    cv2: Any = import_module("cv2")
    cv2.setNumThreads(1)

    def read(path: Path) -> object:
        file = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        count = int(file.get(cv2.CAP_PROP_FRAME_COUNT))
        numbers, pictures = set(wanted(count)), []
        for number in range(count):
            file.grab()
            if number in numbers:
                picture = cv2.resize(file.retrieve()[1], (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
                pictures.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
        return pictures

    return read


def _torchcodec() -> Reader:
    transforms: Any = import_module("torchcodec.transforms")
    decoders: Any = import_module("torchcodec.decoders")

    def read(path: Path) -> object:
        resize = [transforms.Resize((SIDE, SIDE))]
        decoder = decoders.VideoDecoder(str(path), num_ffmpeg_threads=1, dimension_order="NHWC", transforms=resize)
        return decoder.get_frames_at(wanted(len(decoder))).data

    return read
