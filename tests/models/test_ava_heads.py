import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from svilm.models.ava_heads import BoxHead, BoxHeadConfig, BoxReader
from svilm.models.roi import roi_align


def make(kind, width=6, classes=5, **options) -> BoxHead:
    head = BoxHead(BoxHeadConfig(kind=kind, **{"size": 3, "heads": 2, **options}), width, classes).double()
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.4)
    return head


def inputs(batch=2, boxes=3, width=6):
    corners = torch.rand(batch, boxes, 2, 2, dtype=torch.float64)
    return (
        torch.randn(batch, 4, 3, 5, width, dtype=torch.float64),
        torch.cat([corners.amin(dim=2), corners.amax(dim=2)], dim=-1),
    )


def test_the_plain_head_is_the_maximum_over_the_box():
    head, (maps, boxes) = make("roi").eval(), inputs()
    cells = roi_align(maps.mean(dim=1), boxes, 3)
    expected = torch.stack(
        [torch.stack([cells[b, k].reshape(9, 6).max(dim=0).values for k in range(3)]) for b in range(2)]
    )
    torch.testing.assert_close(head(maps, boxes), F.linear(expected, head.classes.weight, head.classes.bias))


@torch.no_grad()
def test_a_reader_is_attention_with_keys_and_values_written_out():
    reader = BoxReader(6, 4).double()
    boxes, tokens = torch.randn(2, 3, 6, dtype=torch.float64), torch.randn(2, 7, 6, dtype=torch.float64)
    found = reader(boxes, tokens)
    for b in range(2):
        keys, values = reader.key(tokens[b]), reader.value(tokens[b])
        for k in range(3):
            query = reader.query(boxes[b, k])
            shares = torch.stack([query @ key / math.sqrt(4) for key in keys]).softmax(dim=0)
            state = query + sum(share * value for share, value in zip(shares, values, strict=True))
            state = F.layer_norm(state, (4,), reader.norm.weight, reader.norm.bias, eps=1e-6)
            expected = reader.mlp.down(F.gelu(reader.mlp.up(state)))
            torch.testing.assert_close(found[b, k], expected)


@torch.no_grad()
def test_the_transformer_head_joins_its_readers():
    head, (maps, boxes) = make("transformer").eval(), inputs()
    time, space = torch.tensor([-1.5, -0.5, 0.5, 1.5]).double(), {}
    for row in range(3):
        for column in range(5):
            space[row, column] = head.place.space(torch.tensor([row - 1.0, column - 2.0]).double())
    wide = torch.zeros(2, 4, 3, 5, 22, dtype=torch.float64)
    wide[..., :6] = maps
    for step in range(4):
        wide[:, step, :, :, 6:14] = head.place.time(time[step : step + 1])
        for (row, column), channels in space.items():
            wide[:, step, row, column, 14:] = channels
    vectors = roi_align(wide.mean(dim=1), boxes, 3).amax(dim=(2, 3))
    joined = torch.cat([reader(vectors, wide.flatten(1, 3)) for reader in head.readers], dim=-1)
    assert joined.shape == (2, 3, 12)
    torch.testing.assert_close(head(maps, boxes), head.classes(joined))


@pytest.mark.parametrize("kind", ["roi", "transformer"])
def test_boxes_do_not_see_each_other_nor_other_clips(kind):
    head, (maps, boxes) = make(kind).eval(), inputs()
    whole = head(maps, boxes)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(head(maps, boxes[:, order]), whole[:, order])
    torch.testing.assert_close(head(maps[1:], boxes[1:, :1]), whole[1:, :1])
    padded = torch.cat([boxes, torch.zeros(2, 2, 4, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(head(maps, padded)[:, :3], whole)


def test_only_the_transformer_sees_beyond_the_box():
    maps, _ = inputs()
    box = torch.tensor([0.0, 0.0, 0.3, 0.4]).double().expand(2, 1, 4)
    other = maps.clone()
    other[:, :, 2, 4] += 1.0
    for kind, changes in (("roi", False), ("transformer", True)):
        head = make(kind).eval()
        assert torch.allclose(head(maps, box), head(other, box)) != changes


def test_only_the_transformer_knows_the_order_of_time():
    maps, boxes = inputs()
    for kind, changes in (("roi", False), ("transformer", True)):
        head = make(kind).eval()
        assert torch.allclose(head(maps, boxes), head(maps.flip(1), boxes)) != changes


@pytest.mark.parametrize("kind", ["roi", "transformer"])
def test_every_parameter_learns_and_padding_gives_finite_gradients(kind):
    head, (maps, boxes) = make(kind, dropout=0.0), inputs()
    boxes[0, 1] = 0.0
    maps.requires_grad_()
    head(maps, boxes).square().sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    assert maps.grad is not None and maps.grad.isfinite().all()


def test_dropout_acts_while_training_only():
    head, (maps, boxes) = make("roi", dropout=0.5), inputs()
    assert not torch.equal(head(maps, boxes), head(maps, boxes))
    assert torch.equal(head.eval()(maps, boxes), head(maps, boxes))


def test_the_defaults_are_those_of_videoglue():
    head = BoxHead(BoxHeadConfig(), 768, 80)
    assert len(head.readers) == 6 and head.readers[0].query.out_features == 768
    assert head.readers[0].query.in_features == 784 and head.classes.in_features == 4608
    assert head.config.size == 7 and head.dropout.p == 0.5


def test_bf16_under_autocast():
    head = make("transformer").float().eval()
    maps, boxes = (x.float() for x in inputs())
    with torch.autocast("cpu", torch.bfloat16):
        found = head(maps, boxes)
    torch.testing.assert_close(found.float(), head(maps, boxes), rtol=0.1, atol=0.1)
