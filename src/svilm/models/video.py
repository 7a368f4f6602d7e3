"""The video encoder: a ViT over tubelets, with group tokens beside the video tokens (sections 3.1-3.3, 4.2).

Shapes: B batch, T frames, N = steps x rows x columns video tokens, M group tokens, D width.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from svilm.config import Config
from svilm.models.grouping import GroupingBlock, GroupingConfig
from svilm.models.layers import Activation, Block, init_weights

Grid = tuple[PositiveInt, PositiveInt, PositiveInt]


class VideoEncoderConfig(Config):
    """Shape of the video encoder; the defaults are the paper's ViT-B (section 4.2)."""

    width: PositiveInt = 768
    """Width D of all tokens."""
    depth: PositiveInt = 12
    """Number of transformer blocks."""
    heads: PositiveInt = 12
    """Attention heads per block."""
    mlp_ratio: PositiveFloat = 4.0
    """Hidden width of a block's MLP over D."""
    tubelet: Grid = (2, 16, 16)
    """Frames, rows and columns of pixels that make one video token."""
    grid: Grid = (16, 14, 14)
    """Size of the position table in tokens: steps, rows, columns.  Other inputs interpolate it."""
    groups: PositiveInt = 32
    """Number of group tokens M."""
    group_after: tuple[int, ...] = (6, 9, 12)
    """A grouping block follows each of these blocks (counted from 1); the last must be `depth`."""
    groups_in_self_attention: bool = True
    """Group tokens join the self-attention of every block; false makes them a side branch that only reads."""
    grouping: GroupingConfig = GroupingConfig()
    """Inside of the grouping blocks."""
    keep_cls: bool = False
    """Keep a [CLS] token beside the video tokens, as published ViViT weights do; S-ViLM has no use for it."""
    activation: Activation = "gelu_tanh"
    """GELU form of the MLPs; ViViT's published weights use the tanh form, VideoMAE's the exact one."""
    norm_eps: PositiveFloat = 1e-6
    """Epsilon of the LayerNorms."""
    pixel_mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    """Subtracted from the 0..255 pixels."""
    pixel_std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (127.5, 127.5, 127.5)
    """Divides the pixels after the subtraction; the defaults give -1..1."""
    recompute: bool = False
    """Activation checkpointing: recompute each block in the backward pass, for memory."""


