"""Pictures from arrays and records: curves, similarity matrices, time lines, heat maps, films.

Charts are matplotlib figures, made without its global state.  `as_svg` turns them into markup that takes text
colour and font from the page around it, so they look right on light and on dark ground.  Pixels are RGB,
0 to 255.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#777879"
"""Text and axes: readable on white and on black, and replaced by the page's own colour in `as_svg`."""
COLOURS = ("#3b82f6", "#e0701a", "#1a9d62", "#d6409f")
"""Lines and marks; each at least 3:1 against white and against nearly black."""
FOREGROUND, BACKGROUND = COLOURS[:2]
SEGMENT_COLOURS = (*COLOURS, "#7c5cd6", "#b3541e", "#0e7f8a", "#8a6d0b", "#c23b3b", "#52708f")
"""Labels of a timeline; white letters can be read on each."""
MATRIX_COLOURS = "viridis"
MOST_POINTS = 300
"""Longer curves are averaged in this many bins."""
MOST_FRAMES = 8
"""Frames shown side by side; more would be too small to see."""
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
"""Of the name of a picture that a user asks for; the ending says which kind it becomes."""

Pictures = UInt8[np.ndarray, "frames high wide 3"]
Box = tuple[float, float, float, float]


class Line(NamedTuple):
    """One curve: ``values`` over ``steps``, both of the same length."""

    steps: Sequence[float]
    values: Sequence[float]


def check_picture(path: Path) -> None:
    """Raise ValueError for a name that no picture can have, before hours are spent on what it shall show."""
    if path.suffix.lower() not in PICTURE_ENDINGS:
        raise ValueError(f"{path} shall be a picture; give a name that ends in {', '.join(PICTURE_ENDINGS)}")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}")


# Charts


def curves(
    lines: Mapping[str, Line],
    *,
    level: float | None = None,
    bottom: float | None = None,
    top: float | None = None,
    colours: Sequence[str] = SEGMENT_COLOURS,
) -> "Figure":
    """Lines over training steps, each with its name when there are several, in ``colours`` (again from the first when
    they do not suffice).

    ``level`` draws a dotted line for comparison; ``bottom`` and ``top`` fix the ends of the axis of values.
    """
    figure, axes = _chart((3.7, 2.2))
    for (name, line), colour in zip(lines.items(), cycle(colours), strict=False):
        steps, values = thinned(line)
        axes.plot(steps, values, color=colour, linewidth=1.6, solid_capstyle="round", label=name)
        if len(steps) == 1:
            axes.plot(steps, values, "o", color=colour)
    if level is not None:
        axes.axhline(level, color=INK, linewidth=1.2, linestyle=(0, (1, 2)))
    if len(lines) > 1:
        axes.legend(loc="best", fontsize=8.5, labelcolor=INK, frameon=False, handlelength=1.2)
    if bottom is not None and top is None:  # room above even for a line that hardly changes
        top = bottom + 1.08 * max(axes.dataLim.ymax - bottom, 1e-9)
    axes.set_ylim(bottom=bottom, top=top)
    axes.set_xlabel("step", fontsize=8.5, color=INK)
    axes.grid(axis="y", color=INK, alpha=0.25, linewidth=0.6)
    return figure


def thinned(line: Line) -> Line:
    """The line in at most MOST_POINTS points, each the mean of a stretch of it."""
    if len(line.steps) <= MOST_POINTS:
        return line
    parts = (np.array_split(np.asarray(numbers, dtype=np.float64), MOST_POINTS) for numbers in line)
    steps, values = ([float(part.mean()) for part in numbers] for numbers in parts)
    return Line(steps, values)


