"""Where a video changes: it is cut into moments by the model's own temporal grouping.

A window of frames is a clip as the model knows it, and the model's features of one scene are alike (Figures 2 and 5
of the paper).  So each window tells how unlike its neighbouring steps are, and where the windows agree on a drop in
similarity one moment ends and another begins.  Steps are compared only within a window: the same frames look
different to the model in other company, and comparing across windows halves what is found.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from pydantic import Field, model_validator

from svilm.config import Config

Bounds = Float[np.ndarray, "moments 2"]
"""Start and end of moments in seconds, ascending, without gaps: each begins where the last one ends."""


class Splitting(Config):
    """How a video is cut into moments."""

    seconds: float = Field(0.0, ge=0)
    """Moments of this length, whatever they show.  0: cut where the model sees a change."""
    shortest: float = Field(2.0, gt=0)
    """Seconds that a moment lasts at least, unless its video is shorter."""
    longest: float = Field(16.0, gt=0)
    """... and at most: longer ones are cut where they change most."""
    drop: float = Field(0.02, ge=0)
    """A change needs a drop of the cosine of neighbouring steps by at least this ..."""
    contrast: float = Field(3.0, ge=0)
    """... and this many times the median drop of the video more, so that a shaking camera is no change of scene."""

    @model_validator(mode="after")
    def _check(self) -> "Splitting":
        if self.longest < 2 * self.shortest:
            raise ValueError(f"longest {self.longest:g} s must be at least twice shortest ({self.shortest:g} s)")
        return self

    def needs_watching(self, duration: float) -> bool:
        """Whether a video of so many seconds has to be seen before it can be cut."""
        return self.seconds == 0 and duration >= 2 * self.shortest


class Changes:
    """How much a video changes at each of its gaps between steps, gathered from windows that overlap."""

    def __init__(self, steps: int) -> None:
        self._sum, self._seen = np.zeros(steps - 1), np.zeros(steps - 1)

    def add(self, first: int, steps: Float[np.ndarray, "steps width"]) -> None:
        """What a window that begins at step ``first`` sees."""
        unlike = drops(steps)[: max(0, len(self._sum) - first)]
        self._sum[first : first + len(unlike)] += unlike
        self._seen[first : first + len(unlike)] += 1

    @property
    def drops(self) -> Float[np.ndarray, " gaps"]:
        """Mean over the windows that saw a gap; 0 where none did."""
        return self._sum / np.maximum(self._seen, 1)


def drops(steps: Float[np.ndarray, "steps width"]) -> Float[np.ndarray, " gaps"]:
    """How unlike each step is to the next: one less their cosine, 0 to 2.  A zero vector is unlike everything."""
    length = np.linalg.norm(steps, axis=1)
    product = (steps[1:] * steps[:-1]).sum(axis=1, dtype=np.float64)
    cosine = product / np.maximum(length[1:] * length[:-1], 1e-12)
    return 1.0 - cosine.clip(-1.0, 1.0)


def window_starts(steps: int, window: int, overlap: int) -> list[int]:
    """First steps of windows that cover all steps, neighbours sharing at least ``overlap`` of them."""
    last = max(0, steps - window)
    return [*range(0, last, max(1, window - overlap)), last]


def split(drops: Float[np.ndarray, " gaps"], step_seconds: float, duration: float, splitting: Splitting) -> Bounds:
    """Cut a video at its changes: gap i lies at (i + 1) steps.

    The sharpest change is cut first, and none that would leave a moment shorter than allowed.
    """
    times = (np.arange(len(drops)) + 1) * step_seconds
    least = splitting.drop + splitting.contrast * float(np.median(drops)) if len(drops) else 0.0
    cuts = [0.0, duration]
    for gap in np.argsort(-drops, kind="stable"):
        if drops[gap] <= least:
            break
        if min(abs(times[gap] - cut) for cut in cuts) >= splitting.shortest:
            cuts.append(float(times[gap]))
    return as_bounds(_shortened(sorted(cuts), times, drops, splitting))


def split_evenly(duration: float, splitting: Splitting) -> Bounds:
    """Moments of one length; what is left at the end is one too if it lasts half as long, else part of the last."""
    seconds = splitting.seconds or duration
    count = max(1, int(duration / seconds + 0.5))
    return as_bounds([*(number * seconds for number in range(count)), duration])


def as_bounds(cuts: Sequence[float]) -> Bounds:
    """Moments between neighbouring cuts."""
    return np.stack([np.asarray(cuts[:-1], dtype=np.float64), np.asarray(cuts[1:], dtype=np.float64)], axis=1)


def _shortened(
    cuts: list[float], times: Float[np.ndarray, " gaps"], drops: Float[np.ndarray, " gaps"], splitting: Splitting
) -> list[float]:
    """More cuts, so that no moment is too long: each time at the sharpest change of the middle third, or of less where
    one of the two would become too short."""
    done, ahead = cuts[:1], cuts[:0:-1]
    while ahead:
        start, end = done[-1], ahead[-1]
        if end - start <= splitting.longest:
            done.append(ahead.pop())
            continue
        middle, room = (start + end) / 2, min((end - start) / 6, (end - start) / 2 - splitting.shortest)
        inside = np.flatnonzero(np.abs(times - middle) <= room)
        order = np.lexsort((np.abs(times[inside] - middle), -drops[inside]))
        ahead.append(float(times[inside[order[0]]]) if len(inside) else middle)
    return done
