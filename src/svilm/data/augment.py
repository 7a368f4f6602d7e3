"""Cut-and-paste: a scene change made by hand (section 3.2).

A stretch of clip i, the foreground, stays in place; the rest of it is replaced by the same time positions of
another clip of the batch, the background.  Positions are steps of the encoder (one tubelet each), so no
tubelet mixes two videos.

    steps     0  1  2  3  4  5  6  7
    clip i    i  i  i  i  i  i  i  i
    clip p    p  p  p  p  p  p  p  p
    mask      .  1  1  1  1  1  .  .      start 1, duration 5: steps 1 <= j < 6
    blended   p  i  i  i  i  i  p  p      beta = 5/8
"""

import numpy as np
import torch
from jaxtyping import Float, Shaped
from pydantic import Field, field_validator
from torch import Tensor

from svilm.config import Config
from svilm.types import Paste


class CutPaste(Config):
    """Settings of cut-and-paste."""

    probability: float = Field(default=1.0, ge=0.0, le=1.0)
    """Share of the clips that get a background; 0 turns cut-and-paste off."""
    literal: bool = False
    """Index ranges as printed in section 3.2: start in [0, N_t - d), foreground [start, start + d] with both
    ends.  For ablation: the foreground has d + 1 steps, and a d that leaves no background is not drawn."""
    clip_window: int = Field(default=2, ge=1)
    """Frames t of one position, all foreground or all background; a multiple of the encoder's tubelet."""
    block: int = Field(default=0, ge=0)
    """Clips find their background among this many consecutive clips of the batch; 0 means the whole batch."""

    @field_validator("block")
    @classmethod
    def _no_block_of_one(cls, block: int) -> int:
        if block == 1:
            raise ValueError("a block of one clip has no other clip to paste from; use 0 (whole batch) or 2 and more")
        return block


def sample_paste(batch: int, steps: int, config: CutPaste, generator: np.random.Generator) -> Paste:
    """Draw which steps of each clip stay and whose frames replace the others (section 3.2).

    The duration is uniform on {ceil(steps/2), ..., steps - 1}: the foreground is never the smaller part and
    at least one background step is left.  The start is uniform on {0, ..., steps - duration}: the last step
    can be foreground too.  Partners form one random cycle in each block: no clip is its own background and
    each serves once.  A clip without a background (by ``probability``, alone in its block, or of a single
    step) keeps all its steps and is its own partner.
    Raises ValueError when literal index ranges would leave no background (fewer than 4 steps).
    """
    if batch < 1 or steps < 1:
        raise ValueError(f"cut-and-paste needs at least one clip and one step, got batch {batch}, steps {steps}")
    partner = _partners(batch, config.block or batch, generator)
    pasted = (generator.random(batch) < config.probability) & (partner != np.arange(batch)) & (steps > 1)
    mask: np.ndarray = np.ones((batch, steps), dtype=bool)
    if steps > 1:
        start, stop = _foreground(batch, steps, config.literal, generator)
        position = np.arange(steps)
        mask = (start[:, None] <= position) & (position < stop[:, None])
    mask[~pasted] = True
    partner[~pasted] = np.flatnonzero(~pasted)
    return Paste(torch.from_numpy(mask), torch.from_numpy(partner))


def cut_and_paste(
    video: Shaped[Tensor, "batch frames height width channels"], paste: Paste, frames_per_step: int
) -> Shaped[Tensor, "batch frames height width channels"]:
    """Blend clips as ``paste`` says: own frames where the mask is true, else the partner's of the same time.

    ``video`` (any dtype) must hold steps * frames_per_step frames, else ValueError; it is left as it was.
    """
    batch, steps = paste.mask.shape
    if video.shape[:2] != (batch, steps * frames_per_step):
        raise ValueError(
            f"video of {video.shape[0]} clips x {video.shape[1]} frames does not fit a paste of {batch} "
            f"clips x {steps} steps with {frames_per_step} frames per step"
        )
    background = ~paste.mask.repeat_interleave(frames_per_step, dim=1)
    clip, frame = background.nonzero(as_tuple=True)
    blended = video.clone()
    blended[clip, frame] = video[paste.partner[clip], frame]
    return blended


def targets(paste: Paste) -> Float[Tensor, "batch batch"]:
    """How much of clip i belongs to caption j (W^v of Eq. 5): beta_i at j = i, 1 - beta_i at j = p_i, else 0.

    Rows add up to 1; a clip that is its own partner has 1 on the diagonal.  Captions use the transpose
    (W^c), whose rows need not add up to 1.
    """
    clip = torch.arange(len(paste.partner), device=paste.partner.device)
    weights = torch.diag(paste.beta)
    weights[clip, paste.partner] += 1.0 - paste.beta
    return weights


def _partners(batch: int, block: int, generator: np.random.Generator) -> np.ndarray:
    partner = np.arange(batch)
    for first in range(0, batch, block):
        cycle = generator.permutation(partner[first : first + block])
        partner[cycle] = np.roll(cycle, -1)
    return partner


def _foreground(batch: int, steps: int, literal: bool, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """First and one past the last foreground step of each clip."""
    shortest = -(-steps // 2)
    if not literal:
        duration = generator.integers(shortest, steps, size=batch)
        start = generator.integers(0, steps - duration + 1)
        return start, start + duration
    if shortest > steps - 2:
        raise ValueError(
            f"cut-and-paste with literal index ranges leaves no background in {steps} steps; "
            "use at least 4 steps or literal=false"
        )
    duration = generator.integers(shortest, steps - 1, size=batch)
    start = generator.integers(0, steps - duration)
    return start, start + duration + 1