def similarity_matrix(
    similarity: Float[np.ndarray, "steps steps"],
    scenes: Int[np.ndarray, " steps"],
    thumbnails: UInt8[np.ndarray, "steps high wide 3"],
    limits: tuple[float, float],
) -> "Figure":
    """Similarity of every two moments of a clip (Figures 2 and 5), with pictures of the moments along it.

    Lines mark where ``scenes`` changes; ``limits`` are the values of the darkest and the lightest colour.
    Small matrices show their numbers.
    """
    from matplotlib.figure import Figure

    count = len(similarity)
    edge = max(1 / (count + 1), 0.09)  # pictures as large as the cells, but not too small to see
    side = 1 - edge
    figure = Figure(figsize=(3.3, 3.3))
    axes = figure.add_axes((edge, 0, side, side))
    above, beside = figure.add_axes((edge, side, side, edge)), figure.add_axes((0, 0, edge, side))
    axes.imshow(similarity, cmap=MATRIX_COLOURS, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    large = edge * count / side  # side of a picture, in cells
    every = ceil(large - 1e-6)
    for place in range(0, count - every + 1, every):
        low, high = (place + (every - 1) / 2 + sign * 0.485 * large for sign in (-1, 1))
        above.imshow(thumbnails[place], extent=(low, high, 0.03, 1.0), aspect="auto")
        beside.imshow(thumbnails[place], extent=(0.0, 0.97, high, low), aspect="auto")
    above.set(xlim=(-0.5, count - 0.5), ylim=(0.0, 1.0))
    beside.set(xlim=(0.0, 1.0), ylim=(count - 0.5, -0.5))
    for part in (axes, above, beside):
        part.set_axis_off()
    for change in np.flatnonzero(np.diff(scenes)) + 0.5:
        for draw in (axes.axvline, axes.axhline):
            draw(change, color="black", linewidth=3.2, alpha=0.55)
            draw(change, color="white", linewidth=1.8)
    if count <= 8:
        _numbers(axes, similarity, limits)
    return figure


def _numbers(axes: "Axes", matrix: Float[np.ndarray, "steps steps"], limits: tuple[float, float]) -> None:
    from matplotlib import colormaps

    low, span = limits[0], max(limits[1] - limits[0], 1e-9)
    for (y, x), value in np.ndenumerate(matrix):
        red, green, blue, _ = colormaps[MATRIX_COLOURS]((value - low) / span)
        colour = "black" if 0.3 * red + 0.6 * green + 0.1 * blue > 0.5 else "white"
        text = f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
        axes.text(x, y, text, ha="center", va="center", fontsize=28 / len(matrix) + 4, color=colour)


def colour_bar(limits: tuple[float, float]) -> "Figure":
    """What the colours of `similarity_matrix` stand for."""
    figure, axes = _chart((3.3, 0.5))
    ramp = np.linspace(*limits, 64)[None]
    axes.imshow(ramp, cmap=MATRIX_COLOURS, extent=(*limits, 0, 1), aspect="auto", interpolation="bilinear")
    axes.spines[:].set_visible(False)
    axes.set(yticks=[], xlim=limits)
    axes.tick_params(bottom=False, pad=2)
    return figure


def as_svg(figure: "Figure", title: str) -> str:
    """A figure as markup to stand inside an HTML page, with ``title`` for those who cannot see it.

    It fills the width of its place.  The same figure and title give the same text.
    """
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        none = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(out, format="svg", transparent=True, metadata=none)
    text = out.getvalue()
    head, _, body = text[text.index("<svg") :].partition(">")
    view = head[head.index('viewBox="') :].split('"')[1]
    name = html.escape(title, quote=True)
    return (
        f'<svg viewBox="{view}" role="img" aria-label="{name}" xmlns:xlink="http://www.w3.org/1999/xlink">'
        f"{body.replace(INK, 'currentColor')}"
    )


def _chart(size: tuple[float, float]) -> tuple["Figure", "Axes"]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_color(INK)
    axes.tick_params(colors=INK, labelsize=8.5, length=3)
    return figure, axes


# Timelines


class Bar(NamedTuple):
    """A stretch of a video with what it shows: seconds, a label, and a score where it is not the truth."""

    start: float
    end: float
    label: str
    score: float | None = None


def timeline(rows: Mapping[str, Sequence[Bar]], duration: float, frames: Pictures | None = None) -> "Figure":
    """Labelled stretches of a video over its time, in a row for each source (or class), with ``frames``, spread evenly
    over the video, above them.

    Bars of one row that overlap lie in lanes below each other; a label has one colour in all rows.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    labels = sorted({bar.label for bars in rows.values() for bar in bars})
    colour_of = {label: SEGMENT_COLOURS[number % len(SEGMENT_COLOURS)] for number, label in enumerate(labels)}
    lanes = {name: _lanes(bars) for name, bars in rows.items()}
    heights = [max(1, max(found, default=0) + 1) for found in lanes.values()]
    wide, margin, lane = 9.0, 0.9, 0.3  # inches
    strip_high = 0.0 if frames is None else wide / len(frames) * frames.shape[1] / frames.shape[2]
    rows_high = lane * sum(heights) + 0.12 * (len(rows) + 1)
    figure = Figure(figsize=(wide + margin + 0.15, strip_high + rows_high + 0.55))
    total_wide, total_high = figure.get_size_inches()
    left, bottom = margin / total_wide, 0.45 / total_high
    axes = figure.add_axes((left, bottom, wide / total_wide, rows_high / total_high))
    if frames is not None:
        above = figure.add_axes(
            (left, bottom + (rows_high + 0.04) / total_high, wide / total_wide, strip_high / total_high)
        )
        above.imshow(strip(frames, gap=1), aspect="auto", extent=(0.0, duration, 0.0, 1.0))
        above.set_axis_off()
    y = 0.12
    for (name, bars), high in zip(rows.items(), heights, strict=True):
        axes.text(-0.012, y + high * lane / 2, name, transform=axes.get_yaxis_transform(), ha="right", va="center",
                  fontsize=9, color=INK, parse_math=False)  # fmt: skip
        for bar, number in zip(bars, lanes[name], strict=True):
            top = y + number * lane
            place = Rectangle(
                (bar.start, top + 0.02), bar.end - bar.start, lane - 0.04, color=colour_of[bar.label], lw=0
            )
            axes.add_patch(place)
            text = bar.label if bar.score is None else f"{bar.label} {bar.score:.2f}"
            room = int((bar.end - bar.start) / duration * wide / 0.075)  # letters that fit in
            shown = text if len(text) <= room else bar.label[: max(0, room)]
            axes.text((bar.start + bar.end) / 2, top + lane / 2, shown, ha="center", va="center", fontsize=7.5,
                      color="white", parse_math=False)  # fmt: skip
        y += high * lane + 0.12
    axes.set(xlim=(0.0, duration), ylim=(rows_high, 0.0), yticks=[])
    axes.set_xlabel("seconds", fontsize=8.5, color=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines[:].set_color(INK)
    axes.tick_params(colors=INK, labelsize=8.5, length=3)
    return figure


def _lanes(bars: Sequence[Bar]) -> list[int]:
    """For each bar the number of a lane in which it meets no other; the first bars get the first lanes."""
    lanes: list[list[Bar]] = []
    numbers = []
    for bar in bars:
        free = (k for k, lane in enumerate(lanes) if all(bar.end <= o.start or o.end <= bar.start for o in lane))
        number = next(free, len(lanes))
        if number == len(lanes):
            lanes.append([])
        lanes[number].append(bar)
        numbers.append(number)
    return numbers


# Pixels


def chosen_frames(own: Bool[np.ndarray, " frames"], most: int = MOST_FRAMES) -> Int[np.ndarray, " chosen"]:
    """At most ``most`` frames spread evenly, with at least one of every stretch between two seams.

    ``own`` says which frames are the clip's own; a seam is where it changes.
    """
    count = len(own)
    chosen = ((np.arange(min(most, count)) + 0.5) * count / min(most, count)).astype(np.int64)
    stretch = np.cumsum(np.diff(own, prepend=own[:1]))  # number of the stretch that each frame is in
    for missing in np.setdiff1d(stretch, stretch[chosen]):
        middle = int(np.median(np.flatnonzero(stretch == missing)))
        crowded = np.flatnonzero(stretch[chosen] == np.bincount(stretch[chosen]).argmax())
        chosen[crowded[np.abs(chosen[crowded] - middle).argmin()]] = middle
    return np.sort(chosen)


def evenly(count: int, most: int = MOST_FRAMES) -> Int[np.ndarray, " chosen"]:
    """Numbers of at most ``most`` of ``count`` frames, spread evenly."""
    return chosen_frames(np.ones(count, dtype=bool), most)


def with_heat(frames: Pictures, heat: Float[np.ndarray, "frames high wide"], opacity: float = 0.7) -> Pictures:
    """Frames in grey with ``heat`` (0 to 1) over them: cold places stay grey, the hottest are yellow."""
    from matplotlib import colormaps

    grey = frames.astype(np.float64).mean(axis=-1, keepdims=True) * 0.7
    colour = 255.0 * colormaps["inferno"](heat)[..., :3]
    share = opacity * np.sqrt(heat)[..., None]
    shown: np.ndarray = np.rint(grey * (1 - share) + colour * share).astype(np.uint8)
    return shown


def with_boxes(frames: Pictures, boxes: Sequence[Box | None]) -> Pictures:
    """Frames with a thin white outline for each box (xyxy in [0, 1]); None draws nothing."""
    out: np.ndarray = frames.copy()
    high, wide = frames.shape[1:3]
    for picture, box in zip(out, boxes, strict=True):
        if box is None:
            continue
        left, right = (round(x * (wide - 1)) for x in box[::2])
        top, bottom = (round(y * (high - 1)) for y in box[1::2])
        picture[[top, bottom], left : right + 1] = 255
        picture[top : bottom + 1, [left, right]] = 255
    return out


def resized(frames: Pictures, side: int) -> UInt8[np.ndarray, "frames new_high new_wide 3"]:
    """Frames with their longer side scaled to ``side`` pixels."""
    high, wide = frames.shape[1:3]
    size = max(1, round(wide * side / max(high, wide))), max(1, round(high * side / max(high, wide)))
    cubic = Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, cubic)) for frame in frames])


def strip(frames: Pictures, gap: int = 0) -> UInt8[np.ndarray, "high all_wide channels"]:
    """Frames side by side; with a ``gap``, so many transparent pixels between them (and a fourth channel)."""
    if gap:
        frames = np.pad(frames, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=255)
        frames = np.pad(frames, ((0, 0), (0, 0), (0, gap), (0, 0)))
    row = np.concatenate(list(frames), axis=1)
    return row[:, : row.shape[1] - gap]


def as_data_uri(pixels: UInt8[np.ndarray, "high wide channels"], quality: int = 82) -> str:
    """A picture as text to stand in an HTML page (WebP)."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="webp", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode("ascii")
