"""Long videos: actions one after another, with stretches between them in which nothing happens."""

from dataclasses import dataclass, replace
from random import Random

from svilm.data.world.scenes import MOTIONS, Scene, Shot, draw_cast, pick, random_stream, shoot
from svilm.data.world.words import Caption, sentence

ACTIONS = tuple(motion for motion in MOTIONS if motion != "stays still")
"""Labels of segments: a resting shape is no action, and may be seen between them."""


@dataclass(frozen=True)
class Segment:
    """An action: the shot that shows it, its label (the motion of the largest thing) and a sentence."""

    shot: Shot
    label: str
    caption: Caption


@dataclass(frozen=True)
class Untrimmed:
    """A long video, by what it shows (gaps included) and by its actions, in order of time."""

    scene: Scene
    segments: tuple[Segment, ...]


def untrimmed(seed: int, index: int, *, size: int = 64, fps: int = 8) -> Untrimmed:
    """The ``index``-th long video: 20 to 40 s, actions of 2 to 6 s, gaps of 1 to 4 s.

    A gap shows the background alone or with a resting shape; after a gap the background may be another one.
    Every second video is for testing.
    """
    rng = random_stream(seed, "untrimmed", index)
    total = round((20 + 20 * rng.random()) * fps)
    segments: list[Segment] = []
    shots: list[Shot] = []
    background = shoot(rng, [], 0, 1, fps).background
    start = 0
    while start < total:
        gap = _frames(rng, 1, 4, fps)
        rest = total - start - gap
        if rest < 2 * fps:
            gap, rest = total - start, 0
        still = draw_cast(rng, 1, ("stays still",), set()) if rng.random() < 0.4 else []
        shots.append(replace(shoot(rng, still, start, start + gap, fps), background=background))
        start += gap
        if not rest:
            break
        if rng.random() < 0.3:
            background = shoot(rng, [], 0, 1, fps).background
        end = start + min(_frames(rng, 2, 6, fps), rest)
        cast = draw_cast(rng, pick(rng, (1, 2)), ACTIONS, set())
        shots.append(replace(shoot(rng, cast, start, end, fps), background=background))
        segments.append(Segment(shots[-1], cast[0].motion, sentence(cast, rng)))
        start = end
    scene = Scene(seed, "test" if index % 2 else "train", index, size, fps, tuple(shots))
    return Untrimmed(scene, tuple(segments))


def _frames(rng: Random, least_seconds: int, most_seconds: int, fps: int) -> int:
    return max(1, round((least_seconds + (most_seconds - least_seconds) * rng.random()) * fps))
