"""What happens in a drawn video: who is there, how it moves, when the scene changes, exactly where.

Everything is a function of (seed, split, index) alone: a world of 100 clips is the beginning of one of 2,000.
Random numbers come from ``random.Random(text).random()``, whose stream Python promises to keep.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import ceil, pi
from random import Random
from typing import Literal, TypeVar

import numpy as np
from jaxtyping import Bool, Float

from svilm.data.world.shapes import SHAPES, extent

Split = Literal["train", "test"]
Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (222, 36, 36),
    "orange": (255, 136, 8),
    "yellow": (250, 232, 44),
    "green": (36, 190, 60),
    "blue": (44, 84, 244),
    "purple": (150, 50, 214),
    "pink": (255, 140, 200),
    "white": (248, 248, 248),
}
MOTIONS = (
    "moves left",
    "moves right",
    "moves up",
    "moves down",
    "spins",
    "grows",
    "shrinks",
    "blinks",
    "bounces",
    "stays still",
)
TEXTURES = ("striped", "checkered", "dotted", "wavy", "cloudy", "speckled", "tiled", "shaded")

_DIRECTIONS = {"moves left": (-1, 0), "moves right": (1, 0), "moves up": (0, -1), "moves down": (0, 1)}
_RESIZING = ("grows", "shrinks")
_SPINNING = tuple(name for name, shape in SHAPES.items() if shape.turns_visibly)
_ONE_SHOT = ((1,), (2,), (2,), (2,), (2,), (3,))
_TWO_SHOTS = ((1, 1), (1, 2), (2, 1))
"""Numbers of things in each shot, each as likely."""
_SMALLEST = 0.45
"""Part of its full size at which a shape begins to grow or stops to shrink."""
_TURNS_PER_SECOND = 0.4
"""Slow enough that a square (a quarter turn looks like none) is seen to turn at 4 frames a second."""
_BLINK_SECONDS = 0.25
"""Time shown, and time hidden."""

Meaning = tuple[tuple[tuple[str, str, str], ...], ...]
"""(colour, shape, motion) of all things, shot by shot, in sorted order within a shot."""
T = TypeVar("T")


@dataclass(frozen=True)
class Thing:
    """An object as words tell it."""

    colour: str
    shape: str
    size: str
    """ "small", "large", or "" for in between, of which nothing is said."""
    motion: str


@dataclass(frozen=True)
class Actor:
    """A thing with its place.  Lengths are parts of the frame's side, angles radians."""

    thing: Thing
    paint: Colour
    radius: float
    tilt: float
    turn: int
    """Which way it would spin, 1 or -1."""
    travel: tuple[float, float]
    """Way made by the end of the shot, or for a bouncing thing the height of its hops."""
    start: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Poses:
    """Place, size and turn of an actor in each frame of its shot."""

    x: Float[np.ndarray, " frames"]
    y: Float[np.ndarray, " frames"]
    radius: Float[np.ndarray, " frames"]
    angle: Float[np.ndarray, " frames"]
    visible: Bool[np.ndarray, " frames"]


@dataclass(frozen=True)
class Background:
    """A texture between two muted colours."""

    texture: str
    colours: tuple[Colour, Colour]
    period: float
    """Length of the pattern, part of the frame's side."""
    angle: float
    seed: int


@dataclass(frozen=True)
class Shot:
    """Frames start <= i < end with one background and one cast; the first actor is the largest."""

    start: int
    end: int
    background: Background
    actors: tuple[Actor, ...]
    grain: int
    """Seed of the camera noise."""
    jump: bool = False
    """Whether the camera was stopped before it, and other things put there: a scene change without a new background."""

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Scene:
    """All that is in one drawn video; ``paint.render`` makes its pixels, ``words`` its sentences."""

    seed: int
    split: Split
    index: int
    size: int
    """Height and width in pixels."""
    fps: int
    shots: tuple[Shot, ...]

    @property
    def num_frames(self) -> int:
        """Frames of the video."""
        return self.shots[-1].end

    @property
    def scene_changes(self) -> tuple[float, ...]:
        """Seconds at which another background begins, or the same one after a jump."""
        pairs = zip(self.shots, self.shots[1:], strict=False)
        return tuple(b.start / self.fps for a, b in pairs if b.jump or a.background != b.background)

    @property
    def meaning(self) -> Meaning:
        """Colour, shape and motion of all that is shown, shot by shot, order within a shot ignored.

        Each caption tells exactly this, so scenes of different meaning have different captions.
        """
        return _meaning([[actor.thing for actor in shot.actors] for shot in self.shots])


