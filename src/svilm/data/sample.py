"""From a video to a clip: which frames by time, scaled and cut to a square.

Training draws times, scale and place at random from the generator it is given; evaluation (no generator)
takes the middle of everything, or several stated views, so that a score never depends on luck.

Evaluation scales the picture and then cuts the square out of it, as protocols say.  Training cuts pixels out
of the source and scales only these, which is a half to a quarter of the work.
"""

import os
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8
from pydantic import Field, model_validator
from torch import Tensor

from svilm.config import Config, ConfigError
from svilm.data.decode import Box, DecodeError, VideoIndex, index_video, read_frames, scaled_size
from svilm.data.ends import cut_end, slack


class Sampling(Config):
    """Which frames of a clip are read, and which part of the picture.

    The defaults are those of ViViT, whose recipe the paper follows: short side 256, crop 224.
    """

    num_frames: int = Field(32, ge=1)
    """Frames per clip."""
    size: int = Field(224, ge=1)
    """Side in pixels of the square that the model sees."""
    strategy: Literal["uniform", "dense"] = "uniform"
    """uniform: one frame from each of num_frames equal stretches of time.  dense: frames `stride` apart."""
    stride: int = Field(2, ge=1)
    """Frames from one to the next when strategy is dense."""
    fit: Literal["crop", "squash"] = "crop"
    """crop: keep the aspect and cut a square out.  squash: the whole picture, pressed into the square."""
    short_side: int = Field(0, ge=0)
    """Short side in pixels before the crop; 0 means 8/7 of size (256 for 224), size means no margin."""
    min_scale: float = Field(0.9, gt=0)
    """Training scales the short side by a random factor of at least this, before the crop."""
    max_scale: float = Field(1.33, gt=0)
    """... and at most this."""
    random_crop: bool = True
    """Training cuts the square at a random place; evaluation always cuts the centre."""

    @model_validator(mode="after")
    def _check(self) -> "Sampling":
        if self.min_scale > self.max_scale:
            raise ValueError(f"min_scale {self.min_scale} is above max_scale {self.max_scale}")
        if 0 < self.short_side < self.size:
            raise ValueError(f"short_side {self.short_side} is below size {self.size}: no square fits in")
        return self


@dataclass(frozen=True)
class View:
    """One look at a clip for evaluation; by default the middle of it."""

    moment: float = 0.5
    """0 to 1: which moment of each stretch of time (uniform), or where between the first and the last place that
    it can have the window lies (dense)."""
    place: float = 0.5
    """0 to 1: where the square lies along the longer side of the picture."""


MIDDLE = View()
"""The look at a clip that is taken where just one is."""


class Views(Config):
    """How many looks at a clip an evaluation takes: each of some moments at each of some places."""

    clips: int = Field(1, ge=1)
    """Moments.  uniform: the (k + 0.5)/n part of each stretch of time.  dense: windows from the first to the last."""
    crops: int = Field(1, ge=1)
    """Squares from one end of the longer side of the picture to the other."""

    def of(self, sampling: Sampling) -> tuple[View, ...]:
        """All views, moment by moment; a single one is the middle.  Raises ConfigError for several crops of a
        picture that is squashed, since all of them would show the same."""
        if self.crops > 1 and sampling.fit == "squash":
            raise ConfigError(f"views.crops = {self.crops}: with sampling.fit = squash there is one crop; choose crop")
        if sampling.strategy == "uniform":
            moments = [(k + 0.5) / self.clips for k in range(self.clips)]
        else:
            moments = _spread(self.clips)
        return tuple(View(moment, place) for moment in moments for place in _spread(self.crops))


def _spread(count: int) -> list[float]:
    """So many numbers from 0 to 1, both included; one alone is the middle."""
    return [0.5] if count == 1 else [k / (count - 1) for k in range(count)]


@dataclass(frozen=True)
class Clip:
    """The frames of a clip, with where they come from."""

    frames: UInt8[Tensor, "frames height width 3"]
    """RGB pixels, 0 to 255."""
    seconds: Float[Tensor, " frames"]
    """When each frame is shown, from the beginning of the video."""
    box: tuple[float, float, float, float]
    """The part of the upright picture that is seen: x0, y0, x1, y1 in [0, 1]."""
    mirrored: bool
    """Whether left and right are exchanged (after the cut)."""

    @property
    def view(self) -> tuple[float, float, float, float]:
        """The box, with x0 and x1 exchanged when mirrored: x of the picture shows at (x - x0) / (x1 - x0)."""
        x0, y0, x1, y1 = self.box
        return (x1, y0, x0, y1) if self.mirrored else self.box


def load_clip(
    path: str | os.PathLike[str],
    start: float | int | None,
    end: float | int | None,
    sampling: Sampling,
    rng: np.random.Generator | None,
    *,
    flip: float = 0.0,
    index: VideoIndex | None = None,
    view: View = MIDDLE,
    centred: bool = False,
) -> Clip:
    """Read the clip [start, end) seconds of a video (None: from the beginning, to the end).

    With ``rng`` the clip is a random one for training, mirrored with chance ``flip``; the same state of the
    generator gives the same clip.  Without, it is the look at it that ``view`` says.  ``index`` saves listing the
    frames again.  A ``centred`` clip has boxes in its middle (see ``clip_bounds``).  Raises DecodeError for an
    unreadable video and for a clip outside of it.
    """
    index = index_video(path) if index is None else index
    numbers = choose_frames(index.seconds, *clip_bounds(index, start, end, centred), sampling, rng, view.moment)
    (width, height), (left, top) = placement(index, sampling, rng, view.place)
    crop = (left, top, sampling.size, sampling.size)
    if rng is None:
        pixels, seen, whole = read_frames(index, numbers, resize=(width, height), crop=crop), crop, (width, height)
    else:
        whole = index.width, index.height
        seen = _in_source(crop, (width, height), whole)
        pixels = read_frames(index, numbers, region=seen, resize=(sampling.size, sampling.size))
    mirrored = rng is not None and bool(rng.random() < flip)
    frames = torch.from_numpy(pixels)
    return Clip(
        frames=frames.flip(2) if mirrored else frames,
        seconds=torch.from_numpy(index.seconds[numbers]).float(),
        box=(seen[0] / whole[0], seen[1] / whole[1], (seen[0] + seen[2]) / whole[0], (seen[1] + seen[3]) / whole[1]),
        mirrored=mirrored,
    )


