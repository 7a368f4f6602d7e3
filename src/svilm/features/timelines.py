"""Frozen features as training items of temporal localization: spans of videos, and batches of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from svilm.data.loader import Key, Order
from svilm.data.snippets import FeatureFolder, Snippets
from svilm.data.workers import Readers
from svilm.entries import Entry
from svilm.models.gtad import GTADConfig, resize_features
from svilm.models.gtad_loss import GTADTargets, gtad_targets, relative_segments

INSIDE = 0.9
"""A window is trained on the segments of which at least this share lies in it, as G-TAD's code for THUMOS14 does."""

Kind = Literal["video", "window"]


@dataclass(frozen=True)
class Span:
    """What the network sees at once: a whole video, or ``steps`` snippets of it from number ``first`` on."""

    entry: Entry
    first: int | None = None

    def seen(self, snippets: Snippets, steps: int) -> tuple[Float[Tensor, "channels steps"], float, float]:
        """The input of the network, with the seconds at which it begins and that it covers.

        A whole video is resized to ``steps``; a window is filled up with zeros behind the end of the video.
        """
        rows = torch.from_numpy(snippets.rows)
        if self.first is None:
            return resize_features(rows, steps), 0.0, snippets.covered
        rows = rows[self.first : self.first + steps]
        begin, covered = self.first * snippets.step_seconds, steps * snippets.step_seconds
        return F.pad(rows.T, (0, steps - len(rows))), begin, covered

    def segments(self, begin: float, covered: float) -> Float[Tensor, "segments 2"]:
        """The segments to be found in what is seen, as shares of what it covers."""
        kept = [torch.zeros(0, 2)]
        for segment in self.entry.segments:
            start, end = segment.start - begin, segment.end - begin
            inside = (min(end, covered) - max(start, 0.0)) / (end - start)
            share = relative_segments(torch.tensor([[start, end]]), covered)
            if len(share) and (self.first is None or inside >= INSIDE):
                kept.append(share)
        return torch.cat(kept)


def spans(entry: Entry, snippets: Snippets, kind: Kind, steps: int) -> list[Span]:
    """The whole video, or windows of ``steps`` snippets, half a window apart, until its end is seen."""
    if kind == "video":
        return [Span(entry)]
    hop = max(1, steps // 2)
    return [Span(entry, first) for first in range(0, max(0, len(snippets.rows) - steps) + hop, hop)]


def training_spans(entries: Sequence[Entry], folder: FeatureFolder, kind: Kind, steps: int) -> list[Span]:
    """The spans of the videos that have segments to be found.  Raises SnippetError as reading them does."""
    if kind == "video":
        return [Span(entry) for entry in entries if entry.segments]
    found = []
    for entry in entries:
        snippets = folder.read(entry)
        for span in spans(entry, snippets, kind, steps):
            _, begin, covered = span.seen(snippets, steps)
            if len(span.segments(begin, covered)):
                found.append(span)
    return found


@dataclass(frozen=True)
class TimelineBatch:
    """Features of some spans, with what is to be learned from them."""

    ids: tuple[str, ...]
    features: Float[Tensor, "batch channels steps"]
    targets: GTADTargets
    skipped: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device) -> "TimelineBatch":
        """The same batch on ``device``."""
        return replace(
            self,
            features=self.features.to(device, non_blocking=True),
            targets=self.targets.to(device),
        )

    def part(self, start: int, stop: int) -> "TimelineBatch":
        """Spans start <= i < stop."""
        rows = slice(start, stop)
        return replace(
            self,
            ids=self.ids[rows],
            features=self.features[rows],
            targets=GTADTargets(**{name: value[rows] for name, value in vars(self.targets).items()}),
        )


@dataclass(frozen=True)
class _Example:
    id: str
    features: Float[Tensor, "channels steps"]
    segments: Float[Tensor, "segments 2"]


class _Timelines(Dataset[_Example]):
    """Spans by key."""

    def __init__(self, items: Sequence[Span], folder: FeatureFolder, steps: int) -> None:
        self.items, self.folder, self.steps = items, folder, steps

    def __getitem__(self, key: Key) -> _Example:
        span = self.items[key.index]
        features, begin, covered = span.seen(self.folder.read(span.entry), self.steps)
        return _Example(span.entry.id, features, span.segments(begin, covered))


class _Collate:
    """Examples -> TimelineBatch, with the targets of the network."""

    def __init__(self, network: GTADConfig) -> None:
        self.network = network

    def __call__(self, examples: Sequence[_Example]) -> TimelineBatch:
        return TimelineBatch(
            ids=tuple(example.id for example in examples),
            features=torch.stack([example.features for example in examples]),
            targets=gtad_targets([example.segments for example in examples], self.network),
        )


def timeline_batches(
    items: Sequence[Span], folder: FeatureFolder, network: GTADConfig, order: Order, workers: int
) -> DataLoader[TimelineBatch]:
    """Batches of spans in the run's order, read by worker processes."""
    loader: DataLoader[Any] = Readers(  # typed by what the dataset holds, not by what collate makes
        _Timelines(items, folder, network.steps),
        batch_sampler=order,
        collate_fn=_Collate(network),
        num_workers=workers,
    )
    return loader


def mean_features(
    snippets: Snippets, segments: Float[np.ndarray, "segments 2"]
) -> Float[np.ndarray, "segments channels"]:
    """The mean feature of each segment, which is in seconds, by the share of each snippet that lies in it.

    A segment outside of all snippets gets the mean of everything.
    """
    edges = np.arange(len(snippets.rows)) * snippets.step_seconds
    within = np.minimum(edges + snippets.step_seconds, segments[:, 1:]) - np.maximum(edges, segments[:, :1])
    weights = within.clip(min=0.0)
    weights[weights.sum(axis=1) <= 0] = 1.0
    means: np.ndarray = (weights / weights.sum(axis=1, keepdims=True)) @ snippets.rows
    return means.astype(np.float32)
