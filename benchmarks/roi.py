"""RoIAlign by matrix products against the same samples by `grid_sample`, the form that plain torch code uses.

`python benchmarks/roi.py` prints the row; `contest` gives it to `make bench`.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from svilm.models.roi import roi_align

SIZE = 7


def contest() -> tuple[str, Callable[[], object], Callable[[], object]]:
    """Name, our work and the peer's: 32 boxes on one 14x14 map of 768 channels, forward and backward, per call."""
    torch.manual_seed(0)
    tokens = torch.randn(1, 14, 14, 768)
    corners = torch.rand(1, 32, 2, 2)
    boxes = torch.cat([corners.amin(dim=2), corners.amax(dim=2)], dim=-1)
    ours, theirs = tokens.clone().requires_grad_(), tokens.clone().requires_grad_()
    found, peer = roi_align(ours, boxes, SIZE), by_grid_sample(theirs, boxes)
    torch.testing.assert_close(found, peer, atol=1e-4, rtol=0)
    found.square().sum().backward()
    peer.square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-3, rtol=1e-3)
    return (
        "RoIAlign, 32 boxes of a 14x14x768 map, against grid_sample",
        lambda: roi_align(ours, boxes, SIZE).sum().backward(),
        lambda: by_grid_sample(theirs, boxes).sum().backward(),
    )


def by_grid_sample(maps: Tensor, boxes: Tensor) -> Tensor:
    """RoIAlign (aligned, samples counted by area) of maps (B, H, W, D) and boxes (B, K, 4), sample by sample."""
    rows, columns = maps.shape[1:3]
    y, down = _samples(boxes[..., 1] * rows, boxes[..., 3] * rows, rows)
    x, across = _samples(boxes[..., 0] * columns, boxes[..., 2] * columns, columns)
    points = torch.stack(torch.broadcast_tensors(x[:, :, None, :], y[:, :, :, None]), dim=-1)  # (B, K, P n, P m, 2)
    found = F.grid_sample(
        maps.permute(0, 3, 1, 2).contiguous(),
        points.flatten(1, 2),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    found = found.unflatten(2, (boxes.shape[1], -1)) * (down[..., :, None] * across[..., None, :])[:, None]
    found = found.unflatten(4, (SIZE, -1)).unflatten(3, (SIZE, -1)).sum(dim=(4, 6))  # (B, D, K, P, P)
    return found.permute(0, 2, 3, 4, 1)


def _samples(begin: Tensor, end: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Places in -1..1 and weights of the samples along an axis, (B, K, P n); those that do not count weigh 0."""
    step = (end - begin) / SIZE
    counts = step.ceil().clamp(min=1)
    number = torch.arange(int(counts.max()))
    inner = (number + 0.5) / counts[..., None]
    at = begin[..., None, None] - 0.5 + (torch.arange(SIZE)[:, None] + inner[:, :, None]) * step[..., None, None]
    counted = (number < counts[..., None])[:, :, None] & (at >= -1) & (at <= length)
    weight = counted / counts[..., None, None]
    return ((2 * at + 1) / length - 1).flatten(2), weight.flatten(2)


if __name__ == "__main__":
    from run import compare

    row = compare(*contest(), repetitions=9)
    print(f"{row.name:62} ours {row.ours:8.4f} {row.unit}  peer {row.peer:8.4f} {row.unit}  ratio {row.ratio:5.2f}")
