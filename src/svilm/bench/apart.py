"""Time and memory of a piece of work in a process of its own."""

import ctypes
import math
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

T = TypeVar("T")
Make = Callable[..., Callable[[], object]]
Arguments = tuple[Any, ...]
M_MMAP_THRESHOLD = -3
"""Of mallopt(3)."""
PAGE = 1 / 256
"""Megabytes; the least that can be seen."""
ENOUGH = 2.0
"""Seconds after which a work that was called twice is not called again."""
WHY_NOT = "peak memory of a process is read from Linux's /proc"


class Cost(NamedTuple):
    """What a call took."""

    seconds: float
    megabytes: float
    """Memory above what the process held before the call: the most, or what was left afterwards."""


def can_measure() -> bool:
    """Whether the system tells the peak memory of a process."""
    return sys.platform.startswith("linux")


def free_gigabytes() -> float:
    """Memory that programs can still have, in GB; more than any where the system does not tell."""
    if not can_measure():
        return math.inf
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="utf-8"))
    return int(found[1]) / 1e6 if found else math.inf


def cost(make: Make, arguments: Arguments, first: Arguments) -> Cost:
    """What a call of ``make(*arguments)`` takes in a fresh process; see `costs`.

    A call of ``make(*first)``, something small, comes before it, so that libraries are loaded by then.
    """
    return costs(make, [first, arguments])[1]


def costs(make: Make, sizes: Sequence[Arguments], repetitions: int = 1) -> list[Cost]:
    """What a call of each ``make(*arguments)`` takes, one after the other in a fresh process.

    With several ``repetitions`` the seconds are their median, the first one left out; what takes long is repeated
    once.  ``make`` is a function of a module, and the arguments can be pickled.  Only where `can_measure` says so.
    """
    return each(_costs, [(make, sizes, repetitions, torch.get_num_threads())])[0]


def held(make: Callable[..., object], arguments: Arguments, first: Arguments) -> Cost:
    """What a call of ``make(*arguments)`` takes in a fresh process, with the memory that its result holds afterwards.

    A call with ``first``, something small, comes before it.  Pages of mapped files do not count: all processes share
    them, and the system may take them back.  Only where `can_measure` says so.
    """
    return each(_held, [(make, arguments, first)])[0]


def each(function: Callable[..., T], calls: Sequence[Arguments]) -> list[T]:
    """What a function of a module returns for each of these arguments, in fresh processes side by side, one for each.

    Raises BrokenProcessPool where one of them ends before its time, as it does when it has no more memory.
    """
    with ProcessPoolExecutor(len(calls), get_context("spawn")) as pool:
        return [done.result() for done in [pool.submit(function, *arguments) for arguments in calls]]


def _held(make: Callable[..., object], arguments: Arguments, first: Arguments) -> Cost:
    make(*first)
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 16)
    before, begun = _megabytes("RssAnon"), time.perf_counter()
    result = make(*arguments)
    seconds = time.perf_counter() - begun
    taken = _megabytes("RssAnon") - before
    del result  # not earlier
    return Cost(seconds, max(taken, PAGE))


def _costs(make: Make, sizes: Sequence[Arguments], repetitions: int, threads: int) -> list[Cost]:
    torch.set_num_threads(threads)
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 16)  # what is freed leaves the process at once
    return [_cost(make(*arguments), repetitions) for arguments in sizes]


def _cost(work: Callable[[], object], repetitions: int) -> Cost:
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _megabytes("VmRSS")
    seconds: list[float] = []
    for number in range(repetitions):
        if number >= 2 and sum(seconds) > ENOUGH:
            break
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return Cost(statistics.median(seconds[1:] or seconds), max(_megabytes("VmHWM") - before, PAGE))


def _megabytes(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) / 1024
