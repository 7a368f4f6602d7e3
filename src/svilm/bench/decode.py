"""Reading clips: against plain sequential decoding and other libraries, and from packed shards against the originals.

OpenCV and torchcodec are measured where they can be imported; svilm needs neither.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import av
import numpy as np

from svilm.bench.frame import How, Row, higher, lower, not_measured, seconds_of
from svilm.data.cut import Packing
from svilm.data.decode import index_video, read_frames
from svilm.data.manifest import Entry, Header, Manifest, write_manifest
from svilm.data.pack import pack
from svilm.data.sample import Sampling, load_clip

SIDE, FRAMES, RATE, SECONDS = 224, 32, 30, 10
SIZES = ((340, 256, 250), (480, 270, 48))
"""Width, height and frames between key frames: a clip as Kinetics' are passed on, and one as of the web."""
WEB_SIZE = (1280, 720, 250)
"""What a downloaded video looks like before it is packed."""
GPU = "clips per second of a training step on one GPU"

Reader = Callable[[Path], object]


def rows(how: How) -> Iterator[Row]:
    """32 frames of 10 s at 224 x 224 by each library, then random training clips of 32 frames from packed shards."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for width, height, gop in SIZES[:1] if how.quick else SIZES:
            path = film(folder / f"{width}.mp4", width, height, gop, 2 if how.quick else SECONDS)
            yield from _readers(path, f"32 frames of a clip of {width}x{height}", how.repetitions)
        yield from _packed(folder, how)


def film(path: Path, width: int, height: int, gop: int, seconds: int) -> Path:
    """Write a clip with a moving background, a thing that crosses it, and grain."""
    rng = np.random.default_rng(0)
    scene = np.kron(rng.integers(40, 216, (height // 16 + 1, width // 8 + 2, 3)), np.ones((16, 16, 1)))
    with av.open(str(path), "w") as out:
        options = {"g": str(gop), "preset": "veryfast", "x264-params": "threads=1"}
        stream: Any = out.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        grain = rng.normal(0, 4, (height + 16, width + 16, 1))
        for number in range(seconds * RATE):
            left, at = int(width * number / seconds / RATE), (number * 7 % 16, number * 5 % 16)
            picture = scene[:height, left : left + width] + grain[at[0] :, at[1] :][:height, :width]
            picture[height // 4 : height // 2, 3 * number % width :][:, : width // 8] = (number % 256, 80, 200)
            frame = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def _readers(path: Path, name: str, repetitions: int) -> Iterator[Row]:
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
    ours, *theirs = seconds_of([lambda: _ours(path), *((lambda r=r: r(path)) for r in peers.values())], repetitions)
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


def _packed(folder: Path, how: How) -> Iterator[Row]:
    """Training clips from a packed set against its originals, and how many cores feed a GPU."""
    width, height, gop = (160, 120, 30) if how.quick else WEB_SIZE
    film(folder / "web.mp4", width, height, gop, 2 if how.quick else SECONDS)
    old = folder / "old.jsonl"
    write_manifest(old, Header("bench", ".", 1), [Entry("clip", "web.mp4", ("a clip",), ((),))])
    new = pack(old, folder / "packed", Packing(), workers=0).manifest
    sampling = Sampling(num_frames=FRAMES, size=SIDE)
    fresh, original = (clip_reader(Manifest(path), sampling) for path in (new, old))
    ours, theirs = seconds_of([fresh, original], how.repetitions)
    name = f"training clips per core and second, packed against {width}x{height}"
    yield higher(name, 1 / ours, 1 / theirs, "clips/s", note=f"32 frames, {os.cpu_count()} cores here")
    yield not_measured("cores that feed one GPU from packed shards", f"it is ({GPU}) / {1 / ours:.1f}")


def clip_reader(manifest: Manifest, sampling: Sampling) -> Callable[[], object]:
    """Reads the next random training clip of a manifest at each call, as a worker of the loader does at first sight."""
    rng, turn = np.random.default_rng(0), 0

    def read() -> object:
        nonlocal turn
        entry = manifest[turn % len(manifest)]
        turn += 1
        return load_clip(manifest.path_of(entry), entry.start, entry.end, sampling, rng)

    return read


def cores_for(gpu_clips_per_second: float, manifest: Manifest, sampling: Sampling, repetitions: int = 20) -> float:
    """How many cores must decode to keep a GPU busy that trains on so many clips a second, measured on one core."""
    (seconds,) = seconds_of([clip_reader(manifest, sampling)], repetitions)
    return gpu_clips_per_second * seconds
