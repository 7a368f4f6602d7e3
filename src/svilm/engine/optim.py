"""Optimisers, parameter groups and the learning rate schedule (section 4.2 and the appendix's tables)."""

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field, field_validator
from torch import nn

from svilm.config import Config

Share = Annotated[float, Field(ge=0, lt=1)]


class Optim(Config):
    """The optimiser; the defaults are the paper's."""

    optimizer: Literal["sgd", "adamw", "adam"] = "sgd"
    """SGD with momentum (the paper), AdamW, which small batches need, or Adam, as G-TAD has it (Table 11)."""
    lr: float = Field(0.1, gt=0)
    """Peak learning rate of new parameters (group tokens, grouping blocks, projections, heads)."""
    lr_video: float = Field(1.0, ge=0)
    """Factor on `lr` for the ViT part of the video encoder; lower it when it starts from published weights."""
    lr_text: float = Field(1.0, ge=0)
    """Factor on `lr` for BERT."""
    momentum: Share = 0.9
    """Momentum of SGD."""
    betas: tuple[Share, Share] = (0.9, 0.98)
    """Moment decays of AdamW and Adam."""
    weight_decay: float = Field(0.0, ge=0)
    """Decay of matrices; biases, norms, tokens, positions and temperatures are never decayed."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of the steps in which the rate rises linearly from zero."""
    final: float = Field(0.0, ge=0, le=1)
    """Rate over the peak at the end of the cosine, which is one step after the last: that one is a little above."""
    milestones: tuple[float, ...] = ()
    """Instead of the cosine: shares of the run at which the rate falls to a tenth, for instance 0.5; ascending."""
    clip_norm: float = Field(1.0, ge=0)
    """Largest norm of the whole gradient; 0 does not clip."""

    @field_validator("milestones")
    @classmethod
    def _within_the_run(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        places = (0.0, *value, 1.0)
        if any(later <= before for before, later in pairwise(places)):
            raise ValueError("must ascend between 0 and 1: shares of the run, not epochs (epoch 30 of 100 is 0.3)")
        return value


def build_optimizer(config: Optim, named: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
    """An optimiser over the named parameters that need a gradient, in groups {video, text, new} x {decay, plain}.

    Each group carries `scale`, its factor on the learning rate.
    """
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            decayed = parameter.ndim >= 2 and name.endswith("weight") and "embeddings" not in name
            groups.setdefault((part_of(name), decayed), []).append(parameter)
    scales = {"video": config.lr_video, "text": config.lr_text, "new": 1.0}
    rows = [
        {
            "params": parameters,
            "name": f"{part}/{'decay' if decayed else 'plain'}",
            "scale": scales[part],
            "weight_decay": config.weight_decay if decayed else 0.0,
        }
        for (part, decayed), parameters in sorted(groups.items())
    ]
    # one kernel for all parameters of a group, where torch has it
    fused = all(p.device.type in ("cpu", "cuda") for parameters in groups.values() for p in parameters)
    if config.optimizer == "sgd":
        return torch.optim.SGD(rows, lr=config.lr, momentum=config.momentum, fused=fused)
    if config.optimizer == "adam":
        return torch.optim.Adam(rows, lr=config.lr, betas=config.betas, fused=fused)
    return torch.optim.AdamW(rows, lr=config.lr, betas=config.betas, fused=fused)


def part_of(name: str) -> Literal["video", "text", "new"]:
    """Which learning rate a parameter of the dual encoder follows, by its name."""
    if name.startswith("text."):
        return "text"
    if name.startswith("video.") and "group" not in name:
        return "video"
    return "new"


def rate_at(config: Optim, step: int, steps: int) -> float:
    """Share of the peak rate at ``step`` (from 0) of ``steps``: linear warm-up, then half a cosine that would come to
    `final` at step ``steps``, one after the last; or stairs at the `milestones`."""
    warmup = config.warmup * steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.milestones:
        return float(0.1 ** sum(step >= share * steps for share in config.milestones))
    progress = (step - warmup) / max(1.0, steps - warmup)
    return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group the learning rate ``rate`` times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
