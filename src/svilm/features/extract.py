"""Whole videos to snippet features on disk, with the frozen encoder: what temporal localization learns from.

The paper fixes the weights of the video encoder and its grouping blocks for it (section 4.2) and does not say which
vector it takes; here that is a setting, and `features.json` beside the features states it.
"""

import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from tqdm import tqdm

from svilm.config import Config
from svilm.data.decode import DecodeError, VideoIndex, index_video
from svilm.data.manifest import Manifest
from svilm.data.sample import Sampling
from svilm.data.snippets import (
    Origin,
    SnippetError,
    Vector,
    Windows,
    read_origin,
    read_windows,
    video_name,
    write_origin,
    write_rows,
)
from svilm.data.workers import Readers
from svilm.models.dual import DualEncoder
from svilm.runtime import gather_objects, rank, world_size
from svilm.types import VideoFeatures
from svilm.version import __version__


class Extraction(Config):
    """How a video becomes snippet features."""

    vector: Vector = "groups"
    """groups: mean of the group tokens, before the projection.  tokens: mean of the video tokens.  projected: the unit
    vector of the common space."""
    windows: Windows = Windows()
    """Frames that a snippet sees."""
    batch: int = Field(16, ge=1)
    """Snippets encoded at once."""
    dtype: Literal["float16", "float32"] = "float16"
    """Numbers in the files."""


@dataclass(frozen=True)
class Extracted:
    """What became of the videos of a manifest."""

    folder: Path
    made: int
    """Videos encoded now."""
    kept: int
    """Videos that had features before."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Names of the videos that could not be read, with the reason."""

    def __str__(self) -> str:
        lines = [
            f"{self.folder}: {self.made} videos encoded, {self.kept} there before, {len(self.unreadable)} unreadable"
        ]
        return "\n".join([*lines, *(f"  {name}: {reason}" for name, reason in self.unreadable.items())])


def extract(
    encoder: DualEncoder,
    manifest: Manifest,
    folder: Path,
    settings: Extraction,
    sampling: Sampling,
    *,
    name: str,
    workers: int = 0,
) -> Extracted:
    """Write the features of every video of a manifest into ``folder``; the ranks share the videos.

    Videos whose features are there are left alone, so an interrupted extraction goes on where it stopped.
    Unreadable videos are named in features.json and in what is returned.  Raises SnippetError for a folder of
    features made in another way, and for two videos whose files would have the same name.
    """
    origin = _origin(encoder, settings, sampling, name)
    if rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        origin = replace(origin, unreadable=_known_unreadable(folder, origin))
        write_origin(folder, origin)
    origin = gather_objects(origin)[0]  # the other ranks wait for the folder
    videos = _videos(manifest)
    # one list for all: a rank that looks later finds what others have written by then, and would share another list
    todo = gather_objects([video for video in videos if not (folder / f"{video}.npy").is_file()])[0]
    own = {video: videos[video] for video in todo[rank() :: world_size()]}
    failed = _encode_all(encoder, own, folder, settings, sampling, workers)
    everywhere = {video: reason for part in gather_objects(failed) for video, reason in part.items()}
    unreadable = {**origin.unreadable, **everywhere}
    unreadable = {video: reason for video, reason in unreadable.items() if not (folder / f"{video}.npy").is_file()}
    if rank() == 0:
        write_origin(folder, replace(origin, unreadable=unreadable))
    gather_objects(None)  # nobody reads features.json before it is written
    return Extracted(folder, len(todo) - len(everywhere), len(videos) - len(todo), everywhere)


def encode_video(
    encoder: DualEncoder, video: VideoIndex, settings: Extraction, sampling: Sampling
) -> Float[np.ndarray, "snippets width"]:
    """The features of one video.  Raises DecodeError when it cannot be read."""
    chunks = read_windows(video, settings.windows, sampling, settings.batch)
    rows = [_encode(encoder, torch.from_numpy(chunk), settings.vector) for chunk in chunks]
    return np.concatenate(rows).astype(settings.dtype)


