"""RoIAlign by matrix products against the same samples by `grid_sample`, the form that plain torch code uses."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from svilm.bench.frame import How, Row, compare
from svilm.models.roi import roi_align

SIZE = 7


def rows(how: How) -> Iterator[Row]:
    """32 boxes on one 14x14 map of 768 channels, forward and backward."""
    torch.manual_seed(0)
    tokens = torch.randn(1, 14, 14, 8 if how.quick else 768)
    corners = torch.rand(1, 32, 2, 2)
    boxes = torch.cat([corners.amin(dim=2), corners.amax(dim=2)], dim=-1)
    ours, peer = (step(align, tokens, boxes) for align in (roi_align, by_grid_sample))
    for mine, theirs in zip(ours(), peer(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-3)
    yield compare("RoIAlign, 32 boxes of a 14x14x768 map, against grid_sample", ours, peer, how)


def step(align: Callable[..., Tensor], tokens: Tensor, boxes: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    """Forward and backward; a call returns the features of the boxes and the gradient of the tokens."""
    leaf = tokens.clone().requires_grad_()

    def work() -> tuple[Tensor, Tensor]:
        leaf.grad = None
        found = align(leaf, boxes, SIZE)
        found.square().sum().backward()
        assert leaf.grad is not None
        return found.detach(), leaf.grad

    return work


def by_grid_sample(maps: Tensor, boxes: Tensor, size: int) -> Tensor:
    """RoIAlign (aligned, samples counted by area) of maps (B, H, W, D) and boxes (B, K, 4), sample by sample."""
    rows, columns = maps.shape[1:3]
    y, down = _samples(boxes[..., 1] * rows, boxes[..., 3] * rows, rows, size)
    x, across = _samples(boxes[..., 0] * columns, boxes[..., 2] * columns, columns, size)
    points = torch.stack(torch.broadcast_tensors(x[:, :, None, :], y[:, :, :, None]), dim=-1)  # (B, K, P n, P m, 2)
    found = F.grid_sample(
        maps.permute(0, 3, 1, 2).contiguous(),
        points.flatten(1, 2),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    found = found.unflatten(2, (boxes.shape[1], -1)) * (down[..., :, None] * across[..., None, :])[:, None]
    found = found.unflatten(4, (size, -1)).unflatten(3, (size, -1)).sum(dim=(4, 6))  # (B, D, K, P, P)
    return found.permute(0, 2, 3, 4, 1)


def _samples(begin: Tensor, end: Tensor, length: int, size: int) -> tuple[Tensor, Tensor]:
    """Places in -1..1 and weights of the samples along an axis, (B, K, P n); those that do not count weigh 0."""
    step = (end - begin) / size
    counts = step.ceil().clamp(min=1)
    number = torch.arange(int(counts.max()))
    inner = (number + 0.5) / counts[..., None]
    at = begin[..., None, None] - 0.5 + (torch.arange(size)[:, None] + inner[:, :, None]) * step[..., None, None]
    counted = (number < counts[..., None])[:, :, None] & (at >= -1) & (at <= length)
    weight = counted / counts[..., None, None]
    return ((2 * at + 1) / length - 1).flatten(2), weight.flatten(2)
