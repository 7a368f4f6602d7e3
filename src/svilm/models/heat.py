"""Where in a clip a noun is: from groups or regions to heat over pixels (section C, Figure 4)."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from svilm.models.dual import DualEncoderConfig
from svilm.types import VideoFeatures

HeatKind = Literal["auto", "group", "mixture", "region"]
"""group: the share of each video token that goes to the group nearest to the noun, as in the paper's figures.
mixture: those shares of all groups, weighted as Eq. 3 does.  region: the weight that Eq. 3 gives each region token, in
models that have such.  auto: region where there are regions, else group."""


def heat_kind(kind: HeatKind, features: VideoFeatures) -> HeatKind:
    """What "auto" stands for with these features; any other kind as it is."""
    if kind != "auto":
        return kind
    return "group" if features.region_embedding is None else "region"


def noun_heat(
    config: DualEncoderConfig,
    features: VideoFeatures,
    row: int,
    nouns: Float[Tensor, "nouns common"],
    size: Sequence[int],
    kind: HeatKind = "auto",
    temperature: float = 0.1,
) -> Float[Tensor, "nouns frames high wide"]:
    """Heat of unit noun vectors over the pixels of clip ``row``, 0 to 1 over the clip; zero everywhere if it is flat.

    ``size`` is frames, height and width of the clip; the heat of tokens is spread bilinearly over the pixels of the
    frames of their step.  ``temperature`` is that of Eq. 3, for "mixture" and "region".  Raises ValueError for
    "region" with a model that has none.
    """
    kind, regions = heat_kind(kind, features), features.region_embedding
    if kind == "region":
        if regions is None:
            raise ValueError("heat of kind region needs a model with regions (model.regions.depth above 0); take group")
        cosine, patch = torch.einsum("ke,tse->kts", nouns, regions[row]), config.regions.patch
        heat = ((cosine - cosine.amax(dim=(1, 2), keepdim=True)) / temperature).exp()
    else:
        cosine = nouns @ features.group_embedding[row].T
        assignment, patch = features.assignment[row].to(cosine.dtype), config.video.tubelet[1:]
        if kind == "group":
            heat = assignment[cosine.argmax(dim=1)]
        else:
            heat = torch.einsum("km,mts->kts", (cosine / temperature).softmax(dim=1), assignment)
    frames, high, wide = size
    grid = heat.float().unflatten(2, (high // patch[0], wide // patch[1]))
    smooth = F.interpolate(grid, size=(high, wide), mode="bilinear", align_corners=False)
    lowest, highest = (edge[:, None, None, None] for edge in smooth.flatten(1).aminmax(dim=1))
    scaled = (smooth - lowest) / (highest - lowest).clamp_min(1e-6)
    return scaled.repeat_interleave(frames // heat.shape[1], dim=1)
