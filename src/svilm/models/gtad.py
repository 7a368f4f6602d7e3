"""G-TAD, sub-graph localization for temporal action detection (Xu et al., CVPR 2020), on features of any encoder.

Temporal positions of a video are nodes of a graph: edges join neighbours in time and nearest neighbours in feature
space.  Every segment "starts at s, lasts d + 1 steps" is an anchor; the features around it are aligned to a fixed
number of bins (SGAlign) and scored.  The paper takes it for temporal action localization (section 4.1, Table 11).

The anchors are constants, so alignment is one fixed sparse matrix.  Instead of building the aligned features of every
anchor (channels x bins x anchors, 5.9 GB for 16 videos) and convolving them, the convolution goes first, on the
nodes, and the matrix second: the same numbers in a fraction of time and memory (`svilm bench gtad`), no custom kernel.

Shapes: B batch, C channels of the features, T steps, D longest duration, W width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from svilm.config import Config
from svilm.models.gtad_align import FixedMatrix, alignment
from svilm.models.layers import at_least_fp32

Nodes = Float[Tensor, "batch width steps"]
Graph = Float[Tensor, "batch steps neighbours steps"]

CHANNEL_GROUPS = 4
"""Groups of the first convolution."""
PATHS = 32
"""Groups of the convolutions inside a GCNeXt block, four channels each."""

PUBLISHED = {
    "backbone1.0": "project",
    "backbone1.2": "base",
    "backbone2.0": "refine",
    "regu_s.0": "start.block",
    "regu_s.1": "start.score",
    "regu_e.0": "end.block",
    "regu_e.1": "end.score",
    "localization.0": "align.mix",
    "localization.2": "head.1",
    "localization.4": "head.3",
    "localization.6": "head.5",
    "localization.8": "head.7",
    "tconvs": "temporal",
    "sconvs.0": "pair",
    "sconvs.2": "semantic.1",
    "sconvs.4": "semantic.3",
}
"""Names of modules in the public weights of G-TAD, and here."""


class GTADConfig(Config):
    """Shape of the network and of its anchors; the defaults are those of ActivityNet."""

    channels: PositiveInt = 768
    """Width of the input features, a multiple of 4."""
    steps: PositiveInt = 100
    """T, number of temporal positions that a video is resized to."""
    longest: PositiveInt = 100
    """D, number of anchor durations: 1 to D steps."""
    width: PositiveInt = 256
    """Width of the nodes, a multiple of 4."""
    wide: PositiveInt = 512
    """Channels of an anchor after the first layer of the head."""
    narrow: PositiveInt = 128
    """Channels of an anchor in the further layers of the head."""
    bins: PositiveInt = 32
    """Bins that the features of an anchor are aligned to."""
    context_bins: PositiveInt = 4
    """Bins for the mean of each node's nearest neighbours."""
    neighbours: PositiveInt = 3
    """Nearest nodes in feature space, the node itself among them, that are joined to a node."""
    kernel: Literal[1, 3] = 1
    """Kernel of the two convolutions over the map of anchors: 3 also looks at anchors next to it."""
    anchors: Literal["original", "opentad"] = "original"
    """Where the aligned region of an anchor ends before it is widened by half its length L on both sides: at the
    index of its last step (original: 2L - 1 long), or one behind it (opentad: 2L long)."""
    node_window: tuple[float, float] = (-0.5, 1.5)
    """What a node stands for when the targets of start and end are made, in steps from its index."""

    @classmethod
    def activitynet(cls, channels: int = 768) -> "GTADConfig":
        """The settings for ActivityNet: a whole video is resized to 100 steps."""
        return cls(channels=channels)

    @classmethod
    def thumos(cls, channels: int = 2048) -> "GTADConfig":
        """The settings for THUMOS14: windows of 256 steps, anchors up to 64."""
        return cls(
            channels=channels, steps=256, longest=64, bins=16, context_bins=16, kernel=3, node_window=(-0.5, 0.5)
        )

    @classmethod
    def opentad(cls, channels: int = 768) -> "GTADConfig":
        """The settings for ActivityNet in OpenTAD."""
        return cls(channels=channels, anchors="opentad", node_window=(0.0, 1.0))

    @model_validator(mode="after")
    def _fits(self) -> "GTADConfig":
        for name in ("channels", "width"):
            if getattr(self, name) % CHANNEL_GROUPS:
                raise ValueError(f"{name} = {getattr(self, name)} must be a multiple of {CHANNEL_GROUPS}")
        if self.longest > self.steps:
            raise ValueError(f"longest = {self.longest} anchors are longer than the {self.steps} steps of a video")
        if self.neighbours > self.steps:
            raise ValueError(f"neighbours = {self.neighbours} are more than the {self.steps} steps of a video")
        if self.node_window[0] >= self.node_window[1]:
            raise ValueError(f"node_window = {self.node_window} must end after it starts")
        return self


