"""The dual encoder: video and text meet in one common space (section 3.1, Figure 1)."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from svilm.config import Config
from svilm.models.grouping import GroupingConfig
from svilm.models.layers import Mlp, at_least_fp32, init_weights
from svilm.models.regions import RegionBranch, RegionConfig
from svilm.models.text import TextEncoder, TextEncoderConfig
from svilm.models.video import VideoEncoder, VideoEncoderConfig
from svilm.types import TextFeatures, VideoFeatures


class DualEncoderConfig(Config):
    """Both encoders and the common space; the defaults are the paper's (section 4.2)."""

    video: VideoEncoderConfig = VideoEncoderConfig()
    """The video encoder."""
    text: TextEncoderConfig = TextEncoderConfig()
    """The text encoder."""
    regions: RegionConfig = RegionConfig()
    """Region tokens for nouns to meet, instead of the groups; off, as the paper has none."""
    common: PositiveInt = 256
    """Width of the common space."""
    projector: Literal["linear", "mlp"] = "linear"
    """Projection of either side into the common space: one linear layer, or an MLP with one hidden layer."""
    temperature: PositiveFloat = 0.07
    """Temperature of the two contrastive losses at the start; the paper does not state it."""
    temperature_min: PositiveFloat = 0.01
    """Lowest temperature that training may reach (a logit scale of 100, as in CLIP)."""
    learn_temperature: bool = True
    """Learn the temperatures of the global and the grounding loss; false keeps `temperature` for both."""


class DualEncoder(nn.Module):
    """Encodes clips and texts into unit vectors of one space, with group tokens on the video side.

    Raises ValueError when the settings contradict each other.
    """

    def __init__(self, config: DualEncoderConfig) -> None:
        super().__init__()
        if config.temperature < config.temperature_min:
            raise ValueError(
                f"temperature {config.temperature} must not be below temperature_min {config.temperature_min}"
            )
        self.config = config
        self.video = VideoEncoder(config.video)
        self.text = TextEncoder(config.text)
        self.video_projection = _projector(config, config.video.width)
        self.text_projection = _projector(config, config.text.width)
        self.regions = None
        if config.regions.depth:
            v = config.video
            self.regions = RegionBranch(config.regions, v.width, v.tubelet, v.grid, v.activation, v.norm_eps)
            self.region_projection = _projector(config, config.regions.width)
        # one value each, kept as vectors because sharded training refuses 0-d parameters
        start = torch.full((1,), -math.log(config.temperature))
        self.contrast_log_scale = nn.Parameter(start.clone(), requires_grad=config.learn_temperature)
        self.grounding_log_scale = nn.Parameter(start.clone(), requires_grad=config.learn_temperature)

    def encode_video(self, video: UInt8[Tensor, "batch frames high wide 3"]) -> VideoFeatures:
        """uint8 RGB clips (B, T, H, W, 3), values 0 to 255 -> VideoFeatures.

        One projection serves groups and clip vector: the latter is the projected mean of the groups (f^v,
        section 3.4).
        """
        regions, added = (None, None) if self.regions is None else self.regions(video)
        tokens, groups, assignment = self.video(video, added)
        return VideoFeatures(
            tokens=tokens,
            groups=groups,
            assignment=assignment,
            embedding=_unit(self.video_projection(groups.mean(dim=1))),
            group_embedding=_unit(self.video_projection(groups)),
            region_embedding=None if regions is None else _unit(self.region_projection(regions)),
        )

    def encode_text(self, ids: Int[Tensor, "texts length"], mask: Bool[Tensor, "texts length"]) -> TextFeatures:
        """Word pieces and mask, both (U, L) -> TextFeatures; captions and nouns alike (section 3.1)."""
        hidden = self.text(ids, mask)
        return TextFeatures(hidden=hidden, embedding=_unit(self.text_projection(hidden)))

    def temperature(self, loss: Literal["contrast", "grounding"]) -> Float[Tensor, ""]:
        """Current temperature of a loss, not below `temperature_min`."""
        log_scale = self.contrast_log_scale if loss == "contrast" else self.grounding_log_scale
        with torch.no_grad():  # clamped in place, so that the gradient can still lead away from the bound
            log_scale.clamp_(max=-math.log(self.config.temperature_min))
        return (-at_least_fp32(log_scale)).exp().squeeze(0)


def _projector(config: DualEncoderConfig, width: int) -> nn.Module:
    if config.projector == "linear":
        layer: nn.Module = nn.Linear(width, config.common)
    else:
        layer = Mlp(width, 2 * width, out=config.common)
    return layer.apply(init_weights)


def _unit(x: Float[Tensor, "... common"]) -> Float[Tensor, "... common"]:
    """Unit length, in fp32 at least; the epsilon keeps the gradient of a zero vector finite and harmless."""
    return F.normalize(at_least_fp32(x), dim=-1, eps=1e-6)


SIZES: dict[str, DualEncoderConfig] = {
    # 8 frames of 64x64
    "tiny": DualEncoderConfig(
        video=VideoEncoderConfig(
            width=128,
            depth=4,
            heads=4,
            grid=(4, 4, 4),
            groups=8,
            group_after=(2, 3, 4),
            grouping=GroupingConfig(zero_init=False),  # nothing pre-trained to protect: learns faster from scratch
        ),
        text=TextEncoderConfig(
            vocabulary=2048, width=128, depth=2, heads=4, positions=64, initial_std=0.05, dropout=0.0
        ),
        common=128,
    ),
    # 16 frames of 112x112 with ViT-S
    "small": DualEncoderConfig(
        video=VideoEncoderConfig(width=384, heads=6, grid=(8, 7, 7), groups=16),
        text=TextEncoderConfig(width=384, depth=6, heads=6),
    ),
    # the paper: 32 frames of 224x224, ViT-B and BERT-base
    "base": DualEncoderConfig(),
}
"""The three sizes of the model; recipes start from one of them."""
