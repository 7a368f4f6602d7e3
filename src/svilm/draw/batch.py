"""The first batch of a run, as people should see it before anything is trained."""

import textwrap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int

from svilm.draw import BACKGROUND, FOREGROUND, INK, chosen_frames
from svilm.types import Batch

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def first_batch(batch: Batch, path: Path, clips: int = 8) -> None:
    """Write a picture of what the model is about to see: one row for each of the first ``clips`` clips.

    Frames are in order, with their seconds in the video that they come from.  The bar above says whose they
    are (the clip itself, or the one pasted in as background) and a dark line marks each seam of cut-and-paste
    (section 3.2).  Beside stand caption, nouns and the other clip's id.
    """
    from matplotlib.figure import Figure

    rows = min(clips, len(batch))
    shown = [_shown_of(batch, row) for row in range(rows)]
    wide, high, text = 1.12, 1.12 * batch.video.shape[2] / batch.video.shape[3], 4.9
    row_high, head = high + 0.58, 0.8
    left = wide * max(len(frames) for frames in shown)
    size = (left + text + 0.45, head + row_high * rows + 0.1)
    figure = Figure(figsize=size, dpi=100, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    _head(axes, batch, rows, len(shown[0]))
    for row in range(rows):
        top = head + row * row_high
        _strip(axes, batch, row, shown[row], top, wide, high)
        _words(axes, batch, row, left + 0.4, top)
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0), aspect="auto")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # a script that matplotlib's own font lacks
        figure.savefig(path)


def _own_frames(batch: Batch, row: int) -> Bool[np.ndarray, " frames"]:
    count = batch.video.shape[1]
    if batch.paste is None:
        return np.ones(count, dtype=bool)
    mask = batch.paste.mask[row].cpu().numpy()
    return np.repeat(mask, count // len(mask))


def _shown_of(batch: Batch, row: int) -> Int[np.ndarray, " chosen"]:
    return chosen_frames(_own_frames(batch, row))


def _head(axes: "Axes", batch: Batch, rows: int, shown: int) -> None:
    frames, high, wide = batch.video.shape[1:4]
    title = f"{rows} of {len(batch)} clips, {shown} of {frames} frames of {wide} x {high}"
    axes.text(0.1, 0.22, title, fontsize=11, fontweight="bold", va="center")
    if batch.paste is None:
        axes.text(0.1, 0.5, "no cut-and-paste", fontsize=9, va="center", color=INK)
        return
    for x, width, colour, label in (
        (0.1, 0.22, FOREGROUND, "the clip itself (foreground)"),
        (2.6, 0.22, BACKGROUND, "pasted from another clip (background)"),
        (5.75, 0.036, "black", "seam"),
    ):
        _block(axes, x, 0.43, width, 0.14, colour)
        axes.text(x + width + 0.08, 0.5, label, fontsize=9, va="center")


def _strip(
    axes: "Axes",
    batch: Batch,
    row: int,
    shown: Int[np.ndarray, " chosen"],
    top: float,
    wide: float,
    high: float,
) -> None:
    own = _own_frames(batch, row)
    partner = row if batch.paste is None else int(batch.paste.partner[row])
    for place, frame in enumerate(shown):
        x, owner = 0.1 + place * wide, row if own[frame] else partner
        pixels = batch.video[row, frame].cpu().numpy()
        extent = (x + 0.03, x + wide - 0.03, top + 0.14 + high, top + 0.14)
        axes.imshow(pixels, extent=extent, interpolation="antialiased")
        second = f"{float(batch.seconds[owner, frame]):.2f} s"
        axes.text(x + wide / 2, top + high + 0.25, second, fontsize=8, ha="center", va="center", color=INK)
        if batch.paste is not None:
            _block(axes, x, top, wide, 0.1, FOREGROUND if own[frame] else BACKGROUND)
            if place and own[frame] != own[shown[place - 1]]:
                _block(axes, x - 0.018, top - 0.05, 0.036, high + 0.27, "black")


def _words(axes: "Axes", batch: Batch, row: int, x: float, top: float) -> None:
    nouns = ", ".join(batch.nouns[row]) or "none"
    lines = [*_wrapped(batch.captions[row], 62, 3), *_wrapped(f"nouns: {nouns}", 62, 2)]
    if batch.paste is not None:
        partner = int(batch.paste.partner[row])
        share = f"foreground {float(batch.paste.beta[row]):.0%}"
        lines += _wrapped(f"background: {batch.ids[partner]}" if partner != row else "nothing pasted", 62, 1)
    else:
        share = ""
    title = "   ".join(part for part in (_wrapped(batch.ids[row], 40, 1)[0], share) if part)
    axes.text(x, top + 0.08, title, fontsize=9, fontweight="bold", va="center", parse_math=False)
    for number, line in enumerate(lines):
        axes.text(x, top + 0.3 + 0.18 * number, line, fontsize=9, va="center", parse_math=False)


def _wrapped(text: str, width: int, lines: int) -> list[str]:
    return textwrap.wrap(text, width, max_lines=lines, placeholder=" ...") or [""]


def _block(axes: "Axes", x: float, y: float, wide: float, high: float, colour: str) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x, y), wide, high, facecolor=colour, edgecolor="none"))