@dataclass(frozen=True)
class GTADOutput:
    """Scores of a batch of videos, as logits for the loss and as probabilities for everything else.

    An anchor (d, s) is the segment [s, s + d + 1) in steps.  Where it does not fit into the video its logits are
    -inf and its probabilities 0.
    """

    start_logits: Float[Tensor, "batch steps"]
    end_logits: Float[Tensor, "batch steps"]
    map_logits: Float[Tensor, "batch 2 longest steps"]
    """Channel 0 regresses the overlap with the truth, channel 1 tells overlaps above 0.9 from the others."""

    @property
    def start(self) -> Float[Tensor, "batch steps"]:
        """Probability that a segment starts at a step."""
        return at_least_fp32(self.start_logits).sigmoid()

    @property
    def end(self) -> Float[Tensor, "batch steps"]:
        """Probability that a segment ends at a step."""
        return at_least_fp32(self.end_logits).sigmoid()

    @property
    def maps(self) -> Float[Tensor, "batch 2 longest steps"]:
        """Overlap with the truth (channel 0) and probability that it is above 0.9 (channel 1)."""
        return at_least_fp32(self.map_logits).sigmoid()


def resize_features(features: Float[Tensor, "clips channels"], steps: int) -> Float[Tensor, "channels steps"]:
    """The features of a video, a row per clip, as input of the network: resized linearly to ``steps`` columns.

    Each column stands for an equal stretch of the time that the clips cover (align_corners=False), at least fp32.
    Raises ValueError for a video without features or with a value that is no number.
    """
    if not len(features) or not features.isfinite().all():
        raise ValueError(f"features of shape {tuple(features.shape)} must have rows, and finite numbers in them")
    return F.interpolate(at_least_fp32(features).T[None], size=steps, mode="linear", align_corners=False)[0]


def valid_anchors(longest: int, steps: int) -> Bool[Tensor, "longest steps"]:
    """Which anchors (d, s) fit into the video: s + d + 1 <= steps."""
    return torch.arange(longest)[:, None] + torch.arange(steps) < steps


def nearest(nodes: Nodes, count: int) -> Graph:
    """Which ``count`` nodes are nearest to each node by squared distance, itself included: one-hot in the last axis.

    A graph of ones and zeros, so that reading neighbours is a product of matrices: deterministic on every device.
    """
    with torch.no_grad(), torch.autocast(nodes.device.type, enabled=False):
        points = at_least_fp32(nodes)
        length = points.square().sum(dim=1)
        distance = length[:, :, None] + length[:, None, :] - 2 * points.transpose(1, 2) @ points
        index = distance.topk(count, largest=False).indices
        return F.one_hot(index, nodes.shape[-1]).to(nodes.dtype)


