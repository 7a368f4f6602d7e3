"""Heads that name what a clip shows, or answer a question about it.

    AnswerHead   a question and the groups of its clip become one vector, and that a choice of answers (section 4.3)
    ClassHead    a linear layer on the vector of a clip, trained with the encoder (section 4.3, Table 10)
    ProbeHeads   linear layers side by side on features that stay as they are, one for each learning rate tried

The names of the outputs are kept with the weights, so that no number of a saved head can get another meaning.
"""

import json
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from svilm.config import Config
from svilm.models.layers import init_weights


class Names(nn.Module):
    """What the outputs of a head mean, in their order; part of its state dict."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self._set(names)

    def _set(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.number = {name: number for number, name in enumerate(self.names)}
        if not self.names or len(self.number) != len(self.names):
            raise ValueError(
                f"{len(self.names)} names, {len(self.number)} of them different: each output needs its own"
            )

    def __len__(self) -> int:
        return len(self.names)

    def get_extra_state(self) -> Tensor:
        """The names as bytes of JSON, since safetensors holds tensors only."""
        return torch.frombuffer(bytearray(json.dumps(self.names).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the names that come with saved weights."""
        self._set(json.loads(bytes(state.tolist())))


class AnswerHeadConfig(Config):
    """Shape of the head that answers questions; the defaults are those of BUTD (Anderson et al., 2018)."""

    hidden: PositiveInt = 1024
    """Width at which question and clip meet; the classifier's hidden layer is twice as wide."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Dropout before the last layer."""
    attention: bool = False
    """Let the question weigh the group tokens, as BUTD weighs image regions; otherwise their mean is taken."""


class AnswerHead(nn.Module):
    """The fusion head of section 4.3: h = relu(W_v v) * relu(W_q q), then two linear layers."""

    def __init__(self, config: AnswerHeadConfig, video_width: int, text_width: int, answers: Sequence[str]) -> None:
        super().__init__()
        self.answers = Names(answers)
        self.look = GroupAttention(video_width, text_width, config.hidden) if config.attention else None
        self.video = nn.Linear(video_width, config.hidden)
        self.question = nn.Linear(text_width, config.hidden)
        self.up = nn.Linear(config.hidden, 2 * config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(2 * config.hidden, len(answers))
        self.apply(init_weights)

    def forward(
        self, groups: Float[Tensor, "batch groups width"], question: Float[Tensor, "batch text_width"]
    ) -> Float[Tensor, "batch answers"]:
        """Group tokens (B, M, D) and [CLS] states of the questions (B, D') -> logits (B, A)."""
        video = groups.mean(dim=1)
        if self.look is not None:
            video = torch.einsum("bm,bmd->bd", self.look(groups, question), groups)
        both = F.relu(self.video(video)) * F.relu(self.question(question))
        return self.out(self.dropout(F.relu(self.up(both))))


class GroupAttention(nn.Module):
    """How much a question makes of each group: a softmax over w . (relu(A_v g) * relu(A_q q))."""

    def __init__(self, video_width: int, text_width: int, hidden: int) -> None:
        super().__init__()
        self.group = nn.Linear(video_width, hidden)
        self.question = nn.Linear(text_width, hidden)
        self.weigh = nn.Linear(hidden, 1, bias=False)  # a bias would cancel in the softmax

    def forward(
        self, groups: Float[Tensor, "batch groups width"], question: Float[Tensor, "batch text_width"]
    ) -> Float[Tensor, "batch groups"]:
        """(B, M, D), (B, D') -> shares (B, M) that add up to 1."""
        both = F.relu(self.group(groups)) * F.relu(self.question(question))[:, None]
        return self.weigh(both).squeeze(2).softmax(dim=1)


class ClassHead(nn.Module):
    """Dropout and a linear layer that starts at zero: at first all classes are as likely."""

    def __init__(self, width: int, classes: Sequence[str], dropout: float) -> None:
        super().__init__()
        self.classes = Names(classes)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, len(classes))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, vectors: Float[Tensor, "batch width"]) -> Float[Tensor, "batch classes"]:
        """Clip vectors (B, D) -> logits (B, C)."""
        return self.out(self.dropout(vectors))


class ProbeHeads(nn.Module):
    """Linear classifiers side by side on features that are shifted and scaled alike; all start at zero.

    Their parameters are not called weights, so that no optimiser decays them.
    """

    centre: Tensor
    spread: Tensor

    def __init__(
        self,
        heads: int,
        classes: Sequence[str],
        centre: Float[Tensor, " width"],
        spread: Float[Tensor, " width"],
    ) -> None:
        super().__init__()
        self.classes = Names(classes)
        self.register_buffer("centre", centre)
        self.register_buffer("spread", spread)
        self.matrices = nn.Parameter(torch.zeros(heads, len(classes), len(centre)))
        self.offsets = nn.Parameter(torch.zeros(heads, len(classes)))

    def forward(
        self, vectors: Float[Tensor, "batch width"], heads: slice = slice(None)
    ) -> Float[Tensor, "heads batch classes"]:
        """Features (B, D) -> logits of each head, or of some of them (H, B, C)."""
        scaled = (vectors - self.centre) / self.spread
        return torch.einsum("bd,hcd->hbc", scaled, self.matrices[heads]) + self.offsets[heads, None]


def ridge(
    vectors: Float64[Tensor, "clips width"], labels: Int[Tensor, " clips"], classes: int, penalty: float
) -> tuple[Float64[Tensor, "classes width"], Float64[Tensor, " classes"]]:
    """The linear classifier with the least squared error to one-hot labels, in closed form: matrix and offsets.

    ``penalty`` weighs the squared matrix against the mean squared error; the offsets are free.
    """
    targets = F.one_hot(labels, classes).double()
    centre, middle = vectors.mean(dim=0), targets.mean(dim=0)
    centred = vectors - centre
    gram = centred.T @ centred / len(vectors) + penalty * torch.eye(vectors.shape[1], dtype=torch.float64)
    matrix = torch.linalg.solve(gram, centred.T @ (targets - middle) / len(vectors)).T
    return matrix, middle - matrix @ centre
