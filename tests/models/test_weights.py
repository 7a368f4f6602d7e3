import json
import pickle
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertModel,
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEModel,
    VivitConfig,
    VivitForVideoClassification,
    VivitModel,
)

from svilm.hub import HubError
from svilm.models.grouping import GroupingConfig
from svilm.models.text import TextEncoder, TextEncoderConfig
from svilm.models.video import VideoEncoder, VideoEncoderConfig, interpolate_positions
from svilm.models.weights import WeightsError, load_saved, load_text, load_video, text_config_of, video_config_of

SMALL = {
    "image_size": 32,
    "num_frames": 4,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 72,
}
VIVIT = {**SMALL, "tubelet_size": [2, 8, 8]}
VIDEOMAE = {
    **SMALL,
    "tubelet_size": 2,
    "patch_size": 8,
    "decoder_hidden_size": 12,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 12,
}
BERT = {
    "vocab_size": 40,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "max_position_embeddings": 16,
}
# the grouping blocks only look on, so that the video tokens are those of the published model
INERT = VideoEncoderConfig(
    depth=4, groups=3, group_after=(2, 4), groups_in_self_attention=False, grouping=GroupingConfig(zero_init=False)
)


def publish(folder: Path, kind: type[nn.Module], config: object, **options: object) -> nn.Module:
    """A model of transformers with random weights in every parameter, saved as they are published."""
    torch.manual_seed(0)
    model = kind(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder, **options)
    return model


def vivit(folder: Path, **changes: object) -> nn.Module:
    return publish(folder, VivitForVideoClassification, VivitConfig(**{**VIVIT, **changes}))


def clips(frames: int = 4, size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (2, frames, size, size, 3), dtype=torch.uint8)


def base_of(folder: Path, **changes: object) -> VideoEncoderConfig:
    """Settings for the checkpoint at its own size, with inert grouping."""
    own = video_config_of(str(folder)).grid, video_config_of(str(folder)).tubelet
    return INERT.model_copy(update={"grid": own[0], "tubelet": own[1], **changes})


def loaded(folder: Path, **changes: object) -> tuple[VideoEncoder, object]:
    encoder = VideoEncoder(video_config_of(str(folder), base_of(folder, **changes))).eval()
    return encoder, load_video(encoder, str(folder))


