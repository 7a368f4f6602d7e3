import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from svilm.config import ConfigError, build
from svilm.models.grouping import GroupingBlock, GroupingConfig
from svilm.models.layers import init_weights


def make(groups=4, width=8, **options) -> GroupingBlock:
    """A block whose output layers are not zero unless asked for, with weights large enough to matter."""
    config = GroupingConfig(**{"zero_init": False, **options})
    block = GroupingBlock(config, width, groups, heads=2, activation="gelu_tanh", norm_eps=1e-6)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    block.reset()
    return block


def inputs(batch=2, groups=4, tokens=9, width=8, dtype=torch.float32):
    return torch.randn(batch, groups, width, dtype=dtype), torch.randn(batch, tokens, width, dtype=dtype)


@torch.no_grad()
def with_loops(block: GroupingBlock, groups, tokens):
    """The block without noise, number by number: assign each token, average, project, add."""
    out, shares = torch.zeros_like(groups), torch.zeros(*groups.shape[:2], tokens.shape[1], dtype=groups.dtype)
    num_groups, width = groups.shape[1:]
    for b in range(len(groups)):
        query = block.query(block.norm_groups(groups[b]))
        normed = [block.norm_tokens(token) for token in tokens[b]]
        members: list[list[int]] = [[] for _ in range(num_groups)]
        for n, token in enumerate(normed):
            key = block.key(token)
            logits = [sum(query[m, d] * key[d] for d in range(width)) / math.sqrt(width) for m in range(num_groups)]
            total = sum(math.exp(logit) for logit in logits)
            for m, logit in enumerate(logits):
                shares[b, m, n] = math.exp(logit) / total
            members[max(range(num_groups), key=lambda m: float(logits[m]))].append(n)
        for m in range(num_groups):
            total = sum((block.value(normed[n]) for n in members[m]), torch.zeros(width, dtype=groups.dtype))
            moved = groups[b, m] + block.out(total / (len(members[m]) + 1.0))
            out[b, m] = moved + block.mlp(block.norm_mlp(moved))
    return out, shares


def test_equals_the_loop_version():
    block = make().double().eval()
    groups, tokens = inputs(dtype=torch.float64)
    for ours, expected in zip(block(groups, tokens), with_loops(block, groups, tokens), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


@settings(max_examples=20)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 12), st.booleans(), st.booleans())
def test_assignment_is_a_distribution_over_groups(batch, groups, tokens, hard, training):
    block = make(groups, hard=hard).train(training)
    logits = torch.randn(batch, groups, tokens, requires_grad=True)
    shares, soft = block.assign(logits)
    assert not soft.requires_grad and shares.requires_grad
    for x in (shares.detach(), soft):
        torch.testing.assert_close(x.sum(dim=1), torch.ones(batch, tokens))
        assert x.min() >= 0
    torch.testing.assert_close(soft, logits.detach().softmax(dim=1))
    if hard:
        assert set(shares.unique().tolist()) <= {0.0, 1.0}
    if not training:
        assert torch.equal(shares.argmax(dim=1), logits.argmax(dim=1))


def test_the_gradient_passes_straight_through():
    """Forward one-hot, backward as if the soft shares had been used."""
    logits = torch.randn(2, 4, 9, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 4, 9, dtype=torch.float64)
    hard = torch.autograd.grad((make().eval().assign(logits)[0] * weight).sum(), logits)[0]
    soft = torch.autograd.grad((make(hard=False).eval().assign(logits)[0] * weight).sum(), logits)[0]
    torch.testing.assert_close(hard, soft)


def test_noise_makes_groups_drawn_by_their_probability():
    """The Gumbel-max trick: with logits log p, group m is taken with probability p_m."""
    chances = torch.tensor([0.6, 0.3, 0.1])
    logits = chances.log()[None, :, None].expand(1, 3, 40_000)
    drawn = make(3).train().assign(logits)[0].mean(dim=2)[0]
    torch.testing.assert_close(drawn, chances, rtol=0, atol=0.01)


def test_noise_is_drawn_while_training_only_and_follows_the_seed():
    block, (groups, tokens) = make(), inputs(tokens=50)
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(block.train()(groups, tokens)[0])
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    first = block.eval()(groups, tokens)[0]
    assert torch.equal(first, block(groups, tokens)[0])
    assert torch.equal(first, make_like(block, gumbel=False).train()(groups, tokens)[0])


def make_like(block: GroupingBlock, **options) -> GroupingBlock:
    """Another block with the same weights, as far as both have them."""
    other = make(**options)
    other.load_state_dict(block.state_dict(), strict=False)
    return other


