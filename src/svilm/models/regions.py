"""Region tokens: a side branch of small tokens that know only what lies near them, for nouns to meet.

This is not in the paper, whose nouns meet the group tokens.  Those have mixed with everything by self-attention, so
nothing forces the group that tells a noun's caption to lie where the thing is; docs/claims.md has the numbers.  A
region token sees its own pixels and, block by block, those of its neighbours: what answers to a noun must be near.

Shapes: B batch, T frames, N_t steps, R regions of a step (rows x columns), W width of the branch.
"""

import torch
from jaxtyping import Bool, Float, UInt8
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from svilm.config import Config
from svilm.models.layers import Activation, Block, init_weights

Grid = tuple[PositiveInt, PositiveInt, PositiveInt]


class RegionConfig(Config):
    """A branch of region tokens beside the video tokens."""

    depth: int = Field(0, ge=0)
    """Blocks of the branch; 0 means no branch: nouns meet the group tokens, as in the paper."""
    width: PositiveInt = 64
    """Width of a region token."""
    heads: PositiveInt = 2
    """Attention heads of its blocks."""
    patch: tuple[PositiveInt, PositiveInt] = (8, 8)
    """Rows and columns of pixels of a region token; the video tokens' must be multiples of them."""
    radius: int = Field(1, ge=0)
    """A region attends to those of its step that are at most so many rows and columns away."""
    blur: bool = False
    """Average each region with its direct neighbours (weights 1 2 1): the middle of a thing then has most of it, while
    without it the tokens beside a thing, which know it too, can answer to its noun more than those inside."""
    zero_init: bool = True
    """Start what regions add to the video tokens at zero, so that published weights are left as they were."""


class RegionBranch(nn.Module):
    """Pixels to region tokens, and to what they add to the video tokens that hold them.

    The loss compares every noun of a batch with every region of every clip; memory does not grow with their product
    (`svilm.losses`), time does.  Raises ValueError for patches that do not divide the video tokens'.
    """

    def __init__(
        self, config: RegionConfig, width: int, tubelet: Grid, grid: Grid, activation: Activation, norm_eps: float
    ) -> None:
        super().__init__()
        self.config = config
        if tubelet[1] % config.patch[0] or tubelet[2] % config.patch[1]:
            raise ValueError(f"regions.patch {config.patch} must divide the tubelet's rows and columns {tubelet[1:]}")
        self.frames = tubelet[0]
        self.cells = tubelet[1] // config.patch[0], tubelet[2] // config.patch[1]  # regions in a video token
        self.patch = nn.Linear(3 * tubelet[0] * config.patch[0] * config.patch[1], config.width)
        self.position = nn.Parameter(torch.empty(grid[1] * self.cells[0], grid[2] * self.cells[1], config.width))
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, 4.0, activation, norm_eps) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=norm_eps)
        self.merge = nn.Linear(self.cells[0] * self.cells[1] * config.width, width)
        self.apply(init_weights)
        nn.init.trunc_normal_(self.position, std=0.02)
        if config.zero_init:
            nn.init.zeros_(self.merge.weight)
            nn.init.zeros_(self.merge.bias)

    def forward(
        self, video: UInt8[Tensor, "batch frames high wide 3"]
    ) -> tuple[Float[Tensor, "batch steps regions region_width"], Float[Tensor, "batch tokens width"]]:
        """uint8 RGB (B, T, H, W, 3) -> regions (B, N_t, R, W), and what is added to the video tokens (B, N, D)."""
        p, q = self.config.patch
        steps, rows, columns = video.shape[1] // self.frames, video.shape[2] // p, video.shape[3] // q
        pixels = video.flatten(3).unflatten(3, (columns, -1)).unflatten(2, (rows, p)).unflatten(1, (steps, -1))
        patches = pixels.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(2, 3)  # (B, N_t, R, t p q 3)
        weight = self.patch.weight
        x = self.patch((patches.to(weight.dtype) - 127.5) / 127.5) + self._positions(rows, columns)
        x = x.flatten(0, 1)
        near = neighbours(rows, columns, self.config.radius, x.device)
        for block in self.blocks:
            x = block(x, near)
        x = self.norm(x)
        held = x.unflatten(1, (rows // self.cells[0], self.cells[0], columns // self.cells[1], self.cells[1]))
        added = self.merge(held.transpose(2, 3).flatten(3))  # (B N_t, rows, columns, D) of the video tokens
        if self.config.blur:  # for nouns alone: the encoder gets them sharp
            x = blurred(x.unflatten(1, (rows, columns))).flatten(1, 2)
        return x.unflatten(0, (-1, steps)), added.flatten(1, 2).unflatten(0, (-1, steps)).flatten(1, 2)

    def _positions(self, rows: int, columns: int) -> Float[Tensor, "regions region_width"]:
        table: Tensor = self.position
        if table.shape[:2] != (rows, columns):
            table = nn.functional.interpolate(
                table.permute(2, 0, 1)[None].float(), size=(rows, columns), mode="bicubic", align_corners=False
            )[0].permute(1, 2, 0).to(table.dtype)  # fmt: skip
        return table.flatten(0, 1)


def neighbours(
    rows: int, columns: int, radius: int, device: torch.device | None = None
) -> Bool[Tensor, "places places"]:
    """Which places of a grid are at most ``radius`` rows and columns apart, row by row; each is its own neighbour."""
    row = torch.arange(rows, device=device).repeat_interleave(columns)
    column = torch.arange(columns, device=device).repeat(rows)
    return ((row[:, None] - row).abs() <= radius) & ((column[:, None] - column).abs() <= radius)


def blurred(x: Float[Tensor, "pictures rows columns width"]) -> Float[Tensor, "pictures rows columns width"]:
    """Each place of a grid averaged with its neighbours, weights 1 2 1 along either axis; the edge stands for what is
    beyond it."""
    for axis in (1, 2):
        size = x.shape[axis]
        wide = torch.cat([x.narrow(axis, 0, 1), x, x.narrow(axis, size - 1, 1)], dim=axis)
        x = (wide.narrow(axis, 0, size) + 2 * x + wide.narrow(axis, 2, size)) / 4
    return x
