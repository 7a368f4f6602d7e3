"""How the cost of a training step and of an evaluation grows, and where it stops being linear.

The step is that of `tiny` on noise, with one of its sizes changed at a time; the slope between two sizes is that of
the logarithms: 1 is linear, 0 costs nothing more, 2 is quadratic.
"""

import math
import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from svilm.bench import apart
from svilm.bench.frame import CPU, How, Row, lower, not_measured
from svilm.bench.material import Step, training_step
from svilm.bench.pictures import Curve, curves, save
from svilm.bench.retrieval import ranking
from svilm.config import override
from svilm.recipes import recipe
from svilm.run import Run
from svilm.runtime import all_reduce_gradients, close_distributed, gather_with_gradient, init_distributed

LINEAR = 0.2
"""A slope this near to 1 counts as linear."""


@dataclass(frozen=True)
class Axis:
    """One size that is changed."""

    title: str
    """What it counts."""
    sizes: tuple[int, ...]
    step: Callable[[int], Callable[[], object]]
    """The work at one size."""
    below: str
    """Why cost grows slower than the size, where it does."""
    above: str
    """Why it grows faster, where it does."""


def with_frames(frames: int) -> Callable[[], object]:
    """A step on 4 clips of so many frames."""
    return training_step(_tiny(f"data.sampling.num_frames={frames}"), 4)


def with_batch(clips: int) -> Callable[[], object]:
    """A step on so many clips of 8 frames."""
    return training_step(_tiny(), clips)


def with_groups(groups: int) -> Callable[[], object]:
    """A step on 16 clips of 8 frames with so many group tokens."""
    return training_step(_tiny(f"model.video.groups={groups}"), 16)


def with_gallery(items: int) -> Callable[[], object]:
    """100 queries ranked against so many items."""
    return ranking(False, 100, items)


def _tiny(*settings: str) -> Run:
    return override(recipe("tiny"), list(settings))


STEP = (
    Axis(
        "frames of a clip",
        (8, 16, 32, 64, 128, 256),
        with_frames,
        "texts, losses and optimiser cost the same for any number of frames",
        "self-attention compares every token with every other: with D = 128 it costs as much as all else of a block "
        "at 6 D = 768 tokens, which are 96 frames",
    ),
    Axis(
        "clips of a batch",
        (4, 8, 16, 32, 64, 128, 256),
        with_batch,
        "the optimiser and the calls of some thousand operations cost the same for any batch",
        "the grounding loss compares every clip with every noun: B x B x K x M numbers",
    ),
    Axis(
        "group tokens",
        (4, 8, 16, 32, 64, 128, 256),
        with_groups,
        "the 64 video tokens of a clip, its texts and the optimiser are there for any number of groups",
        "groups join the self-attention, which is quadratic in them as in all tokens",
    ),
)
GALLERY = Axis(
    "items of the gallery",
    (1_000, 10_000, 100_000, 1_000_000),
    with_gallery,
    "reading and checking the queries costs the same for any gallery, and one block of similarities is held at a time",
    "more items than the cache of the processor holds have to come from memory",
)
SMALL: Mapping[str, tuple[int, ...]] = {
    "frames of a clip": (4, 8),
    "clips of a batch": (2, 4),
    "group tokens": (2, 4),
    "items of the gallery": (200, 400),
}
RANKS, RANK_CLIPS, REPETITIONS = (1, 2, 4), 16, 9


def rows(how: How) -> Iterator[Row]:
    """Curves of time and memory; a row gives the steepest stretch of each, its note where it is not linear and why."""
    if not apart.can_measure():
        yield not_measured("growth", apart.WHY_NOT)
        return
    time_panels: dict[str, Mapping[str, Curve]] = {}
    memory_panels: dict[str, Mapping[str, Curve]] = {}
    notes, repetitions = [], 1 if how.quick else REPETITIONS
    for axis in (*STEP, GALLERY):
        sizes = SMALL[axis.title] if how.quick else axis.sizes
        found = apart.costs(_one, [(axis.step, size) for size in (sizes[0], *sizes)], repetitions)[1:]
        for what, unit, values, panels in (
            ("time", "s", [each.seconds for each in found], time_panels),
            ("peak memory", "MB", [each.megabytes for each in found], memory_panels),
        ):
            curve = curve_of(sizes, values)
            row = _row(f"growth of {what} with {axis.title}", curve, axis, unit)
            panels[axis.title] = {what: curve}
            notes.append(f"- Growth of {what} with {axis.title}: {row.note}.")
            yield row
    ranks = RANKS[:2] if how.quick else RANKS
    clips = 2 if how.quick else RANK_CLIPS
    measured = [processes(count, clips, repetitions) for count in ranks]
    curve = curve_of(ranks, [each.step for each in measured])
    time_panels["processes"] = {"step": curve, "of it gathering": curve_of(ranks, [each.gather for each in measured])}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    shares = ", ".join(f"{n}: {each.gather / each.step:.0%}" for n, each in zip(ranks, measured, strict=True))
    about = (
        f"{_points(curve, 's')}; every process has {clips} clips and there are {cores} cores, beyond which "
        f"processes share them; gathering features and gradients takes of the step {shares}"
    )
    notes.append(f"- Growth of time with processes: {about}.")
    yield _steepest("growth of time with processes, each with as many clips", curve, about)
    if how.pictures is not None:
        save(curves(time_panels, "seconds"), how.pictures / "growth-time.png")
        save(curves(memory_panels, "MB"), how.pictures / "growth-memory.png")
        text = "Numbers at the lines are slopes of the logarithms; dotted lines are linear growth.\n\n"
        (how.pictures / "growth.md").write_text(text + "\n".join(notes) + "\n", encoding="utf-8")