class VideoEncoder(nn.Module):
    """Pixels to video tokens and group tokens.

    Raises ValueError when the settings contradict each other or a clip does not divide into tubelets.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: VideoEncoderConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        if list(c.group_after) != sorted(set(c.group_after)) or not c.group_after:
            raise ValueError(f"group_after {c.group_after} must be rising block numbers")
        if c.group_after[-1] != c.depth or c.group_after[0] < 1:
            raise ValueError(f"group_after {c.group_after} must lie in 1..{c.depth} and end with {c.depth}")
        self.patch = nn.Linear(3 * c.tubelet[0] * c.tubelet[1] * c.tubelet[2], c.width)
        self.position = nn.Parameter(torch.empty(*c.grid, c.width))
        self.group_tokens = nn.Parameter(torch.empty(c.groups, c.width))
        self.cls = nn.Parameter(torch.empty(1, c.width)) if c.keep_cls else None  # its position is added in
        self.blocks = nn.ModuleList(
            Block(c.width, c.heads, c.mlp_ratio, c.activation, c.norm_eps) for _ in range(c.depth)
        )
        self.grouping = nn.ModuleList(
            GroupingBlock(c.grouping, c.width, c.groups, c.heads, c.activation, c.norm_eps) for _ in c.group_after
        )
        self.norm = nn.LayerNorm(c.width, eps=c.norm_eps)
        self.norm_groups = nn.LayerNorm(c.width, eps=c.norm_eps)
        self.register_buffer("pixel_mean", torch.tensor(c.pixel_mean), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(c.pixel_std), persistent=False)
        self.apply(init_weights)
        for parameter in (self.position, self.group_tokens, *(() if self.cls is None else (self.cls,))):
            nn.init.trunc_normal_(parameter, std=0.02)
        for block in self.grouping:
            block.reset()  # type: ignore[operator]

    def forward(
        self, video: UInt8[Tensor, "batch frames high wide 3"], added: Float[Tensor, "batch tokens width"] | None = None
    ) -> tuple[
        Float[Tensor, "batch steps places width"],
        Float[Tensor, "batch groups width"],
        Float[Tensor, "batch groups steps places"],
    ]:
        """uint8 RGB (B, T, H, W, 3) -> video tokens (B, N_t, S, D), groups (B, M, D), shares (B, M, N_t, S).

        Tokens and groups have passed the final LayerNorms; the shares of each token that go to the groups are
        those of the last grouping block.  ``added`` (B, N, D) joins the embedded tubelets.
        """
        x, (steps, rows, columns) = self.embed(video)
        if added is not None:
            x = x + added
        groups = self.group_tokens.to(x.dtype).expand(len(x), -1, -1)
        if self.cls is not None:
            x = torch.cat([self.cls.to(x.dtype).expand(len(x), -1, -1), x], dim=1)
        joint = self.config.groups_in_self_attention
        grouping = dict(zip(self.config.group_after, self.grouping, strict=True))
        assignment = x.new_zeros(0)
        if joint:
            x = torch.cat([groups, x], dim=1)
        for number, block in enumerate(self.blocks, start=1):
            x = self._run(block, x)
            if number in grouping:
                if joint:
                    groups, x = x.split([groups.shape[1], x.shape[1] - groups.shape[1]], dim=1)
                groups, assignment = grouping[number](groups, x if self.cls is None else x[:, 1:])
                if joint and number < len(self.blocks):
                    x = torch.cat([groups, x], dim=1)
        tokens = x if self.cls is None else x[:, 1:]
        places = rows * columns
        return (
            self.norm(tokens).unflatten(1, (steps, places)),
            self.norm_groups(groups),
            assignment.unflatten(2, (steps, places)),
        )

    def embed(
        self, video: UInt8[Tensor, "batch frames high wide 3"]
    ) -> tuple[Float[Tensor, "batch tokens width"], Grid]:
        """uint8 RGB (B, T, H, W, 3) -> embedded tubelets (B, N, D) and their grid (steps, rows, columns)."""
        t, p, q = self.config.tubelet
        _, frames, height, width, _ = video.shape
        if frames % t or height % p or width % q or min(frames, height, width) == 0:
            raise ValueError(
                f"a clip of {frames} frames of {height}x{width} does not divide into tubelets of "
                f"{t}x{p}x{q}; choose multiples"
            )
        grid = (frames // t, height // p, width // q)
        # (B, steps, t, rows, p, columns, q 3) -> (B, N, t p q 3): whole stretches of bytes are moved, colours last
        pixels = video.flatten(3).unflatten(3, (grid[2], -1)).unflatten(2, (grid[1], p)).unflatten(1, (grid[0], t))
        tubelets = pixels.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(1, 3)
        weight, bias = self._patch_of_bytes()
        centred = (tubelets - 128).view(torch.int8)  # exact in half precision too
        return F.linear(centred.to(weight.dtype), weight, bias) + self.positions(grid), grid

    def _patch_of_bytes(self) -> tuple[Float[Tensor, "width pixels"], Float[Tensor, " width"]]:
        """The patch embedding for bytes less 128, colours last: the normalisation of the pixels is in its weights."""
        kernel = self.patch.weight.unflatten(1, (3, -1)).transpose(1, 2) / self.pixel_std  # (D, t p q, 3)
        return kernel.flatten(1), self.patch.bias + (kernel * (128 - self.pixel_mean)).sum(dim=(1, 2))

    def positions(self, grid: Grid) -> Float[Tensor, "tokens width"]:
        """Position table for a grid (steps, rows, columns), interpolated when the settings have another."""
        table: Tensor = self.position
        if grid != tuple(table.shape[:3]):
            table = interpolate_positions(table, grid)
        return table.flatten(0, 2)

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        if self.config.recompute and torch.is_grad_enabled():
            out: Tensor = checkpoint(block, x, use_reentrant=False)
            return out
        out = block(x)
        return out


def interpolate_positions(
    table: Float[Tensor, "steps rows columns width"], grid: Grid
) -> Float[Tensor, "new_steps new_rows new_columns width"]:
    """Resize a position table (steps, rows, columns, D) to another grid: bicubic in space, linear in time."""
    steps, rows, columns, _ = table.shape
    x = table.permute(0, 3, 1, 2)
    if (rows, columns) != grid[1:]:
        x = F.interpolate(x.float(), size=grid[1:], mode="bicubic", align_corners=False)
    x = x.permute(2, 3, 1, 0).flatten(0, 1)  # (places, D, steps)
    if steps != grid[0]:
        x = F.interpolate(x.float(), size=grid[0], mode="linear", align_corners=False)
    return x.unflatten(0, grid[1:]).permute(3, 0, 1, 2).to(table.dtype)
