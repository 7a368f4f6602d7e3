"""Pixels of a drawn scene: anti-aliased shapes over textured backgrounds, with a little camera noise."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, UInt8

from svilm.data.world.scenes import Actor, Background, Colour, Scene, poses
from svilm.data.world.shapes import SHAPES

Pattern = Float32[np.ndarray, "height width"]

_GRAIN = 10.0
"""Width of the camera noise (uniform, around 0), in levels of 255."""


def render(scene: Scene) -> UInt8[np.ndarray, "frames height width 3"]:
    """The RGB frames of a scene."""
    video = np.empty((3, scene.num_frames, scene.size, scene.size), dtype=np.float32)  # colour planes
    for shot in scene.shots:
        part = video[:, shot.start : shot.end]
        part[:] = background(shot.background, scene.size)[:, None]
        for actor in shot.actors:
            part += coverage(actor, len(shot), scene.fps, scene.size) * (_planes(actor.paint, 4) - part)
        noise = np.random.RandomState(shot.grain).random_sample(part.shape[1:])
        part += _GRAIN * (noise.astype(np.float32) - 0.5)
    levels = np.clip(np.rint(video, out=video), 0, 255, out=video).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(levels, 0, -1))


def coverage(actor: Actor, num_frames: int, fps: int, size: int) -> Float32[np.ndarray, "frames height width"]:
    """Share of each pixel that an actor covers in each frame of its shot; all 0 where it is not visible."""
    pose = poses(actor, num_frames, fps)
    centre = (np.arange(size, dtype=np.float32) + 0.5) / size
    dx = (centre[None, :] - pose.x[:, None].astype(np.float32))[:, None, :]
    dy = (centre[None, :] - pose.y[:, None].astype(np.float32))[:, :, None]
    turn = (np.cos(pose.angle), np.sin(pose.angle))
    cos, sin = ((value / pose.radius).astype(np.float32)[:, None, None] for value in turn)
    edge = SHAPES[actor.thing.shape].distance(cos * dx + sin * dy, cos * dy - sin * dx)
    pixels = (pose.radius * size).astype(np.float32)[:, None, None]
    share: Float32[np.ndarray, "frames height width"] = np.clip(0.5 - edge * pixels, 0, 1)
    share[~pose.visible] = 0
    return share


def background(look: Background, size: int) -> Float32[np.ndarray, "3 size size"]:
    """The still picture behind the shapes: red, green and blue planes, levels of 255."""
    centre = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    x, y = centre[None, :], centre[:, None]
    cos, sin = (np.float32(value / look.period) for value in (np.cos(look.angle), np.sin(look.angle)))
    random = np.random.RandomState(look.seed)
    share = _PATTERNS[look.texture](cos * x + sin * y, cos * y - sin * x, random)
    light = 1 + 0.12 * (sin * x - cos * y) * look.period  # one side a little brighter
    near, far = (_planes(colour, 3) for colour in look.colours)
    planes: Float32[np.ndarray, "3 size size"] = (near + share * (far - near)) * light
    return planes


def _planes(colour: Colour, num_axes: int) -> Float32[np.ndarray, "..."]:
    """A colour as planes of any size: its three levels along the first axis."""
    return np.array(colour, dtype=np.float32).reshape(3, *[1] * (num_axes - 1))


def _wave(phase: Pattern) -> Pattern:
    """0 and 1 by turns with soft edges, one cycle for each whole number."""
    return np.clip(0.5 + 1.5 * np.sin(2 * np.pi * phase), 0, 1)


def _striped(u: Pattern, v: Pattern, random: np.random.RandomState) -> Pattern:
    return _wave(u)


def _checkered(u: Pattern, v: Pattern, random: np.random.RandomState) -> Pattern:
    return np.clip(0.5 + 4 * np.sin(np.pi * u) * np.sin(np.pi * v), 0, 1)


def _dotted(u: Pattern, v: Pattern, random: np.random.RandomState) -> Pattern:
    away: Pattern = np.hypot(u - np.floor(u) - 0.5, v - np.floor(v) - 0.5)
    return np.clip((0.3 - away) * 8 + 0.5, 0, 1)


def _wavy(u: Pattern, v: Pattern, random: np.random.RandomState) -> Pattern:
    return _wave(u + 0.25 * np.sin(np.pi * v))


def _cloudy(u: Pattern, v: Pattern, random: np.random.RandomState) -> Pattern:
    coarse, fine = _blobs(4, len(u), random), _blobs(9, len(u), random)
    return np.clip(1.6 * (0.65 * coarse + 0.35 * fine) - 0.3, 0, 1)


def _speckled(u: Pattern, v: Pattern, random: np.random.RandomState) -> Pattern:
    return np.clip(3 * _blobs(32, len(u), random) - 1.4, 0, 1)


def _tiled(u: Pattern, v: Pattern, random: np.random.RandomState) -> Pattern:
    row = np.floor(v)
    across = (u + row % 2) / 2  # bricks twice as wide as high, each row shifted by half a brick
    joint: Pattern = np.minimum(2 * np.abs(across - np.rint(across)), np.abs(v - np.rint(v)))
    return np.clip(1 - 8 * (joint - 0.06), 0, 1)


def _shaded(u: Pattern, v: Pattern, random: np.random.RandomState) -> Pattern:
    share: Pattern = (u - u.min()) / (u.max() - u.min())
    return share


def _blobs(cells: int, size: int, random: np.random.RandomState) -> Pattern:
    """Smooth random values from 0 to 1: a grid of ``cells`` by ``cells`` numbers, interpolated."""
    knots = random.random_sample((cells + 1, cells + 1)).astype(np.float32)
    place = (np.arange(size, dtype=np.float32) + 0.5) / size * cells
    weight = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(cells + 1, dtype=np.float32)))
    values: Pattern = weight @ knots @ weight.T
    return values


_PATTERNS: dict[str, Callable[[Pattern, Pattern, np.random.RandomState], Pattern]] = {
    "striped": _striped,
    "checkered": _checkered,
    "dotted": _dotted,
    "wavy": _wavy,
    "cloudy": _cloudy,
    "speckled": _speckled,
    "tiled": _tiled,
    "shaded": _shaded,
}
