"""Where the time of a training step goes, what this machine would need at its peak, and clips per second.

Each part is timed forward and backward on its own, by the functions that training calls.  Its floor is the time that
its matrix products take at the measured rate of the machine, or, where nothing is multiplied, its bytes at the measured
bandwidth.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from torch import Tensor

from svilm.bench.frame import CPU, How, Row, higher, lower, seconds_of
from svilm.bench.machine import Rates, forward_flops, rates
from svilm.bench.material import Material, material
from svilm.bench.pictures import bars, save
from svilm.data.augment import cut_and_paste, sample_paste
from svilm.data.decode import index_video
from svilm.data.language import noun_prompts, pack
from svilm.data.sample import load_clip
from svilm.engine.optim import build_optimizer
from svilm.engine.trainer import gradient_norm, train
from svilm.models.dual import DualEncoder
from svilm.plan import plan
from svilm.tasks.pretrain import Pretrain, PretrainTask
from svilm.types import Batch, VideoFeatures

READING = ("decode", "resize, crop", "cut-and-paste", "noun prompts, tokens")
"""What the worker processes do."""
LOSSES = ("contrast", "grounding", "grouping")
BYTES_A_WEIGHT = {"adamw": 28, "adam": 28, "sgd": 20}
"""Read and written by a step of the optimiser: weight, gradient, its own state."""


@dataclass(frozen=True)
class Part:
    """One part of a step."""

    work: Callable[[], object]
    floor: float
    """Seconds at the machine's peak; 0 where there is no such figure."""


def rows(how: How) -> Iterator[Row]:
    """The parts of a step of `tiny` and of one of `base` (the recipe `paper` on two clips), and their whole."""
    machine = rates(quick=how.quick)
    shares: dict[str, Mapping[str, tuple[float, float]]] = {}
    with material("tiny", clips=8 if how.quick else 128, batch=4 if how.quick else 64) as tiny:
        yield from _one_size("tiny", tiny, machine, how, shares)
        yield _training(tiny, machine, how)
    if not how.quick:
        with material("paper", clips=2, batch=2) as base:
            yield from _one_size("base", base, machine, how, shares)
    if how.pictures is not None:
        save(bars(shares), how.pictures / "step.png")


def _one_size(
    size: str,
    made: Material,
    machine: Rates,
    how: How,
    shares: dict[str, Mapping[str, tuple[float, float]]],
) -> Iterator[Row]:
    """A row for each part and one for all; a step of `base` takes a minute on a laptop, so it is taken once."""
    batch = made.batches(1)[0]
    found = {**reading(made, batch, machine), **computing(made, batch, machine)}
    once = size == "base"
    spent = seconds_of([p.work for p in found.values()], replace(how, repetitions=1) if once else how, warm=not once)
    seconds = dict(zip(found, spent, strict=True))
    share, read = scaling_share(found["read"].work), seconds.pop("read")
    seconds |= {"decode": (1 - share) * read, "resize, crop": share * read}
    floors = {name: part.floor for name, part in found.items()}
    whole = sum(seconds.values())
    order = [*READING, *(name for name in seconds if name not in READING)]
    shares[f"{size}, {len(batch)} clips"] = {name: (seconds[name], floors.get(name, 0.0)) for name in order}
    about = f"step, {size}, {len(batch)} clips"
    for name in order:
        floor = floors.get(name) or None
        yield lower(f"{about}: {name}", seconds[name], floor, "s", f"{seconds[name] / whole:.1%} of the step")
    model_seconds = sum(seconds[name] for name in order if name not in READING)
    floor = sum(floors[name] for name in floors if name not in READING)
    yield lower(f"{about}: all but reading, against the machine's peak", model_seconds, floor, "s")


def reading(made: Material, batch: Batch, machine: Rates) -> dict[str, Part]:
    """What the worker processes do; "read" is decoding, scaling and cutting together."""
    data, language = made.run.data, made.run.data.language
    paths = [made.manifest.path_of(entry) for entry in batch.entries]
    indexes = [index_video(path) for path in paths]

    def read() -> None:
        for path, index, entry in zip(paths, indexes, batch.entries, strict=True):
            load_clip(path, entry.start, entry.end, data.sampling, np.random.default_rng(0), index=index)

    def words() -> None:
        rng = np.random.default_rng(0)
        prompts = [noun_prompts(nouns, language.nouns, rng)[1] for nouns in batch.nouns]
        pack(batch.captions, prompts, made.tokenizer, language)

    def paste() -> None:
        steps = data.sampling.num_frames // data.paste.clip_window
        drawn = sample_paste(len(batch), steps, data.paste, np.random.default_rng(0))
        cut_and_paste(batch.video, drawn, data.paste.clip_window)

    return {
        "read": Part(read, 0.0),
        "cut-and-paste": Part(paste, 2 * batch.video.numel() / machine.bandwidth),
        "noun prompts, tokens": Part(words, 0.0),
    }