def clip_bounds(
    index: VideoIndex, start: float | int | None, end: float | int | None, centred: bool = False
) -> tuple[float, float]:
    """Seconds (start, end) of a clip inside its video, None replaced.

    An end that is late by half a second or one frame is taken as the video's end; a ``centred`` clip begins as much
    later, so that its middle stays where its boxes are.  Raises DecodeError "outside_clip" for anything further out,
    or "damaged" when the video is known to be cut short, and ValueError for bounds that bound nothing.
    """
    begin = 0.0 if start is None else float(start)
    until = max(index.duration, begin) if end is None else float(end)
    if not 0 <= begin <= until < float("inf") or begin == end:
        raise ValueError(f"a clip from {start} to {end} s is empty or not finite")
    inside = cut_end(begin, until, index.duration, centred)
    if inside is None or begin >= index.duration or until > index.duration + slack(index.duration, len(index)):
        part = "middle of the clip" if inside is None else "clip"
        words = f"the {part} [{begin:g}, {until:g}) s does not lie in the video, which lasts {index.duration:.2f} s"
        if index.damage is None:
            raise DecodeError(index.path, begin, "outside_clip", words)
        raise DecodeError(index.path, begin, "damaged", f"{words}; it is damaged: {index.damage}")
    return inside


def choose_frames(
    times: Float64[np.ndarray, " video_frames"],
    start: float,
    end: float,
    sampling: Sampling,
    rng: np.random.Generator | None,
    moment: float = 0.5,
) -> Int64[np.ndarray, " frames"]:
    """Numbers of ``num_frames`` frames, ascending, of those shown first within [start, end) seconds.

    ``times`` says when each frame of the video is shown, ascending.  Uniform: [start, end) is cut into
    ``num_frames`` equal stretches, and of each comes the frame that is on screen at a random instant (with
    ``rng``) or at ``moment`` of it, 0.5 being its middle; so every frame of the clip can be drawn, whatever the
    frame rate does.  Dense: frames ``stride`` apart from a random place, or from ``moment`` of the way between the
    first place and the last; a clip too short for that repeats its last frame.  A clip that lies between two
    frames consists of the one on screen at ``start``.
    """
    first, stop = (int(n) for n in np.searchsorted(times, [start, end], side="left"))
    if stop <= first:
        first = max(int(np.searchsorted(times, start, side="right")) - 1, 0)
        stop = first + 1
    count = sampling.num_frames
    if sampling.strategy == "uniform":
        inside = np.full(count, moment) if rng is None else rng.random(count)
        instants = start + (np.arange(count) + inside) * ((end - start) / count)
        numbers = np.searchsorted(times, instants, side="right") - 1
    else:
        spare = max(stop - first - ((count - 1) * sampling.stride + 1), 0)
        offset = int(spare * moment) if rng is None else int(rng.integers(spare + 1))
        numbers = first + offset + np.arange(count) * sampling.stride
    return np.clip(numbers, first, stop - 1).astype(np.int64)


def placement(
    index: VideoIndex, sampling: Sampling, rng: np.random.Generator | None, place: float = 0.5
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Size to which the upright picture is scaled, and the left top corner of the square in it.

    Without ``rng`` the square lies at ``place`` of the way along the longer side, and in the middle of the other.
    """
    size = sampling.size
    if sampling.fit == "squash":
        return (size, size), (0, 0)
    short = float(sampling.short_side or round(size * 8 / 7))
    if rng is not None:
        short *= rng.uniform(sampling.min_scale, sampling.max_scale)
    width, height = scaled_size(index, max(round(short), size))
    if rng is not None and sampling.random_crop:
        corner = int(rng.integers(width - size + 1)), int(rng.integers(height - size + 1))
    else:
        across, along = (place, 0.5) if width >= height else (0.5, place)
        corner = int((width - size) * across), int((height - size) * along)
    return (width, height), corner


def _in_source(crop: Box, scaled: tuple[int, int], source: tuple[int, int]) -> Box:
    """The crop of a scaled picture in pixels of the source: even ones, since most videos have one colour for two of
    them; the whole length where the crop takes that."""
    wide, high = (max(2, _even(n * of / to)) for n, of, to in zip(crop[2:], source, scaled, strict=True))
    if abs(wide - high) == 2:  # a square whose sides were rounded apart
        wide = high = min(wide, high)
    width = source[0] if crop[2] == scaled[0] else min(wide, source[0])
    height = source[1] if crop[3] == scaled[1] else min(high, source[1])
    left = min(_even(crop[0] * source[0] / scaled[0]), (source[0] - width) // 2 * 2)
    top = min(_even(crop[1] * source[1] / scaled[1]), (source[1] - height) // 2 * 2)
    return left, top, width, height


def _even(pixels: float) -> int:
    return 2 * round(pixels / 2)