def pixels_for(video: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """Pixels as transformers wants them: 0 to 1, normalised, channels before height and width."""
    scaled = (video.double() / 255 - torch.tensor(mean)) / torch.tensor(std)
    return scaled.permute(0, 1, 4, 2, 3).float()


HALF, IMAGENET = ((0.5,) * 3,) * 2, ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("qkv_bias", [True, False])
@pytest.mark.parametrize("kind", [VivitForVideoClassification, VivitModel])
def test_vivit_gives_the_tokens_of_transformers(tmp_path, kind, qkv_bias):
    published = publish(tmp_path, kind, VivitConfig(**VIVIT, qkv_bias=qkv_bias))
    encoder, _ = loaded(tmp_path, keep_cls=True)
    video = clips()
    body = getattr(published, "vivit", published)
    expected = body(pixels_for(video, *HALF)).last_hidden_state[:, 1:]
    torch.testing.assert_close(encoder(video)[0].flatten(1, 2), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mean_pooling", [True, False])
@pytest.mark.parametrize("kind", [VideoMAEForVideoClassification, VideoMAEModel, VideoMAEForPreTraining])
def test_videomae_gives_the_tokens_of_transformers(tmp_path, kind, mean_pooling):
    published = publish(tmp_path, kind, VideoMAEConfig(**VIDEOMAE, use_mean_pooling=mean_pooling))
    encoder, report = loaded(tmp_path)
    video = clips()
    body = getattr(published, "videomae", published)
    expected = body(pixels_for(video, *IMAGENET)).last_hidden_state
    if mean_pooling:  # here the body ends without a norm, and the classifier has one
        norm = getattr(published, "fc_norm", None)
        expected = F.layer_norm(expected, (24,), eps=1e-12) if norm is None else norm(expected)
        assert ("norm.weight" in report.missing) == (norm is None)
    torch.testing.assert_close(encoder(video)[0].flatten(1, 2), expected, rtol=0, atol=1e-5)


def test_videomae_without_any_bias(tmp_path):
    published = publish(tmp_path, VideoMAEModel, VideoMAEConfig(**VIDEOMAE, qv_bias=False, use_mean_pooling=False))
    encoder, _ = loaded(tmp_path)
    video = clips()
    expected = published(pixels_for(video, *IMAGENET)).last_hidden_state
    torch.testing.assert_close(encoder(video)[0].flatten(1, 2), expected, rtol=0, atol=1e-5)


def test_cls_is_dropped_with_its_position(tmp_path):
    published = vivit(tmp_path).vivit.embeddings
    encoder, report = loaded(tmp_path)
    assert encoder.cls is None
    torch.testing.assert_close(encoder.position.flatten(0, 2), published.position_embeddings[0, 1:])
    assert {"vivit.embeddings.cls_token", "vivit.embeddings.position_embeddings[:, 0]"} <= set(report.unused)
    kept, report = loaded(tmp_path, keep_cls=True)
    torch.testing.assert_close(kept.cls, published.cls_token[0] + published.position_embeddings[0, :1])
    assert "cls" in report.loaded and set(report.unused) == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("model", ["vivit", "videomae"])
def test_positions_are_interpolated_to_other_clips(tmp_path, model):
    if model == "vivit":
        vivit(tmp_path)
    else:
        publish(tmp_path, VideoMAEModel, VideoMAEConfig(**VIDEOMAE))
    own, report = loaded(tmp_path)
    assert report.interpolated == ()
    longer, report = loaded(tmp_path, grid=(4, 2, 6))
    assert report.interpolated == ("position, from 2x4x4 to 4x2x6",)
    torch.testing.assert_close(longer.position, interpolate_positions(own.position, (4, 2, 6)))
    assert longer(clips(8)[:, :, :16].repeat(1, 1, 1, 2, 1)[:, :, :, :48])[0].shape == (2, 4, 12, 24)


def test_settings_of_the_papers_checkpoint_are_our_defaults(tmp_path):
    """google/vivit-b-16x2-kinetics400 has the settings that VivitConfig has by default."""
    VivitConfig().save_pretrained(tmp_path)
    assert video_config_of(str(tmp_path)) == VideoEncoderConfig()


def test_settings_of_videomae(tmp_path):
    VideoMAEConfig().save_pretrained(tmp_path)
    config = video_config_of(str(tmp_path))
    assert (config.grid, config.tubelet, config.activation) == ((8, 14, 14), (2, 16, 16), "gelu")
    assert config.norm_eps == 1e-12
    assert config.pixel_mean == pytest.approx([255 * x for x in IMAGENET[0]])
    assert config.pixel_std == pytest.approx([255 * x for x in IMAGENET[1]])


def test_base_settings_are_kept_where_the_checkpoint_has_no_say(tmp_path):
    VivitConfig(num_hidden_layers=6).save_pretrained(tmp_path)
    base = VideoEncoderConfig(
        width=128, depth=12, tubelet=(2, 8, 8), grid=(4, 8, 8), groups=5, group_after=(6, 9, 12), recompute=True
    )
    config = video_config_of(str(tmp_path), base)
    assert (config.groups, config.recompute, config.width, config.depth) == (5, True, 768, 6)
    assert config.group_after == (3, 4, 6)  # at the same share of the depth
    assert (config.tubelet, config.grid) == ((2, 16, 16), (4, 4, 4))  # clips of 8 frames of 64x64 as before
    with pytest.raises(WeightsError, match=r"clips of 8 frames of 24x64 .* do not divide"):
        video_config_of(str(tmp_path), base.model_copy(update={"grid": (4, 3, 8)}))


@pytest.mark.parametrize("kind", [BertModel, BertForPreTraining, BertForMaskedLM])
def test_bert_gives_the_state_of_transformers(tmp_path, kind):
    published = publish(tmp_path, kind, BertConfig(**BERT))
    config = text_config_of(str(tmp_path), TextEncoderConfig(dropout=0.3))
    assert config == TextEncoderConfig(vocabulary=40, width=24, depth=2, heads=3, positions=16, dropout=0.3)
    encoder = TextEncoder(config).eval()
    report = load_text(encoder, str(tmp_path))
    ids, mask = torch.randint(0, 40, (3, 9)), torch.arange(9) < torch.tensor([9, 4, 1])[:, None]
    body = getattr(published, "bert", published)
    expected = body(input_ids=ids, attention_mask=mask.long()).last_hidden_state[:, 0]
    torch.testing.assert_close(encoder(ids, mask), expected, rtol=0, atol=1e-5)
    assert report.missing == ()
    heads = {name for name in load_file(tmp_path / "model.safetensors") if "pooler" in name or "cls." in name}
    assert set(report.unused) == heads


def test_bert_with_the_names_of_its_first_files(tmp_path):
    """bert-base-uncased still has gamma and beta, and a table of position numbers."""
    published = publish(tmp_path, BertForPreTraining, BertConfig(**BERT))
    tensors = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in load_file(tmp_path / "model.safetensors").items()
    }
    save_file({**tensors, "bert.embeddings.position_ids": torch.arange(16)[None]}, tmp_path / "model.safetensors")
    encoder = TextEncoder(text_config_of(str(tmp_path)))
    report = load_text(encoder, str(tmp_path))
    assert report.missing == () and "bert.embeddings.position_ids" in report.unused
    torch.testing.assert_close(encoder.bert.state_dict(), {
        name: tensor for name, tensor in published.bert.state_dict().items() if "pooler" not in name
    })  # fmt: skip


def test_a_checkpoint_in_several_files_and_half_precision(tmp_path):
    publish(tmp_path / "whole", VivitModel, VivitConfig(**VIVIT))
    VivitModel.from_pretrained(tmp_path / "whole").half().save_pretrained(tmp_path / "parts", max_shard_size="30KB")
    assert len(list((tmp_path / "parts").glob("model-*.safetensors"))) > 1
    whole, parts = loaded(tmp_path / "whole")[0], loaded(tmp_path / "parts")[0]
    assert parts.norm.weight.dtype == torch.float32
    torch.testing.assert_close(parts.position, whole.position.half().float())
    torch.testing.assert_close(parts.blocks[1].mlp.down.weight, whole.blocks[1].mlp.down.weight.half().float())


def test_report_lists_everything_that_found_no_partner(tmp_path):
    vivit(tmp_path)
    (tmp_path / "README.md").write_text("---\ntags: [video]\nlicense: mit\n---\n# ViViT\nlicense: not this\n")
    encoder, report = loaded(tmp_path)
    assert set(report.loaded) | set(report.missing) == set(dict(encoder.named_parameters()))
    assert all(name.startswith(("group_tokens", "grouping.", "norm_groups")) for name in report.missing)
    assert str(report).splitlines()[0] == report.describe()
    assert f"vivit: {len(report.loaded)} of" in report.describe() and "licence: mit" in report.describe()
    for line in (
        "group_tokens", "grouping.{0,1}.query.weight", "norm_groups.bias",
        "classifier.weight", "vivit.embeddings.cls_token",
    ):  # fmt: skip
        assert f"    {line}\n" in f"{report}\n"


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: 'apache-2.0'\n---\n", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: video-nc\n---\n", "video-nc"),
        ("# no header\nlicense: mit\n", None),
        (None, None),
    ],
)
def test_licence_comes_from_the_header_of_the_card(tmp_path, card, licence):
    publish(tmp_path, BertModel, BertConfig(**BERT))
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    report = load_text(TextEncoder(text_config_of(str(tmp_path))), str(tmp_path))
    assert report.licence == licence
    if licence is None:
        assert "licence: not stated" in report.describe()


