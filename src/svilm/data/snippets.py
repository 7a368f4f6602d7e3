"""Frozen features of whole videos: which frames a snippet sees, and the folders that keep one row per snippet.

A snippet stands for an equal stretch of time, its step: snippet i for [i, i + 1) steps, as many as have their centre
within the video.  It looks at a window of frames around that centre, which may be longer than the step.  A folder
has one file per video, snippets x width, and a ``features.json`` that says what the numbers are.  Folders made by
others (OpenTAD's .npy files, the csv files of BMN, .npz) have none; their rows divide the video's duration evenly.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64, Int64, UInt8
from pydantic import Field

from svilm.arrays import read_arrays
from svilm.config import Config
from svilm.data.decode import VideoIndex, read_frames
from svilm.data.sample import Sampling, placement
from svilm.entries import Entry

VERSION = 1
FILE = "features.json"
Vector = Literal["groups", "tokens", "projected"]
Rows = Float[np.ndarray, "snippets width"]

_LAYOUT = (
    "one .npy per video, named after it: snippets x width; row i stands for the seconds "
    "[i, i + 1) * step_seconds and sees `frames` frames at `fps` around the centre of that stretch; "
    "frames before and after the video repeat its first and last"
)
_HDF5 = (
    "import h5py, numpy\nwith h5py.File('{name}') as file:\n    for video in file:\n"
    "        numpy.save(video, file[video][()])"
)


class SnippetError(ValueError):
    """A folder of features that cannot be used; the message names file and remedy."""


class Windows(Config):
    """Which frames of a video its snippets see."""

    fps: float = Field(15.0, gt=0)
    """Frames per second at which the video is read, whatever its own rate."""
    frames: int = Field(16, ge=1)
    """Frames that a snippet sees, a multiple of the encoder's tubelet."""
    stride: int = Field(16, ge=1)
    """Frames from one snippet to the next; less than `frames` makes them overlap."""

    @property
    def step_seconds(self) -> float:
        """Seconds from one snippet to the next."""
        return self.stride / self.fps

    def count(self, duration: float) -> int:
        """Snippets of a video of so many seconds: those whose centre is in it, at least one."""
        return max(1, int(duration / self.step_seconds + 0.5))

    def frame_numbers(
        self, seconds: Float64[np.ndarray, " video_frames"], duration: float
    ) -> Int64[np.ndarray, "snippets frames"]:
        """For each snippet the frames on screen in the middle of each 1/fps of its window.

        ``seconds`` says when each frame of the video is shown, ascending.
        """
        centres = (np.arange(self.count(duration)) + 0.5) * self.stride
        within = np.arange(self.frames) + 0.5 - self.frames / 2
        instants = (centres[:, None] + within) / self.fps
        numbers = np.searchsorted(seconds, instants, side="right") - 1
        return np.clip(numbers, 0, len(seconds) - 1)


def read_windows(
    index: VideoIndex, windows: Windows, sampling: Sampling, at_once: int
) -> Iterator[UInt8[np.ndarray, "snippets frames size size 3"]]:
    """The pixels of all snippets of a video in order, ``at_once`` of them at a time, in the centre square of
    ``sampling``.  Raises DecodeError for a video that cannot be read.
    """
    (width, height), (left, top) = placement(index, sampling, None)
    crop = (left, top, sampling.size, sampling.size)
    numbers = windows.frame_numbers(index.seconds, index.duration)
    for first in range(0, len(numbers), at_once):
        chunk = numbers[first : first + at_once]
        needed, places = np.unique(chunk, return_inverse=True)
        yield read_frames(index, needed, resize=(width, height), crop=crop)[places.reshape(chunk.shape)]


@dataclass(frozen=True)
class Origin:
    """What the features of a folder are."""

    model: str
    """Name of the encoder, as it was given."""
    weights: str
    """Fingerprint of its weights."""
    vector: Vector
    """groups: mean of the group tokens.  tokens: mean of the video tokens.  projected: the unit vector of the common
    space."""
    width: int
    dtype: Literal["float16", "float32"]
    fps: float
    frames: int
    stride: int
    size: int
    """Side of the square that the encoder sees."""
    short_side: int
    """Short side of the picture that the square is cut out of."""
    fit: Literal["crop", "squash"]
    """Whether the square is cut out of the picture or the picture pressed into it."""
    version: str
    """Version of svilm that wrote them."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Videos without features, with the reason."""

    @property
    def windows(self) -> Windows:
        """Which frames the snippets see."""
        return Windows(fps=self.fps, frames=self.frames, stride=self.stride)

    @property
    def sampling(self) -> Sampling:
        """How the square is cut."""
        return Sampling(size=self.size, short_side=self.short_side, fit=self.fit)

    def __str__(self) -> str:
        times = f"{self.frames} frames at {self.fps:g} per second, every {self.stride}"
        return f"{self.vector} of {self.model} ({self.weights}), {times}, {self.size}x{self.size}"

    def differs(self, other: "Origin") -> list[str]:
        """In words, what makes the other's features different numbers."""
        same = {"model", "version", "unreadable"}
        pairs = ((f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self) if f.name not in same)
        return [f"{name} {there!r}, not {here!r}" for name, here, there in pairs if here != there]


