"""The only training loop of the project."""

import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from svilm.config import Config, ConfigError, ManifestFile
from svilm.engine.exams import Best, Exams
from svilm.engine.logbook import Logbook
from svilm.engine.optim import Optim, build_optimizer, rate_at, set_rate
from svilm.engine.state import State
from svilm.engine.task import Task, TrainingBatch
from svilm.runtime import (
    all_agree,
    all_reduce_gradients,
    derive_seed,
    gather_objects,
    rank,
    seed_everything,
    world_size,
)
from svilm.types import Terms


class Training(Config):
    """How long and in what manner to train."""

    steps: int = Field(0, ge=0)
    """Optimiser steps; 0 takes them from `epochs`."""
    epochs: float = Field(10.0, gt=0)
    """Passes over the manifest, used when `steps` is 0 (section 4.2)."""
    micro_batch: int = Field(0, ge=0)
    """Clips per forward pass and rank; 0 means all at once.  Parts give the same gradient as the whole batch."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 runs the encoders under autocast; losses, assignment and norms stay in fp32."""
    compile: bool = False
    """Compile the encoders with torch.compile."""
    average: float = Field(0.0, ge=0, lt=1)
    """Decay of an exponential average of the weights, used for evaluation where the encoder alone is trained (as in
    pre-training); 0 keeps none."""
    log_every: int = Field(10, ge=1)
    """Steps between lines of metrics.jsonl."""
    save_every: int = Field(500, ge=1)
    """Steps between checkpoints; the last step is always saved."""
    evaluate_every: int = Field(0, ge=0)
    """Steps between evaluations while training; 0 evaluates only after the last step."""
    keep: Literal["last", "best"] = "last"
    """Weights to keep: those of the last step, or the best of all evaluations on `validation`."""
    validation: ManifestFile = ""
    """Manifest by which the best weights are chosen; a test split is taken too, and every score then says so."""


IMPATIENCE = 2.0
"""Seconds: torchrun passes the SIGINT of a terminal on to processes that have got it already."""


class NonFiniteError(ArithmeticError):
    """A loss or gradient that is not a number; training stopped before the optimiser could use it."""


class Terminated(SystemExit):
    """A signal ended training after a checkpoint.

    The process exits with code 0 after SIGTERM, as schedulers want it, and with 130 after SIGINT (Ctrl-C).
    """

    def __init__(self, step: int, folder: Path, number: int) -> None:
        super().__init__(130 if number == signal.SIGINT else 0)
        if rank() == 0:
            name = signal.Signals(number or signal.SIGTERM).name
            tqdm.write(f"stopped by {name} at step {step}; the same command goes on from {folder}", file=sys.stderr)


class _Supply:
    """The batches of a run; while it is entered, SIGTERM and SIGINT end them before the next one, not the process."""

    def __init__(self, batches: Iterable[TrainingBatch]) -> None:
        self._batches = batches
        self._stream: Iterator[TrainingBatch] = iter(())
        self.asked, self._since = 0, 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Supply":
        if threading.current_thread() is threading.main_thread():  # Python takes signals nowhere else
            self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        self._stream = iter(self._batches)
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        self._stream = iter(())  # whose processes end now, before anybody waits for them at the end of the program
        for number, before in self._before.items():  # who was asked to end heeds no second signal while ending
            signal.signal(number, signal.SIG_IGN if kind is Terminated else before)

    def _ask(self, number: int, frame: object) -> None:
        if self.asked and number == signal.SIGINT and time.monotonic() - self._since > IMPATIENCE:
            raise KeyboardInterrupt
        if not self.asked:
            self.asked, self._since = number, time.monotonic()

    def next(self) -> TrainingBatch | None:
        """The next batch, or None on every rank when any of them was asked to stop."""
        batch = None if self.asked else next(self._stream)
        return batch if all_agree(batch is not None) else None


