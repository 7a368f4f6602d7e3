"""A training step of the paper's size on a GPU: how fast, how near the peak, how much memory, how many GPU-hours."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from svilm.bench.frame import How, Row, compare, higher, lower, not_measured, seconds_of
from svilm.bench.machine import rates
from svilm.bench.material import Step, training_step
from svilm.config import override
from svilm.models.dual import DualEncoder
from svilm.plan import plan
from svilm.recipes import recipe
from svilm.run import Run

PAPER_CLIPS_SEEN = 33_000_000
"""3.3 million clips in each of 10 epochs (section 4.2)."""
BATCHES = (8, 24, 48, 96, 192)
"""Clips tried at once, ascending, until they do not fit; each is compiled anew."""
NODE = 8
"""GPUs among which the recipe's batch is divided."""
TOO_LARGE = "does not fit into the memory"
GOAL = 50.0
"""Percent of the machine's bf16 matrix product that a training step shall reach."""


@dataclass(frozen=True)
class Speed:
    """What a training step of some size reaches."""

    clips: int
    clips_per_second: float
    peak_gib: float


def rows(how: How) -> Iterator[Row]:
    """`base` in bf16 with all three losses: compiled, with and without activation checkpointing, and what each brings.

    Without a GPU a row that says so.
    """
    if not torch.cuda.is_available():
        yield not_measured("GPU: training of base in bf16, compiled, flash attention, checkpointing", "no CUDA GPU")
        return
    settings = ["training.precision=bf16", "training.micro_batch=0", "training.compile=true"]
    given = recipe("tiny" if how.quick else "paper")
    device, batches = torch.device("cuda", 0), BATCHES[:2] if how.quick else BATCHES
    yield from on_device(override(given, settings), device, batches, how)
    yield from as_trained(given, device, how)


def on_device(run: Run, device: torch.device, batches: tuple[int, ...], how: How) -> Iterator[Row]:
    """All rows of ``run`` on ``device``; the CPU will do for a try.

    The peak counts the FLOPs of the video encoder alone, 99 % of a step of `base`: three times forward, also where
    checkpointing computes some of it again.
    """
    peak = rates(device, torch.bfloat16, quick=how.quick).flops
    yield higher("GPU: matrix product, bf16", peak / 1e12, None, "TFLOP/s")
    flops = 3 * plan(run).video_flops
    largest = Speed(0, 0.0, 0.0)
    for recompute in (False, True):
        words = f"GPU: training, activation checkpointing {'on' if recompute else 'off'}"
        found = speeds(override(run, [f"model.video.recompute={str(recompute).lower()}"]), device, batches, how)
        if not found:
            yield not_measured(words, f"a step of {batches[0]} clips {TOO_LARGE}")
            continue
        best = max(found, key=lambda each: each.clips_per_second)
        note = f"{best.clips} clips a step, {flops / 1e12:.3g} TFLOP a clip"
        yield higher(f"{words}, against the peak", best.clips_per_second, peak / flops, "clips/s", note)
        percent = 100 * best.clips_per_second * flops / peak
        yield higher(f"{words}, of the peak; the peer is the goal", percent, GOAL, "%")
        most = found[-1]
        yield lower(f"{words}, peak memory at the largest batch", most.peak_gib, None, "GiB", f"{most.clips} clips")
        if recompute and largest.clips:
            yield higher(
                "GPU: largest batch, checkpointing on against off", float(most.clips), float(largest.clips), "clips"
            )
        largest = most
    yield from what_each_brings(run, device, batches[0], how)


def as_trained(run: Run, device: torch.device, how: How) -> Iterator[Row]:
    """A step as ``run`` takes it on one GPU of NODE, gradient caching included, and hours for the paper's clips."""
    share = run.data.batch // NODE
    words = f"GPU: training, {share} clips as the recipe `{run.recipe}` takes them on one of {NODE} GPUs"
    found = speeds(run, device, (share,), how)
    if not found:
        yield not_measured(words, f"it {TOO_LARGE}")
        return
    parts = f"{run.training.micro_batch or share} at a time, {found[0].peak_gib:.1f} GiB"
    yield higher(words, found[0].clips_per_second, None, "clips/s", parts)
    hours = PAPER_CLIPS_SEEN / found[0].clips_per_second / 3600
    yield lower("GPU: training on 33 million clips at that speed", hours, None, "GPU-hours")


def speeds(run: Run, device: torch.device, batches: tuple[int, ...], how: How) -> list[Speed]:
    """The step at each size that fits, ascending; the compiled code of one size is not that of another."""
    found = []
    for clips in batches:
        torch.compiler.reset()
        try:
            step = compiled(training_step(run, clips, device))
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            (seconds,) = seconds_of([step], how, device)
        except torch.OutOfMemoryError:
            break
        finally:
            if device.type == "cuda":
                torch.cuda.empty_cache()
        bytes_held = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
        found.append(Speed(clips, clips / seconds, bytes_held / 2**30))
        del step
    return found


def compiled(step: Step) -> Step:
    """The step with encoders compiled as training does it, where its settings ask for that."""
    if step.training.compile:
        assert isinstance(step.model, DualEncoder)
        step.model.video.compile()
        step.model.text.compile()
    return step


def what_each_brings(run: Run, device: torch.device, clips: int, how: How) -> Iterator[Row]:
    """A step with and without bf16 and torch.compile, graph breaks, and flash attention against the plain one.

    What does not fit into the memory is a row that says so.
    """
    torch.compiler.reset()
    plain = override(run, ["training.compile=false"])

    def bf16(name: str) -> Row:
        full = override(plain, ["training.precision=fp32"])
        return compare(name, training_step(plain, clips, device), training_step(full, clips, device), how, device)

    def compiling(name: str) -> Row:
        quick = compiled(training_step(run, clips, device))
        return compare(name, quick, training_step(plain, clips, device), how, device)

    def breaks(name: str) -> Row:
        return lower(name, float(graph_breaks(training_step(plain, 1, device))), None, "breaks")

    def flash(name: str) -> Row:  # the plain form keeps a map of all pairs of tokens for each head and block
        step = training_step(plain, 1, device)
        assert isinstance(step.model, DualEncoder)
        encode = _encoding(step.model.video, step.batch.video)
        with torch.autocast(device.type, torch.bfloat16):
            ours, peer = (_with(backend, encode) for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH))
            return compare(name, ours, peer, how, device)

    works = {f"GPU: bf16 against fp32, {clips} clips": bf16}
    if run.training.compile:
        works[f"GPU: torch.compile against none, {clips} clips"] = compiling
        works["GPU: graph breaks of the encoders"] = breaks
    works["GPU: flash attention against the plain form, video encoder, 1 clip"] = flash
    for name, work in works.items():
        try:
            yield work(name)
        except torch.OutOfMemoryError:
            yield not_measured(name, f"it {TOO_LARGE}")
        finally:
            if device.type == "cuda":
                torch.cuda.empty_cache()


def graph_breaks(step: Step) -> int:
    """How often torch.compile has to leave the encoders for Python."""
    assert isinstance(step.model, DualEncoder)
    video, text = (torch._dynamo.explain(part) for part in (step.model.video, step.model.text))
    return int(
        video(step.batch.video).graph_break_count + text(step.batch.text_ids, step.batch.text_mask).graph_break_count
    )


def _encoding(encoder: nn.Module, video: Tensor) -> Callable[[], None]:
    def work() -> None:
        encoder(video)[1].float().sum().backward()

    return work


def _with(backend: SDPBackend, work: Callable[[], None]) -> Callable[[], None]:
    def limited() -> None:
        with sdpa_kernel(backend):
            work()

    return limited
