"""The eight shapes: where each one ends (exact boxes) and how far a pixel is from its edge (painting).

Unit coordinates: x to the right, y down, centre at the origin, about 1 from the centre to the edge.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import cos, hypot, pi, sin, sqrt

import numpy as np
from jaxtyping import Float, Float32

Plane = Float32[np.ndarray, "..."]
"""One number per pixel, single precision: a coordinate or a distance."""
Corner = tuple[float, float]


@dataclass(frozen=True)
class Shape:
    """A shape by its extent and its edge."""

    discs: tuple[tuple[float, float, float], ...]
    """Discs (x, y, radius) with the same convex hull as the shape; a corner is a disc of radius 0."""
    distance: Callable[[Plane, Plane], Plane]
    """Distance from the edge at points (x, y), negative inside."""
    turns_visibly: bool = True
    """False where a rotation cannot be seen, so that no caption says that such a shape spins."""


def extent(
    shape: Shape, angle: Float[np.ndarray, " frames"], radius: Float[np.ndarray, " frames"]
) -> Float[np.ndarray, "frames 4"]:
    """Exact boxes (left, top, right, bottom) of a shape turned by ``angle`` radians and ``radius`` times as
    large, relative to its centre."""
    x, y, r = np.array(shape.discs).T[:, :, None]
    across = x * np.cos(angle) - y * np.sin(angle)
    along = x * np.sin(angle) + y * np.cos(angle)
    low = [(across - r).min(axis=0), (along - r).min(axis=0)]
    high = [(across + r).max(axis=0), (along + r).max(axis=0)]
    result: Float[np.ndarray, "frames 4"] = np.stack(low + high, axis=1) * radius[:, None]
    return result


def _disc(cx: float, cy: float, radius: float) -> Callable[[Plane, Plane], Plane]:
    def distance(x: Plane, y: Plane) -> Plane:
        result: Plane = np.hypot(x - np.float32(cx), y - np.float32(cy)) - np.float32(radius)
        return result

    return distance


def _convex(corners: Sequence[Corner]) -> Callable[[Plane, Plane], Plane]:
    """The largest of the distances from the edges: exact next to an edge, where painting needs it."""
    edges = []
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        length = hypot(x1 - x0, y1 - y0)
        nx, ny = (y1 - y0) / length, (x0 - x1) / length
        edges.append((np.float32(nx), np.float32(ny), np.float32(nx * x0 + ny * y0)))

    def distance(x: Plane, y: Plane) -> Plane:
        nx, ny, offset = edges[0]
        result: Plane = nx * x + ny * y - offset
        for nx, ny, offset in edges[1:]:
            np.maximum(result, nx * x + ny * y - offset, out=result)
        return result

    return distance


def _union(*parts: Callable[[Plane, Plane], Plane]) -> Callable[[Plane, Plane], Plane]:
    def distance(x: Plane, y: Plane) -> Plane:
        result = parts[0](x, y)
        for part in parts[1:]:
            np.minimum(result, part(x, y), out=result)
        return result

    return distance


def _polygon(*corners: Corner) -> Shape:
    """A convex polygon; corners clockwise as seen on the screen."""
    return Shape(tuple((x, y, 0.0) for x, y in corners), _convex(corners))


def _circle(radius: float) -> Shape:
    return Shape(((0.0, 0.0, radius),), _disc(0.0, 0.0, radius), turns_visibly=False)


def _ring(outer: float, inner: float) -> Shape:
    middle, half = np.float32((outer + inner) / 2), np.float32((outer - inner) / 2)

    def distance(x: Plane, y: Plane) -> Plane:
        result: Plane = np.abs(np.hypot(x, y) - middle) - half
        return result

    return Shape(((0.0, 0.0, outer),), distance, turns_visibly=False)


def _star(outer: float, inner: float) -> Shape:
    half = pi / 5
    tips = [(outer * sin(2 * half * k), -outer * cos(2 * half * k), 0.0) for k in range(5)]
    # The edge from a tip (0, outer) to the notch beside it, in the wedge onto which all ten edges fold.
    dx, dy = inner * sin(half), inner * cos(half) - outer
    nx, ny = np.float32(-dy / hypot(dx, dy)), np.float32(dx / hypot(dx, dy))

    def distance(x: Plane, y: Plane) -> Plane:
        angle = np.abs(np.mod(np.arctan2(x, -y) + np.float32(half), np.float32(2 * half)) - np.float32(half))
        away = np.hypot(x, y)
        result: Plane = nx * away * np.sin(angle) + ny * (away * np.cos(angle) - np.float32(outer))
        return result

    return Shape(tuple(tips), distance)


def _cross(reach: float, half: float) -> Shape:
    bars = [((-a, -b), (a, -b), (a, b), (-a, b)) for a, b in ((reach, half), (half, reach))]
    return Shape(tuple((x, y, 0.0) for bar in bars for x, y in bar), _union(_convex(bars[0]), _convex(bars[1])))


def _heart(half: float, down: float) -> Shape:
    """A square on its corner with a half disc on each of its upper sides."""
    tip, lobe = (0.0, down + half), (half / 2, down - half / 2, half / sqrt(2))
    left = (-lobe[0], *lobe[1:])
    square = _convex(((0.0, down - half), (half, down), tip, (-half, down)))
    return Shape(((*tip, 0.0), lobe, left), _union(square, _disc(*lobe), _disc(*left)))


SHAPES = {
    "circle": _circle(0.92),
    "square": _polygon((-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)),
    "triangle": _polygon((0.0, -1.1), (1.1 * sqrt(3) / 2, 0.55), (-1.1 * sqrt(3) / 2, 0.55)),
    "star": _star(1.15, 0.5),
    "ring": _ring(1.0, 0.52),
    "cross": _cross(0.98, 0.3),
    "heart": _heart(0.82, 0.12),
    "diamond": _polygon((0.0, -1.15), (0.72, 0.0), (0.0, 1.15), (-0.72, 0.0)),
}
