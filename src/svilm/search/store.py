"""Where vectors are kept: the one small protocol that all stores follow."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from svilm.search.moments import Bounds
from svilm.search.records import Filter, Hit

Vector = Float[np.ndarray, " common"]
Vectors = Float[np.ndarray, "moments common"]


@dataclass(frozen=True)
class Rows:
    """The moments of one video with their vectors."""

    video: str
    bounds: Bounds
    vectors: Vectors
    """Unit length, float32."""


@runtime_checkable
class Store(Protocol):
    """Keeps moments and finds the nearest.  All of it may be called from several threads, except `update`."""

    def update(self, added: Sequence[Rows], removed: Collection[str]) -> None:
        """Take up the moments of some videos, in place of what was known of these, and forget other videos.

        Interrupted and given the same again, it ends in the same state.
        """
        ...

    def search(self, vector: Vector, k: int, where: Filter) -> list[Hit]:
        """The ``k`` admitted moments nearest to a unit vector, the best first."""
        ...

    def of(self, video: str) -> Rows:
        """All moments of a video, in order of time; none for a video that is not here."""
        ...

    def count(self) -> int:
        """Moments in all."""
        ...

    def newest(self) -> "Store":
        """The store as another process has left it by now; this one may go on with what it was opened on."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...
