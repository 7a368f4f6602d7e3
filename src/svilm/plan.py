"""What a run would cost, without data, weights or a GPU: everything is built on the meta device."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from svilm.data.loader import batch_bytes, batches_ahead
from svilm.data.manifest import Manifest
from svilm.models.dual import DualEncoder
from svilm.run import Run, total_steps

PAPER_CLIPS = 3_300_000 + 20_000
"""Video-caption pairs of the paper's corpus: VideoCC and ActivityNet Captions (section 4.2)."""


@dataclass(frozen=True)
class Plan:
    """Size and cost of a run."""

    parameters: dict[str, int]
    """Number of weights by part."""
    grid: tuple[int, int, int]
    """Steps, rows and columns of video tokens."""
    video_flops: float
    """Forward FLOPs of the video encoder per clip (a multiply-add counts as 2)."""
    text_flops: float
    """Forward FLOPs of the text encoder per clip: its caption and its noun prompts, at full length."""
    state_bytes: int
    """Weights, gradients and optimiser state."""
    activation_bytes: int
    """What the video and text encoders keep for the backward pass, per clip, in the run's precision."""
    clips: int
    """Training clips of the manifest, or of the paper when there is none."""
    steps: int
    """Optimiser steps."""


def plan(run: Run) -> Plan:
    """Work out size and cost of ``run`` from shapes alone."""
    with torch.device("meta"):
        encoder = DualEncoder(run.model)
        c, s = run.model.video, run.data.sampling
        video = torch.zeros((1, s.num_frames, s.size, s.size, 3), dtype=torch.uint8)
        texts, length = 1 + run.data.language.nouns, run.data.language.max_length
        ids, mask = (
            torch.zeros((texts, length), dtype=torch.long),
            torch.ones((texts, length), dtype=torch.bool),
        )
        with torch.no_grad(), FlopCounterMode(display=False) as video_counter:
            encoder.encode_video(video)
        with torch.no_grad(), FlopCounterMode(display=False) as text_counter:
            encoder.encode_text(ids, mask)
        saved = _saved_bytes(encoder, video, ids, mask)
    parts: dict[str, int] = {}
    for name, parameter in encoder.named_parameters():
        part = "grouping" if "group" in name else "projections" if "projection" in name else name.split(".")[0]
        if "log_scale" in name:
            continue  # two numbers
        parts[part] = parts.get(part, 0) + parameter.numel()
    weights = sum(parts.values())
    copies = {"sgd": 3, "adamw": 4, "adam": 4}[run.optim.optimizer] + (1 if run.training.average else 0)
    clips = len(Manifest(run.data.manifest)) if run.data.manifest else PAPER_CLIPS
    return Plan(
        parameters=parts,
        grid=(s.num_frames // c.tubelet[0], s.size // c.tubelet[1], s.size // c.tubelet[2]),
        video_flops=float(video_counter.get_total_flops()),
        text_flops=float(text_counter.get_total_flops()),
        state_bytes=4 * weights * copies,
        activation_bytes=saved // (2 if run.training.precision == "bf16" else 1),
        clips=clips,
        steps=total_steps(run, clips),
    )


def describe_plan(run: Run, folder: Path, ranks: tuple[int, ...] = (1, 8, 32)) -> str:
    """The plan in words: parameters, tokens, FLOPs, memory, steps, and the commands that start it."""
    p = plan(run)
    total = sum(p.parameters.values())
    forward = p.video_flops + p.text_flops
    training = 3 * forward * (4 / 3 if 0 < run.training.micro_batch < run.data.batch else 1)
    everything = training * p.steps * run.data.batch
    lines = [
        f"recipe        {run.recipe}",
        f"parameters    {total / 1e6:.1f} M: " + ", ".join(f"{k} {v / 1e6:.1f} M" for k, v in p.parameters.items()),
        f"video tokens  {p.grid[0]} x {p.grid[1]} x {p.grid[2]} = {p.grid[0] * p.grid[1] * p.grid[2]} "
        f"and {run.model.video.groups} group tokens",
        f"forward       {forward / 1e12:.3g} TFLOP per clip (video {p.video_flops / 1e12:.3g}, "
        f"caption and {run.data.language.nouns} noun prompts {p.text_flops / 1e12:.3g})",
        f"training      {training / 1e12:.3g} TFLOP per clip, forward and backward"
        + (" and a second forward for gradient caching" if training > 3 * forward else ""),
        f"clips         {p.clips:,}" + ("" if run.data.manifest else " (the paper's corpus; give --data for yours)"),
        f"steps         {p.steps:,} of {run.data.batch} clips",
        f"whole run     {everything:.2e} FLOP: {everything / 0.4e15 / 3600:,.0f} GPU-hours at 400 TFLOP/s "
        "(arithmetic, not a measurement)",
        "",
        "memory per GPU (estimate from the shapes of what is kept)",
        f"  weights, gradients, optimiser  {p.state_bytes / 2**30:.1f} GiB",
        f"  activations                    {p.activation_bytes / 2**30:.2f} GiB per clip ({run.training.precision})",
    ]
    for count in ranks:
        if run.data.batch % count:
            continue
        local = run.data.batch // count
        part = min(run.training.micro_batch or local, local)
        need = (p.state_bytes + part * p.activation_bytes) / 2**30
        ahead = batches_ahead(run.data, count) * run.data.workers * batch_bytes(run.data, count) / 2**30
        lines.append(
            f"  {count:3} GPUs: {local} clips each, {part} at a time: about {need:.0f} GiB; "
            f"main memory for the frames of {run.data.workers} workers: {ahead:.1f} GiB for each GPU"
        )
    arguments = f"train {run.recipe} --data TRAIN.jsonl --test TEST.jsonl --to {folder}"
    lines += [
        "",
        "start it",
        f"  one GPU       svilm {arguments}",
        f"  one machine   torchrun --nproc-per-node 8 -m svilm {arguments}",
        "  four machines torchrun --nnodes 4 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 "
        f"-m svilm {arguments}",
        "less memory: --set training.micro_batch=8 (same gradient), --set model.video.recompute=true",
    ]
    return "\n".join(lines)


def _saved_bytes(encoder: nn.Module, video: Tensor, ids: Tensor, mask: Tensor) -> int:
    """Bytes that autograd keeps for one clip, weights left out, each storage once.

    Attention maps are left out too: fused attention, which GPUs use, keeps none (the meta device has only the
    plain form, which does).
    """
    weights = {parameter.untyped_storage()._cdata for parameter in encoder.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        is_map = tensor.ndim >= 3 and tensor.shape[-1] == tensor.shape[-2]
        if storage._cdata not in weights and not is_map:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    assert isinstance(encoder, DualEncoder)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        features = encoder.encode_video(video)  # kept alive, so that no storage is counted twice or reused
        text = encoder.encode_text(ids, mask)
    del features, text
    return sum(kept.values())