def test_an_encoder_with_other_settings_is_refused_by_name(tmp_path):
    vivit(tmp_path)
    config = video_config_of(str(tmp_path), base_of(tmp_path))
    wrong = config.model_copy(update={"heads": 2, "activation": "gelu"})
    with pytest.raises(WeightsError, match=r"heads is 2 here and 3 there; activation is gelu here and gelu_tanh"):
        load_video(VideoEncoder(wrong), str(tmp_path))
    publish(tmp_path / "bert", BertModel, BertConfig(**BERT))
    text = text_config_of(str(tmp_path / "bert")).model_copy(update={"vocabulary": 50})
    with pytest.raises(WeightsError, match="vocabulary is 50 here and 40 there"):
        load_text(TextEncoder(text), str(tmp_path / "bert"))


def rewrite(folder: Path, change: object) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def _put(name: str, value: torch.Tensor):
    return lambda tensors: tensors.update({name: value})


LAYER = "vivit.encoder.layer.1"
BROKEN = {
    "lack encoder.layer.1.output.dense.weight": lambda t: t.pop(f"{LAYER}.output.dense.weight"),
    "lack encoder.layer.0.attention.attention.key.bias": lambda t: t.pop(
        "vivit.encoder.layer.0.attention.attention.key.bias"
    ),
    "infinite or not a number: vivit.layernorm.bias": _put("vivit.layernorm.bias", torch.full((24,), torch.nan)),
    "33 positions, but a grid": _put("vivit.embeddings.position_embeddings", torch.zeros(1, 34, 24)),
    r"norm.weight is \(20,\) instead of \(24,\)": _put("vivit.layernorm.weight", torch.zeros(20)),
    "twice": _put("layernorm.weight", torch.zeros(24)),
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_checkpoints_are_refused_and_nothing_is_loaded(tmp_path, message):
    vivit(tmp_path)
    rewrite(tmp_path, BROKEN[message])
    encoder = VideoEncoder(video_config_of(str(tmp_path), base_of(tmp_path)))
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        load_video(encoder, str(tmp_path))
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())


