"""The state of a training run: what a checkpoint holds, and how it comes back."""

import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from svilm.engine.checkpoint import Checkpoints, load_state, load_weights
from svilm.engine.task import Task, TrainingBatch
from svilm.runtime import all_agree, gather_objects, rank, world_size

FLOOR = 8.0
"""Unreadable clips that stop no run whose budget is above 0: among its first clips a few are already a large share."""


def tolerated(budget: float, clips: int) -> float:
    """How many unreadable clips a run may meet beside so many good ones; a budget of 0 allows none."""
    return max(FLOOR, budget * clips) if budget else 0.0


class Meter:
    """Counts of the run (saved with it) and speed since the last reading (not saved)."""

    def __init__(self) -> None:
        self.clips = 0
        self.skipped: Counter[str] = Counter()
        self._waited = self._spent = 0.0
        self._recent = 0

    def count(self, batch: TrainingBatch, budget: float) -> None:
        """Add the clips of all ranks, so that all come to the same verdict.

        Raises ValueError when more were unreadable than are `tolerated`.
        """
        self.clips += len(batch) * world_size()
        none = all_agree(not batch.skipped)
        for skipped in [] if none else gather_objects(dict(batch.skipped)):
            self.skipped.update(skipped)
        bad = sum(self.skipped.values())
        if bad > tolerated(budget, self.clips):
            reasons = ", ".join(f"{reason}: {n}" for reason, n in self.skipped.most_common())
            raise ValueError(
                f"{bad} of {self.clips + bad} clips asked for could not be read ({reasons}), more than "
                f"data.skip_budget = {budget}; prepare the manifest again with --check full, or raise the budget"
            )

    def time(self, waited: float, spent: float, clips: int) -> None:
        """Add a step: seconds that it waited for data, seconds in all, and the clips of this rank; all have as many."""
        self._waited, self._spent, self._recent = (
            self._waited + waited,
            self._spent + spent,
            self._recent + clips * world_size(),
        )

    def read(self) -> dict[str, float]:
        spent = max(self._spent, 1e-9)
        values = {
            "speed/clips_per_second": self._recent / spent,
            "speed/waiting_for_data": self._waited / spent,
            "data/skipped": float(sum(self.skipped.values())),
        }
        self._waited = self._spent = 0.0
        self._recent = 0
        return values

    def state(self) -> dict[str, Any]:
        return {"clips": self.clips, "skipped": dict(self.skipped)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.clips, self.skipped = int(state["clips"]), Counter(state["skipped"])


class State:
    """All that a checkpoint holds."""

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        task: Task,
        average: AveragedModel | None,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self._checkpoints, self.meter = Checkpoints(folder), Meter()
        self._parts: dict[str, nn.Module] = {"model": model, "task": task}
        if average is not None:
            self._parts["average"] = average.module
        self._average, self._optimizer = average, optimizer

    def save(self, step: int, must: bool) -> None:
        """Save a checkpoint, on rank 0.  When the disk is full training goes on with the one before, unless this one
        ``must`` be."""
        if rank() != 0:
            return
        weights = {name: part.state_dict() for name, part in self._parts.items()}
        state = {"step": step, "optimizer": self._optimizer.state_dict(), **self.meter.state()}
        try:
            self._checkpoints.save(step, weights, state)
        except OSError as error:
            if must:
                raise
            warnings.warn(f"no checkpoint of step {step}: {error}; training goes on", stacklevel=2)

    def resume(self) -> int:
        """Take up the newest checkpoint, if there is one: the step at which to go on."""
        latest = self._checkpoints.latest()
        if latest is None:
            return 0
        for name, part in self._parts.items():
            part.load_state_dict(load_weights(latest, name))
        state = load_state(latest)
        self._optimizer.load_state_dict(state["optimizer"])
        self.meter.restore(state)
        if self._average is not None:
            self._average.n_averaged.fill_(state["step"])
        return int(state["step"])
