"""What this machine can do: the measure by which the other subjects say how far they are from it."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from svilm.bench.frame import CPU, How, Row, higher, wait_for

PRODUCTS = {"cpu": (1024, 2048), "cuda": (4096, 8192, 16384)}
"""Sides of the square matrices tried; the best rate counts."""
COPIED_BYTES = {"cpu": 2**28, "cuda": 2**32}
"""Size of what is copied to measure the memory, well beyond any cache."""


@dataclass(frozen=True)
class Rates:
    """What a device reaches in a work that does nothing else."""

    flops: float
    """FLOP/s of a matrix product, a multiply-add counted as 2."""
    bandwidth: float
    """Bytes read and written per second while copying."""


def rates(device: torch.device = CPU, dtype: torch.dtype = torch.float32, quick: bool = False) -> Rates:
    """Measure the device now: it may be shared, so that a rate from yesterday is no measure of today."""
    sides = (128,) if quick else PRODUCTS[device.type]
    best = 0.0
    for side in sides:
        left, right, out = (torch.randn(side, side, device=device).to(dtype) for _ in range(3))
        spent = _median(partial(torch.mm, left, right, out=out), device)
        best = max(best, 2 * side**3 / spent)
    size = 2**20 if quick else COPIED_BYTES[device.type]
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return Rates(best, 2 * size / _median(lambda: target.copy_(source), device))


def _median(work: Callable[[], object], device: torch.device) -> float:
    spent = []
    for _ in range(8):
        wait_for(device)
        begun = time.perf_counter()
        work()
        wait_for(device)
        spent.append(time.perf_counter() - begun)
    return statistics.median(spent[2:])


def forward_flops(work: Callable[[], object]) -> float:
    """FLOPs of the matrix products and attention in ``work``, from their shapes; it may run on the meta device.

    A training step is three times this: forward, and backward for inputs and for weights.
    """
    of_the_cpu = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=of_the_cpu) as found:
        work()
    return float(found.get_total_flops())


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))  # of shapes


def rows(how: How) -> Iterator[Row]:
    """Matrix products and memory of the CPU."""
    found = rates(quick=how.quick)
    yield higher("machine: matrix product, fp32", found.flops / 1e9, None, "GFLOP/s")
    yield higher("machine: memory, read and written", found.bandwidth / 1e9, None, "GB/s")
