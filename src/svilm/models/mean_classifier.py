"""A classifier of mean features in closed form: the class scores of temporal localization where no file gives them."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from svilm.models.heads import ridge

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Penalties tried, for features of deviation 1."""
FOLDS = 5
"""Every fifth video is held out to choose one of them."""


class MeanClassifier(nn.Module):
    """Least squares from standardised features to the classes as ones and zeros, which estimates their probabilities.

    All of it are buffers: part of a checkpoint, but not trained by steps.
    """

    mean: Tensor
    deviation: Tensor
    matrix: Tensor
    offset: Tensor

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))
        self.register_buffer("matrix", torch.zeros(num_classes, channels))
        self.register_buffer("offset", torch.full((num_classes,), 1 / num_classes))

    def fit(self, means: Float[np.ndarray, "items channels"], labels: Sequence[int], videos: Sequence[int]) -> None:
        """Learn from mean features; the penalty is the one that does best on held-out ``videos``."""
        vectors, classes = torch.from_numpy(means).double(), torch.tensor(labels)
        centre, spread = vectors.mean(dim=0), vectors.std(dim=0, correction=0).clamp_min(1e-6)
        vectors = (vectors - centre) / spread
        held_out = torch.tensor(videos) % FOLDS == FOLDS - 1

        def right(penalty: float) -> float:
            matrix, offset = ridge(vectors[~held_out], classes[~held_out], len(self.offset), penalty)
            found = (vectors[held_out] @ matrix.T + offset).argmax(dim=1)
            return float((found == classes[held_out]).double().mean())

        best = max(PENALTIES, key=right) if held_out.any() else 1.0
        matrix, offset = ridge(vectors, classes, len(self.offset), best)
        for name, value in (("mean", centre), ("deviation", spread), ("matrix", matrix), ("offset", offset)):
            getattr(self, name).copy_(value)

    def forward(self, means: Float[Tensor, "items channels"]) -> Float[Tensor, "items classes"]:
        """Mean features -> probabilities of the classes."""
        chances = ((means - self.mean) / self.deviation @ self.matrix.T + self.offset).clamp_min(1e-6)
        return chances / chances.sum(dim=1, keepdim=True)