@settings(max_examples=20)
@given(st.permutations(range(9)))
def test_permuted_tokens_permute_the_assignment(order):
    block, (groups, tokens) = make().eval(), inputs()
    updated, shares = block(groups, tokens)
    again, permuted = block(groups, tokens[:, order])
    torch.testing.assert_close(permuted, shares[:, :, order])
    torch.testing.assert_close(again, updated)


def test_permuted_groups_permute_the_update():
    block, (groups, tokens) = make().eval(), inputs()
    updated, _ = block(groups, tokens)
    torch.testing.assert_close(block(groups[:, [2, 0, 3, 1]], tokens)[0], updated[:, [2, 0, 3, 1]])


@pytest.mark.parametrize("options", [{}, {"pre_assign_attention": True}, {"token_mixer": True}])
def test_zero_init_hands_the_groups_on_untouched(options):
    groups, tokens = inputs()
    assert torch.equal(make(zero_init=True, **options)(groups, tokens)[0], groups)
    assert not torch.allclose(make(zero_init=False, **options)(groups, tokens)[0], groups)


CHANGES = [
    ({}, {"gumbel": False}),
    ({"hard": False}, {"hard": False, "gumbel_temperature": 3.0}),
    ({}, {"hard": False}),
    ({}, {"assign_eps": 5.0}),
    ({}, {"zero_init": True}),
    ({}, {"pre_assign_attention": True}),
    ({}, {"token_mixer": True}),
]


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_every_setting_changes_the_update(before, after):
    groups, tokens = inputs(tokens=50)
    updates = []
    for options in (before, after):
        torch.manual_seed(3)
        block = make(**options).train()
        torch.manual_seed(4)
        updates.append(block(groups, tokens)[0])
    assert not torch.allclose(*updates)


def test_no_setting_is_left_out_above():
    assert {name for _, after in CHANGES for name in after} == set(GroupingConfig.model_fields)


def test_temperature_flattens_the_assignment():
    logits = torch.randn(2, 4, 9)
    soft = make(gumbel_temperature=2.0).eval().assign(logits)[1]
    torch.testing.assert_close(soft, (logits / 2.0).softmax(dim=1))


def test_an_empty_group_gets_a_bounded_gradient():
    """One of 32 groups is picked by none of the paper's 3,136 tokens: its soft gradient is divided by a hard
    count of zero, plus epsilon."""
    norms = {}
    for eps in (1.0, 1e-10):
        torch.manual_seed(0)
        block = make(32, 16, assign_eps=eps).eval()
        logits = torch.randn(1, 32, 3136)
        logits[:, 0] = -8.0
        logits.requires_grad_(True)
        shares, _ = block.assign(logits)
        assert shares[:, 0].sum() == 0
        update = (shares / (shares.sum(dim=-1, keepdim=True) + eps)) @ torch.randn(1, 3136, 16)
        update.square().sum().add(update.sum()).backward()
        norms[eps] = float(logits.grad[:, 0].norm())
    assert norms[1.0] < 1.0
    assert norms[1e-10] > 1e3


@pytest.mark.parametrize("training", [True, False])
def test_half_precision_stays_finite_with_dead_groups(training):
    """With fewer tokens than groups some group is always empty."""
    block = make(groups=6, width=16).train(training)
    groups, tokens = inputs(groups=6, tokens=3, width=16)
    groups.requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        updated, shares = block(groups, tokens)
    assert shares.dtype == torch.float32
    updated.float().square().mean().backward()
    gradients = [groups.grad, *(p.grad for p in block.parameters())]
    assert all(x.isfinite().all() for x in (updated, shares, *gradients))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_noise_in_half_precision_is_drawn_in_single(dtype):
    shares, soft = make().train().assign(torch.zeros(1, 4, 200_000, dtype=dtype))
    assert shares.dtype == soft.dtype == torch.float32
    assert shares.isfinite().all()
    torch.testing.assert_close(shares.mean(dim=2), torch.full((1, 4), 0.25), rtol=0, atol=0.01)


@pytest.mark.parametrize("options", [{"assign_eps": 0.0}, {"gumbel_temperature": -1.0}])
def test_values_that_divide_by_zero_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        build(GroupingConfig, options)


def test_common_initialisation_is_not_undone():
    block = make(zero_init=True).apply(init_weights)
    block.reset()
    assert block.out.weight.abs().max() == block.mlp.down.weight.abs().max() == 0
    assert block.query.weight.abs().max() > 0