def train(
    model: nn.Module,
    task: Task,
    batches: Callable[[int, int], Iterable[TrainingBatch]],
    *,
    training: Training,
    optim: Optim,
    steps: int,
    seed: int,
    device: torch.device,
    folder: Path,
    skip_budget: float = 1.0,
    first_batch: Callable[[Any], None] = lambda batch: None,
    evaluate: Callable[[nn.Module], Mapping[str, float]] = lambda model: {},
    judge: Callable[[nn.Module], float] | None = None,
) -> nn.Module:
    """Train from the last checkpoint in ``folder`` (or from the start) to step ``steps`` and return the weights
    to be used: the averaged ones when `training.average` is set, the best ones when `training.keep` says so.

    ``batches(start, stop)`` gives this rank's batches of those steps.  ``first_batch`` sees the first one before
    any step is taken; ``judge`` gives the number by which the best weights are known.  Raises NonFiniteError for
    a loss or gradient that is not finite, and ValueError when more clips than ``skip_budget`` allows could not be
    read.  After SIGTERM or SIGINT all ranks save a checkpoint of the step they have finished and raise Terminated; a
    second SIGINT, more than IMPATIENCE seconds later, ends them at once.
    """
    optimizer = build_optimizer(optim, [*model.named_parameters(), *task.named_parameters()])
    average = _average(model, task, training.average)
    used = model if average is None else average.module
    best = Best(folder, judge, used, task) if training.keep == "best" else None
    exams = Exams(training.evaluate_every, steps, used, evaluate, best)
    state = State(folder / "checkpoints", model, task, average, optimizer)
    start, meter = state.resume(), state.meter
    exams.resume(start)
    if training.compile:
        _compile(model)
    logs = folder if rank() == 0 else None
    with Logbook(logs, start=start, steps=steps) as logbook, _Supply(batches(start, steps)) as supply:
        for step in range(start, steps):
            asked = time.monotonic()
            batch = supply.next()
            if batch is None:
                state.save(step, must=True)
                raise Terminated(step, folder, supply.asked)
            waited = time.monotonic() - asked
            meter.count(batch, skip_budget)
            if step == 0 and rank() == 0:
                first_batch(batch)
            rate = optim.lr * rate_at(optim, step, steps)
            set_rate(optimizer, rate)
            seed_everything(derive_seed(seed, "step", step, rank()))
            terms, norm = _gradients(model, task, batch.to(device), training, optim)
            check_finite(terms, norm, step, batch, folder)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if average is not None:
                average.update_parameters(model)
            meter.time(waited, time.monotonic() - asked, len(batch))
            done, last = step + 1, step + 1 == steps
            if last or done % training.log_every == 0:
                logbook.show(done, {**_mean_of_ranks(_numbers(terms)), **meter.read(), **_about(rate, norm)})
            logbook.advance()
            for numbers in exams.after(done):
                logbook.log(done, numbers)
            if last or done % training.save_every == 0:
                state.save(done, must=last)
    exams.end()
    return used


def _gradients(
    model: nn.Module, task: Task, batch: TrainingBatch, training: Training, optim: Optim
) -> tuple[Terms, Tensor]:
    """Gradients of one step in the parameters, averaged over ranks and clipped; the loss terms and the norm."""
    model.train()
    task.train()
    terms = backward(model, task, batch, training)
    parameters = [p for p in (*model.parameters(), *task.parameters()) if p.requires_grad]
    all_reduce_gradients(parameters)
    return terms, gradient_norm(parameters, optim.clip_norm)


def backward(model: nn.Module, task: Task, batch: TrainingBatch, training: Training) -> Terms:
    """Gradients of one step, accumulated in the parameters; returns the loss terms.

    With `micro_batch` the batch goes through the encoders in parts: first without a gradient, to have the
    features of all clips; then the loss on these, which gives the gradient of each feature; then part by part
    again, with the same random state, to send those gradients on.  The result equals the whole batch.
    """
    size = training.micro_batch or len(batch)
    device = next((p.device for p in (*model.parameters(), *task.parameters())), torch.device("cpu"))
    if size >= len(batch):
        with _autocast(training, device):
            terms = task.loss(model, task.features(model, batch), batch)
        terms.total.backward()
        return terms
    parts = [batch.part(i, min(i + size, len(batch))) for i in range(0, len(batch), size)]
    states, cached = [], []
    with torch.no_grad(), _autocast(training, device):
        for part in parts:
            states.append(_random_state(device))
            cached.append(task.features(model, part))
    whole = {name: torch.cat([features[name] for features in cached]) for name in cached[0]}
    whole = {name: t.requires_grad_() if t.is_floating_point() else t for name, t in whole.items()}
    with _autocast(training, device):
        terms = task.loss(model, whole, batch)
    terms.total.backward()
    position = 0
    for part, state in zip(parts, states, strict=True):
        _set_random_state(device, state)
        with _autocast(training, device):
            features = task.features(model, part)
        roots, gradients = [], []
        for name, feature in features.items():
            gradient = whole[name].grad
            if feature.requires_grad and gradient is not None:
                roots.append(feature)
                gradients.append(gradient[position : position + len(part)].to(feature.dtype))
        torch.autograd.backward(roots, gradients)
        position += len(part)
    return terms


