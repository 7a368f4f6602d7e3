"""Each loss against a float64 version with one loop per index of the paper's sums."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from svilm import losses
from svilm.losses import (
    grounding_similarity,
    instance_similarity,
    soft_target_contrastive_loss,
    soft_target_cross_entropy,
    temporal_assignment,
    temporal_grouping_loss,
    temporal_grouping_loss_from_clips,
)

SEEDS = st.integers(0, 2**32 - 1)
SIZE = st.integers(1, 5)
TEMPERATURE = st.floats(0.02, 2.0)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=_generator(seed), dtype=torch.float64)


def _bits(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=_generator(seed)) < 0.5


def _mixed_mask(batch: int, steps: int, seed: int = 0) -> Tensor:
    """Masks that may be all foreground or all background, except that clip 0 has both when it can."""
    mask = _bits(batch, steps, seed=seed)
    mask[0, 0], mask[0, -1] = True, steps == 1
    return mask


# The obvious versions -------------------------------------------------------------------------------------


def _dot(x: list[float], y: list[float]) -> float:
    return sum(a * b for a, b in zip(x, y, strict=True))


def _cosine(x: list[float], y: list[float]) -> float:
    lengths = math.sqrt(_dot(x, x)) * math.sqrt(_dot(y, y))
    return _dot(x, y) / lengths if lengths else 0.0


def _softmax(values: list[float]) -> list[float]:
    top = max(values)
    exponentials = [math.exp(value - top) for value in values]
    return [e / sum(exponentials) for e in exponentials]


def _mean(rows: list[list[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def _slow_assignment(tokens: Tensor, mask: Tensor, temperature: float) -> list[list[float]]:
    """Eq. 1 for one clip; centres are means over tokens, as in the text, not over step means."""
    steps = tokens.shape[0]
    background = [token.tolist() for j in range(steps) if not mask[j] for token in tokens[j]]
    foreground = [token.tolist() for j in range(steps) if mask[j] for token in tokens[j]]
    centres = [_mean(background), _mean(foreground)]
    clips = [_mean(tokens[j].tolist()) for j in range(steps)]
    return [_softmax([_cosine(clip, centre) / temperature for centre in centres]) for clip in clips]


def _slow_grouping(tokens: Tensor, mask: Tensor, temperature: float, kind: str) -> float:
    losses = []
    for i in range(len(tokens)):
        if mask[i].all() or not mask[i].any():
            continue
        total = 0.0
        for j, row in enumerate(_slow_assignment(tokens[i], mask[i], temperature)):
            one_hot = [0.0, 1.0] if mask[i, j] else [1.0, 0.0]
            for a, m in zip(row, one_hot, strict=True):
                total += (a - m) ** 2 if kind == "mse" else -math.log(a if m else 1 - a)
        losses.append(total / (2 * tokens.shape[1]))
    return sum(losses) / len(losses) if losses else 0.0


def _slow_grounding(groups: Tensor, nouns: Tensor, mask: Tensor, temperature: float) -> Tensor:
    result = torch.zeros(len(groups), len(nouns), dtype=torch.float64)
    for i in range(len(groups)):
        units = [(g / g.norm()).tolist() for g in groups[i]]
        for j in range(len(nouns)):
            scores = []
            for k in range(nouns.shape[1]):
                if mask[j, k]:
                    noun = nouns[j, k].tolist()
                    weights = _softmax([_cosine(g, noun) / temperature for g in units])
                    region = [_dot(weights, list(column)) for column in zip(*units, strict=True)]
                    scores.append(_cosine(noun, region))
            result[i, j] = sum(scores) / len(scores) if scores else 0.0
    return result


def _slow_contrastive(similarity: Tensor, targets: Tensor, temperature: float, exclude: Tensor | None = None) -> float:
    batch = len(similarity)
    total = 0.0
    for transposed in (False, True):
        s, w = (similarity.T, targets.T) if transposed else (similarity, targets)
        out = torch.zeros(batch, batch) if exclude is None else exclude.T if transposed else exclude
        for i in range(batch):
            kept = [n for n in range(batch) if not out[i, n] or w[i, n] > 0]
            denominator = sum(math.exp(s[i, n].item() / temperature) for n in kept)
            for j in range(batch):
                if w[i, j] > 0:
                    total -= w[i, j].item() * math.log(math.exp(s[i, j].item() / temperature) / denominator)
    return total / batch


# Equality -------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(SIZE, SIZE, SIZE, SIZE, st.floats(0.2, 2.0), st.sampled_from(["mse", "bce"]), SEEDS)
def test_temporal_grouping_equals_the_slow_one(batch, steps, places, width, temperature, kind, seed):
    tokens = _random(batch, steps, places, width, seed=seed)
    mask = _mixed_mask(batch, steps, seed=seed)
    expected = _slow_grouping(tokens, mask, temperature, kind)
    assert temporal_grouping_loss(tokens, mask, temperature, kind).item() == pytest.approx(expected, rel=1e-7)
    from_clips = temporal_grouping_loss_from_clips(tokens.mean(dim=2), mask, temperature, kind)
    assert from_clips.item() == pytest.approx(expected, rel=1e-7)


def test_assignment_equals_the_slow_one_with_the_foreground_in_column_1():
    tokens = _random(3, 5, 4, 6)
    mask = torch.tensor([[0, 1, 1, 1, 0], [1, 1, 1, 1, 0], [0, 0, 1, 1, 1]], dtype=torch.bool)
    expected = torch.tensor([_slow_assignment(tokens[i], mask[i], 0.1) for i in range(3)], dtype=torch.float64)
    torch.testing.assert_close(temporal_assignment(tokens.mean(dim=2), mask, 0.1), expected)

    two_scenes = torch.eye(2)[mask.long()]  # background steps are (1, 0), foreground steps (0, 1)
    assignment = temporal_assignment(two_scenes, mask, 0.1)
    torch.testing.assert_close(assignment[..., 1], mask.float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("kind", "guess"), [("mse", 0.25), ("bce", math.log(2))])
def test_temporal_grouping_of_a_guess_and_of_the_truth(kind, guess):
    mask = torch.tensor([[True, True, False, False]])
    same = torch.ones(1, 4, 3)
    assert temporal_grouping_loss_from_clips(same, mask, 0.1, kind).item() == pytest.approx(guess)
    apart = torch.eye(2)[mask.long()]
    assert temporal_grouping_loss_from_clips(apart, mask, 0.05, kind).item() < 1e-6


@pytest.mark.parametrize("kind", ["mse", "bce"])
def test_clips_without_a_scene_change_take_no_part(kind):
    clips = _random(4, 3, 5).requires_grad_()
    mask = torch.tensor([[0, 1, 1], [1, 1, 1], [0, 0, 0], [1, 1, 0]], dtype=torch.bool)
    loss = temporal_grouping_loss_from_clips(clips, mask, 0.1, kind)
    alone = temporal_grouping_loss_from_clips(clips[[0, 3]], mask[[0, 3]], 0.1, kind)
    assert loss.item() == pytest.approx(alone.item(), rel=1e-12)
    loss.backward()
    assert (clips.grad[[1, 2]] == 0).all()
    assert (clips.grad[[0, 3]] != 0).all()

    clips.grad = None
    nothing = temporal_grouping_loss_from_clips(clips, torch.ones_like(mask), 0.1, kind)
    nothing.backward()
    assert nothing.item() == 0
    assert (clips.grad == 0).all()


@settings(max_examples=25, deadline=None)
@given(SIZE, st.integers(1, 4), SIZE, st.integers(1, 3), st.integers(2, 6), TEMPERATURE, SEEDS)
def test_grounding_equals_the_slow_one(videos, groups, captions, nouns, width, temperature, seed):
    g, n = _random(videos, groups, width, seed=seed), _random(captions, nouns, width, seed=seed + 1)
    mask = _bits(captions, nouns, seed=seed)
    expected = _slow_grounding(g, n, mask, temperature)
    actual = grounding_similarity(g, n, mask, temperature)
    torch.testing.assert_close(actual, expected, atol=1e-7, rtol=1e-7)
    single = grounding_similarity(g.float(), n.float(), mask, temperature)
    torch.testing.assert_close(single.double(), expected, atol=1e-4, rtol=0)


def test_a_low_temperature_picks_the_best_group():
    groups = torch.eye(4)[None]
    noun = torch.tensor([[[0.9, 0.3, 0.0, 0.0]]])
    mask = torch.ones(1, 1, dtype=torch.bool)
    best = 0.9 / math.hypot(0.9, 0.3)
    assert grounding_similarity(groups, noun, mask, 0.01).item() == pytest.approx(best, abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(SIZE, TEMPERATURE, st.booleans(), SEEDS)
def test_soft_target_contrastive_equals_the_slow_one(batch, temperature, excluding, seed):
    similarity = _random(batch, batch, seed=seed).tanh()
    beta = torch.rand(batch, generator=_generator(seed), dtype=torch.float64)
    targets = torch.diag(beta) + torch.diag(1 - beta).roll(1, dims=1)  # Eq. 5 with p_i = i + 1
    exclude = _bits(batch, batch, seed=seed) if excluding else None
    expected = _slow_contrastive(similarity, targets, temperature, exclude)
    actual = soft_target_contrastive_loss(similarity, targets, temperature, exclude)
    assert actual.item() == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_hard_targets_are_the_usual_contrastive_loss_of_both_directions_added():
    similarity = _random(6, 6).tanh()
    label = torch.arange(6)
    usual = torch.nn.functional.cross_entropy
    expected = usual(similarity / 0.07, label) + usual(similarity.T / 0.07, label)
    actual = soft_target_contrastive_loss(similarity, torch.eye(6), 0.07)
    torch.testing.assert_close(actual, expected)


def test_rows_of_the_cross_entropy_split_over_processes():
    logits, targets = _random(6, 6), torch.eye(6, dtype=torch.float64)
    whole = soft_target_cross_entropy(logits, targets)
    parts = [soft_target_cross_entropy(logits[i : i + 2], targets[i : i + 2]) for i in (0, 2, 4)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


def test_excluded_pairs_get_no_gradient_and_positives_cannot_be_excluded():
    similarity = _random(3, 3).requires_grad_()
    exclude = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 0, 1]], dtype=torch.bool)
    soft_target_cross_entropy(similarity, torch.eye(3), exclude).backward()
    assert similarity.grad[0, 1] == 0
    assert (similarity.grad.diagonal() != 0).all()
    assert similarity.grad[0, 2] != 0


def test_instance_similarity_is_the_cosine():
    video, caption = _random(3, 5), _random(4, 5)
    expected = [[_cosine(v.tolist(), c.tolist()) for c in caption] for v in video]
    torch.testing.assert_close(instance_similarity(video, caption), torch.tensor(expected, dtype=torch.float64))


# Gradients ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mse", "bce"])
def test_gradient_of_temporal_grouping(kind):
    tokens = _random(3, 4, 2, 3).requires_grad_()
    temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 0]], dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda z, t: temporal_grouping_loss(z, mask, t, kind), (tokens, temperature))


def test_gradient_of_grounding_and_of_the_contrastive_loss():
    groups = _random(3, 4, 5).requires_grad_()
    nouns = _random(3, 2, 5, seed=1).requires_grad_()
    region = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    outer = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    targets = torch.tensor([[0.6, 0.4, 0.0], [0.0, 0.7, 0.3], [0.5, 0.0, 0.5]], dtype=torch.float64)
    exclude = torch.tensor([[0, 0, 1], [0, 0, 0], [0, 1, 0]], dtype=torch.bool)

    def loss(g: Tensor, n: Tensor, t: Tensor, u: Tensor) -> Tensor:
        return soft_target_contrastive_loss(grounding_similarity(g, n, mask, t), targets, u, exclude)

    assert torch.autograd.gradcheck(loss, (groups, nouns, region, outer))


def test_gradient_of_the_instance_similarity():
    assert torch.autograd.gradcheck(
        instance_similarity, (_random(2, 3).requires_grad_(), _random(3, 3, seed=1).requires_grad_())
    )


def test_padding_nouns_and_captions_without_nouns_change_nothing():
    groups = _random(2, 3, 4).float().requires_grad_()
    nouns = _random(3, 2, 4, seed=1).float()
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    clean = grounding_similarity(groups, nouns, mask, 0.1)
    nouns[~mask] = torch.tensor([float("nan"), float("inf"), -1e30, 0.0])
    nouns.requires_grad_()
    dirty = grounding_similarity(groups, nouns, mask, 0.1)
    torch.testing.assert_close(dirty, clean, atol=0, rtol=0)
    assert (dirty[:, 2] == 0).all()
    dirty.sum().backward()
    assert (nouns.grad[~mask] == 0).all()
    assert (nouns.grad[mask] != 0).all()
    only_silent = torch.autograd.grad(grounding_similarity(groups, nouns, mask, 0.1)[:, 2].sum(), groups)[0]
    assert (only_silent == 0).all()


@pytest.mark.parametrize("groups", [3, 9])
def test_videos_in_blocks_give_the_same_similarity_and_gradient(monkeypatch, groups):
    g, n = _random(5, groups, 6).requires_grad_(), _random(4, 2, 6, seed=1).requires_grad_()
    mask = _bits(4, 2, seed=2)
    whole = grounding_similarity(g, n, mask, 0.1)
    expected = torch.autograd.grad(whole.square().sum(), (g, n))
    sizes = []

    def note(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    monkeypatch.setattr(losses, "_BLOCK", 2 * 8 * groups)  # two videos at a time
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        blocks = grounding_similarity(g, n, mask, 0.1)
    assert max(sizes) <= max(g.numel(), n.numel()) < 5 * 8 * groups  # no weights are kept
    torch.testing.assert_close(blocks, whole, atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.autograd.grad(blocks.square().sum(), (g, n)), expected, atol=1e-12, rtol=0)


def test_grounding_never_holds_a_tensor_of_weighted_sums():
    videos = captions = 8
    nouns, groups, width = 2, 4, 512
    sizes = []

    def note(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    g = _random(videos, groups, width).requires_grad_()
    n = _random(captions, nouns, width, seed=1).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        grounding_similarity(g, n, torch.ones(captions, nouns, dtype=torch.bool), 0.1)
    assert max(sizes) == g.numel() < videos * captions * nouns * width


# Finite for every legal input -----------------------------------------------------------------------------

HOSTILE = {
    "random": lambda x: x,
    "all zero": torch.zeros_like,
    "one vector zero": lambda x: torch.where(torch.arange(x.shape[-2])[:, None] == 0, 0.0, x),
    "all equal": torch.ones_like,
    "opposite": lambda x: torch.ones_like(x) * (1.0 - 2.0 * (torch.arange(x.shape[-2]) % 2))[:, None],
    "tiny": lambda x: x * 1e-30,
    "short": lambda x: x * 2e-6,
    "huge": lambda x: x * 1e30,
    "nearly equal": lambda x: 1 + x * 1e-6,
}


def _every_loss(leaves: dict[str, Tensor], batch: int) -> list[Tensor]:
    """All losses; with three clips one is all foreground, one all background, one caption has no nouns."""
    t = leaves["temperature"]
    mask = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.bool)[:batch]
    noun_mask = torch.tensor([[True, False], [False, False], [True, True]])[:batch]
    targets = torch.eye(batch) * 0.6 + torch.eye(batch).roll(1, dims=1) * 0.4
    grounding = grounding_similarity(leaves["groups"], leaves["nouns"], noun_mask, t)
    instance = instance_similarity(leaves["video"], leaves["video"])
    return [
        *(temporal_grouping_loss(leaves["tokens"], mask, t, kind) for kind in ("mse", "bce")),
        soft_target_contrastive_loss(grounding, targets, t, torch.ones_like(targets).bool()),
        soft_target_contrastive_loss(instance, targets, t),
    ]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("hostile", HOSTILE)
def test_finite_in_value_and_gradient(hostile, dtype):
    shapes = {"tokens": (4, 2, 6), "groups": (4, 6), "nouns": (2, 6), "video": (6,)}
    for batch, temperature in itertools.product([1, 3], [1e-6, 0.07, 1e6]):
        leaves = {
            name: HOSTILE[hostile](_random(batch, *shape, seed=len(name))).to(dtype).requires_grad_()
            for name, shape in shapes.items()
        }
        leaves["temperature"] = torch.tensor(temperature, requires_grad=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != torch.float64):
            losses = _every_loss(leaves, batch)
        for loss in losses:
            assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
            assert loss.isfinite()
            gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, retain_graph=True)
            for name, gradient in zip(leaves, gradients, strict=True):
                assert gradient is None or gradient.isfinite().all(), (name, batch, temperature)


def test_autocast_does_not_lower_the_precision():
    tokens, groups, nouns = _random(3, 4, 2, 64), _random(3, 8, 64), _random(3, 2, 64, seed=1)
    mask, noun_mask = _mixed_mask(3, 4), torch.ones(3, 2, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        grouping = temporal_grouping_loss(tokens.float(), mask, 0.1)
        grounding = grounding_similarity(groups.float(), nouns.float(), noun_mask, 0.1)
        instance = instance_similarity(groups[0].float(), nouns[:, 0].float())
    assert grouping.item() == pytest.approx(temporal_grouping_loss(tokens, mask, 0.1).item(), rel=1e-5)
    exact = grounding_similarity(groups, nouns, noun_mask, 0.1)
    torch.testing.assert_close(grounding.double(), exact, atol=1e-6, rtol=0)
    torch.testing.assert_close(instance.double(), instance_similarity(groups[0], nouns[:, 0]), atol=1e-6, rtol=0)


def test_a_vector_without_direction_gets_no_gradient_and_scale_does_not_matter():
    groups, nouns = _random(1, 3, 4), _random(2, 1, 4, seed=1)
    mask = torch.ones(2, 1, dtype=torch.bool)
    for scale in (1e-4, 1e20):
        torch.testing.assert_close(
            grounding_similarity(groups.float() * scale, nouns.float() / scale**0.25, mask, 0.1),
            grounding_similarity(groups.float(), nouns.float(), mask, 0.1),
        )
    assert (instance_similarity(torch.zeros(2, 3), torch.ones(1, 3)) == 0).all()
    dead = groups.clone()
    dead[0, 1] = 0
    dead.requires_grad_()
    grounding_similarity(dead, nouns, mask, 0.1).sum().backward()
    assert (dead.grad[0, 1] == 0).all()
    assert (dead.grad[0, 0] != 0).any()
