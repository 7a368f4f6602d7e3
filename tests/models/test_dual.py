import math

import pytest
import torch
import torch.nn.functional as F

from small import CONFIG, batch, model
from svilm.config import ConfigError, override
from svilm.models.dual import SIZES, DualEncoder, DualEncoderConfig
from svilm.models.layers import Mlp


def changed(**updates) -> DualEncoderConfig:
    return CONFIG.model_copy(update=updates)


def test_clip_vector_is_the_projected_mean_of_the_groups():
    encoder = model().eval()
    features = encoder.encode_video(batch(2).video)
    expected = F.normalize(encoder.video_projection(features.groups.mean(dim=1)), dim=-1)
    torch.testing.assert_close(features.embedding, expected)
    expected = F.normalize(encoder.video_projection(features.groups), dim=-1)
    torch.testing.assert_close(features.group_embedding, expected)
    assert features.tokens.shape == (2, 4, 4, 16)
    assert features.assignment.shape == (2, 4, 4, 4)


def test_all_vectors_have_unit_length_in_fp32_also_under_autocast():
    encoder, clips = model(), batch(2)
    with torch.autocast("cpu", torch.bfloat16):
        video = encoder.encode_video(clips.video)
        text = encoder.encode_text(clips.text_ids, clips.text_mask)
    for x in (video.embedding, video.group_embedding, text.embedding):
        assert x.dtype == torch.float32
        torch.testing.assert_close(x.norm(dim=-1), torch.ones(x.shape[:-1]))


def test_text_vector_is_the_projected_cls_state():
    encoder, clips = model().eval(), batch(2)
    features = encoder.encode_text(clips.text_ids, clips.text_mask)
    torch.testing.assert_close(features.hidden, encoder.text(clips.text_ids, clips.text_mask))
    torch.testing.assert_close(features.embedding, F.normalize(encoder.text_projection(features.hidden), dim=-1))


def test_projector_can_be_an_mlp():
    encoder = DualEncoder(changed(projector="mlp"))
    assert isinstance(encoder.video_projection, Mlp) and isinstance(encoder.text_projection, Mlp)
    assert encoder.encode_video(batch(2).video).embedding.shape == (2, 8)


def test_common_space_has_the_asked_width():
    encoder, clips = DualEncoder(changed(common=5)), batch(2)
    assert encoder.encode_video(clips.video).embedding.shape == (2, 5)
    assert encoder.encode_text(clips.text_ids, clips.text_mask).embedding.shape[1] == 5


@pytest.mark.parametrize("loss", ["contrast", "grounding"])
def test_temperature_starts_where_asked_and_is_learned(loss):
    encoder = DualEncoder(changed(temperature=0.2))
    temperature = encoder.temperature(loss)
    assert temperature.shape == ()
    torch.testing.assert_close(temperature, torch.tensor(0.2))
    temperature.backward()
    grown = {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}
    assert list(grown) == [f"{loss}_log_scale"]


def test_temperature_stops_at_its_bound_and_can_come_back():
    encoder = DualEncoder(changed(temperature_min=0.05))
    encoder.contrast_log_scale.data.fill_(math.log(1000))
    temperature = encoder.temperature("contrast")
    torch.testing.assert_close(temperature, torch.tensor(0.05))
    temperature.backward()
    assert encoder.contrast_log_scale.grad.abs() > 0
    torch.testing.assert_close(encoder.temperature("grounding"), torch.tensor(0.07))


def test_fixed_temperature_has_no_gradient():
    encoder = DualEncoder(changed(learn_temperature=False))
    assert not encoder.temperature("contrast").requires_grad
    assert not encoder.temperature("grounding").requires_grad


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match=r"temperature 0.005 must not be below temperature_min 0.01"):
        DualEncoder(changed(temperature=0.005))
    for setting in ("common=0", "temperature=-1", "video.groups=0", "video.tubelet=[0,16,16]", "text.dropout=1"):
        with pytest.raises(ConfigError, match=setting.partition("=")[0].split(".")[-1]):
            override(CONFIG, [setting])


@pytest.mark.parametrize(("size", "least", "most"), [("tiny", 1, 5), ("small", 40, 60), ("base", 210, 225)])
def test_sizes_build_without_memory_and_are_as_large_as_they_say(size, least, most):
    with torch.device("meta"):
        encoder = DualEncoder(SIZES[size])
    assert least < sum(p.numel() for p in encoder.parameters()) / 1e6 < most
    assert {p.device.type for p in encoder.parameters()} == {"meta"}


def test_base_is_the_papers():
    """Section 4.2: ViT-B on 32 frames of 224 pixels, 3,136 tokens, 32 groups, blocks 6, 9 and 12, 256-d."""
    config = SIZES["base"]
    assert math.prod(config.video.grid) == 3136
    assert [n * size for n, size in zip(config.video.grid, config.video.tubelet, strict=True)] == [32, 224, 224]
    assert (config.video.groups, config.video.group_after, config.common) == (32, (6, 9, 12), 256)
    with torch.device("meta"):
        parts = DualEncoder(config).video
    count = sum(p.numel() for name, p in parts.named_parameters() if not name.startswith(("group", "norm_group")))
    # the 86 M of ViT-B, the larger patches and position table of a video
    assert count == 85_054_464 + 1536 + 768 * (1536 + 1) + 3136 * 768
