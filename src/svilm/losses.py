"""The three losses of the paper as pure functions on plain tensors (sections 3.2 to 3.4).

Everything is computed in fp32 (fp64 for fp64 inputs), also under autocast.  A vector without a direction
(shorter than `SHORTEST`) has cosine 0 with everything and gets no gradient, so values and gradients are
finite for finite inputs.  Temperatures divide the cosine inside the exponent: softmax(x / temperature).  They
are positive numbers, or scalar tensors where they are learned.
"""

from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

SHORTEST = 1e-6
"""A vector whose largest component is below this has no direction."""
SHORTEST_REGION = 1e-3
"""A weighted sum of unit group tokens counts as at least this long: shorter, fp32 sees no direction."""

_BLOCK = 1 << 22
"""So many weights of Eq. 3 are held at a time: 16 MB, which also keeps them near to a processor."""

Temperature = float | Float[Tensor, ""]


def temporal_assignment(
    clips: Float[Tensor, "batch steps width"], mask: Bool[Tensor, "batch steps"], temperature: Temperature
) -> Float[Tensor, "batch steps 2"]:
    """How much each step belongs to the background (column 0) and to the foreground (column 1): a of Eq. 1.

    ``clips`` are the step means z^clip of the video tokens, ``mask`` is true on foreground steps.  The
    centres z^b and z^f are means over the background and the foreground steps, each step in its own centre,
    and gradients go through them.
    """
    with _full_precision(clips):
        return _assignment_logits(_upcast(clips), mask, temperature).softmax(dim=-1)


def temporal_grouping_loss(
    video_tokens: Float[Tensor, "batch steps places width"],
    mask: Bool[Tensor, "batch steps"],
    temperature: Temperature,
    kind: Literal["mse", "bce"] = "mse",
) -> Float[Tensor, ""]:
    """L_t of Eq. 2 from the final video tokens: see `temporal_grouping_loss_from_clips`."""
    clips = video_tokens.mean(dim=2, dtype=_precision(video_tokens))
    return temporal_grouping_loss_from_clips(clips, mask, temperature, kind)


def temporal_grouping_loss_from_clips(
    clips: Float[Tensor, "batch steps width"],
    mask: Bool[Tensor, "batch steps"],
    temperature: Temperature,
    kind: Literal["mse", "bce"] = "mse",
) -> Float[Tensor, ""]:
    """L_t of Eq. 2: how far the assignment of Eq. 1 is from the true foreground mask.

    "mse" is the mean squared difference over steps and both columns, which the paper used; "bce" is binary
    cross entropy, which its equation shows.  The mean goes over the clips that have both foreground and
    background: a clip all of one kind has no second centre and takes no part.  Zero, with zero gradient, if
    no clip has both.
    """
    with _full_precision(clips):
        logits = _assignment_logits(_upcast(clips), mask, temperature)
        if kind == "mse":
            truth = torch.stack([~mask, mask], dim=-1).to(logits.dtype)
            per_clip = (logits.softmax(dim=-1) - truth).square().mean(dim=(1, 2))
        else:
            # Both columns of a two-way softmax have the same cross entropy: that of the true column.
            log_truth = logits.log_softmax(dim=-1).gather(-1, mask.long().unsqueeze(-1))
            per_clip = -log_truth.mean(dim=(1, 2))
        both = mask.any(dim=1) & ~mask.all(dim=1)
        return per_clip.where(both, 0.0).sum() / both.sum().clamp(min=1)


