"""Transformer parts shared by the encoders.

Shapes: B batch, N tokens, D width, H heads.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

Activation = Literal["gelu", "gelu_tanh"]
Sequence = Float[Tensor, "batch tokens width"]
Mask = Bool[Tensor, "tokens tokens"]


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, hidden: int, out: int | None = None, activation: Activation = "gelu") -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width if out is None else out)
        self.approximate = "tanh" if activation == "gelu_tanh" else "none"

    def forward(self, x: Float[Tensor, "... width"]) -> Float[Tensor, "... out"]:
        """(..., width) -> (..., out)."""
        return self.down(F.gelu(self.up(x), approximate=self.approximate))


class SelfAttention(nn.Module):
    """Multi-head self-attention; never materialises the N x N map (SDPA)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} must be a multiple of heads {heads}")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Sequence, mask: Mask | None = None) -> Sequence:
        """(B, N, D) -> (B, N, D); ``mask`` (N, N) is true where a token may look."""
        # each (B, H, N, D/H); taken apart before the transposition, so that their gradients are put together in place
        q, k, v = (part.transpose(1, 2) for part in self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2))
        return self.out(F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Multi-head attention of queries (B, M, D) to a context (B, N, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, queries: Float[Tensor, "batch queries width"], context: Sequence
    ) -> Float[Tensor, "batch queries width"]:
        """(B, M, D), (B, N, D) -> (B, M, D)."""
        q = self.query(queries).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.key_value(context).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(LN x), then x + mlp(LN x)."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, activation: Activation, norm_eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attention = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width, round(width * mlp_ratio), activation=activation)

    def forward(self, x: Sequence, mask: Mask | None = None) -> Sequence:
        """(B, N, D) -> (B, N, D); ``mask`` (N, N) is true where a token may look."""
        x = x + self.attention(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


def at_least_fp32(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Half precision becomes fp32; fp32 and fp64 stay."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def init_weights(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases, as in the original ViT; for `Module.apply`.

    A fixed deviation of 0.02 suits a width of 768 and starves narrow models: at a width of 128 it took three times
    the steps to leave the plateau at the start (docs/log.md).
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
