"""Clips that end after their video: by how much they may, and what is taken instead."""

from typing import NamedTuple

END_SLACK = 0.5
"""Seconds by which a clip may end after its video: annotations are rounded."""


class Span(NamedTuple):
    """A part of a video, [start, end) seconds."""

    start: float
    end: float


def slack(duration: float, frames: int) -> float:
    """Seconds by which a clip may end after a video of so many seconds and frames: half a second or a frame."""
    return max(END_SLACK, duration / max(1, frames))


def cut_end(start: float, end: float, duration: float, centred: bool) -> Span | None:
    """The clip without what comes after the video's end.

    Of a ``centred`` one, whose middle is what counts since its boxes are drawn there, as much is taken from the
    beginning; None where even the middle comes after the end.
    """
    until = min(end, duration)
    begin = start + (end - until) if centred else start
    return None if centred and begin >= until else Span(begin, until)