@dataclass(frozen=True)
class Snippets:
    """The features of one video."""

    rows: Rows
    step_seconds: float
    """Seconds that a row stands for."""

    @property
    def covered(self) -> float:
        """Seconds that all rows stand for, the video's duration but for half a step."""
        return len(self.rows) * self.step_seconds


class FeatureFolder:
    """Features on disk, ours or others'.  ``origin`` is None where no features.json says what they are.

    Raises SnippetError for a folder that is not there, or whose features.json is not of this version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise SnippetError(f"{self.path}: no such folder of features; make one with `svilm features`")
        self.origin = read_origin(self.path)

    def __str__(self) -> str:
        """What the features are, in words that go beside a score."""
        if self.origin is None:
            return f"{self.path.name}, of unknown origin"
        return str(self.origin)

    def find(self, entry: Entry) -> Path | None:
        """The file of a video; .npy before .npz and .csv.

        Ours is named by the video's path alone: another name is another video.  Others' may also have its name, or
        its id with or without "v_".
        """
        name = video_name(entry.video)
        names = (
            [name]
            if self.origin is not None
            else dict.fromkeys((name, os.path.basename(name), _inside(entry.id), _inside(f"v_{entry.id}")))
        )
        files = (self.path / f"{name}{ending}" for ending in (".npy", ".npz", ".csv") for name in names)
        return next((file for file in files if file.is_file()), None)

    def read(self, entry: Entry) -> Snippets:
        """The features of a video.

        Raises SnippetError for a video without a file, a file that is no table of finite numbers, and others'
        features of a video whose duration the manifest does not state.
        """
        file = self.find(entry)
        if file is None:
            raise SnippetError(self._missing(entry))
        rows = _table(file)
        if self.origin is not None:
            return Snippets(rows, self.origin.windows.step_seconds)
        if entry.duration is None:
            raise SnippetError(
                f"{entry.id}: no duration in the manifest and no {FILE} in {self.path}, so the time of the snippets "
                "is unknown; prepare the manifest from annotations with durations"
            )
        return Snippets(rows, entry.duration / len(rows))

    def _missing(self, entry: Entry) -> str:
        reason = self.origin.unreadable.get(video_name(entry.video)) if self.origin else None
        if reason is not None:
            return f"{entry.id}: no features, its video could not be read ({reason})"
        packed = next(self.path.glob("*.h*5"), None)
        if packed is not None:
            code = _HDF5.format(name=packed.name)
            return f"{self.path}: HDF5 is not read; unpack {packed.name} there once with\n{code}"
        return f"{entry.id}: no {video_name(entry.video)}.npy (nor .npz, .csv) in {self.path}"


def video_name(video: str) -> str:
    """Name of a video's file of features in a folder: the path of the video without its ending."""
    return os.path.splitext(_inside(video))[0]


def _inside(name: str) -> str:
    """The name as a relative path that does not lead out of a folder."""
    return os.path.normpath("/" + name.lstrip("/"))[1:]


def write_rows(folder: Path, name: str, rows: Rows) -> None:
    """Write the features of a video, whole or not at all."""
    part = folder / f"{name}.part"
    part.parent.mkdir(parents=True, exist_ok=True)
    with open(part, "wb") as out:
        np.save(out, rows)
    os.replace(part, folder / f"{name}.npy")


def write_origin(folder: Path, origin: Origin) -> None:
    """Write features.json."""
    windows = origin.windows
    words = {
        "layout": _LAYOUT,
        "step_seconds": windows.step_seconds,
        "first_centre_seconds": windows.step_seconds / 2,
    }
    part = folder / f"{FILE}.part"
    part.write_text(json.dumps({"svilm_features": VERSION, **words, **asdict(origin)}, indent=1) + "\n", "utf-8")
    os.replace(part, folder / FILE)


def read_origin(folder: Path) -> Origin | None:
    """What features.json says, or None where there is none.  Raises SnippetError for another version or form."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.get("svilm_features") != VERSION:
            raise ValueError(f"svilm_features is {data.get('svilm_features')!r}, must be {VERSION}")
        origin = Origin(**{each.name: data[each.name] for each in fields(Origin)})
        _ = origin.windows, origin.sampling  # checks the numbers
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SnippetError(f"{path}: not made by this `svilm features` ({error!r}); extract them again") from None
    return origin


def _table(path: Path) -> Rows:
    """Snippets x width, float32, from .npy, .npz with one array, or csv with a line of names."""
    try:
        if path.suffix == ".csv":
            rows: np.ndarray = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
        else:
            arrays = read_arrays(path)
            if len(arrays) != 1:
                raise ValueError(f"it has {len(arrays)} arrays, must have one")
            (rows,) = arrays.values()
    except (OSError, ValueError) as error:
        raise SnippetError(f"{path}: no table of features ({error})") from None
    if rows.ndim != 2 or not len(rows) or rows.dtype.kind not in "fiu" or not np.isfinite(rows).all():
        raise SnippetError(
            f"{path}: must be snippets x width of finite numbers, has shape {rows.shape} of {rows.dtype}; "
            "make it again, or take it out of the folder"
        )
    return rows.astype(np.float32)