def _one(step: Callable[[int], Callable[[], object]], size: int) -> Callable[[], object]:
    return step(size)


def curve_of(sizes: Sequence[int], values: Sequence[float]) -> Curve:
    """Values over sizes with the slope between each two."""
    pairs = zip(zip(sizes, values, strict=True), zip(sizes[1:], values[1:], strict=True), strict=False)
    slopes = [math.log(after[1] / before[1]) / math.log(after[0] / before[0]) for before, after in pairs]
    return Curve(sizes, values, slopes)


def stretches(curve: Curve) -> list[tuple[str, int, int]]:
    """Where the curve is "below", "linear" or "above", each with its first and last size."""
    found: list[tuple[str, int, int]] = []
    for number, slope in enumerate(curve.slopes):
        kind = "linear" if abs(slope - 1) <= LINEAR else "below" if slope < 1 else "above"
        first = found.pop()[1] if found and found[-1][0] == kind else curve.sizes[number]
        found.append((kind, first, curve.sizes[number + 1]))
    return found


def _row(name: str, curve: Curve, axis: Axis, unit: str) -> Row:
    words = []
    for kind, first, last in stretches(curve):
        where = f"from {first:,} to {last:,}"
        why = {"linear": "linear", "below": f"slower than linear ({axis.below})"}
        words.append(f"{where} {why.get(kind, f'faster than linear ({axis.above})')}")
    return _steepest(name, curve, f"{_points(curve, unit)}; {', '.join(words)}")


def _steepest(name: str, curve: Curve, note: str) -> Row:
    """What twice the size costs where the curve is steepest, against twice as much."""
    return lower(f"{name}, cost of twice the size", 2 ** max(curve.slopes), 2.0, "times", note)


def _points(curve: Curve, unit: str) -> str:
    return ", ".join(f"{size:,}: {value:.3g} {unit}" for size, value in zip(curve.sizes, curve.values, strict=True))


# Several processes


@dataclass(frozen=True)
class Together:
    """Seconds of a step of several processes, and of its gathering alone."""

    step: float
    gather: float


def processes(count: int, clips: int, repetitions: int) -> Together:
    """The step of `tiny` with ``clips`` clips in each of ``count`` processes that gloo connects."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = max(1, torch.get_num_threads() // count)
    return apart.each(_rank, [(rank, count, port, clips, repetitions, threads) for rank in range(count)])[0]


def _rank(rank: int, count: int, port: int, clips: int, repetitions: int, threads: int) -> Together:
    torch.set_num_threads(threads)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    init_distributed(CPU)
    try:
        step = training_step(_tiny(), clips)
        with torch.no_grad():
            features = dict(step.task.features(step.model, step.batch))
        return Together(_median(step, repetitions), _median(lambda: gather(step, features), repetitions))
    finally:
        close_distributed()


def gather(step: Step, features: Mapping[str, torch.Tensor]) -> None:
    """What a step sends: features of the clips, forth and back, and the gradients of the weights."""
    for name in ("video", "caption", "nouns", "groups"):
        gather_with_gradient(features[name].clone().requires_grad_()).sum().backward()
    weights = list(step.model.parameters())
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    all_reduce_gradients(weights)
    step.optimizer.zero_grad(set_to_none=True)


def _median(work: Callable[[], object], repetitions: int) -> float:
    spent = []
    for _ in range(repetitions + 1):
        begun = time.perf_counter()
        work()
        spent.append(time.perf_counter() - begun)
    return statistics.median(spent[1:])
