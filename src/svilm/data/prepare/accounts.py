"""The account of every row of an annotation file: what was read is what was written plus what was lost."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal["refused", "missing", "undecodable"]
EXAMPLES = 5


@dataclass(frozen=True)
class Lost:
    """A listed clip, or a row, that does not enter the manifest."""

    kind: Kind
    id: str
    place: str
    reason: str
    detail: str = ""

    @property
    def example(self) -> str:
        """Where, and what was wrong there, without saying the same twice."""
        if self.detail in self.place or self.detail.startswith(self.place):
            return max(self.place, self.detail, key=len)
        return f"{self.place} ({self.detail})"

    def __str__(self) -> str:
        return f"{self.example}: {self.reason}"


@dataclass
class Tally:
    """How many were lost for one reason, and the first few of them."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, lost: Lost) -> None:
        """Count one more."""
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(lost.example)


Losses = Mapping[tuple[Kind, str], Tally]
"""By kind and reason."""


@dataclass(frozen=True)
class Summary:
    """What became of every row; ``str`` is the report.  rows = written + refused + missing + undecodable."""

    manifest: Path
    source: str
    protocol: str
    rows: int
    """What the annotation files list, usable or not: the official count."""
    losses: Losses
    written: int
    captions: int
    phrases: int
    without_nouns: int
    """Captions in which no noun phrase was found."""
    extractor: str
    """Which one found the noun phrases; "" where none were looked for."""
    notes: tuple[str, ...]

    def count(self, kind: Kind) -> int:
        """How many were lost in this way."""
        return sum(tally.count for (this, _), tally in self.losses.items() if this == kind)

    @property
    def refused(self) -> int:
        """Rows that say nothing usable."""
        return self.count("refused")

    @property
    def missing(self) -> int:
        """Clips whose video is not in the folder."""
        return self.count("missing")

    @property
    def undecodable(self) -> int:
        """Clips whose video is there but cannot be read."""
        return self.count("undecodable")

    def __str__(self) -> str:
        lines = [
            self.protocol,
            _line("official", self.rows, "clips listed"),
            *self._account("refused", "rows that say nothing usable"),
            _line("found", self.rows - self.refused - self.missing, "clips whose video is there"),
            *self._account("missing", "clips without a video"),
            *self._account("undecodable", "clips whose video cannot be read"),
            _line("written", self.written, f"clips with {self.captions} captions to {self.manifest}"),
            *self._nouns(),
            *(f"  note: {note}" for note in self.notes),
        ]
        return "\n".join(lines)

    def _nouns(self) -> Iterator[str]:
        if self.extractor:
            yield _line("nouns", self.phrases, f"phrases by {self.extractor}, none in {self.without_nouns} captions")

    def _account(self, kind: Kind, meaning: str) -> Iterator[str]:
        yield _line(kind, self.count(kind), meaning)
        for (this, reason), tally in self.losses.items():
            if this == kind:
                more = tally.count - len(tally.examples)
                rest = f"; and {more} more" if more else ""
                yield f"{'':14}{tally.count} x {reason}: {'; '.join(tally.examples)}{rest}"


def _line(name: str, number: int, meaning: str) -> str:
    return f"  {name:<11} {number:>8}  {meaning}"
