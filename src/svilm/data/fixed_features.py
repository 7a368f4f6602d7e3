"""Vectors in the place of videos: what a frozen encoder makes of the clips of a manifest, computed once."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from svilm.config import ConfigError
from svilm.data.loader import Order
from svilm.runtime import derive_seed


@dataclass(frozen=True)
class FixedFeatures:
    """Vectors of the clips of a manifest, several looks at each."""

    ids: tuple[str, ...]
    vectors: Float[np.ndarray, "clips views width"]
    """What linear heads see."""
    embeddings: Float[np.ndarray, "clips views common"]
    """Unit vectors in the space shared with texts."""

    @property
    def items(self) -> int:
        """Looks at all clips together."""
        return self.vectors.shape[0] * self.vectors.shape[1]

    def save(self, path: Path) -> None:
        """Write an npz file, whole or not at all."""
        write_arrays(path, {"ids": np.array(self.ids), "vectors": self.vectors, "embeddings": self.embeddings})

    @classmethod
    def load(cls, path: Path) -> "FixedFeatures":
        """What ``save`` wrote."""
        with np.load(path) as arrays:
            return cls(tuple(arrays["ids"].tolist()), arrays["vectors"], arrays["embeddings"])


@dataclass(frozen=True)
class FeatureBatch:
    """Vectors of clips with their classes."""

    ids: tuple[str, ...]
    vectors: Float[Tensor, "batch width"]
    labels: Int[Tensor, " batch"]
    held_out: Bool[Tensor, " batch"]
    """Clips that settings are chosen by."""
    skipped: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device) -> "FeatureBatch":
        """The same batch with every tensor on ``device``."""
        return replace(
            self, vectors=self.vectors.to(device), labels=self.labels.to(device), held_out=self.held_out.to(device)
        )

    def part(self, start: int, stop: int) -> "FeatureBatch":
        """Clips start <= i < stop."""
        rows = slice(start, stop)
        return FeatureBatch(self.ids[rows], self.vectors[rows], self.labels[rows], self.held_out[rows])


@dataclass(frozen=True)
class LabelledFeatures:
    """Fixed features with the class of each clip, and which clips are held out to choose settings by."""

    features: FixedFeatures
    labels: Int[np.ndarray, " clips"]
    held_out: Bool[np.ndarray, " clips"]

    def batches(self, batch: int, seed: int, start: int, stop: int) -> Iterator[FeatureBatch]:
        """This rank's batches of steps ``start`` <= step < ``stop``; every look at a clip is an item."""
        vectors = self.features.vectors
        for keys in Order(self.features.items, batch, seed, start, stop):
            clips, views = np.divmod([key.index for key in keys], vectors.shape[1])
            yield FeatureBatch(
                tuple(self.features.ids[clip] for clip in clips),
                torch.from_numpy(vectors[clips, views]),
                torch.from_numpy(self.labels[clips]),
                torch.from_numpy(self.held_out[clips]),
            )


def held_out_clips(labels: Int[np.ndarray, " clips"], share: float, seed: int) -> Bool[np.ndarray, " clips"]:
    """A seeded choice of ``share`` of each class's clips, one at least, but none of a class with a single clip.

    Raises ConfigError when that is none at all.
    """
    rng = np.random.default_rng(derive_seed(seed, "held out"))
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        clips = rng.permutation(np.flatnonzero(labels == label))
        if len(clips) > 1:
            chosen[clips[: min(max(1, round(share * len(clips))), len(clips) - 1)]] = True
    if not chosen.any():
        raise ConfigError(
            "every class has a single training clip, so that none can be held out of training to choose the learning "
            f"rate by (task.probe.held_out = {share:g} of each class's clips); give --data with two clips or more of "
            "some class, or train by task.mode = finetune, which holds none out"
        )
    return chosen


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write an npz file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as file:
            np.savez(file, **arrays)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
