"""From video files to moments with vectors, several videos at a time.

Each group of videos is gone through twice.  First windows of frames slide over them and find the changes; then each
moment is encoded as a clip, just as `svilm.load(...).encode_video(file, start, end)` does it, so that an index holds
the vectors that its model gives.  However long a video is, only the changes stay in memory.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from svilm.backbones import Backbone
from svilm.data.decode import DecodeError, VideoIndex, index_video, read_frames
from svilm.data.sample import Sampling, choose_frames, placement
from svilm.data.workers import Readers
from svilm.search.moments import Bounds, Changes, Splitting, split, split_evenly, window_starts
from svilm.search.store import Vectors

GROUP_FILES = 64
"""Videos whose frames are listed together ..."""
GROUP_SECONDS = 1200.0
"""... and how long those encoded together are: what is in memory, and what a killed run does again."""
PATIENCE_SECONDS = 600
"""A worker process that gives no frames for so long is taken to hang ..."""
LOOK_SECONDS = 2
"""... and after so long without any it is seen whether it still lives."""
CHUNK_CLIPS, CHUNK_BYTES = 64, 1 << 26
"""How much is read at once: so many clips, or fewer where they have more bytes than this."""

T = TypeVar("T")


class File(NamedTuple):
    """A video to index."""

    video: str
    path: str


@dataclass(frozen=True)
class Seen:
    """A video cut into moments."""

    video: str
    index: VideoIndex
    bounds: Bounds
    vectors: Vectors


@dataclass(frozen=True)
class Unseen:
    """A video that cannot be read to its end."""

    video: str
    reason: str


@dataclass(frozen=True)
class Settings:
    """How videos are gone through."""

    splitting: Splitting
    batch: int
    """Clips encoded at once."""
    workers: int
    """Processes that decode."""


Progress = Callable[[str, float], None]
"""Is told which share of the work on a video has been done since it was told before."""


def watch(files: Sequence[File], backbone: Backbone, settings: Settings, progress: Progress) -> Iterator[Seen | Unseen]:
    """What becomes of each video, group by group.

    A file at which a decoding process crashes or hangs is found out, and none of the others suffers.
    """
    for first in range(0, len(files), GROUP_FILES):
        some, done = files[first : first + GROUP_FILES], set[str]()
        try:
            for outcome in _watch(some, backbone, settings, progress):
                done.add(outcome.video)
                yield outcome
        except _WorkerDied as death:
            if len(some) == 1:
                yield Unseen(some[0].video, f"crashed: the process that read it died ({death})")
                continue
            for file in some:
                if file.video not in done:
                    yield from watch([file], backbone, settings, progress)


class _WorkerDied(Exception):
    pass


def _watch(
    files: Sequence[File], backbone: Backbone, settings: Settings, progress: Progress
) -> Iterator[Seen | Unseen]:
    indexes: list[tuple[str, VideoIndex]] = []
    for file, found in zip(files, _loaded(_Listing(files), settings.workers), strict=True):
        if isinstance(found, VideoIndex):
            indexes.append((file.video, found))
        else:
            yield Unseen(file.video, found)
    for group in _by_length(indexes):
        yield from _Group(group, backbone, settings, progress).results()


def _by_length(indexes: Iterable[tuple[str, VideoIndex]]) -> Iterator[dict[str, VideoIndex]]:
    group: dict[str, VideoIndex] = {}
    for video, index in indexes:
        if group and index.duration + sum(one.duration for one in group.values()) > GROUP_SECONDS:
            yield group
            group = {}
        group[video] = index
    if group:
        yield group


class _Group:
    """Videos that are gone through together."""

    def __init__(
        self, indexes: dict[str, VideoIndex], backbone: Backbone, settings: Settings, progress: Progress
    ) -> None:
        self.indexes, self.backbone, self.settings, self.progress = indexes, backbone, settings, progress
        self.failures: dict[str, str] = {}

    def results(self) -> Iterator[Seen | Unseen]:
        """The outcome for each video, in order."""
        splitting, watching = self.settings.splitting, self.backbone.watching
        changes = self._changes()
        bounds = {}
        for video, index in self.indexes.items():
            if video in changes:
                bounds[video] = split(changes[video].drops, watching.step / watching.rate, index.duration, splitting)
            else:
                bounds[video] = split_evenly(index.duration, splitting)
        vectors = self._vectors(bounds)
        for video, index in self.indexes.items():
            if video in self.failures:
                yield Unseen(video, self.failures[video])
            else:
                yield Seen(video, index, bounds[video], vectors[video])

    def _changes(self) -> dict[str, Changes]:
        """What windows over the videos see change, for those that are long enough to be cut."""
        watching, wanted, starts = self.backbone.watching, {}, {}
        changes: dict[str, Changes] = {}
        for video, index in self.indexes.items():
            if self.settings.splitting.needs_watching(index.duration):
                steps = max(1, int(np.ceil(index.duration * watching.rate / watching.step)))
                window = watching.sampling.num_frames // watching.step
                starts[video] = window_starts(steps, window, watching.overlap // watching.step)
                wanted[video] = _window_frames(
                    index, np.array(starts[video]) * watching.step, watching.sampling, watching.rate
                )
                changes[video] = Changes(steps)
        for video, row, encoded in self._encoded(wanted):
            changes[video].add(starts[video][row], encoded.steps)
        return changes

    def _vectors(self, bounds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        sampling, wanted, vectors = self.backbone.watching.sampling, {}, {}
        for video, moments in bounds.items():
            seconds = self.indexes[video].seconds
            if video not in self.failures:
                rows = [choose_frames(seconds, start, end, sampling, None) for start, end in moments.tolist()]
                wanted[video] = np.stack(rows)
                vectors[video] = np.empty((len(rows), self.backbone.width), np.float32)
        for video, row, encoded in self._encoded(wanted):
            vectors[video][row] = encoded.vector
        return vectors

    def _encoded(self, wanted: dict[str, np.ndarray]) -> Iterator[tuple[str, int, "_Encoded"]]:
        """Each clip encoded, in batches across videos; what cannot be read goes to the failures."""
        clips = self._clips(wanted)
        while batch := [clip for _, clip in zip(range(self.settings.batch), clips, strict=False)]:
            vectors, steps = self.backbone.encode(torch.stack([clip.frames for clip in batch]))
            for number, clip in enumerate(batch):
                yield clip.video, clip.row, _Encoded(vectors[number].numpy(), steps[number].numpy())

    def _clips(self, wanted: dict[str, np.ndarray]) -> Iterator["_Clip"]:
        chunks, sampling = [], self.backbone.watching.sampling
        at_once = max(1, min(CHUNK_CLIPS, CHUNK_BYTES // (3 * sampling.num_frames * sampling.size**2)))
        for video, rows in wanted.items():
            chunks += [_Chunk(video, first, rows[first : first + at_once]) for first in range(0, len(rows), at_once)]
        reading = _Reading(self.indexes, chunks, sampling)
        for chunk, pixels in zip(chunks, _loaded(reading, self.settings.workers), strict=True):
            if isinstance(pixels, str):
                self.failures[chunk.video] = pixels
            elif chunk.video not in self.failures:
                for number, frames in enumerate(pixels):
                    yield _Clip(chunk.video, chunk.first + number, frames)
            self.progress(chunk.video, len(chunk.frames) / len(wanted[chunk.video]) / 2)


class _Encoded(NamedTuple):
    vector: Float[np.ndarray, " common"]
    steps: Float[np.ndarray, "steps width"]


class _Clip(NamedTuple):
    video: str
    row: int
    frames: UInt8[Tensor, "frames size size 3"]


class _Chunk(NamedTuple):
    """Some clips of a video that are read together."""

    video: str
    first: int
    frames: Int64[np.ndarray, "clips frames"]


def _window_frames(
    index: VideoIndex, starts: Int64[np.ndarray, " windows"], sampling: Sampling, rate: float
) -> Int64[np.ndarray, "windows frames"]:
    """For each window the frames on screen in the middle of each 1/rate of it."""
    instants = (starts[:, None] + np.arange(sampling.num_frames) + 0.5) / rate
    return np.clip(np.searchsorted(index.seconds, instants, side="right") - 1, 0, len(index) - 1)


# In worker processes


class _Listing(Dataset[VideoIndex | str]):
    """The frames that each file holds, or why it cannot be read."""

    def __init__(self, files: Sequence[File]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> VideoIndex | str:
        try:
            index = index_video(self.files[number].path)
        except DecodeError as error:
            return f"{error.reason}: {error.message}"
        return index if index.damage is None else f"damaged: {index.damage}"


class _Reading(Dataset[Tensor | str]):
    """The pixels of each chunk, clips x frames, or why they cannot be read."""

    def __init__(self, indexes: dict[str, VideoIndex], chunks: Sequence[_Chunk], sampling: Sampling) -> None:
        self.indexes, self.chunks, self.sampling = indexes, chunks, sampling

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, number: int) -> Tensor | str:
        chunk = self.chunks[number]
        index = self.indexes[chunk.video]
        size, (left, top) = placement(index, self.sampling, None)
        crop = (left, top, self.sampling.size, self.sampling.size)
        needed, places = np.unique(chunk.frames, return_inverse=True)
        try:
            pixels = read_frames(index, needed, resize=size, crop=crop)
        except DecodeError as error:
            return f"{error.reason}: {error.message}"
        return torch.from_numpy(pixels[places.reshape(chunk.frames.shape)])


def _loaded(dataset: Dataset[T], workers: int) -> Iterator[T]:
    """All items in order, made by worker processes."""
    count = len(dataset)  # type: ignore[arg-type]
    if not count:
        return
    look = LOOK_SECONDS if workers else 0
    loader: Readers[Any] = Readers(dataset, batch_size=None, num_workers=min(workers, count), timeout=look)
    items = iter(loader)
    waited = 0
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except RuntimeError as error:
            if "DataLoader" not in str(error):
                raise
            waited += look
            if "timed out" in str(error) and waited < PATIENCE_SECONDS:
                continue
            raise _WorkerDied(str(error).splitlines()[0]) from None
        except (EOFError, OSError) as error:  # it died while it handed something over
            raise _WorkerDied(f"DataLoader worker lost: {type(error).__name__} {error}".strip()) from None
        waited = 0
        yield item
