import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from svilm.models.grouping import GroupingConfig
from svilm.models.video import VideoEncoder, VideoEncoderConfig, interpolate_positions

CONFIG = VideoEncoderConfig(
    width=16,
    depth=3,
    heads=2,
    tubelet=(2, 4, 4),
    grid=(3, 2, 4),
    groups=5,
    group_after=(1, 3),
    grouping=GroupingConfig(zero_init=False),
)


def make(**updates) -> VideoEncoder:
    """An encoder with weights large enough for every part to matter."""
    torch.manual_seed(0)
    encoder = VideoEncoder(CONFIG.model_copy(update=updates))
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    return encoder


def clips(frames=6, high=8, wide=16, batch=2):
    return torch.randint(0, 256, (batch, frames, high, wide, 3), dtype=torch.uint8)


@pytest.mark.parametrize("keep_cls", [False, True])
@pytest.mark.parametrize("joint", [False, True])
def test_shapes(joint, keep_cls):
    encoder = make(groups_in_self_attention=joint, keep_cls=keep_cls)
    tokens, groups, assignment = encoder(clips())
    assert tokens.shape == (2, 3, 8, 16)
    assert groups.shape == (2, 5, 16)
    assert assignment.shape == (2, 5, 3, 8)
    torch.testing.assert_close(assignment.sum(dim=1), torch.ones(2, 3, 8))
    assert not assignment.requires_grad


def test_embedding_is_a_convolution_over_tubelets():
    encoder = make()
    video = clips()
    kernel = encoder.patch.weight.reshape(16, 3, 2, 4, 4)
    pixels = (video.permute(0, 4, 1, 2, 3).float() - 127.5) / 127.5
    expected = F.conv3d(pixels, kernel, encoder.patch.bias, stride=(2, 4, 4)).flatten(2).transpose(1, 2)
    embedded, grid = encoder.embed(video)
    assert grid == (3, 2, 4)
    torch.testing.assert_close(embedded, expected + encoder.position.flatten(0, 2), rtol=1e-4, atol=1e-4)


def test_pixels_are_normalised_per_channel():
    encoder = make(pixel_mean=(10.0, 20.0, 30.0), pixel_std=(1.0, 2.0, 4.0)).double()
    plain = make(pixel_mean=(0.0, 0.0, 0.0), pixel_std=(1.0, 1.0, 1.0)).double()
    video = torch.tensor([10, 20, 30], dtype=torch.uint8).expand(1, 6, 8, 16, 3)
    torch.testing.assert_close(encoder.embed(video)[0], plain.embed(torch.zeros_like(video))[0])
    brighter = torch.tensor([11, 22, 34], dtype=torch.uint8).expand(1, 6, 8, 16, 3)
    torch.testing.assert_close(encoder.embed(brighter)[0], plain.embed(torch.ones_like(video))[0])


def test_clips_do_not_see_each_other():
    encoder, video = make().eval(), clips()
    alone = [torch.cat(parts) for parts in zip(*(encoder(clip[None]) for clip in video), strict=True)]
    for together, single in zip(encoder(video), alone, strict=True):
        torch.testing.assert_close(together, single, rtol=1e-4, atol=1e-5)


def test_group_tokens_reach_the_video_tokens_only_through_self_attention():
    video = clips()
    for joint in (True, False):
        encoder = make(groups_in_self_attention=joint).eval()
        before = encoder(video)
        nn.init.normal_(encoder.group_tokens)
        after = encoder(video)
        assert torch.equal(before[0], after[0]) != joint
        assert not torch.equal(before[1], after[1])


def test_grouping_blocks_follow_the_named_blocks():
    """The group tokens after block 1 come from block 1's tokens, and the last assignment from those of block 3."""
    encoder, seen = make(groups_in_self_attention=False).eval(), []
    for name, module in [*encoder.blocks.named_children(), *encoder.grouping.named_children()]:
        kind = "block" if module in list(encoder.blocks) else "grouping"
        module.register_forward_hook(lambda *_, what=f"{kind} {name}": seen.append(what))
    encoder(clips())
    assert seen == ["block 0", "grouping 0", "block 1", "block 2", "grouping 1"]


def test_tokens_and_groups_have_passed_their_norms():
    encoder = VideoEncoder(CONFIG).eval()
    tokens, groups, _ = encoder(clips())
    for x in (tokens, groups):
        torch.testing.assert_close(x.mean(dim=-1), torch.zeros(x.shape[:-1]), rtol=0, atol=1e-5)
        torch.testing.assert_close(x.var(dim=-1, correction=0), torch.ones(x.shape[:-1]), rtol=1e-2, atol=0)