def scene(seed: int, split: Split, index: int, *, size: int = 64, num_frames: int = 16, fps: int = 8) -> Scene:
    """The ``index``-th clip of a split: one shot, or two with a scene change between them.

    ``size`` is the side in pixels.  The change comes at an even frame, at least a quarter of the clip from
    either end.
    No two test clips of a seed have the same ``meaning``: a repetition is drawn again.
    """
    casts = _test_casts(seed)[index] if split == "test" else _casts(random_stream(seed, split, index))
    rng = random_stream(seed, split, index, "places")
    cuts = [0, num_frames]
    if len(casts) == 2:
        cuts.insert(1, _cut(rng, num_frames))
    shots = [shoot(rng, cast, start, end, fps) for cast, start, end in zip(casts, cuts, cuts[1:], strict=False)]
    return Scene(seed, split, index, size, fps, tuple(shots))


def jump_cut(seed: int, index: int, *, size: int = 64, num_frames: int = 16, fps: int = 8) -> Scene:
    """The ``index``-th jump cut: two shots before the very same background, whose things are all others.

    In all else it is like a held-out ``scene`` of two shots, also in the frame at which the change comes.
    """
    rng = random_stream(seed, "jump cut", index)
    before, after = _draw_casts(rng, pick(rng, _TWO_SHOTS))
    cut = _cut(rng, num_frames)
    first, second = shoot(rng, before, 0, cut, fps), shoot(rng, after, cut, num_frames, fps)
    second = replace(second, background=first.background, jump=True)
    return Scene(seed, "test", index, size, fps, (first, second))


def random_stream(*names: object) -> Random:
    """Random numbers of their own for each purpose, named by seed, split, index and what they are for."""
    return Random("/".join(str(name) for name in names))


def pick(rng: Random, items: Sequence[T]) -> T:
    """One of the items, each as likely."""
    return items[int(rng.random() * len(items))]


def shoot(rng: Random, cast: Sequence[Thing], start: int, end: int, fps: int) -> Shot:
    """A shot of these things (the largest first) over a new background.

    They keep apart from one another all the time where there is room for it.
    """
    actors: tuple[Actor, ...] = ()
    least = float("inf")
    for _ in range(12):
        placed, overlap = _place(rng, [_actor(rng, t, k) for k, t in enumerate(cast)], end - start, fps)
        if overlap < least:
            actors, least = placed, overlap
        if least == 0:
            break
    return Shot(start, end, _background(rng), actors, grain=int(rng.random() * 2**32))


def poses(actor: Actor, num_frames: int, fps: int) -> Poses:
    """Where an actor is in each frame of its shot: the meaning of the ten motions."""
    frame = np.arange(num_frames)
    seconds = frame / fps
    progress = frame / max(num_frames - 1, 1)
    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    angle: np.ndarray
    visible: np.ndarray
    x, y = (np.full(num_frames, value) for value in actor.start)
    radius, angle = np.full(num_frames, actor.radius), np.full(num_frames, actor.tilt)
    visible = np.ones(num_frames, dtype=bool)
    motion = actor.thing.motion
    if motion in _DIRECTIONS:
        x, y = x + actor.travel[0] * progress, y + actor.travel[1] * progress
    elif motion == "spins":
        angle = angle + actor.turn * 2 * pi * _TURNS_PER_SECOND * seconds
    elif motion == "grows":
        radius = radius * (_SMALLEST + (1 - _SMALLEST) * progress)
    elif motion == "shrinks":
        radius = radius * (1 - (1 - _SMALLEST) * progress)
    elif motion == "blinks":
        visible = np.floor(seconds / _BLINK_SECONDS + 1e-6) % 2 == 0
    elif motion == "bounces":  # whole hops, or half a hop in a short shot would look like moving up
        hops = max(1, round(num_frames / fps))
        y = y + actor.travel[1] * np.abs(np.sin(pi * hops * frame / num_frames))
    return Poses(x, y, radius, angle, visible)


def boxes(actor: Actor, num_frames: int, fps: int) -> Float[np.ndarray, "frames 4"]:
    """Exact boxes xyxy in [0, 1] in each frame of the actor's shot, NaN where it is not visible."""
    pose = poses(actor, num_frames, fps)
    result = _extent(actor, pose)
    result[~pose.visible] = np.nan
    return result


def _extent(actor: Actor, pose: Poses) -> Float[np.ndarray, "frames 4"]:
    around = extent(SHAPES[actor.thing.shape], pose.angle, pose.radius)
    result: Float[np.ndarray, "frames 4"] = around + np.stack([pose.x, pose.y, pose.x, pose.y], axis=1)
    return result


def _meaning(casts: Sequence[Sequence[Thing]]) -> Meaning:
    return tuple(tuple(sorted((t.colour, t.shape, t.motion) for t in cast)) for cast in casts)


def _cut(rng: Random, num_frames: int) -> int:
    """An even frame at least a quarter of the clip from either end."""
    first, last = ceil(num_frames / 8), num_frames * 3 // 8
    return 2 * (first + int(rng.random() * (last - first + 1)))


def _casts(rng: Random) -> list[list[Thing]]:
    """Who appears: one to three things in one shot, or two or three in two shots (30 % of the clips)."""
    return _draw_casts(rng, pick(rng, _TWO_SHOTS) if rng.random() < 0.3 else pick(rng, _ONE_SHOT))


