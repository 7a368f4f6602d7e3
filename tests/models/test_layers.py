import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from svilm.models.layers import Block, CrossAttention, Mlp, SelfAttention, at_least_fp32, init_weights


def attend(query, key, value, heads):
    """Attention written out, one head after the other."""
    width = query.shape[-1] // heads
    out = torch.zeros_like(query)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = query[..., part] @ key[..., part].transpose(-1, -2) / math.sqrt(width)
        out[..., part] = scores.softmax(dim=-1) @ value[..., part]
    return out


def test_self_attention_is_attention_of_three_projections():
    layer = SelfAttention(12, heads=3).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    query, key, value = layer.qkv(x).chunk(3, dim=-1)
    torch.testing.assert_close(layer(x), layer.out(attend(query, key, value, 3)))


def test_cross_attention_reads_the_context_only():
    layer = CrossAttention(12, heads=3).double()
    x, context = torch.randn(2, 4, 12, dtype=torch.float64), torch.randn(2, 7, 12, dtype=torch.float64)
    key, value = layer.key_value(context).chunk(2, dim=-1)
    torch.testing.assert_close(layer(x, context), layer.out(attend(layer.query(x), key, value, 3)))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="width 10 must be a multiple of heads 3"):
        SelfAttention(10, heads=3)


def test_block_normalises_before_attention_and_mlp():
    block = Block(8, heads=2, mlp_ratio=3.0, activation="gelu", norm_eps=1e-3).double()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    middle = x + block.attention(F.layer_norm(x, (8,), eps=1e-3))
    expected = middle + block.mlp(F.layer_norm(middle, (8,), eps=1e-3))
    torch.testing.assert_close(block(x), expected)
    assert block.mlp.up.out_features == 24


@pytest.mark.parametrize(("activation", "approximate"), [("gelu", "none"), ("gelu_tanh", "tanh")])
def test_mlp_uses_the_named_activation(activation, approximate):
    layer = Mlp(4, 6, out=3, activation=activation)
    x = torch.randn(5, 4)
    torch.testing.assert_close(layer(x), layer.down(F.gelu(layer.up(x), approximate=approximate)))
    assert layer(x).shape == (5, 3)


def test_at_least_fp32():
    kept = {
        torch.float16: torch.float32,
        torch.bfloat16: torch.float32,
        torch.float32: torch.float32,
        torch.float64: torch.float64,
    }
    for given, expected in kept.items():
        assert at_least_fp32(torch.ones(2, dtype=given)).dtype == expected


def test_initial_weights_suit_the_width_and_biases_are_zero():
    """Xavier: the variance of a sum over the inputs stays what it was, at any width."""
    for width in (100, 400):
        layer = nn.Linear(width, width).apply(init_weights)
        assert 0.9 < layer.weight.std() * math.sqrt(width) < 1.1
        assert layer.bias.abs().max() == 0
