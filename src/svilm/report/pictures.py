"""Pictures of what a task found: confusion matrices, boxes on a frame."""

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from svilm.draw import COLOURS, INK, MATRIX_COLOURS, Box

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NUMBERED = 16
"""Classes up to which the cells of a confusion matrix show their clips."""
MOST_NAMED = 110
"""Classes up to which its rows and columns show their names; more would be too small to read."""
TRUE_COLOUR, FOUND_COLOUR = COLOURS[:2]


def confusion_matrix(confusion: Float[np.ndarray, "classes classes"], names: Sequence[str]) -> "Figure":
    """Clips by true class (rows) and class put first (columns); the colour is the share of the true class's clips.

    Classes without clips have no colour.  Few classes show their numbers.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    count = len(names)
    named, numbered = count <= MOST_NAMED, count <= MOST_NUMBERED
    side = 4.2 if numbered else 7.0
    size = min(8.5, 0.8 * 72 * side / count)  # of the letters, which share their height with the rows
    figure = Figure(figsize=(side + (1.4 if named else 0.3),) * 2, layout="constrained")
    axes = figure.add_subplot()
    clips = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, clips, out=np.full_like(confusion, np.nan), where=clips > 0)
    axes.imshow(shares, cmap=MATRIX_COLOURS, vmin=0.0, vmax=1.0, interpolation="nearest")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=INK, labelsize=size)
    if named:
        axes.set_xticks(range(count), names, rotation=90 if count > 3 else 0)
        axes.set_yticks(range(count), names)
    else:
        axes.set(xticks=[], yticks=[])
    axes.set_xlabel("class put first", fontsize=8.5, color=INK)
    axes.set_ylabel("true class", fontsize=8.5, color=INK)
    if numbered:
        for (row, column), number in np.ndenumerate(confusion):
            if number > 0:
                red, green, blue, _ = colormaps[MATRIX_COLOURS](float(shares[row, column]))
                colour = "black" if 0.3 * red + 0.6 * green + 0.1 * blue > 0.5 else "white"
                axes.text(column, row, f"{number:.3g}", ha="center", va="center", fontsize=size, color=colour)
    return figure


def boxes_on_frame(uri: str, size: tuple[int, int], truth: Sequence[Box], found: Sequence[Box], title: str) -> str:
    """Markup of a picture (width, height) with the true boxes, numbered from 1, and dashed the ones that were found.

    Boxes are xyxy in [0, 1]; ``title`` is for those who cannot see it.
    """
    wide, high = (round(360 * length / max(size)) for length in size)
    shapes = [f'<image href="{uri}" width="{wide}" height="{high}" preserveAspectRatio="none"/>']
    for boxes, colour, dashes in ((truth, TRUE_COLOUR, ""), (found, FOUND_COLOUR, ' stroke-dasharray="6 6"')):
        for left, top, right, bottom in boxes:
            place = (
                f'x="{left * wide:.1f}" y="{top * high:.1f}" '
                f'width="{(right - left) * wide:.1f}" height="{(bottom - top) * high:.1f}" fill="none"'
            )
            shapes.append(f'<rect {place} stroke="#000" stroke-opacity="0.55" stroke-width="4.5"/>')
            shapes.append(f'<rect {place} stroke="{colour}" stroke-width="2.5"{dashes}/>')
    for number, (left, top, _, _) in enumerate(truth, start=1):
        x, y = min(max(left * wide, 2), wide - 19), min(max(top * high, 2), high - 19)
        shapes.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="17" height="17" fill="{TRUE_COLOUR}"/>')
        words = f'x="{x + 8.5:.1f}" y="{y + 13:.1f}" text-anchor="middle" font-size="13" font-weight="700" fill="#fff"'
        shapes.append(f"<text {words}>{number}</text>")
    name = html.escape(title, quote=True)
    return f'<svg viewBox="0 0 {wide} {high}" role="img" aria-label="{name}">{"".join(shapes)}</svg>'
