"""What is asked of the weights while they are trained: scores, and which weights were the best."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from torch import nn

from svilm.config import ConfigError
from svilm.engine.checkpoint import Checkpoints, load_state, load_weights
from svilm.engine.task import Task
from svilm.runtime import gather_objects, rank


class Best:
    """The best weights so far, in ``folder``/best, where a resumed run finds them again."""

    def __init__(self, folder: Path, judge: Callable[[nn.Module], float] | None, model: nn.Module, task: Task) -> None:
        if judge is None:
            raise ConfigError("training.keep = best needs training.validation, a manifest to choose by")
        self._judge, self._model, self._task = judge, model, task
        self._checkpoints = Checkpoints(folder / "best")

    def resume(self, start: int) -> None:
        """Forget what was kept after step ``start``: a run that goes on from there takes those steps again, and may
        come to other numbers."""
        if rank() == 0:
            self._checkpoints.forget_after(start)

    def consider(self, step: int) -> float:
        """Judge the weights, keep them if they are the best, and return the number; NaN is worse than any other.

        When the disk is full, training goes on with the best weights before.
        """
        value = self._judge(self._model)
        if rank() == 0:
            best = self._checkpoints.latest()
            if best is None or _worth(value) > _worth(load_state(best)["value"]):
                self._keep(step, value)
        gather_objects(None)  # no rank looks before it is written
        return value

    def restore(self) -> None:
        """Put the best weights back into model and task; those of the last step stay where none could be kept."""
        best = self._checkpoints.latest()
        if best is None:
            warnings.warn(f"{self._checkpoints.folder} holds no weights; those of the last step are used", stacklevel=2)
            return
        self._model.load_state_dict(load_weights(best, "model"))
        self._task.load_state_dict(load_weights(best, "task"))

    def _keep(self, step: int, value: float) -> None:
        weights = {"model": self._model.state_dict(), "task": self._task.state_dict()}
        try:
            self._checkpoints.save(step, weights, {"value": value})
        except OSError as error:
            warnings.warn(
                f"the weights of step {step}, the best so far, not kept: {error}; training goes on", stacklevel=3
            )


def _worth(value: float) -> float:
    return -math.inf if math.isnan(value) else value


class Exams:
    """What is asked of the weights while they are trained: scores, and which were the best."""

    def __init__(
        self,
        every: int,
        steps: int,
        model: nn.Module,
        evaluate: Callable[[nn.Module], Mapping[str, float]],
        best: Best | None,
    ) -> None:
        self._every, self._steps, self._model, self._evaluate, self._best = every, steps, model, evaluate, best

    def resume(self, start: int) -> None:
        """To be called before the first step of a run that goes on from step ``start``, or begins at 0."""
        if self._best is not None:
            self._best.resume(start)

    def after(self, done: int) -> Iterator[Mapping[str, float]]:
        """The numbers to log after so many steps; the scores of the last one are left to the run."""
        last = done == self._steps
        if self._every and done % self._every == 0 and not last:
            yield self._evaluate(self._model)
        if self._best is not None and (last or done % (self._every or self._steps) == 0):
            yield {"keep/best": self._best.consider(done)}

    def end(self) -> None:
        """Put the best weights back where they are to be kept."""
        if self._best is not None:
            self._best.restore()
