"""Charts of what was measured, as PNG files in the style of the report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from svilm.draw import COLOURS, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Curve(NamedTuple):
    """Values over sizes, in the order of the sizes, with how steeply each stretch rises in logarithms."""

    sizes: Sequence[int]
    values: Sequence[float]
    slopes: Sequence[float]


def save(figure: "Figure", path: Path) -> None:
    """Write a figure on white ground, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=150, facecolor="white")


def bars(shares: Mapping[str, Mapping[str, tuple[float, float]]]) -> "Figure":
    """For each title, parts with their seconds as bars; the dark beginning of a bar is what the peak would need."""
    from matplotlib.figure import Figure

    count = max(len(parts) for parts in shares.values())
    figure = Figure(figsize=(4.4 * len(shares), 0.9 + 0.27 * count), layout="constrained")
    for axes, (title, parts) in zip(figure.subplots(1, len(shares), squeeze=False)[0], shares.items(), strict=True):
        whole = sum(seconds for seconds, _ in parts.values())
        names = list(parts)[::-1]
        seconds, floors = zip(*(parts[name] for name in names), strict=True)
        _plain(axes)
        axes.barh(names, seconds, color=COLOURS[0], height=0.62, label="measured")
        axes.barh(names, floors, color=COLOURS[1], height=0.62, label="at the machine's peak")
        for place, value in enumerate(seconds):
            axes.text(value, place, f" {value / whole:.1%}", va="center", fontsize=8, color=INK)
        axes.set_xlim(0, 1.18 * max(seconds))
        axes.set_title(f"{title}: {whole:.3g} s", fontsize=9.5, color=INK, loc="left")
        axes.set_xlabel("seconds", fontsize=8.5, color=INK)
        axes.legend(loc="lower right", fontsize=8, labelcolor=INK, frameon=False)
    return figure


def curves(panels: Mapping[str, Mapping[str, Curve]], unit: str) -> "Figure":
    """For each panel, named by what its sizes count, curves in logarithmic scales with the slope of each stretch.

    A dotted line shows what linear growth from the first size would be.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator

    across = min(3, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(3.5 * across, 2.8 * down), layout="constrained")
    places = figure.subplots(down, across, squeeze=False).ravel()
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    for axes, (title, lines) in zip(places, panels.items(), strict=False):
        _plain(axes)
        for (name, curve), colour in zip(lines.items(), COLOURS, strict=False):
            axes.loglog(curve.sizes, curve.values, "o-", color=colour, markersize=3.5, linewidth=1.6, label=name)
            linear = [curve.values[0] * size / curve.sizes[0] for size in curve.sizes]
            axes.loglog(curve.sizes, linear, color=colour, linewidth=1, linestyle=(0, (1, 2)))
            for number, slope in enumerate(curve.slopes):
                middle = tuple((row[number] * row[number + 1]) ** 0.5 for row in (curve.sizes, curve.values))
                offset = {"textcoords": "offset points", "xytext": (2, -9), "fontsize": 7.5}
                axes.annotate(f"{slope:.2f}", middle, color=colour, **offset)
        axes.set_xticks(lines[next(iter(lines))].sizes, [f"{size:,}" for size in lines[next(iter(lines))].sizes])
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.minorticks_off()
        axes.margins(y=0.12)  # slopes stand below their stretch
        axes.set_xlabel(title, fontsize=8.5, color=INK)
        axes.set_ylabel(unit, fontsize=8.5, color=INK)
        axes.grid(color=INK, alpha=0.2, linewidth=0.6)
        if len(lines) > 1:
            axes.legend(loc="best", fontsize=8, labelcolor=INK, frameon=False)
    return figure


def _plain(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_color(INK)
    axes.tick_params(colors=INK, labelsize=8.5, length=3)