def gradient_norm(parameters: list[nn.Parameter], limit: float) -> Tensor:
    """Norm of the whole gradient; the gradient is scaled down to ``limit`` when that is above zero."""
    return torch.nn.utils.clip_grad_norm_(parameters, limit or math.inf)


def check_finite(terms: Terms, norm: Tensor, step: int, batch: TrainingBatch, folder: Path) -> None:
    """Raise NonFiniteError on every rank when a loss term or the gradient norm of any rank is not finite.

    The clips of the step and the terms go to ``nonfinite.json`` in the run folder.
    """
    values = {**{name: float(value) for name, value in terms.losses.items()}, "gradient norm": float(norm)}
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if all_agree(not bad):
        return
    found = gather_objects({"bad": bad, "values": values, "clips": list(batch.ids)})
    named = sorted({name for rows in found for name in rows["bad"]})
    clips = [clip for rows in found if rows["bad"] for clip in rows["clips"]]
    if rank() == 0:
        text = json.dumps({"step": step, "ranks": found}, indent=1)
        (folder / "nonfinite.json").write_text(text + "\n", encoding="utf-8")
    shown = ", ".join(clips[:8]) + (f" and {len(clips) - 8} more" if len(clips) > 8 else "")
    raise NonFiniteError(
        f"step {step}: {', '.join(named)} not finite; no optimiser step taken. Clips: {shown} "
        f"(all in {folder / 'nonfinite.json'}). Try a lower optim.lr or training.precision=fp32. "
        f"To see it again from the last checkpoint: {_replay(folder)}"
    )


def _replay(folder: Path) -> str:
    """The command that goes on with a run, which repeats the steps since its last checkpoint bit for bit."""
    try:
        recipe = json.loads((folder / "run.json").read_text(encoding="utf-8"))["recipe"]
    except (OSError, ValueError, KeyError):
        recipe = "RECIPE"
    ranks = f"torchrun --nproc-per-node {world_size()} -m " if world_size() > 1 else ""
    return f"{ranks}svilm train {recipe} --to {folder} --resume"


def _average(model: nn.Module, task: Task, decay: float) -> AveragedModel | None:
    if not decay:
        return None
    if any(True for _ in task.parameters()):
        raise ConfigError(
            f"training.average = {decay}: the task trains weights of its own, which would not be averaged with the "
            "encoder's; use training.average=0, which keeps those of the last step, or training.keep=best"
        )
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))


def _compile(model: nn.Module) -> None:
    for part in ("video", "text"):
        if hasattr(model, part):
            getattr(model, part).compile()


def _about(rate: float, norm: Tensor) -> dict[str, float]:
    return {"optim/lr": rate, "optim/gradient_norm": float(norm)}


def _numbers(terms: Terms) -> dict[str, float]:
    losses = {f"loss/{name}": float(value) for name, value in terms.losses.items()}
    return {
        "loss/total": float(terms.total.detach()),
        **losses,
        **{k: float(v) for k, v in terms.watched.items()},
    }


def _mean_of_ranks(numbers: Mapping[str, float]) -> dict[str, float]:
    everyone = gather_objects(numbers)
    return {name: sum(each[name] for each in everyone) / len(everyone) for name in numbers}


def _autocast(training: Training, device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if training.precision == "bf16" else nullcontext()


def _random_state(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def _set_random_state(device: torch.device, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
