"""G-TAD as it stands in svilm against its materialised form, which builds the aligned features of every anchor.

Both share the weights and take a training step (forward and backward) on two videos at the size of ActivityNet.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from svilm.bench import apart
from svilm.bench.frame import How, Row, compare, lower, not_measured
from svilm.models.gtad import GTAD, GTADConfig, nearest, regions
from svilm.models.gtad_align import alignment

VIDEOS = 2
NAME = "G-TAD training step, fused against materialised"
SMALL = GTADConfig(channels=8, steps=8, longest=8)


def rows(how: How) -> Iterator[Row]:
    """Time and peak memory of a training step."""
    config = SMALL if how.quick else GTADConfig.activitynet()
    ours, peer = (training_step(config, materialised) for materialised in (False, True))
    torch.testing.assert_close(ours(), peer(), atol=1e-5, rtol=0)
    yield compare(NAME, ours, peer, how)
    if not apart.can_measure():
        yield not_measured(f"{NAME}: peak memory", apart.WHY_NOT)
        return
    mine, theirs = (
        apart.cost(training_step, (config, materialised), (SMALL, materialised)).megabytes
        for materialised in (False, True)
    )
    yield lower(f"{NAME}: peak memory", mine, theirs, "MB")


def training_step(config: GTADConfig, materialised: bool) -> Callable[[], Tensor]:
    """A training step of ours or of the materialised form, from equal weights; a call returns the maps."""
    torch.manual_seed(0)
    network = GTAD(config)
    features = torch.randn(VIDEOS, config.channels, config.steps)
    target = torch.rand(VIDEOS, 2, config.longest, config.steps) * network.valid
    peer = Materialised(network) if materialised else None

    def step() -> Tensor:
        network.zero_grad()
        maps = network(features).maps if peer is None else peer(features)
        found = maps * network.valid
        (found - target).square().sum().backward()
        return found.detach()

    return step


class Materialised:
    """The same network, with SGAlign as it is defined: (B, W x bins, D, T) in memory, then the first layer."""

    def __init__(self, network: GTAD) -> None:
        self.network = network
        config = network.config
        self.matrices = []
        for bins in (config.bins, config.context_bins):
            anchor, column, weight = alignment(regions(config).flatten(0, 1), bins, config.steps)
            node, number = column // bins, column % bins
            dense = torch.zeros(config.steps, bins, config.longest * config.steps)
            dense.index_put_((node, number, anchor), weight.float(), accumulate=True)
            self.matrices.append(dense.flatten(1))

    def __call__(self, features: Tensor) -> Tensor:
        """(B, C, T) -> maps (B, 2, D, T)."""
        network, config = self.network, self.network.config
        nodes = network.refine(network.base(F.relu(network.project(features))))
        context = nodes @ nearest(nodes, config.neighbours).mean(dim=2).transpose(1, 2)
        bins = (config.bins, config.context_bins)
        mix = network.align.mix
        kernels = mix.weight.view(config.wide, config.width, -1).split(bins, dim=2)
        # The two parts are not even joined, which spares the peer a copy.
        parts = [
            F.conv2d(
                (source @ matrix).view(len(source), -1, config.longest, config.steps),
                kernel.reshape(config.wide, -1, 1, 1),
            )
            for source, matrix, kernel in zip((nodes, context), self.matrices, kernels, strict=True)
        ]
        assert mix.bias is not None
        hidden = parts[0] + parts[1] + mix.bias[:, None, None]
        return network.head(hidden).sigmoid()
