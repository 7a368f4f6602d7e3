"""What G-TAD learns: targets of segments, and its three losses.

Segments are shares of the covered length of a video, from 0 to 1.  Logits and losses are at least fp32, also under
autocast.  The published code divides by the number of positives; here a batch may have none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import NonNegativeFloat
from torch import Tensor

from svilm.config import Config
from svilm.models.gtad import GTADConfig, GTADOutput, valid_anchors
from svilm.models.layers import at_least_fp32

Segments = Float[Tensor, "_ 2"]

BOUNDARY_STEPS = 3.0
"""Length, in steps, of the stretch around a boundary in which it may be found."""
NODE_POSITIVE = 0.5
"""A node is a start or an end when more than this share of its window lies in such a stretch."""
ANCHOR_POSITIVE = 0.9
"""An anchor is a segment when their overlap (intersection over union) is above this."""
OVERLAP_HIGH, OVERLAP_MIDDLE = 0.7, 0.3
"""Anchors are sampled in equal numbers from (0.7, 1], (0.3, 0.7] and (0, 0.3] to learn the overlap."""


class GTADLossConfig(Config):
    """Weights of the terms; the defaults are those for ActivityNet."""

    node: NonNegativeFloat = 1.0
    """Weight of start plus end."""
    regression: NonNegativeFloat = 10.0
    """Weight of the squared error of the overlap."""
    classification: NonNegativeFloat = 1.0
    """Weight of telling anchors that are segments from the others."""
    smoothing: NonNegativeFloat = 0.0
    """Added to the number of positives and of negatives when classification is balanced."""

    @classmethod
    def activitynet(cls) -> "GTADLossConfig":
        """The weights of the published code for ActivityNet, which the paper used."""
        return cls()

    @classmethod
    def thumos(cls) -> "GTADLossConfig":
        """The weights of the published code for THUMOS14, where regression and classification change places."""
        return cls(regression=1.0, classification=10.0, smoothing=10.0)


@dataclass(frozen=True)
class GTADTargets:
    """What the network should say about a batch of videos; the fields answer those of `GTADOutput`."""

    start: Float[Tensor, "batch steps"]
    """Share of a node's window that lies around the start of a segment."""
    end: Float[Tensor, "batch steps"]
    """Share of a node's window that lies around the end of a segment."""
    overlap: Float[Tensor, "batch longest steps"]
    """Largest intersection over union of an anchor with a segment; 0 where the anchor does not fit into the video."""

    def to(self, device: torch.device) -> "GTADTargets":
        """The same targets on ``device``."""
        return replace(self, **{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})


def relative_segments(seconds: Segments, covered_seconds: float) -> Segments:
    """Segments in seconds as shares of the length that the features cover, moved into [0, 1].

    Segments that nothing is left of are dropped: count them by the length of the result.  Raises ValueError for a
    length that is not positive, or segments with a value that is no number or an end not after the start.
    """
    if not 0 < covered_seconds < float("inf"):
        raise ValueError(f"covered_seconds = {covered_seconds} must be a positive number")
    _refuse_empty(seconds, "segments in seconds")
    share = (seconds.double() / covered_seconds).clamp(0, 1).to(seconds.dtype)
    return share[share[:, 1] > share[:, 0]]


