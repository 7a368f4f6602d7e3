"""Heads that name the actions of the people in given boxes (AVA; Table 13 of the paper).

Two kinds, as in VideoGLUE (Yuan et al., 2023), whose authors include the paper's:

    roi          the mean of the map over time, RoIAlign, the maximum over the box, dropout, a linear layer
    transformer  the same vector asks all tokens of the clip: one layer of the Action Transformer (Girdhar et al.,
                 2019), so that a person's action may show in what stands beside them or comes before
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from svilm.config import Config
from svilm.models.layers import Mlp, init_weights
from svilm.models.roi import roi_align

_POSITION = 8  # channels for the place of a token, and as many for its time


class BoxHeadConfig(Config):
    """Shape of the head that names the actions in a box; the defaults are VideoGLUE's."""

    kind: Literal["roi", "transformer"] = "transformer"
    """roi: look at the box alone.  transformer: the box also attends to the whole clip."""
    size: PositiveInt = 7
    """Cells per side of the grid that RoIAlign makes of a box, before the maximum over it."""
    heads: PositiveInt = 6
    """Attention heads of the transformer; each works at full width."""
    width: int = Field(0, ge=0)
    """Width of an attention head; 0 takes the encoder's."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Share of the last vector that is dropped before the classes."""


class BoxHead(nn.Module):
    """Token maps and boxes to a logit for every box and action."""

    def __init__(self, config: BoxHeadConfig, width: int, classes: int) -> None:
        super().__init__()
        self.config = config
        self.place: Positions | None = None
        self.readers = nn.ModuleList()
        seen = width
        if config.kind == "transformer":
            self.place = Positions()
            inner = config.width or width
            self.readers.extend(BoxReader(width + 2 * _POSITION, inner) for _ in range(config.heads))
            seen = inner * config.heads
        self.dropout = nn.Dropout(config.dropout)
        self.classes = nn.Linear(seen, classes)
        self.apply(init_weights)

    def forward(
        self, maps: Float[Tensor, "batch steps rows columns width"], boxes: Float[Tensor, "batch boxes 4"]
    ) -> Float[Tensor, "batch boxes classes"]:
        """Maps (B, N_t, h, w, D) and boxes (B, K, 4) -> logits (B, K, C).

        Boxes are xyxy as shares of the picture that the map covers.  No box sees another: a row of zeros may
        stand in where a clip has fewer than K.
        """
        if self.place is not None:
            maps = torch.cat([maps, self.place(maps)], dim=-1)
        found = roi_align(maps.mean(dim=1), boxes, self.config.size).flatten(2, 3).amax(dim=2)
        if self.place is not None:
            found = torch.cat([reader(found, maps.flatten(1, 3)) for reader in self.readers], dim=-1)
        return self.classes(self.dropout(found))


class Positions(nn.Module):
    """Learned channels for where and when a token is, from its distance to the middle of the clip, in tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.space = nn.Sequential(nn.Linear(2, _POSITION // 2), nn.ReLU(), nn.Linear(_POSITION // 2, _POSITION))
        self.time = nn.Sequential(nn.Linear(1, _POSITION // 2), nn.ReLU(), nn.Linear(_POSITION // 2, _POSITION))

    def forward(
        self, maps: Float[Tensor, "batch steps rows columns width"]
    ) -> Float[Tensor, "batch steps rows columns channels"]:
        """The channels for a map of this shape (B, N_t, h, w, 16): time first, then place."""
        axes = [torch.arange(n, device=maps.device) - (n - 1) / 2 for n in maps.shape[1:4]]
        where = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).to(maps.dtype)
        channels = torch.cat([self.time(where[..., :1]), self.space(where[..., 1:])], dim=-1)
        return channels.to(maps.dtype).expand(len(maps), -1, -1, -1, -1)


class BoxReader(nn.Module):
    """One attention head of the Action Transformer: a box's vector asks the tokens of its clip.

    The residual runs from the query, and the MLP that follows has none.
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.scale = inner**-0.5
        self.query = nn.Linear(width, inner)
        self.key = nn.Linear(width, inner, bias=False)  # its bias would cancel in the softmax
        self.value = nn.Linear(width, inner)
        self.norm = nn.LayerNorm(inner, eps=1e-6)
        self.mlp = Mlp(inner, inner)

    def forward(
        self, boxes: Float[Tensor, "batch boxes width"], tokens: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch boxes inner"]:
        """(B, K, D), (B, N, D) -> (B, K, inner)."""
        query = self.query(boxes)
        # Keys and values are linear in the tokens, and a clip has a hundred times more tokens than boxes: so the
        # query is brought to the tokens, and their mean to the values.  Same numbers, no keys or values in memory.
        mean = F.scaled_dot_product_attention(query @ self.key.weight, tokens, tokens, scale=self.scale)
        return self.mlp(self.norm(query + self.value(mean)))