def fingerprint(encoder: DualEncoder) -> str:
    """Sixteen hexadecimal digits that change with any weight that features depend on: those of the video encoder, its
    projection, and the region branch where there is one, as that adds to the video tokens."""
    digest = hashlib.blake2b(digest_size=8)
    regions = [] if encoder.regions is None else [encoder.regions]
    for part in (encoder.video, encoder.video_projection, *regions):
        for name, tensor in part.state_dict().items():
            digest.update(name.encode("utf-8"))
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _origin(encoder: DualEncoder, settings: Extraction, sampling: Sampling, name: str) -> Origin:
    config, windows = encoder.config, settings.windows
    return Origin(
        model=name,
        weights=fingerprint(encoder),
        vector=settings.vector,
        width=config.common if settings.vector == "projected" else config.video.width,
        dtype=settings.dtype,
        fps=windows.fps,
        frames=windows.frames,
        stride=windows.stride,
        size=sampling.size,
        short_side=sampling.short_side or round(sampling.size * 8 / 7),
        fit=sampling.fit,
        version=__version__,
    )


def _known_unreadable(folder: Path, origin: Origin) -> Mapping[str, str]:
    """The unreadable videos of an earlier extraction into the folder, which must have been this one."""
    before = read_origin(folder)
    if before is None:
        if any(folder.rglob("*.npy")):
            raise SnippetError(f"{folder} has .npy files of unknown origin; choose an empty folder")
        return {}
    differences = origin.differs(before)
    if differences:
        raise SnippetError(f"{folder} holds other features ({'; '.join(differences)}); choose another folder")
    return before.unreadable


def _videos(manifest: Manifest) -> dict[str, Path]:
    """Each video once, by the name of its file of features."""
    videos: dict[str, Path] = {}
    for entry in manifest:
        name, path = video_name(entry.video), manifest.path_of(entry)
        if videos.setdefault(name, path) != path:
            raise SnippetError(f"{videos[name]} and {path} would both have their features in {name}.npy; rename one")
    return videos


@dataclass(frozen=True)
class _Chunk:
    """Some snippets of a video, or why it cannot be read."""

    video: str
    pixels: UInt8[np.ndarray, "snippets frames size size 3"] | None = None
    total: int = 0
    """Snippets of the whole video."""
    failure: str = ""


class _Chunks(IterableDataset[_Chunk]):
    """The pixels of videos, chunk by chunk; worker processes share the videos."""

    def __init__(self, videos: Mapping[str, Path], settings: Extraction, sampling: Sampling) -> None:
        self.videos, self.settings, self.sampling = videos, settings, sampling

    def __iter__(self) -> Iterator[_Chunk]:
        worker = get_worker_info()
        first, number = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for video, path in list(self.videos.items())[first::number]:
            try:
                index = index_video(path)
                total = self.settings.windows.count(index.duration)
                for pixels in read_windows(index, self.settings.windows, self.sampling, self.settings.batch):
                    yield _Chunk(video, pixels, total)
            except DecodeError as error:
                yield _Chunk(video, failure=f"{error.reason}: {error}")


def _encode_all(
    encoder: DualEncoder,
    videos: Mapping[str, Path],
    folder: Path,
    settings: Extraction,
    sampling: Sampling,
    workers: int,
) -> dict[str, str]:
    """Encode this rank's videos, and return why some of them could not be."""
    loader: DataLoader[Any] = Readers(
        _Chunks(videos, settings, sampling),
        batch_size=None,
        num_workers=min(workers, len(videos)),
    )
    rows: dict[str, list[np.ndarray]] = {}
    failed: dict[str, str] = {}
    bar = tqdm(total=len(videos), desc="features", unit="video", disable=rank() > 0 or not videos, file=sys.stderr)
    with bar:
        for chunk in loader:
            if chunk.pixels is None:
                rows.pop(chunk.video, None)
                failed[chunk.video] = chunk.failure
                bar.update()
                continue
            parts = rows.setdefault(chunk.video, [])
            parts.append(_encode(encoder, torch.as_tensor(chunk.pixels), settings.vector))
            if sum(map(len, parts)) == chunk.total:
                write_rows(folder, chunk.video, np.concatenate(rows.pop(chunk.video)).astype(settings.dtype))
                bar.update()
    return failed


@torch.no_grad()
def _encode(
    encoder: DualEncoder, pixels: UInt8[Tensor, "snippets frames size size 3"], vector: Vector
) -> Float[np.ndarray, "snippets width"]:
    training = encoder.training
    device = next(encoder.parameters()).device
    encoder.eval()
    try:
        features = encoder.encode_video(pixels.to(device))
    finally:
        encoder.train(training)
    rows: np.ndarray = _picked(features, vector).float().cpu().numpy()
    return rows


def _picked(features: VideoFeatures, vector: Vector) -> Float[Tensor, "snippets width"]:
    if vector == "groups":
        return features.groups.mean(dim=1)
    if vector == "tokens":
        return features.tokens.mean(dim=(1, 2))
    return features.embedding