CHANGES = {
    "width": 32,
    "depth": 4,
    "heads": 4,
    "mlp_ratio": 2.0,
    "tubelet": (1, 4, 4),
    "grid": (6, 2, 4),
    "groups": 6,
    "group_after": (2, 3),
    "groups_in_self_attention": False,
    "grouping": GroupingConfig(zero_init=False, hard=False),
    "keep_cls": True,
    "activation": "gelu",
    "norm_eps": 0.1,
    "pixel_mean": (100.0, 100.0, 100.0),
    "pixel_std": (60.0, 60.0, 60.0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_changes_the_outcome(name):
    also = {"group_after": (1, 4)} if name == "depth" else {}
    video = clips()
    before, after = make().eval()(video), make(**{name: CHANGES[name]}, **also).eval()(video)
    assert before[1].shape != after[1].shape or not torch.allclose(before[1], after[1], atol=1e-4)
    # recompute has its own test: it changes the memory, and nothing else
    assert set(CHANGES) | {"recompute"} == set(VideoEncoderConfig.model_fields)


@pytest.mark.parametrize("joint", [False, True])
def test_recompute_gives_the_same_gradients(joint):
    video, gradients = clips(), []
    for recompute in (False, True):
        encoder = make(recompute=recompute, groups_in_self_attention=joint).train()
        torch.manual_seed(1)
        tokens, groups, _ = encoder(video)
        (tokens.square().mean() + groups.sum()).backward()
        gradients.append({name: p.grad for name, p in encoder.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)
    assert gradients[0]["position"].abs().max() > 0


def test_recompute_keeps_less_for_the_backward_pass():
    kept = {}
    for recompute in (False, True):
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, sizes=sizes: (sizes.append(x.numel()), x)[1], lambda x: x
        ):
            make(recompute=recompute)(clips())
        kept[recompute] = sum(sizes)
    assert kept[True] < 0.7 * kept[False]


def test_every_parameter_gets_a_gradient():
    encoder = make(keep_cls=True).train()
    tokens, groups, _ = encoder(clips())
    (tokens.square().mean() + groups.square().mean() + tokens.sum() + groups.sum()).backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []


def test_half_precision_is_finite():
    encoder = make().train()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = encoder(clips())
    sum(x.float().square().mean() for x in outputs[:2]).backward()
    assert all(x.isfinite().all() for x in (*outputs, *(p.grad for p in encoder.parameters())))


@pytest.mark.parametrize(("frames", "high", "wide"), [(2, 8, 16), (12, 8, 16), (6, 16, 16), (4, 4, 8)])
def test_other_lengths_and_sizes_interpolate_the_positions(frames, high, wide):
    encoder = make().eval()
    tokens, _, assignment = encoder(clips(frames, high, wide))
    assert tokens.shape == (2, frames // 2, high * wide // 16, 16)
    assert assignment.shape == (2, 5, frames // 2, high * wide // 16)
    resized = VideoEncoder(CONFIG.model_copy(update={"grid": (frames // 2, high // 4, wide // 4)})).eval()
    state = encoder.state_dict()
    state["position"] = interpolate_positions(encoder.position, (frames // 2, high // 4, wide // 4))
    resized.load_state_dict(state)
    video = clips(frames, high, wide)
    assert torch.equal(encoder(video)[0], resized(video)[0])


@pytest.mark.parametrize("size", [(5, 8, 16), (6, 9, 16), (6, 8, 15), (0, 8, 16)])
def test_clips_that_do_not_divide_into_tubelets_are_refused(size):
    with pytest.raises(ValueError, match="does not divide into tubelets of 2x4x4"):
        make()(clips(*size))


def test_pixels_must_be_uint8_rgb():
    for video in (clips().float(), clips()[..., :1], clips()[0]):
        with pytest.raises((jaxtyping.TypeCheckError, TypeError)):
            make()(video)


@pytest.mark.parametrize("group_after", [(), (3, 1), (1, 1, 3), (1, 2), (0, 3), (1, 4)])
def test_grouping_blocks_must_rise_and_end_with_the_last_block(group_after):
    with pytest.raises(ValueError, match="group_after"):
        make(group_after=group_after)


def test_positions_that_fit_are_left_alone():
    table = torch.randn(3, 4, 5, 6)
    assert torch.equal(interpolate_positions(table, (3, 4, 5)), table)


@settings(max_examples=20)
@given(*[st.integers(1, 6)] * 6)
def test_interpolation_keeps_a_constant(steps, rows, columns, new_steps, new_rows, new_columns):
    table = torch.full((steps, rows, columns, 2), 3.0)
    resized = interpolate_positions(table, (new_steps, new_rows, new_columns))
    torch.testing.assert_close(resized, torch.full((new_steps, new_rows, new_columns, 2), 3.0))


def test_interpolation_treats_each_axis_by_itself():
    """A table that varies along one axis stays constant along the others; along time the values are linear."""
    ramp = torch.arange(4.0)
    in_time = interpolate_positions(ramp[:, None, None, None].expand(4, 3, 3, 2), (8, 5, 2))
    expected = F.interpolate(ramp[None, None], size=8, mode="linear", align_corners=False)[0, 0]
    torch.testing.assert_close(in_time, expected[:, None, None, None].expand(8, 5, 2, 2))
    down = interpolate_positions(ramp[None, :, None, None].expand(2, 4, 3, 2), (5, 8, 3))
    across = interpolate_positions(ramp[None, None, :, None].expand(2, 3, 4, 2), (5, 3, 8))
    torch.testing.assert_close(down.transpose(1, 2), across)
    assert (down.diff(dim=1) > 0).all() and down.diff(dim=0).abs().max() < 1e-6


def test_interpolation_keeps_the_type():
    assert interpolate_positions(torch.zeros(2, 2, 2, 4, dtype=torch.bfloat16), (4, 3, 3)).dtype == torch.bfloat16


@pytest.mark.compile
@pytest.mark.parametrize("recompute", [False, True])
def test_traces_into_one_graph(recompute):
    """Without graph breaks, forward and backward, and with the numbers of the plain encoder."""
    torch._dynamo.reset()
    encoder, video = make(recompute=recompute).eval(), clips()
    outputs, gradients = [], []
    for run in (torch.compile(encoder, fullgraph=True, backend="aot_eager"), encoder):
        outputs.append(run(video))
        loss = outputs[-1][0].square().mean() + outputs[-1][1].sum()
        gradients.append(torch.autograd.grad(loss, encoder.position)[0])
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*gradients)


@pytest.mark.compile
def test_compiled_code_gives_the_same_numbers(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    encoder, video = make(depth=1, group_after=(1,)).eval(), clips()
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(encoder, fullgraph=True)(video), encoder(video))
