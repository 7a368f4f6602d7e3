"""The contract between the trainer and a task.

A task owns its heads and says what a batch is worth; the trainer knows no task by name.  The step is split in
two so that one large contrastive batch can be computed in parts: `features` must not mix clips, `loss` may.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from svilm.types import Batch, Terms

Features = Mapping[str, Tensor]
"""Named tensors whose first axis is the clips of the batch."""


class Task(nn.Module, ABC):
    """What the trainer asks of a task."""

    @abstractmethod
    def features(self, model: nn.Module, batch: Batch) -> Features:
        """Everything the loss needs of each clip on its own; tensors with the clips as first axis."""

    @abstractmethod
    def loss(self, model: nn.Module, features: Features, batch: Batch) -> Terms:
        """The loss terms of the whole (local) batch, negatives of other ranks included."""
