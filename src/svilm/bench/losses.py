"""The grounding loss (Eq. 3 to 6) in Gram form against its direct form, which has a tensor of B x B x K x D numbers."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from svilm.bench import apart
from svilm.bench.frame import How, Row, compare, lower, not_measured
from svilm.losses import grounding_similarity, soft_target_cross_entropy

Similarity = Callable[[Tensor, Tensor, Tensor, float], Tensor]
SHAPE, SMALL = (1024, 2, 32, 256), (8, 2, 4, 16)
"""Batch, nouns per caption, groups per clip, width of the common space: the paper's, and one to try."""
TEMPERATURE = 0.1
NEEDED_GB = 15


def rows(how: How) -> Iterator[Row]:
    """Time and peak memory of forward and backward."""
    shape = SMALL if how.quick else SHAPE
    ours, peer = (step(similarity, SMALL)() for similarity in (grounding_similarity, direct_similarity))
    torch.testing.assert_close(ours, peer, atol=1e-5, rtol=1e-4)
    name = "grounding loss, B {} K {} M {} D {}, against the direct form".format(*shape)
    if not how.quick and (left := apart.free_gigabytes()) < NEEDED_GB:
        yield not_measured(name, f"the direct form takes 13 GB, and {left:.0f} GB of memory are free")
        return
    twice = replace(how, repetitions=min(how.repetitions, 2))  # the peer takes 10 GB and many seconds
    yield compare(name, step(grounding_similarity, shape), step(direct_similarity, shape), twice)
    if not apart.can_measure():
        yield not_measured(f"{name}: peak memory", apart.WHY_NOT)
        return
    mine, theirs = (
        apart.cost(step, (similarity, shape), (similarity, SMALL)).megabytes
        for similarity in (grounding_similarity, direct_similarity)
    )
    yield lower(f"{name}: peak memory", mine, theirs, "MB")


def step(similarity: Similarity, shape: tuple[int, int, int, int]) -> Callable[[], Tensor]:
    """Forward and backward of both directions of the loss on noise; a call returns the gradient of the groups."""
    batch, nouns, groups, width = shape
    generator = torch.Generator().manual_seed(0)
    group_tokens = torch.randn(batch, groups, width, generator=generator, requires_grad=True)
    noun_tokens = torch.randn(batch, nouns, width, generator=generator, requires_grad=True)
    return partial(_step, similarity, group_tokens, noun_tokens)


def _step(similarity: Similarity, groups: Tensor, nouns: Tensor) -> Tensor:
    groups.grad = nouns.grad = None
    mask = torch.ones(nouns.shape[:2], dtype=torch.bool)
    logits = similarity(groups, nouns, mask, TEMPERATURE) / 0.07
    targets = torch.eye(len(groups))
    loss = soft_target_cross_entropy(logits, targets) + soft_target_cross_entropy(logits.T, targets)
    loss.backward()
    assert groups.grad is not None
    return groups.grad


def direct_similarity(groups: Tensor, nouns: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Eq. 3 as it stands: the weighted sum of the group tokens for every clip, caption and noun."""
    group, noun = F.normalize(groups, dim=-1), F.normalize(nouns, dim=-1)
    weight = (torch.einsum("vmd,ckd->vckm", group, noun) / temperature).softmax(dim=-1)
    regions = F.normalize(torch.einsum("vckm,vmd->vckd", weight, group), dim=-1)
    similarity = torch.einsum("vckd,ckd->vck", regions, noun)
    return (similarity * mask).sum(dim=-1) / mask.sum(dim=-1)