def _draw_casts(rng: Random, sizes: Sequence[int]) -> list[list[Thing]]:
    """So many things for each shot."""
    used: set[tuple[str, str]] = set()  # a noun phrase means one thing only, in the whole clip
    return [draw_cast(rng, size, MOTIONS, used) for size in sizes]


def draw_cast(rng: Random, num_things: int, motions: Sequence[str], used: set[tuple[str, str]]) -> list[Thing]:
    """Things with a (colour, shape) that is not in ``used``, to which theirs are added.

    The first is the main one: not small where it has company, which in turn is never large.
    """
    cast: list[Thing] = []
    while len(cast) < num_things:
        motion, colour = pick(rng, motions), pick(rng, tuple(COLOURS))
        shape = pick(rng, _SPINNING if motion == "spins" else tuple(SHAPES))
        sizes = ("small", "", "large") if num_things == 1 else ("small", "") if cast else ("", "large")
        size = "" if motion in _RESIZING else pick(rng, sizes)
        if (colour, shape) not in used:
            used.add((colour, shape))
            cast.append(Thing(colour, shape, size, motion))
    return cast


class _TestCasts:
    """The casts of the test clips of a seed, in order; a draw whose meaning is taken is drawn again."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.known: list[list[list[Thing]]] = []
        self.taken: set[Meaning] = set()

    def __getitem__(self, index: int) -> list[list[Thing]]:
        while len(self.known) <= index:
            rng = random_stream(self.seed, "test", len(self.known))
            casts = _casts(rng)
            while _meaning(casts) in self.taken:
                casts = _casts(rng)
            self.taken.add(_meaning(casts))
            self.known.append(casts)
        return self.known[index]


@cache
def _test_casts(seed: int) -> _TestCasts:
    return _TestCasts(seed)


_RADIUS = {"small": (0.105, 0.12), "": (0.145, 0.16), "large": (0.195, 0.22)}


def _actor(rng: Random, thing: Thing, rank: int) -> Actor:
    low, high = _RADIUS[thing.size]
    radius = low + (high - low) * rng.random()
    if thing.motion in _RESIZING:
        radius *= 1.3  # at its full size, so that it is middle-sized half way
    if rank == 0 and thing.size == "":
        radius *= 1.2  # the main thing is the largest
    length = 0.32 + 0.14 * rng.random()
    across, along = _DIRECTIONS.get(thing.motion, (0, -0.55))
    return Actor(
        thing,
        paint=_jitter(rng, COLOURS[thing.colour], 10.0),
        radius=radius,
        tilt=(rng.random() - 0.5) * 0.3,
        turn=pick(rng, (-1, 1)),
        travel=(across * length, along * length),
    )


def _place(rng: Random, actors: list[Actor], num_frames: int, fps: int) -> tuple[tuple[Actor, ...], float]:
    """Each actor where it meets those before it least, wholly inside the frame, and how much they meet."""
    placed: list[Actor] = []
    taken: list[Float[np.ndarray, "frames 4"]] = []
    total = 0.0
    for actor in actors:
        around = _extent(actor, poses(actor, num_frames, fps))
        low, high = around[:, :2].min(axis=0), around[:, 2:].max(axis=0)
        best, least = (0.5, 0.5), float("inf")
        for _ in range(24):
            x, y = (0.01 - low[k] + rng.random() * (0.98 - high[k] + low[k]) for k in (0, 1))
            overlap = sum(_overlap(around + np.array([x, y, x, y]), other) for other in taken)
            if overlap < least:
                best, least = (float(x), float(y)), overlap
            if overlap == 0:
                break
        placed.append(replace(actor, start=best))
        taken.append(around + np.array([*best, *best]))
        total += least
    return tuple(placed), total


def _overlap(a: Float[np.ndarray, "frames 4"], b: Float[np.ndarray, "frames 4"]) -> float:
    """Largest common area of two moving boxes, with a little air around them."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]) + 0.015
    return float(np.maximum(sides, 0).prod(axis=1).max())


def _background(rng: Random) -> Background:
    grey = 70 + 60 * rng.random()
    near = [grey + 30 * (rng.random() - 0.5) for _ in range(3)]
    contrast = pick(rng, (-1, 1)) * (16 + 20 * rng.random())
    far = [level + contrast for level in near]
    return Background(
        pick(rng, TEXTURES),
        (_jitter(rng, near, 4.0), _jitter(rng, far, 4.0)),
        period=0.11 + 0.14 * rng.random(),
        angle=rng.random() * pi,
        seed=int(rng.random() * 2**32),
    )


def _jitter(rng: Random, colour: Colour | list[float], reach: float) -> Colour:
    red, green, blue = (min(255, max(0, round(c + (2 * rng.random() - 1) * reach))) for c in colour)
    return red, green, blue