def scaling_share(read: Callable[[], object]) -> float:
    """Share of the time of ``read`` in which PyAV scales pictures and turns them into RGB."""
    spent = 0.0

    class Timed:
        def __init__(self) -> None:
            self.real = VideoReformatter()

        def reformat(self, *words: Any, **settings: Any) -> Any:
            nonlocal spent
            begun = time.perf_counter()
            frame = self.real.reformat(*words, **settings)
            spent += time.perf_counter() - begun
            return frame

    with patch("svilm.data.decode.VideoReformatter", Timed):
        begun = time.perf_counter()
        read()
        return spent / (time.perf_counter() - begun)


def computing(made: Material, batch: Batch, machine: Rates) -> dict[str, Part]:
    """What the training process does with a batch: encoders and losses, forward and backward, and the optimiser."""
    job = made.job(CPU)
    model, task = job.model, job.task
    assert isinstance(model, DualEncoder) and isinstance(task, PretrainTask)
    model.train()
    with torch.no_grad():
        video = model.encode_video(batch.video)
        with given_video(model, video):
            features = dict(task.features(model, batch))

    def text() -> dict[str, Tensor]:
        with given_video(model, video):
            found = task.features(model, batch)
        return {name: found[name] for name in ("caption", "nouns")}

    def loss(name: str) -> Tensor:
        alone = PretrainTask(Pretrain().model_copy(update={each: float(each == name) for each in LOSSES}))
        leaves = {key: value.clone().requires_grad_(value.is_floating_point()) for key, value in features.items()}
        return alone.loss(model, leaves, batch).total

    works: dict[str, Callable[[], list[Tensor]]] = {
        "video encoder": lambda: _used(model.encode_video(batch.video)),
        "text encoder": lambda: list(text().values()),
        **{f"{name} loss": lambda name=name: [loss(name)] for name in LOSSES},  # type: ignore[misc]
    }
    forward = {name: forward_flops(work) for name, work in works.items() if name != "video encoder"}
    forward["video encoder"] = plan(made.run).video_flops * len(batch)  # on no device: of `base` it would take a while
    parts = {
        name: Part(lambda work=work: _forward_backward(work), 3 * forward[name] / machine.flops)  # type: ignore[misc]
        for name, work in works.items()
    }
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = build_optimizer(made.run.optim, model.named_parameters())

    def update() -> None:
        gradient_norm(weights, made.run.optim.clip_norm)
        optimizer.step()

    moved = BYTES_A_WEIGHT[made.run.optim.optimizer] * sum(parameter.numel() for parameter in weights)
    return {**parts, "optimiser": Part(update, moved / machine.bandwidth)}


def _used(video: VideoFeatures) -> list[Tensor]:
    """What the losses take of the video."""
    return [video.embedding, video.group_embedding, video.tokens.mean(dim=2)]


def _forward_backward(work: Callable[[], list[Tensor]]) -> None:
    found = work()
    torch.autograd.backward(found, [torch.ones_like(each) for each in found])


@contextmanager
def given_video(model: DualEncoder, video: VideoFeatures) -> Iterator[None]:
    """While entered, ``model`` need not encode any video: it has ``video`` ready."""
    model.encode_video = lambda _: video  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del model.encode_video


def _training(made: Material, machine: Rates, how: How) -> Row:
    """Clips per second of training as `svilm train` does it, reading included, against the machine's peak."""
    run = made.run
    lines = 1 if how.quick else 4
    training = run.training.model_copy(update={"steps": 5 * lines, "log_every": 5, "save_every": 1000})
    job = made.job(CPU)
    batch = made.batches(1)[0]
    flops = 3 * forward_flops(lambda: job.task.loss(job.model, job.task.features(job.model, batch), batch))
    made.folder.mkdir(exist_ok=True)
    train(
        job.model,
        job.task,
        job.batches,
        training=training,
        optim=run.optim,
        steps=training.steps,
        seed=run.seed,
        device=CPU,
        folder=made.folder,
    )
    speed = _speeds(made.folder)[-max(1, lines - 1) :]
    return higher(
        f"training, {run.recipe}, {run.data.batch} clips a step, against the machine's peak",
        float(np.median(speed)),
        machine.flops / flops * len(batch),
        "clips/s",
        f"{flops / 1e9:.3g} GFLOP a step",
    )


def _speeds(folder: Path) -> list[float]:
    """Clips per second in the lines of a log."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line).get("speed/clips_per_second", math.nan) for line in lines]
    return [speed for speed in found if not math.isnan(speed)]
