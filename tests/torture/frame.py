"""What the checks of `make torture` have in common: what each is given, and what it gives back."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Plan:
    """What a check is given."""

    seed: int
    """Everything that a check draws by chance follows from it."""
    fast: bool
    """Seconds instead of minutes, with smaller numbers."""
    folder: Path
    """A scratch folder of this check alone, removed afterwards."""

    def number(self, whole: int, fast: int) -> int:
        """``whole``, or ``fast`` when seconds are to do."""
        return fast if self.fast else whole


@dataclass(frozen=True)
class Outcome:
    """What a check found: the figures of its line, and what was wrong."""

    figures: str
    problems: tuple[str, ...] = ()


Check = Callable[[Plan], Outcome]
"""A function whose name is the check's and whose docstring says what is promised; an exception counts as failed."""


def first(items: Iterable[Any], count: int = 10) -> tuple[str, ...]:
    """The first few as text, and how many more there are."""
    texts = [str(item) for item in items]
    more = (f"and {len(texts) - count} more",) if len(texts) > count else ()
    return (*texts[:count], *more)
