"""The contract between a run, the trainer and a task.

A `Task` owns its heads and says what a batch is worth; the trainer knows no task by name.  The step is split in
two so that one large contrastive batch can be computed in parts: `features` must not mix clips, `loss` may.

`TaskSettings` are the task's part of a run.  Their `job` says everything else that a run needs: what is trained,
on which batches, and how it is scored.  A run finds the settings of a task by their `kind`, which is the name of
the module that holds them: a file in ``svilm/tasks``, or any importable module.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from svilm.config import Config, ConfigError
from svilm.data.language import Tokenizer
from svilm.data.loader import Data
from svilm.data.manifest import Manifest
from svilm.engine.optim import Optim
from svilm.models.dual import DualEncoder
from svilm.types import Scores, Terms

if TYPE_CHECKING:
    from typing_extensions import Self

Features = Mapping[str, Tensor]
"""Named tensors whose first axis is the items of the batch."""


@runtime_checkable
class TrainingBatch(Protocol):
    """What the trainer needs to know of a batch; `svilm.types.Batch` is one of many."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the items, for messages."""

    @property
    def skipped(self) -> Mapping[str, int]:
        """Items that could not be read and were replaced, by reason."""

    def __len__(self) -> int:
        """Items."""

    def to(self, device: torch.device) -> "Self":
        """The same batch with every tensor on ``device``."""

    def part(self, start: int, stop: int) -> "Self":
        """Items start <= i < stop."""


class Task(nn.Module, ABC):
    """What the trainer asks of a task.

    ``batch`` is of the kind that the task's own job delivers, which is why it has no type here.
    """

    @abstractmethod
    def features(self, model: nn.Module, batch: Any) -> Features:
        """Everything the loss needs of each item on its own; tensors with the items as first axis."""

    @abstractmethod
    def loss(self, model: nn.Module, features: Features, batch: Any) -> Terms:
        """The loss terms of the whole (local) batch, negatives of other ranks included."""


@dataclass(frozen=True)
class Job:
    """What a task brings to a run."""

    task: Task
    """The heads and the loss."""
    model: nn.Module
    """What is trained besides the heads: the encoder, or an empty module when the features are frozen."""
    items: int
    """Training items of one epoch."""
    batches: Callable[[int, int], Iterable[TrainingBatch]]
    """This rank's batches of the steps from the first number up to the second."""
    evaluate: Callable[[nn.Module], Mapping[str, Scores]] = lambda model: {}
    """Scores of a model (the trained one, or another of its kind) with the task's heads, by family.

    A metric's name begins with its family: ``vqa/accuracy``; baselines stand beside it: ``vqa_majority/accuracy``.
    """
    judge: Callable[[nn.Module, Manifest], float] | None = None
    """One number, larger is better, of a model on a manifest: what `training.keep` = best selects by."""


@dataclass(frozen=True)
class Context:
    """What a task may know of the run it belongs to."""

    folder: Path
    """The run folder; a task may keep caches there."""
    seed: int
    device: torch.device
    data: Data
    """How training items are read."""
    make_encoder: Callable[[], DualEncoder]
    make_tokenizer: Callable[[], Tokenizer]
    optim: Optim = Optim()  # noqa: RUF009 (frozen)
    """The optimiser, for a task that works with some of its settings only."""
    elsewhere: Path | None = None
    """Where scores and predictions go when they are not those of the run's own lists."""

    @property
    def results(self) -> Path:
        """Folder for scores and predictions."""
        return self.elsewhere or self.folder

    @cached_property
    def manifest(self) -> Manifest:
        """The training manifest.  Raises ConfigError when the run names none."""
        if not self.data.manifest:
            raise ConfigError("data.manifest is empty; give the manifest made by `svilm prepare` (--data FILE)")
        return Manifest(self.data.manifest)

    @cached_property
    def encoder(self) -> DualEncoder:
        """The dual encoder that the run starts from, on the run's device; built when first asked for."""
        return self.make_encoder()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer."""
        return self.make_tokenizer()


class TaskSettings(Config, ABC):
    """The task's part of a run; a subclass states `kind` as a Literal with the name of its module."""

    kind: str
    """Module that holds this task."""

    @abstractmethod
    def job(self, context: Context) -> Job:
        """Put the task together for a run."""


def task_settings(kind: str) -> type[TaskSettings]:
    """The settings of the task in ``svilm/tasks/<kind>.py``, or in the module ``kind`` when it has a dot.

    Raises ConfigError when there is no such module, or not exactly one class of settings in it.
    """
    name = kind if "." in kind else f"svilm.tasks.{kind}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise
        raise ConfigError(f"task.kind = {kind!r}: there is no module {name}") from None
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, TaskSettings) and value.__module__ == name
    ]
    if len(found) != 1:
        raise ConfigError(f"task.kind = {kind!r}: {name} must define one subclass of TaskSettings, not {len(found)}")
    return found[0]