class GCNeXt(nn.Module):
    """A residual block of graph convolutions: over neighbours in time, and over neighbours in feature space."""

    def __init__(self, width: int, neighbours: int) -> None:
        super().__init__()
        inner = 4 * PATHS
        self.neighbours = neighbours
        self.temporal = nn.Sequential(
            nn.Conv1d(width, inner, 1),
            nn.ReLU(),
            nn.Conv1d(inner, inner, 3, padding=1, groups=PATHS),
            nn.ReLU(),
            nn.Conv1d(inner, width, 1),
        )
        self.pair = nn.Conv2d(2 * width, inner, 1)
        self.semantic = nn.Sequential(
            nn.ReLU(), nn.Conv2d(inner, inner, 1, groups=PATHS), nn.ReLU(), nn.Conv2d(inner, width, 1)
        )

    def forward(self, nodes: Nodes) -> Nodes:
        """(B, W, T) -> (B, W, T)."""
        # `pair` sees (neighbour, node) joined: each half is applied before the nodes are repeated as neighbours.
        of_neighbour, of_node = self.pair.weight.squeeze(-1).chunk(2, dim=1)
        own = F.conv1d(nodes, of_node, self.pair.bias)
        graph = nearest(nodes, self.neighbours)
        beside = F.conv1d(nodes, of_neighbour) @ graph.flatten(1, 2).transpose(1, 2)
        edges = own[..., None] + beside.unflatten(-1, graph.shape[1:3])  # (B, 128, T, neighbours)
        return F.relu(nodes + self.temporal(nodes) + self.semantic(edges).max(dim=-1).values)


class Score(nn.Module):
    """A score for each node: a GCNeXt block and one number per node."""

    def __init__(self, width: int, neighbours: int) -> None:
        super().__init__()
        self.block = GCNeXt(width, neighbours)
        self.score = nn.Conv1d(width, 1, 1)

    def forward(self, nodes: Nodes) -> Float[Tensor, "batch steps"]:
        """(B, W, T) -> logits (B, T)."""
        return self.score(self.block(nodes)).squeeze(1)


def regions(config: GTADConfig) -> Float[Tensor, "longest steps 2"]:
    """What each anchor (d, s) looks at, from and to in node indices: itself and half its length on both sides.

    Anchors that do not fit into the video look at [0, 0].
    """
    start = torch.arange(config.steps, dtype=torch.float64).expand(config.longest, -1)
    length = torch.arange(1.0, config.longest + 1, dtype=torch.float64)[:, None]
    end = start + length if config.anchors == "opentad" else start + length - 1
    region = torch.stack([start - length / 2, end + length / 2], dim=-1)
    return region * valid_anchors(config.longest, config.steps)[..., None]


class AnchorAlign(nn.Module):
    """SGAlign and the first layer of the head in one: what each anchor sees, in ``wide`` channels.

    In the definition, the features of an anchor are aligned to ``bins`` bins, those of its nodes' nearest neighbours
    to ``context_bins``, and a linear layer ``mix`` goes over all channels and bins (channel by channel, the bins
    within).  Here each bin's part of that layer is applied to all nodes, and what comes out is aligned.

    Only the anchors that are needed are computed: those that fit into the video, or all where the layers behind look
    at neighbouring anchors as well.
    """

    def __init__(self, config: GTADConfig) -> None:
        super().__init__()
        self.neighbours = config.neighbours
        self.bins = (config.bins, config.context_bins)
        self.mix = nn.Conv2d(config.width * sum(self.bins), config.wide, 1)
        region = regions(config).flatten(0, 1)
        if config.kernel == 1:
            region = region[valid_anchors(config.longest, config.steps).flatten()]
        inner = alignment(region, config.bins, config.steps)
        around = alignment(region, config.context_bins, config.steps)
        row, weight = (torch.cat([inner[part], around[part]]) for part in (0, 2))
        column = torch.cat([inner[1], around[1] + config.steps * config.bins])
        self.matrix = FixedMatrix(row, column, weight, (len(region), config.steps * sum(self.bins)))

    def forward(self, nodes: Nodes) -> Float[Tensor, "batch anchors wide"]:
        """(B, W, T) -> (B, anchors, wide), before the first ReLU."""
        inner, around = self.mix.weight.view(self.mix.out_channels, -1, sum(self.bins)).split(self.bins, dim=2)
        context = nodes @ nearest(nodes, self.neighbours).mean(dim=2).transpose(1, 2)
        table = torch.cat([_by_bin(nodes, inner), _by_bin(context, around)], dim=1)
        return self.matrix(table) + self.mix.bias