def grounding_similarity(
    group_tokens: Float[Tensor, "videos groups common"],
    noun_tokens: Float[Tensor, "captions nouns common"],
    noun_mask: Bool[Tensor, "captions nouns"],
    temperature: Temperature,
) -> Float[Tensor, "videos captions"]:
    """G(v, c) of Eq. 3 between every video and every caption, in [-1, 1].

    Each noun weighs the groups by softmax(cosine / temperature) and is compared, by cosine, with the weighted
    sum of the unit group tokens; the mean goes over the nouns that ``noun_mask`` marks as real.  A caption
    without any has similarity 0 and gives no gradient.

    The cosine is taken as sum_m(w_m s_m) / |sum_m(w_m g_m)|, s being the cosines between noun and groups.  The length
    comes from the cosines among the groups where these are few, and never is there a tensor of all weighted sums, of
    the shape (videos, captions, nouns, common): videos are taken in blocks, which the backward pass computes again.
    So memory stays small even with thousands of groups in a clip.
    """
    with _full_precision(group_tokens):
        group = _unit(_upcast(group_tokens))
        noun = _unit(_upcast(noun_tokens).masked_fill(~noun_mask.unsqueeze(-1), 0.0)).flatten(0, 1)
        parts = group.split(max(1, _BLOCK // max(1, len(noun) * group.shape[1])))
        if len(parts) == 1:
            cosine = _noun_similarity(group, noun, temperature)
        else:
            # Nothing is drawn at random in there, so no state has to be kept.
            again = partial(checkpoint, _noun_similarity, use_reentrant=False, preserve_rng_state=False)
            cosine = torch.cat([again(part, noun, temperature) for part in parts])
        similarity = cosine.unflatten(1, noun_mask.shape) * noun_mask
        return similarity.sum(dim=-1) / noun_mask.sum(dim=-1).clamp(min=1)


def _noun_similarity(
    group: Float[Tensor, "videos groups common"], noun: Float[Tensor, "all_nouns common"], temperature: Temperature
) -> Float[Tensor, "videos all_nouns"]:
    """The mean of Eq. 3 before it is taken: every video and every noun, both of unit length."""
    videos, groups, common = group.shape
    cosine = (group.flatten(0, 1) @ noun.mT).unflatten(0, (videos, groups))
    weight = (cosine / temperature).softmax(dim=1)
    few = groups <= common
    squared = ((group @ group.mT) @ weight * weight if few else (group.mT @ weight).square()).sum(dim=1)
    return (weight * cosine).sum(dim=1) * squared.clamp(min=SHORTEST_REGION**2).rsqrt()


def instance_similarity(
    video: Float[Tensor, "videos common"], caption: Float[Tensor, "captions common"]
) -> Float[Tensor, "videos captions"]:
    """Cosine of every clip vector f^v with every caption vector f^c: s of section 3.4."""
    with _full_precision(video):
        return _unit(_upcast(video)) @ _unit(_upcast(caption)).mT


def soft_target_contrastive_loss(
    similarity: Float[Tensor, "batch batch"],
    targets: Float[Tensor, "batch batch"],
    temperature: Temperature,
    exclude: Bool[Tensor, "batch batch"] | None = None,
) -> Float[Tensor, ""]:
    """L_g of Eq. 6 or L_contrast of Eq. 7: soft-target cross entropy, video to caption plus caption to video.

    Rows of ``similarity`` are videos, columns captions; ``targets`` is W^v of Eq. 5.  Captions use its
    transpose as it is (rows not renormalised).  Each direction is divided by the batch size; the two are
    added, not averaged.  Pairs in ``exclude``, for instance a clip and the same caption of another clip, are
    not negatives; see `soft_target_cross_entropy`.
    """
    logits = _upcast(similarity) / temperature
    flipped = None if exclude is None else exclude.mT
    return soft_target_cross_entropy(logits, targets, exclude) + soft_target_cross_entropy(
        logits.mT, targets.mT, flipped
    )


def soft_target_cross_entropy(
    logits: Float[Tensor, "rows columns"],
    targets: Float[Tensor, "rows columns"],
    exclude: Bool[Tensor, "rows columns"] | None = None,
) -> Float[Tensor, ""]:
    """Mean over rows of -sum_j targets_ij log softmax(logits_i)_j: one direction of Eq. 6 and Eq. 7.

    With several processes each passes its own rows against the columns of all
    (`runtime.gather_with_gradient`).  Pairs in ``exclude`` leave the denominator of the softmax, except
    those with a target above zero.
    """
    logits = _upcast(logits)
    if exclude is not None:
        # The lowest number and not -inf: 0 * -inf would make the sum NaN.
        logits = logits.masked_fill(exclude & (targets == 0), torch.finfo(logits.dtype).min)
    return -(targets.to(logits.dtype) * logits.log_softmax(dim=-1)).sum(dim=-1).mean()


def _assignment_logits(
    clips: Float[Tensor, "batch steps width"], mask: Bool[Tensor, "batch steps"], temperature: Temperature
) -> Float[Tensor, "batch steps 2"]:
    member = torch.stack([~mask, mask], dim=1).to(clips.dtype)
    centre = member @ clips / member.sum(dim=-1, keepdim=True).clamp(min=1)
    return _unit(clips) @ _unit(centre).mT / temperature


def _unit(vectors: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
    # Dividing by the largest component first keeps the square of the length in range whatever the scale.
    largest = vectors.detach().abs().amax(dim=-1, keepdim=True)
    short = largest < SHORTEST
    scaled = torch.where(short, 1.0, vectors / largest.masked_fill(short, 1.0))
    unit = scaled / torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    return torch.where(short, 0.0, unit)


def _upcast(tensor: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return tensor.to(_precision(tensor))


def _precision(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _full_precision(tensor: Tensor) -> torch.autocast:
    # Autocast would send the matrix products back to bf16, whatever the type of their inputs.
    return torch.autocast(tensor.device.type, enabled=False)
