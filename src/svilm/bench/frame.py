"""Rows, and the one way in which they are timed."""

import os
import platform
import random
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from operator import truediv
from pathlib import Path
from typing import Any

import torch

CPU = torch.device("cpu")
FEWEST = 3
"""Rounds that a comparison has however long they take."""


@dataclass(frozen=True)
class How:
    """What the user asked of all subjects."""

    repetitions: int = 5
    """Timed repetitions of each row, after one that is not counted."""
    patience: float = 20.0
    """Seconds after which nothing is repeated more than FEWEST times, so that all rows together take 15 minutes."""
    peers: Path | None = None
    """Folder with clones of other projects, by their names; their code is imported from there and never copied."""
    pictures: Path | None = None
    """Folder for the pictures; None draws none."""
    quick: bool = False
    """Small sizes, to see in seconds that everything runs: the figures mean nothing."""


@dataclass(frozen=True)
class Row:
    """One measurement in ``unit`` with what it is held against; a ratio above 1 means that ours is better.

    The peer is what ``name`` says: other code that does the same work, or what this machine could do.
    """

    name: str
    ours: float | None
    peer: float | None
    unit: str
    ratio: float | None
    note: str = ""
    """A remark in words; "not measured: why" where ``ours`` is None."""

    def as_json(self) -> dict[str, Any]:
        """The five figures, and the note where there is one."""
        row = {"name": self.name, "ours": self.ours, "peer": self.peer, "unit": self.unit, "ratio": self.ratio}
        return {**row, "note": self.note} if self.note else row


def lower(name: str, ours: float, peer: float | None, unit: str, note: str = "") -> Row:
    """A row of something of which less is better: seconds, bytes."""
    return Row(name, ours, peer, unit, None if peer is None else peer / ours, note)


def higher(name: str, ours: float, peer: float | None, unit: str, note: str = "") -> Row:
    """A row of something of which more is better: clips per second, FLOP/s."""
    return Row(name, ours, peer, unit, None if peer is None else ours / peer, note)


def not_measured(name: str, why: str) -> Row:
    """A row that this machine cannot fill."""
    return Row(name, None, None, "", None, f"not measured: {why}")


def seconds_of(
    works: Sequence[Callable[[], object]], how: How, device: torch.device = CPU, warm: bool = True
) -> list[float]:
    """Median seconds of each of ``works``, which take turns; a first round of all warms up and is not counted.

    There are as many rounds as ``how`` asks for, or FEWEST and those that begin before its patience ends; one if quick.
    Each round has another order: what a work leaves in caches and memory would always meet the same one.  Times are
    held against the geometric mean of their round before medians are taken: where the machine gets slower for some
    rounds, all works do, and two of them are apart by the median of their ratios.
    """
    times: list[list[float]] = [[] for _ in works]
    turns, shuffle = list(range(len(works))), random.Random(0).shuffle
    for number in range((1 if how.quick else how.repetitions) + warm):
        if number >= FEWEST + warm and sum(map(sum, times)) > how.patience:
            break
        for turn in turns:
            wait_for(device)
            begun = time.perf_counter()
            works[turn]()
            wait_for(device)
            times[turn].append(max(time.perf_counter() - begun, 1e-9))
        shuffle(turns)
    rounds = [statistics.geometric_mean(spent) for spent in zip(*times, strict=True)][warm:]
    usual = statistics.median(rounds)
    return [usual * statistics.median(map(truediv, spent[warm:], rounds)) for spent in times]


def compare(
    name: str,
    ours: Callable[[], object],
    peer: Callable[[], object],
    how: How,
    device: torch.device = CPU,
    note: str = "",
) -> Row:
    """Seconds of our work and of the peer's, in turn."""
    mine, theirs = seconds_of([ours, peer], how, device)
    return lower(name, mine, theirs, "s", note)


def wait_for(device: torch.device) -> None:
    """Until all work handed to ``device`` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def about_machine() -> str:
    """One line that says when and where the rows were measured."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    name = found[1] if found else platform.processor() or platform.machine()
    parts = [
        f"{datetime.now(timezone.utc):%Y-%m-%d}",
        f"{os.cpu_count()} x {name}",
        *(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())),
        f"torch {torch.__version__} with {torch.get_num_threads()} threads",
        f"Python {platform.python_version()}",
    ]
    return ", ".join(parts)


HEADS = ("", "ours", "peer", "unit", "ratio", "")
LONGEST_NOTE = 60
"""Letters of a remark that stands in its line; longer ones follow under the table."""


def table(rows: Sequence[Row]) -> str:
    """All rows under each other, numbers with four digits that count, long remarks at the end."""
    lines, below = [HEADS], list[str]()
    for row in rows:
        note = row.note
        if len(note) > LONGEST_NOTE:
            below.append(f"[{len(below) + 1}] {row.note}")
            note = f"[{len(below)}]"
        lines.append((row.name, _digits(row.ours), _digits(row.peer), row.unit, _digits(row.ratio), note))
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    sides = ("<", ">", ">", "<", ">")
    shown = []
    for line in lines:
        cells = [f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=False)]
        shown.append("  ".join([*cells, line[5]]).rstrip())
    return "\n".join([*shown, *below])


def _digits(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