def _by_bin(nodes: Nodes, weight: Float[Tensor, "wide width bins"]) -> Float[Tensor, "batch rows wide"]:
    """Each bin's linear layer on each node, as rows of a table: node x bins + bin."""
    each = nodes.transpose(1, 2) @ weight.permute(1, 2, 0).flatten(1)
    return each.unflatten(-1, (weight.shape[2], weight.shape[0])).flatten(1, 2)


class GTAD(nn.Module):
    """Features of a video -> where segments start and end, and how well each anchor fits one."""

    valid: Tensor
    place: Tensor

    def __init__(self, config: GTADConfig) -> None:
        super().__init__()
        self.config = config
        width, neighbours = config.width, config.neighbours
        self.project = nn.Conv1d(config.channels, width, 3, padding=1, groups=CHANNEL_GROUPS)
        self.base = GCNeXt(width, neighbours)
        self.start = Score(width, neighbours)
        self.end = Score(width, neighbours)
        self.refine = GCNeXt(width, neighbours)
        self.align = AnchorAlign(config)
        self.head = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(config.wide, config.narrow, 1),
            nn.ReLU(),
            nn.Conv2d(config.narrow, config.narrow, config.kernel, padding="same"),
            nn.ReLU(),
            nn.Conv2d(config.narrow, config.narrow, config.kernel, padding="same"),
            nn.ReLU(),
            nn.Conv2d(config.narrow, 2, 1),
        )
        valid = valid_anchors(config.longest, config.steps)
        self.register_buffer("valid", valid, persistent=False)
        # Where on the list of valid anchors each cell of the map is found; the others find what is behind the list.
        place = torch.where(valid, valid.flatten().cumsum(0).view_as(valid) - 1, valid.sum())
        self.register_buffer("place", place, persistent=False)

    def forward(self, features: Float[Tensor, "batch channels steps"]) -> GTADOutput:
        """(B, C, T) -> start and end (B, T), maps (B, 2, D, T); see `resize_features` for other lengths.

        Raises ValueError where width or length are not those of the settings.
        """
        config = self.config
        if features.shape[1:] != (config.channels, config.steps):
            raise ValueError(
                f"features have (channels, steps) = {tuple(features.shape[1:])}, the network wants "
                f"({config.channels}, {config.steps}); set channels, or resize them with resize_features"
            )
        base = self.base(F.relu(self.project(features)))
        anchors = self.align(self.refine(base)).transpose(1, 2)
        return GTADOutput(self.start(base), self.end(base), self._map(anchors))

    def _map(self, anchors: Float[Tensor, "batch wide anchors"]) -> Float[Tensor, "batch 2 longest steps"]:
        if self.config.kernel > 1:
            cells = self.head(anchors.unflatten(-1, self.valid.shape))
            return cells.masked_fill(~self.valid, -torch.inf)
        cells = self.head(anchors[..., None, :]).squeeze(2)
        return F.pad(cells, (0, 1), value=-torch.inf)[..., self.place]


def load_published(network: GTAD, state: Mapping[str, Tensor]) -> None:
    """Fill ``network`` with public weights of G-TAD: the ``state_dict`` of its checkpoint, renamed by `PUBLISHED`.

    Raises RuntimeError naming what is missing, left over or of another shape.
    """
    renamed = {}
    for name, value in state.items():
        for theirs, ours in PUBLISHED.items():
            name = name.replace(f"{theirs}.", f"{ours}.")
        renamed[name.removeprefix("module.")] = value
    network.load_state_dict(renamed)
