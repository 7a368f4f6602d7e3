"""What a query by example is made of: a picture, a video or frames, brought to the size that the model sees."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from svilm.data.prepare.videos import EXTENSIONS
from svilm.data.sample import Sampling, load_clip
from svilm.search.picture import PictureError, read_picture

MOST_ASPECT = 3
"""Longer by the shorter side of what is scaled where a square is cut out of it: what lies further out is not seen, and
a thin picture would become one of many millions of pixels."""


def read_example(
    example: str | Path | np.ndarray, sampling: Sampling, start: float | None, end: float | None
) -> UInt8[Tensor, "frames size size 3"]:
    """The clip that stands for an example.

    Files with a video's ending are videos, others pictures.  Raises ValueError for a picture that cannot be read and
    frames of another shape, DecodeError for a video that cannot be read.
    """
    if isinstance(example, np.ndarray):
        return _fitted(example, sampling)
    path = Path(example)
    if start is not None and end is not None and start >= end:
        raise ValueError(f"{path}: the part from {start:g} to {end:g} s is empty; give the start before the end")
    if path.name.lower().endswith(EXTENSIONS):
        return load_clip(path, start, end, sampling, None).frames
    if start is not None or end is not None:
        raise ValueError(f"{path}: a picture has no start or end")
    try:
        return _fitted(read_picture(path)[None], sampling)
    except PictureError as error:
        raise ValueError(f"{path}: {error}") from None


def _fitted(frames: np.ndarray, sampling: Sampling) -> UInt8[Tensor, "frames size size 3"]:
    """Frames of any size and number as ``sampling`` reads them from a video: spread over time, centre square."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise ValueError(f"frames must be uint8 of shape (T, H, W, 3), got {frames.dtype} of {frames.shape}")
    chosen = ((np.arange(sampling.num_frames) + 0.5) * len(frames) / sampling.num_frames).astype(np.int64)
    distinct, places = np.unique(chosen, return_inverse=True)
    size = sampling.size
    if sampling.fit == "squash":
        target = (size, size)
    else:
        frames = _middle(frames)
        high, wide = frames.shape[1:3]
        short = max(sampling.short_side or round(size * 8 / 7), size)
        target = (max(size, round(high * short / min(high, wide))), max(size, round(wide * short / min(high, wide))))
    # As bytes, since photographs of many megapixels take four times as much as floats.
    pixels = torch.from_numpy(frames[distinct]).permute(0, 3, 1, 2)
    resized = F.interpolate(pixels, target, mode="bilinear", antialias=True)
    top, left = (target[0] - size) // 2, (target[1] - size) // 2
    square = resized[:, :, top : top + size, left : left + size].permute(0, 2, 3, 1)
    return square[torch.from_numpy(places)].contiguous()


def _middle(frames: UInt8[np.ndarray, "frames high wide 3"]) -> UInt8[np.ndarray, "frames high2 wide2 3"]:
    """Frames without what lies further out than MOST_ASPECT allows, or half a pixel less, around the same centre."""
    high, wide = frames.shape[1:3]
    most = MOST_ASPECT * min(high, wide)
    top, left = max(0, high - most) // 2, max(0, wide - most) // 2
    return frames[:, top : high - top, left : wide - left]