def gtad_targets(segments: Sequence[Segments], config: GTADConfig) -> GTADTargets:
    """The targets of a batch, one tensor of segments in [0, 1] per video, computed in fp64; on the CPU, in fp32.

    A video may have no segments: then all targets are 0.  Raises ValueError where segments leave [0, 1] or are empty.
    """
    steps = torch.arange(config.steps, dtype=torch.float64)
    first = steps / config.steps
    last = (steps + torch.arange(1, config.longest + 1)[:, None]) / config.steps
    opens, closes = ((steps + offset) / config.steps for offset in config.node_window)
    valid = valid_anchors(config.longest, config.steps)
    margin = BOUNDARY_STEPS / 2 / config.steps
    targets = []
    for number, each in enumerate(segments):
        each = each.detach().cpu().double()
        _refuse_empty(each, f"segments of video {number} of the batch")
        if len(each) and (each.min() < 0 or each.max() > 1):
            raise ValueError(
                f"segments of video {number} of the batch leave [0, 1]: pass them through relative_segments"
            )
        # One more row that overlaps with nothing, so that the maximum over segments exists for every video.
        start, end = F.pad(each, (0, 0, 0, 1), value=-9.0).unbind(dim=1)
        shared = _shared(first, last, start[:, None, None], end[:, None, None])
        union = last - first + (end - start)[:, None, None] - shared
        nodes = (
            _shared(opens, closes, (boundary - margin)[:, None], (boundary + margin)[:, None]).amax(dim=0)
            / (closes - opens)
            for boundary in (start, end)
        )
        targets.append((*nodes, (shared / union).amax(dim=0) * valid))
    return GTADTargets(*(torch.stack(kind).float() for kind in zip(*targets, strict=True)))


def gtad_loss(
    output: GTADOutput, targets: GTADTargets, config: GTADLossConfig, generator: torch.Generator
) -> dict[str, Float[Tensor, ""]]:
    """The terms "start", "end", "regression" and "classification", weighted: their sum is the loss.

    Positives and negatives are balanced over the batch of this process.  ``generator``, on any device, draws the
    anchors that learn the overlap: one draw per anchor of the batch, whatever the targets.
    """
    valid = valid_anchors(*targets.overlap.shape[1:]).to(targets.overlap.device)
    regressed, classified = at_least_fp32(output.map_logits)[:, :, valid].unbind(dim=1)
    overlap = targets.overlap[:, valid]
    return {
        "start": config.node * _balanced(output.start_logits, targets.start > NODE_POSITIVE),
        "end": config.node * _balanced(output.end_logits, targets.end > NODE_POSITIVE),
        "regression": config.regression * _regression(regressed.sigmoid(), overlap, generator),
        "classification": config.classification * _balanced(classified, overlap > ANCHOR_POSITIVE, config.smoothing),
    }


def _balanced(
    logits: Float[Tensor, "*shape"], positive: Bool[Tensor, "*shape"], smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """Cross entropy in which all positives together weigh as much as all negatives; a side without any weighs 0."""
    logits = at_least_fp32(logits)
    count = positive.sum()
    of_positive = F.softplus(-logits).masked_fill(~positive, 0).sum() / (count + smoothing).clamp(min=1)
    of_negative = F.softplus(logits).masked_fill(positive, 0).sum() / ((~positive).sum() + smoothing).clamp(min=1)
    return (of_positive + of_negative) / 2


def _regression(
    predicted: Float[Tensor, "batch anchors"], overlap: Float[Tensor, "batch anchors"], generator: torch.Generator
) -> Float[Tensor, ""]:
    """Half the mean squared error over all anchors of high overlap and about as many of middle and of low overlap.

    0, with zero gradient, in a batch without an anchor of high overlap.
    """
    high = overlap > OVERLAP_HIGH
    middle = (overlap > OVERLAP_MIDDLE) & ~high
    low = (overlap > 0) & (overlap <= OVERLAP_MIDDLE)
    draw = torch.rand(overlap.shape, generator=generator, device=generator.device).to(overlap.device)
    chosen = high.clone()
    for some in (middle, low):
        chosen |= some & (draw < high.sum() / some.sum().clamp(min=1))
    return ((predicted - overlap).square() * chosen).sum() / chosen.sum().clamp(min=1) / 2


def _shared(
    first: Float[Tensor, "..."], last: Float[Tensor, "..."], start: Float[Tensor, "..."], end: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """Length of what two intervals share."""
    return (torch.minimum(last, end) - torch.maximum(first, start)).clamp(min=0)


def _refuse_empty(segments: Segments, name: str) -> None:
    bad = ~segments.isfinite().all(dim=1) | (segments[:, 1] <= segments[:, 0])
    if bad.any():
        raise ValueError(f"{name}: {segments[bad][0].tolist()} must be finite and end after it starts; leave it out")
