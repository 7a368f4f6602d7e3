"""Region tokens know what is near them and nothing else; heat maps take them."""

from dataclasses import replace

import pytest
import torch

from small import CONFIG, batch, model
from svilm.config import override
from svilm.models.dual import DualEncoderConfig
from svilm.models.heat import noun_heat
from svilm.models.regions import RegionBranch, RegionConfig, blurred, neighbours
from svilm.tasks.pretrain import Pretrain, PretrainTask

WITH = override(CONFIG, ["regions.depth=2", "regions.width=8", "regions.patch=[4,4]", "regions.zero_init=false"])


def branch(**settings):
    torch.manual_seed(0)
    config = RegionConfig(**{"depth": 2, "width": 8, "patch": (4, 4), "zero_init": False, **settings})
    return RegionBranch(config, 16, (2, 8, 8), (4, 4, 4), "gelu", 1e-6)


def clip(seed=0, frames=4, side=32):
    return torch.randint(0, 256, (1, frames, side, side, 3), generator=torch.Generator().manual_seed(seed)).byte()


def test_neighbours_by_hand():
    near = neighbours(2, 3, 1)
    assert near[0].tolist() == [True, True, False, True, True, False]
    assert near[1].all()
    assert neighbours(3, 4, 0).equal(torch.eye(12, dtype=torch.bool))


def test_blurred_by_hand():
    x = torch.zeros(1, 3, 4, 1)
    x[0, 1, 1] = 16.0
    assert blurred(x)[0, ..., 0].tolist() == [[1, 2, 1, 0], [2, 4, 2, 0], [1, 2, 1, 0]]
    assert blurred(torch.ones(1, 2, 1, 3)).equal(torch.ones(1, 2, 1, 3))  # also at the edges


@pytest.mark.parametrize(
    ("depth", "radius", "blur"),
    [(1, 1, False), (2, 1, False), (1, 2, False), (3, 0, False), (1, 0, True), (2, 1, True)],
)
def test_a_region_sees_as_far_as_its_blocks_reach_and_no_other_step(depth, radius, blur):
    """Repaint one patch: just the regions within depth * radius rows and columns of it (and one more where they are
    blurred), in its step, change."""
    whole = branch(depth=depth, radius=radius, blur=blur).eval()
    video = clip()
    other = video.clone()
    other[:, :2, 12:16, 20:24] = 255 - other[:, :2, 12:16, 20:24]  # step 0, row 3, column 5
    before, after = (whole(each)[0].unflatten(2, (8, 8)) for each in (video, other))
    changed = (before != after).any(dim=-1)[0]
    rows, columns = torch.arange(8)[:, None], torch.arange(8)
    near = torch.maximum((rows - 3).abs(), (columns - 5).abs()) <= depth * radius + blur
    assert changed[0].equal(near)
    assert not changed[1].any()


def test_the_encoder_gets_sharp_regions():
    video = clip()
    sharp, soft = (branch(blur=blur).eval()(video) for blur in (False, True))
    assert sharp[1].equal(soft[1]) and not sharp[0].equal(soft[0])


def test_what_is_added_belongs_to_the_video_token_that_holds_the_regions():
    whole = branch(depth=1, radius=0).eval()
    video = clip()
    other = video.clone()
    other[:, 2:, 12:16, 20:24] = 0  # step 1; rows 8 to 15 and columns 16 to 23 are video token (1, 2) of its 4 x 4
    before, after = (whole(each)[1].unflatten(1, (2, 4, 4)) for each in (video, other))
    assert (before != after).any(dim=-1)[0].nonzero().tolist() == [[1, 1, 2]]


def test_shapes_and_other_sizes_of_clips():
    regions, added = branch()(clip(side=48))
    assert regions.shape == (1, 2, 144, 8) and added.shape == (1, 2 * 36, 16)


def test_patches_that_do_not_divide_the_tubelet():
    with pytest.raises(ValueError, match=r"regions\.patch \(5, 4\) must divide"):
        branch(patch=(5, 4))


def test_starting_at_zero_leaves_the_encoder_as_it_was():
    quiet = model(config=override(WITH, ["regions.zero_init=true"])).eval()
    plain = model(config=CONFIG).eval()
    plain.load_state_dict(quiet.state_dict(), strict=False)
    video = batch(2).video
    assert torch.equal(quiet.encode_video(video).embedding, plain.encode_video(video).embedding)
    assert plain.encode_video(video).region_embedding is None
    assert DualEncoderConfig().regions.depth == 0  # the paper has none


def test_nouns_meet_the_regions():
    """The grounding loss moves the branch and leaves the groups alone; without regions it is the other way round."""
    for config, of_groups in ((WITH, False), (CONFIG, True)):
        dual, some = model(config=config), batch()
        task = PretrainTask(Pretrain(contrast=0.0, grouping=0.0))
        features = task.features(dual, some)
        task.loss(dual, features, some).total.backward()
        groups = dual.video.norm_groups.weight.grad
        assert (groups is not None and bool(groups.any())) == of_groups
        if not of_groups:
            assert features["groups"].shape == (8, 4 * 16, 8)
            assert dual.regions.patch.weight.grad.any() and dual.region_projection.weight.grad.any()


def test_heat_is_where_the_noun_is():
    """A noun that is one region's is hottest in its middle, in the frames of its step."""
    dual, video = model(config=WITH).eval(), batch(2).video
    with torch.no_grad():
        features = dual.encode_video(video)
    regions = torch.eye(8)[0].expand(2, 4, 16, 8).clone()
    noun = regions[1, 2, 6] = torch.eye(8)[1]  # step 2, row 1, column 2 of 4 x 4
    heat = noun_heat(WITH, replace(features, region_embedding=regions), 1, noun[None], video.shape[1:4])[0]
    assert heat.shape == (8, 16, 16) and heat.min() == 0 and heat.max() == 1
    frame, row, column = (heat == heat.max()).nonzero()[0].tolist()
    assert frame in (4, 5) and row in (5, 6) and column in (9, 10)


def test_heat_of_groups():
    dual, video = model().eval(), batch(1).video
    with torch.no_grad():
        features = dual.encode_video(video)
        nouns = features.group_embedding[0, :2]
        auto, group, mixture = (noun_heat(CONFIG, features, 0, nouns, (8, 16, 16), kind)
                                for kind in ("auto", "group", "mixture"))  # fmt: skip
        sharp = noun_heat(CONFIG, features, 0, nouns, (8, 16, 16), "mixture", 1e-4)
    assert torch.equal(auto, group) and not torch.allclose(group, mixture)
    torch.testing.assert_close(sharp, group, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match=r"model\.regions\.depth above 0"):
        noun_heat(CONFIG, features, 0, nouns, (8, 16, 16), "region")
