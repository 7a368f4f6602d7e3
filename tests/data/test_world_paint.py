"""Pixels and boxes of the drawn world agree, and what is different looks different."""

from dataclasses import replace

import numpy as np
import pytest

from svilm.data.world import jump_cut, render, scene
from svilm.data.world.paint import background, coverage
from svilm.data.world.scenes import COLOURS, TEXTURES, Actor, Background, Thing, boxes
from svilm.data.world.shapes import SHAPES

SIZE = 64
AREA = {
    "circle": np.pi * 0.92**2,
    "square": 1.64**2,
    "ring": np.pi * (1 - 0.52**2),
    "diamond": 2 * 1.15 * 0.72,
}


def spinning(shape: str, radius: float = 0.2) -> Actor:
    return Actor(
        Thing("red", shape, "", "spins"),
        paint=(255, 0, 0),
        radius=radius,
        tilt=0.3,
        turn=1,
        travel=(0.0, 0.0),
        start=(0.47, 0.53),
    )


def bounds(mask: np.ndarray) -> list[int]:
    """Left, top, right, bottom of the true pixels, in pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@pytest.mark.parametrize("shape", SHAPES)
def test_boxes_hold_the_shape_and_are_tight_to_a_pixel(shape: str):
    actor = spinning(shape)
    exact = boxes(actor, 23, 8) * SIZE
    for covered, box in zip(coverage(actor, 23, 8, SIZE), exact, strict=True):
        touched, solid = bounds(covered > 0.02), bounds(covered > 0.15)
        assert (np.array(touched[:2]) >= np.floor(box[:2] - 0.5)).all()
        assert (np.array(touched[2:]) <= np.ceil(box[2:] + 0.5)).all()
        assert np.abs(np.array(solid) - box).max() <= 1.25


@pytest.mark.parametrize("shape", AREA)
def test_shapes_have_their_area_whichever_way_they_are_turned(shape: str):
    covered = coverage(spinning(shape), 12, 8, SIZE).sum(axis=(1, 2))
    assert covered == pytest.approx(np.full(12, AREA[shape] * (0.2 * SIZE) ** 2), rel=0.02)


def test_edges_are_smooth():
    covered = coverage(spinning("circle"), 1, 8, SIZE)
    assert ((covered > 0.05) & (covered < 0.95)).sum() > 20


def test_shapes_differ_by_more_than_their_edges():
    """However two shapes of the smallest size are turned, an eighth of their pixels is not common to both."""
    covered = {name: coverage(spinning(name, 0.11), 16, 8, SIZE) for name in SHAPES}
    for one in SHAPES:
        for other in SHAPES:
            if one < other:
                common = np.minimum(covered[one][:, None], covered[other][None]).sum(axis=(2, 3))
                either = np.maximum(covered[one][:, None], covered[other][None]).sum(axis=(2, 3))
                assert (common / either).max() < 0.87, (one, other)


@pytest.mark.parametrize("index", range(12))
def test_taking_a_thing_away_changes_pixels_only_inside_its_boxes(index: int):
    clip = scene(0, "train", index)
    whole = render(clip)
    for number, shot in enumerate(clip.shots):
        for taken in shot.actors:
            rest = replace(shot, actors=tuple(a for a in shot.actors if a is not taken))
            without = render(replace(clip, shots=(*clip.shots[:number], rest, *clip.shots[number + 1 :])))
            changed = np.abs(whole.astype(int) - without).max(axis=-1) > 12  # tips fade over a pixel
            assert not changed[: shot.start].any() and not changed[shot.end :].any()
            for frame, box in enumerate(boxes(taken, len(shot), clip.fps), start=shot.start):
                if np.isnan(box[0]):
                    assert not changed[frame].any()
                    continue
                left, top, right, bottom = bounds(changed[frame])
                low, high = np.floor(box[:2] * SIZE - 0.5), np.ceil(box[2:] * SIZE + 0.5)
                assert left >= low[0] and top >= low[1] and right <= high[0] and bottom <= high[1]


def test_a_jump_cut_changes_pixels_only_where_there_are_things():
    for index in range(8):
        clip = jump_cut(0, index)
        first, second = clip.shots
        around = np.zeros((SIZE, SIZE), dtype=bool)
        for shot in clip.shots:
            for actor in shot.actors:
                for box in boxes(actor, len(shot), clip.fps)[[0, -1]] * SIZE:
                    if not np.isnan(box[0]):
                        left, top, right, bottom = (*np.floor(box[:2]).astype(int), *np.ceil(box[2:]).astype(int))
                        around[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1] = True
        changed = np.abs(np.diff(render(clip)[[first.end - 1, second.start]].astype(int), axis=0)[0]).max(axis=-1) > 12
        assert changed.sum() > 50 and not (changed & ~around).any()


def test_same_scene_same_pixels_and_another_seed_others():
    video = render(scene(0, "test", 4))
    assert video.shape == (16, 64, 64, 3) and video.dtype == np.uint8
    assert (video == render(scene(0, "test", 4))).all()
    assert (video != render(scene(1, "test", 4))).any()


def test_size_and_length_are_free():
    assert render(scene(0, "test", 0, size=96, num_frames=10, fps=5)).shape == (10, 96, 96, 3)


def test_a_scene_change_is_the_largest_difference_between_neighbouring_frames():
    clips = [scene(0, "test", index) for index in range(60)]
    changing = [clip for clip in clips if clip.scene_changes]
    assert len(changing) > 8
    for clip in changing:
        steps = np.abs(np.diff(render(clip).astype(int), axis=0)).mean(axis=(1, 2, 3))
        assert steps.argmax() + 1 == clip.scene_changes[0] * clip.fps
        assert steps.max() > 1.5 * np.sort(steps)[-2]


def test_backgrounds_are_muted_and_have_their_texture():
    for texture in TEXTURES:
        look = Background(texture, ((90, 96, 88), (120, 126, 118)), period=0.15, angle=0.5, seed=1)
        picture = background(look, SIZE)
        assert picture.shape == (3, SIZE, SIZE)
        assert picture.min() > 60 and picture.max() < 150
        assert picture.std(axis=(1, 2)).min() > 3
        other = background(replace(look, texture=TEXTURES[TEXTURES.index(texture) - 1]), SIZE)
        assert np.abs(picture - other).mean() > 3


def test_colours_stand_off_from_one_another_and_from_every_background():
    colours = {name: np.array(value, dtype=float) for name, value in COLOURS.items()}
    for one in colours:
        assert all(np.linalg.norm(colours[one] - colours[other]) > 90 for other in colours if other != one)
    for index in range(200):
        for shot in scene(0, "train", index).shots:
            for behind in shot.background.colours:
                assert min(np.linalg.norm(colour - behind) for colour in colours.values()) > 60
