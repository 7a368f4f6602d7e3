"""RoIAlign from matrix products alone: a picture region of any size becomes a grid of fixed size.

He et al., "Mask R-CNN" (2017), with the half-pixel correction that later code calls ``aligned``.  Every output
is a mean of bilinear samples, and bilinear interpolation treats the axes apart.  So is the mean, and the whole
operation is ``rows F columns^T`` with one small matrix per box and axis.  No custom kernel, no atomic additions:
the gradient is autograd's, and the same on every run.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from svilm.models.layers import at_least_fp32

_FARTHEST = 16  # picture widths; also bounds the samples that a box can ask for


def roi_align(
    maps: Float[Tensor, "batch rows columns width"],
    boxes: Float[Tensor, "batch boxes 4"],
    size: int,
    *,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> Float[Tensor, "batch boxes {size} {size} width"]:
    """Feature maps (B, H, W, D) and boxes (B, K, 4) of each picture -> features of the boxes (B, K, size, size, D).

    Boxes are xyxy as shares of the picture and may reach out of it; the part more than a cell outside counts
    as zeros.  Each cell of the output averages ``sampling_ratio`` samples per axis; 0 takes as many as the box has
    map cells per output cell, rounded up.  ``aligned`` puts the centre of the first map cell at half a cell, as
    pixels are drawn; without it the map is shifted by half a cell and boxes are at least one cell wide.  A box
    without area gives zeros where samples are counted by area.

    The result has the type of the maps; weights are computed in fp32 at least.  Raises ValueError for boxes that
    are not finite or lie far away, as pixels do.
    """
    if not bool((boxes.abs() <= _FARTHEST).all()):
        raise ValueError(
            f"boxes must be shares of the picture, finite and within +-{_FARTHEST}; got corners from "
            f"{float(boxes.min())} to {float(boxes.max())} (divide pixels by the picture's width and height)"
        )
    boxes = at_least_fp32(boxes)
    across = axis_weights(boxes[..., 0::2], maps.shape[2], size, sampling_ratio, aligned).to(maps.dtype)
    down = axis_weights(boxes[..., 1::2], maps.shape[1], size, sampling_ratio, aligned).to(maps.dtype)
    # the rows of all boxes in one product per picture, then the columns box by box
    bands = (down.flatten(1, 2) @ maps.flatten(2)).unflatten(2, maps.shape[2:]).unflatten(1, down.shape[1:3])
    return across[:, :, None] @ bands


def axis_weights(
    spans: Float[Tensor, "*many 2"], length: int, size: int, sampling_ratio: int, aligned: bool
) -> Float[Tensor, "*many {size} {length}"]:
    """How much each of ``length`` map cells counts in each of ``size`` output cells along one axis.

    ``spans`` are begin and end of the boxes as shares of the axis; the other arguments are those of `roi_align`.
    """
    begin, end = (spans * length).unbind(-1)
    extent = end - begin
    if aligned:
        begin = begin - 0.5
    else:
        extent = extent.clamp(min=1.0)
    step = extent / size
    counts = step.detach().ceil().clamp(min=0.0) if sampling_ratio == 0 else torch.full_like(step, sampling_ratio)
    most = int(counts.max()) if counts.numel() else 0
    number = torch.arange(most, device=spans.device)
    cell = torch.arange(size, device=spans.device, dtype=spans.dtype)
    share = counts.clamp(min=1.0)[..., None]
    inner = (number + 0.5) / share  # where in an output cell each sample lies
    at = begin[..., None, None] + (cell[:, None] + inner[..., None, :]) * step[..., None, None]
    counted = (number < counts[..., None])[..., None, :] & (at >= -1) & (at <= length)
    nodes = torch.arange(length, device=spans.device, dtype=spans.dtype)
    hats = (1 - (at.clamp(0, length - 1)[..., None] - nodes).abs()).clamp(min=0)  # bilinear weights of every node
    return (hats * counted[..., None]).sum(dim=-2) / share[..., None]
