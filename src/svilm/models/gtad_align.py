"""Alignment of the steps of a sequence to the bins of many regions at once, as a constant sparse matrix.

The regions of a detector with anchors never change, so what RoIAlign does to them is linear with fixed weights.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

Entries = tuple[Int[Tensor, " entries"], Int[Tensor, " entries"], Float[Tensor, " entries"]]


def alignment(region: Float[Tensor, "anchors 2"], bins: int, steps: int) -> Entries:
    """One-dimensional RoIAlign as entries (anchor, node x bins + bin, weight) of a matrix; an entry may come twice.

    A region, at least 1 long, is cut into equal bins; a bin is the mean of ceil(its size) samples at equal distances,
    interpolated between nodes.  A sample outside [-1, steps] counts as zero; others are moved between first and last
    node.
    """
    start, end = region.double()[..., None, None].unbind(dim=1)  # (anchors, 1, 1)
    size = (end - start).clamp(min=1) / bins
    samples = size.ceil()
    bin_number = torch.arange(bins)[:, None]
    sample = torch.arange(int(samples.max()))
    place = start + bin_number * size + (sample + 0.5) * size / samples
    used = (sample < samples) & (place >= -1) & (place <= steps)
    place = place.clamp(0, steps - 1)
    left = place.floor()
    anchor = torch.arange(len(region))[:, None, None].expand_as(place)[used].repeat(2)
    node = torch.cat([left[used], (left[used] + 1).clamp(max=steps - 1)]).long()
    share = (1 / samples).expand_as(place)[used]
    right_share = share * (place - left)[used]
    weight = torch.cat([share - right_share, right_share])
    return anchor, node * bins + bin_number.expand_as(place)[used].repeat(2), weight


class _Product(torch.autograd.Function):
    """A constant sparse matrix times a batch of tables; the gradient is the transposed matrix times the gradient.

    `embedding_bag` is a sum of weighted rows, on every device and in half precision too.  It was about twice as fast
    as torch's sparse (CSR) and dense products on the alignment matrix of ActivityNet, 4 % of which is not zero.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, matrix: tuple[Tensor, ...], transposed: tuple[Tensor, ...]) -> Tensor:
        ctx.matrix, ctx.transposed = matrix, transposed
        columns, offsets, weights = matrix
        weights = weights.to(table.dtype)
        return torch.stack(
            [
                F.embedding_bag(
                    columns, each, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
                )
                for each in table
            ]
        )

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Product.apply(gradient[0].contiguous(), ctx.transposed, ctx.matrix), None, None


class FixedMatrix(nn.Module):
    """A constant sparse matrix (rows, columns), multiplied from the left to each table of a batch."""

    def __init__(self, row: Tensor, column: Tensor, weight: Tensor, shape: tuple[int, int]) -> None:
        super().__init__()
        for name, major, minor, (num_major, num_minor) in (
            ("matrix", row, column, shape),
            ("transposed", column, row, shape[::-1]),
        ):
            place, entry = (major * num_minor + minor).unique(return_inverse=True)
            total = torch.zeros(len(place), dtype=weight.dtype).index_add_(0, entry, weight)
            place, total = place[total != 0], total[total != 0]
            ends = torch.bincount(place // num_minor, minlength=num_major).cumsum(0)
            # Not part of a checkpoint: the settings determine it.
            self.register_buffer(f"{name}_columns", place % num_minor, persistent=False)
            self.register_buffer(f"{name}_offsets", F.pad(ends, (1, 0)), persistent=False)
            self.register_buffer(f"{name}_weights", total.float(), persistent=False)

    def forward(self, table: Float[Tensor, "batch columns width"]) -> Float[Tensor, "batch rows width"]:
        """(B, columns, width) -> (B, rows, width)."""
        matrix, transposed = (
            tuple(getattr(self, f"{name}_{part}") for part in ("columns", "offsets", "weights"))
            for name in ("matrix", "transposed")
        )
        return _Product.apply(table.contiguous(), matrix, transposed)
