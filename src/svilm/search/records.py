"""The words of search: what is found, where it is, and what an index knows of a video.  No torch needed."""

import math
from dataclasses import dataclass

SLACK = 1e-6
"""Seconds by which a moment may miss a wanted length: its ends are sums of fractions."""


@dataclass(frozen=True)
class Moment:
    """A stretch of an indexed video."""

    video: str
    """Path of the file from the index's root, with slashes; the name of the video in the index."""
    start: float
    """Seconds from the beginning of the video; half-open."""
    end: float


@dataclass(frozen=True)
class Hit:
    """A moment found."""

    rank: int
    """From 1."""
    score: float
    """Cosine with the query, in [-1, 1]."""
    moment: Moment


@dataclass(frozen=True)
class IndexedVideo:
    """What an index knows of a video."""

    video: str
    """Path of the file from the index's root, with slashes."""
    duration: float
    """Seconds."""
    width: int
    """Pixels, upright."""
    height: int
    size: int
    """Bytes; with ``modified``, to see that the file has changed."""
    modified: int
    """Nanoseconds since 1970."""
    moments: int


@dataclass(frozen=True)
class Filter:
    """Which moments count; by default all of them."""

    folder: str = ""
    """Only videos below this folder, named from the index's root with slashes."""
    shortest: float | int = 0.0
    """Seconds that a moment lasts at least ..."""
    longest: float | int = math.inf
    """... and at most."""

    def __post_init__(self) -> None:
        if not 0 <= self.shortest <= self.longest:
            raise ValueError(
                f"moments of {self.shortest:g} to {self.longest:g} s: shortest must be at least 0, and longest not less"
            )
        if "\0" in self.folder or ".." in self.folder.split("/") or self.folder.startswith("/"):
            raise ValueError(f"folder {self.folder!r}: give one below the index's root, such as 'holidays/2024'")

    @property
    def prefix(self) -> str:
        """How the names of admitted videos begin."""
        folder = self.folder.strip("/")
        return f"{folder}/" if folder else ""

    def admits(self, moment: Moment) -> bool:
        """Whether a moment counts."""
        seconds = moment.end - moment.start
        long_enough = self.shortest - SLACK <= seconds <= self.longest + SLACK
        return long_enough and moment.video.startswith(self.prefix)
