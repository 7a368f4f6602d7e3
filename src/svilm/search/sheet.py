"""A contact sheet: what a search found, as a picture to look at or to send to somebody."""

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from svilm.data.decode import DecodeError, index_video, read_frames
from svilm.data.sample import Sampling, choose_frames
from svilm.data.scan import printable
from svilm.draw import check_picture, evenly, with_heat
from svilm.search.index import Index
from svilm.search.records import Hit, Moment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FRAMES = 6
"""Of a moment."""
MOST_HITS = 50
"""A longer sheet could not be looked at."""
_SIDE = 160  # pixels of the short side of a frame
_HIGH, _WIDE, _GAP, _TEXT, _HEAD = 1.1, 1.75, 0.12, 2.9, 0.5  # inches: a frame, between rows, the words, the title

Frames = UInt8[np.ndarray, "frames high wide 3"]


def write_sheet(index: Index, hits: Sequence[Hit], path: Path, *, title: str, nouns: Sequence[str] = ()) -> None:
    """Write frames of each moment found, with its place and score; below, where each of the ``nouns`` is in it.

    The ending of ``path`` says which kind of picture it becomes.  Where the model cannot say where a noun is, there
    are no rows for nouns.  Raises ValueError for more than 50 hits and for an unknown kind of picture.
    """
    from matplotlib.figure import Figure

    check_picture(path)
    if len(hits) > MOST_HITS:
        raise ValueError(f"a sheet of {len(hits)} moments; at most {MOST_HITS} can be drawn, choose them with -k")
    shown = nouns if index.can_ground else ()
    rows = max(1, len(hits)) * (1 + len(shown))
    size = (_TEXT + FRAMES * _WIDE + 0.2, _HEAD + rows * (_HIGH + _GAP) + 0.1)
    figure = Figure(figsize=size, dpi=100, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.text(0.15, _HEAD / 2, textwrap.shorten(title, 110), fontsize=13, va="center", weight="bold", parse_math=False)
    top = _HEAD
    for hit in hits:
        frames = _frames(index, hit.moment)
        _row(axes, top, _words(hit), frames)
        top += _HIGH + _GAP
        for noun in shown:
            _row(axes, top, textwrap.fill(noun, 28), None if frames is None else _heat(index, hit.moment, noun))
            top += _HIGH + _GAP
    if not hits:
        axes.text(0.15, top + _HIGH / 2, "nothing found", fontsize=11, va="center")
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0), aspect="auto")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # a script that matplotlib's own font lacks
        figure.savefig(path, dpi=100, facecolor="white")


def _words(hit: Hit) -> str:
    moment = hit.moment
    name = textwrap.fill(printable(moment.video), 30, max_lines=3)
    return f"{hit.rank}.  {hit.score:.3f}\n{name}\n{moment.start:.1f} to {moment.end:.1f} s"


def _row(axes: "Axes", top: float, words: str, frames: Frames | None) -> None:
    axes.text(0.15, top + _HIGH / 2, words, fontsize=10, va="center", linespacing=1.5, parse_math=False)
    if frames is None:
        axes.text(_TEXT, top + _HIGH / 2, "its file cannot be read any more", fontsize=10, va="center", color="grey")
        return
    high, wide = frames.shape[1:3]
    scale = min(_HIGH / high, (_WIDE - _GAP) / wide)
    for number, frame in enumerate(frames):
        left = _TEXT + number * _WIDE + (_WIDE - _GAP - wide * scale) / 2  # what the model saw below where it was
        below = top + (_HIGH - high * scale) / 2
        axes.imshow(frame, extent=(left, left + wide * scale, below + high * scale, below), interpolation="bilinear")


def _frames(index: Index, moment: Moment) -> Frames | None:
    try:
        video = index_video(index.path_of(moment.video))
        numbers = choose_frames(video.seconds, moment.start, moment.end, Sampling(num_frames=FRAMES), None)
        return read_frames(video, numbers, resize=_SIDE)
    except (DecodeError, ValueError):
        return None


def _heat(index: Index, moment: Moment, noun: str) -> Frames | None:
    try:
        found = index.ground(moment, noun)
    except DecodeError:
        return None
    some = evenly(len(found.frames), FRAMES)
    return with_heat(found.frames[some], found.heat[some])