def pickled(folder: Path, data: object) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(data, folder / "pytorch_model.bin")


def test_pickled_tensors_are_read_without_running_them(tmp_path):
    vivit(tmp_path)
    safe, _ = loaded(tmp_path)
    pickled(tmp_path, load_file(tmp_path / "model.safetensors"))
    encoder, _ = loaded(tmp_path)
    assert torch.equal(encoder.position, safe.position)
    assert torch.equal(encoder.blocks[1].mlp.up.weight, safe.blocks[1].mlp.up.weight)


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    vivit(tmp_path)
    mark = tmp_path / "ran"
    tensors = load_file(tmp_path / "model.safetensors")
    pickled(tmp_path, {**tensors, "evil": Evil(mark)})
    with pytest.raises(WeightsError, match=r"pytorch_model.bin holds more than tensors .* model.safetensors"):
        loaded(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(mark), protocol=2))
    with pytest.raises(WeightsError, match=r"pytorch_model.bin"):
        loaded(tmp_path)
    assert not mark.exists()


def test_files_that_are_not_checkpoints_are_refused(tmp_path):
    vivit(tmp_path)
    pickled(tmp_path, [1, 2, 3])
    with pytest.raises(WeightsError, match="is not a table of tensors"):
        loaded(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"<html>")
    with pytest.raises(WeightsError, match=r"pytorch_model.bin"):
        loaded(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(WeightsError, match=r"neither model.safetensors nor pytorch_model.bin"):
        loaded(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x08" + b"\0" * 30)
    with pytest.raises(WeightsError, match=r"model.safetensors cannot be read"):
        loaded(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "has no config.json"),
        ("{", "is not the configuration of a model"),
        ("[]", "is not the configuration of a model"),
        ("{}", "is not the configuration of a model: KeyError"),
        ('{"model_type": "clip"}', "holds a model of type 'clip'; supported here: vivit, videomae"),
        (json.dumps({**VIVIT, "model_type": "vivit", "hidden_act": "relu"}), "hidden_act 'relu'"),
        (json.dumps({**VIVIT, "model_type": "vivit", "num_channels": 1}), "1 channels"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=message):
        video_config_of(str(tmp_path))


def test_other_berts_are_refused(tmp_path):
    for change in ({"intermediate_size": 50}, {"hidden_act": "relu"}, {"type_vocab_size": 1}):
        BertConfig(**{**BERT, **change}).save_pretrained(tmp_path)
        with pytest.raises(WeightsError, match=f"weights with {next(iter(change))}"):
            text_config_of(str(tmp_path))


def test_a_name_that_is_nowhere(tmp_path):
    with pytest.raises(HubError, match="is neither a folder"):
        video_config_of("nobody/nothing")
    with pytest.raises(HubError, match="is neither a folder"):
        load_text(TextEncoder(TextEncoderConfig(**{"vocabulary": 9, "width": 8, "depth": 1, "heads": 1})), "no/no")


def test_what_was_saved_comes_back_or_the_file_is_named(tmp_path):
    file = tmp_path / "layer.safetensors"
    saved, other = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    save_file(saved.state_dict(), file)
    load_saved(other, file)
    assert torch.equal(saved.weight, other.weight) and torch.equal(saved.bias, other.bias)
    layers = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(3)))
    for module, message in (
        (torch.nn.Linear(2, 4), r"weight is \(3, 2\) instead of \(4, 2\)"),
        (torch.nn.Linear(2, 3, bias=False), "bias is not of this model"),
        (layers, r"\{0,1,2\}.bias is missing; \{0,1,2\}.weight is missing; bias is not of .*; weight is not of"),
    ):
        with pytest.raises(
            WeightsError, match=rf"{re.escape(str(file))}: .*{message}.*; save or fetch the model again$"
        ):
            load_saved(module, file)
    with pytest.raises(WeightsError, match=r"none\.safetensors: cannot be read .*; save or fetch the model again$"):
        load_saved(other, tmp_path / "none.safetensors")
