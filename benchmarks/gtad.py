"""G-TAD as it stands in svilm against its materialised form, which builds the aligned features of every anchor.

Both share the weights and take a training step (forward and backward) on two videos at the size of ActivityNet.
"""

import ctypes
import multiprocessing
import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from svilm.models.gtad import GTAD, GTADConfig, nearest, regions
from svilm.models.gtad_align import alignment

VIDEOS = 2
M_MMAP_THRESHOLD = -3
"""Of mallopt(3)."""


def training_steps(config: GTADConfig | None = None) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """A training step of ours and one of the materialised form; each returns the maps."""
    torch.manual_seed(0)
    config = config or GTADConfig.activitynet()
    network = GTAD(config)
    features = torch.randn(VIDEOS, config.channels, config.steps)
    target = torch.rand(VIDEOS, 2, config.longest, config.steps) * network.valid
    materialised = Materialised(network)

    def step(maps: Callable[[Tensor], Tensor]) -> Tensor:
        network.zero_grad()
        found = maps(features) * network.valid
        (found - target).square().sum().backward()
        return found.detach()

    return lambda: step(lambda each: network(each).maps), lambda: step(materialised)


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
        hidden = parts[0] + parts[1] + mix.bias[:, None, None]
        return network.head(hidden).sigmoid()


def peaks() -> tuple[float, float] | None:
    """Peak memory of one training step above what the process holds before it, ours and materialised, in MB.

    Each in a fresh process.  None where the system does not tell (it is read from /proc).
    """
    if not sys.platform.startswith("linux"):
        return None
    fresh = multiprocessing.get_context("spawn")
    with fresh.Pool(1, maxtasksperchild=1) as pool:
        ours, peer = pool.map(_peak, (0, 1), chunksize=1)
    return ours, peer


def _peak(which: int) -> float:
    torch.set_num_threads(1)
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 16)  # what is freed leaves the process at once
    training_steps(GTADConfig(channels=8, steps=8, longest=8))[which]()  # what is loaded at the first step
    step = training_steps()[which]
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _megabytes("VmRSS")
    step()
    return _megabytes("VmHWM") - before


def _megabytes(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024
