"""What a query by example is made of: a picture, a video or frames, brought to the size that the model sees."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from svilm.data.prepare.videos import EXTENSIONS
from svilm.data.sample import Sampling, load_clip

MAX_PIXELS = 8192 * 4320
"""Of a picture; as for videos."""


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
    return _fitted(_read_picture(path)[None], sampling)


def _read_picture(path: Path) -> UInt8[np.ndarray, "high wide 3"]:
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise ValueError(f"{path}: {picture.width}x{picture.height} pixels; at most {MAX_PIXELS} are read")
            return np.asarray(picture.convert("RGB"))
    except UnidentifiedImageError:
        raise ValueError(f"{path}: not a picture; give a JPEG, PNG or WebP, or a video") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None


def _fitted(frames: np.ndarray, sampling: Sampling) -> UInt8[Tensor, "frames size size 3"]:
    """Frames of any size and number as ``sampling`` reads them from a video: spread over time, centre square."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise ValueError(f"frames must be uint8 of shape (T, H, W, 3), got {frames.dtype} of {frames.shape}")
    chosen = ((np.arange(sampling.num_frames) + 0.5) * len(frames) / sampling.num_frames).astype(np.int64)
    high, wide = frames.shape[1:3]
    size = sampling.size
    if sampling.fit == "squash":
        target = (size, size)
    else:
        short = max(sampling.short_side or round(size * 8 / 7), size)
        target = (max(size, round(high * short / min(high, wide))), max(size, round(wide * short / min(high, wide))))
    pixels = torch.from_numpy(frames[chosen]).permute(0, 3, 1, 2).float()
    resized = F.interpolate(pixels, target, mode="bilinear", antialias=True).round().clamp(0, 255)
    top, left = (target[0] - size) // 2, (target[1] - size) // 2
    square = resized[:, :, top : top + size, left : left + size]
    return square.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
