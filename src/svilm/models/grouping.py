"""Grouping blocks: group tokens gather video tokens that belong together (sections 3.3 and A.2, Figure 3).

Shapes: B batch, M group tokens, N video tokens, D width.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import PositiveFloat
from torch import Tensor, nn

from svilm.config import Config
from svilm.models.layers import Activation, CrossAttention, Mlp, at_least_fp32

Groups = Float[Tensor, "batch groups width"]
Tokens = Float[Tensor, "batch tokens width"]
Assignment = Float[Tensor, "batch groups tokens"]


class GroupingConfig(Config):
    """How a grouping block assigns video tokens to group tokens."""

    gumbel: bool = True
    """Add Gumbel noise to the assignment logits while training (A.2); evaluation never draws noise."""
    gumbel_temperature: PositiveFloat = 1.0
    """Temperature of the softmax over groups."""
    hard: bool = True
    """Each token goes to one group (one-hot, straight-through gradient, A.2); false keeps the soft shares."""
    assign_eps: PositiveFloat = 1.0
    """Added to a group's token count before dividing by it.  The paper is silent; 1.0 keeps the gradient of
    an empty group bounded (at 1e-10 it reaches 1e4: the forward pass is one-hot, the backward pass soft)."""
    zero_init: bool = True
    """Start the block's output layers at zero: at first it hands the group tokens on untouched."""
    pre_assign_attention: bool = False
    """Groups first read the video tokens by ordinary cross-attention, as GroupViT does."""
    token_mixer: bool = False
    """Groups first mix among themselves by an MLP over the group axis, as GroupViT does."""


class GroupingBlock(nn.Module):
    """One round of k-means-like attention: tokens pick a group, a group moves by the mean of its tokens.

    q comes from the groups, k and v from the video; one head; softmax over the group axis; residual update
    followed by a residual MLP.  The video tokens themselves are left alone.
    """

    def __init__(
        self,
        config: GroupingConfig,
        width: int,
        groups: int,
        heads: int,
        activation: Activation,
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.config = config
        self.norm_groups = nn.LayerNorm(width, eps=norm_eps)
        self.norm_tokens = nn.LayerNorm(width, eps=norm_eps)
        self.mixer = Mlp(groups, groups * 2, activation=activation) if config.token_mixer else None
        self.reader = CrossAttention(width, heads) if config.pre_assign_attention else None
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width, 4 * width, activation=activation)

    def reset(self) -> None:
        """Zero the output layers when the settings ask for it; called after the common initialisation."""
        outputs = [self.out, self.mlp.down]
        if self.mixer is not None:
            outputs.append(self.mixer.down)
        if self.reader is not None:
            outputs.append(self.reader.out)
        if self.config.zero_init:
            for layer in outputs:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, groups: Groups, tokens: Tokens) -> tuple[Groups, Assignment]:
        """(B, M, D), (B, N, D) -> updated groups (B, M, D) and soft assignment (B, M, N).

        The assignment is the softmax over groups without noise and without gradient; its columns sum to 1.
        """
        tokens = self.norm_tokens(tokens)
        if self.mixer is not None:
            groups = groups + self.mixer(self.norm_groups(groups).transpose(1, 2)).transpose(1, 2)
        if self.reader is not None:
            groups = groups + self.reader(self.norm_groups(groups), tokens)
        # Keys and values are linear in the tokens, and a clip has many more tokens than groups: so the query is
        # brought to the tokens, and their mean to the values.  Same numbers, no keys or values to compute and keep.
        query = self.query(self.norm_groups(groups))
        logits = (query @ self.key.weight) @ tokens.transpose(1, 2) + (query @ self.key.bias).unsqueeze(-1)
        shares, soft = self.assign(logits * query.shape[-1] ** -0.5)
        share_of_mean = shares / (shares.sum(dim=-1, keepdim=True) + self.config.assign_eps)
        means = share_of_mean.to(tokens.dtype) @ tokens
        values = F.linear(means, self.value.weight) + share_of_mean.sum(dim=-1, keepdim=True) * self.value.bias
        groups = groups + self.out(values.to(groups.dtype))
        return groups + self.mlp(self.norm_mlp(groups)), soft

    def assign(self, logits: Assignment) -> tuple[Assignment, Assignment]:
        """Logits (B, M, N) -> shares used for the update, and noise-free soft assignment, both (B, M, N).

        Computed in fp32 also under autocast, which leaves these operations alone: in half precision
        -log(-log(u)) overflows to infinity.
        """
        logits = at_least_fp32(logits)
        temperature = self.config.gumbel_temperature
        soft = (logits.detach() / temperature).softmax(dim=1)
        if self.training and self.config.gumbel:
            tiny = torch.finfo(logits.dtype).tiny
            logits = logits - torch.empty_like(logits).exponential_().clamp_min(tiny).log()
        shares = (logits / temperature).softmax(dim=1)
        if self.config.hard:
            winner = shares.max(dim=1, keepdim=True).indices  # argmax takes ten times as long on a CPU
            one_hot = torch.zeros_like(shares).scatter_(1, winner, 1.0)
            shares = one_hot + (shares - shares.detach())  # straight-through: value one-hot, gradient soft
        return shares, soft
