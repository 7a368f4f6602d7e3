"""What happens in the drawn world: motions mean what they say, everything is visible, no test clip twice."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svilm.data.world import jump_cut, scene
from svilm.data.world import scenes as module
from svilm.data.world.scenes import MOTIONS, TEXTURES, Actor, Thing, boxes, poses
from svilm.data.world.shapes import SHAPES

CLIPS = [scene(3, split, index) for split in ("train", "test") for index in range(150)]


def actor(motion: str, shape: str = "star") -> Actor:
    return Actor(
        Thing("red", shape, "", motion),
        paint=(255, 0, 0),
        radius=0.15,
        tilt=0.1,
        turn=1,
        travel={"moves left": (-0.4, 0.0), "moves right": (0.4, 0.0), "moves up": (0.0, -0.4)}.get(
            motion, (0.0, 0.4) if motion == "moves down" else (0.0, -0.2)
        ),
        start=(0.5, 0.5),
    )


def test_a_scene_follows_from_seed_split_and_index_alone():
    assert scene(0, "test", 7) == scene(0, "test", 7)
    others = [scene(1, "test", 7), scene(0, "train", 7), scene(0, "test", 8)]
    assert all(scene(0, "test", 7).shots != other.shots for other in others)


def test_test_scenes_do_not_depend_on_which_was_asked_for_first():
    forwards = [scene(5, "test", index) for index in range(40)]
    module._test_casts.cache_clear()
    assert [scene(5, "test", index) for index in reversed(range(40))] == forwards[::-1]


def test_the_drawing_is_the_one_that_its_version_stands_for():
    """Whoever changes what a seed draws has to raise VERSION in write.py, and then this meaning."""
    assert scene(0, "test", 1).meaning == (
        (("pink", "triangle", "grows"), ("white", "heart", "spins")),
        (("red", "triangle", "spins"),),
    )
    assert jump_cut(0, 1).meaning == (
        (("orange", "heart", "moves left"), ("pink", "square", "bounces")),
        (("orange", "cross", "moves up"),),
    )


def test_a_jump_cut_changes_all_things_and_nothing_else():
    cuts = [jump_cut(3, index) for index in range(100)]
    for clip in cuts:
        first, second = clip.shots
        assert second.background == first.background and second.grain != first.grain
        before, after = ({(a.thing.colour, a.thing.shape) for a in shot.actors} for shot in clip.shots)
        assert before and after and not before & after
        assert clip.scene_changes == (second.start / clip.fps,) and first.end == second.start
    assert {clip.shots[1].start for clip in cuts} == {4, 6, 8, 10, 12}
    assert {tuple(len(shot.actors) for shot in clip.shots) for clip in cuts} == {(1, 1), (1, 2), (2, 1)}
    assert len({clip.shots[0].background.seed for clip in cuts}) == len({clip.meaning for clip in cuts}) == 100


def test_a_jump_cut_follows_from_seed_and_index_alone():
    assert jump_cut(0, 7) == jump_cut(0, 7)
    assert all(jump_cut(0, 7).shots != other.shots for other in (jump_cut(1, 7), jump_cut(0, 8), scene(0, "test", 7)))


def test_no_two_test_clips_show_the_same():
    number = 600
    drawn = [module._meaning(module._casts(module.random_stream(0, "test", k))) for k in range(number)]
    assert len(set(drawn)) < number, "without a repetition among the first draws this test shows nothing"
    again = [index for index in range(number) if drawn[index] in drawn[:index]]
    assert all(scene(0, "test", index).meaning != drawn[index] for index in again)
    assert len({module._meaning(module._test_casts(0)[index]) for index in range(number)}) == number


def test_a_noun_phrase_means_one_thing_in_a_clip():
    for clip in CLIPS:
        names = [(a.thing.colour, a.thing.shape) for shot in clip.shots for a in shot.actors]
        assert len(set(names)) == len(names)


def test_everything_stays_inside_the_frame_and_mostly_apart():
    meeting = pairs = 0
    for clip in CLIPS:
        for shot in clip.shots:
            placed = [boxes(a, len(shot), clip.fps) for a in shot.actors]
            assert all(np.nanmin(box) >= 0 and np.nanmax(box) <= 1 for box in placed)
            for a, b in itertools.combinations(placed, 2):
                sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
                meeting += bool((np.nan_to_num(sides, nan=-1) > 0).all(axis=1).any())
                pairs += 1
    assert pairs > 150 and meeting / pairs < 0.05


def test_the_first_actor_is_the_largest_and_gives_the_clip_its_action():
    for clip in CLIPS:
        for shot in clip.shots:
            radii = [poses(a, len(shot), clip.fps).radius.mean() for a in shot.actors]
            assert radii[0] == max(radii)


def test_the_world_is_varied():
    things = [a.thing for clip in CLIPS for shot in clip.shots for a in shot.actors]
    assert {t.colour for t in things} == set(module.COLOURS)
    assert {t.shape for t in things} == set(SHAPES)
    assert {t.size for t in things} == {"small", "", "large"}
    assert {t.motion for t in things} == set(MOTIONS)
    assert {shot.background.texture for clip in CLIPS for shot in clip.shots} == set(TEXTURES)
    changing = sum(bool(clip.scene_changes) for clip in CLIPS) / len(CLIPS)
    assert 0.2 < changing < 0.4
    assert {sum(len(shot.actors) for shot in clip.shots) for clip in CLIPS} == {1, 2, 3}


@settings(deadline=None, max_examples=40)
@given(num_frames=st.integers(4, 50), index=st.integers(0, 10_000))
def test_scenes_change_at_even_frames_away_from_the_ends(num_frames: int, index: int):
    for clip in (scene(0, "train", index, num_frames=num_frames, fps=10), jump_cut(0, index, num_frames=num_frames)):
        assert clip.num_frames == num_frames
        assert [shot.start for shot in clip.shots] == [0, *(shot.end for shot in clip.shots[:-1])]
        for seconds in clip.scene_changes:
            frame = round(seconds * clip.fps)
            assert frame % 2 == 0 and math.floor(num_frames / 4) <= frame <= 3 * num_frames / 4


@pytest.mark.parametrize("num_frames", [4, 7, 16, 40])
@pytest.mark.parametrize("motion", MOTIONS)
def test_a_motion_is_what_its_words_say(motion: str, num_frames: int):
    pose = poses(actor(motion), num_frames, 8)
    steps = {name: np.diff(getattr(pose, name)) for name in ("x", "y", "radius", "angle")}
    expected = {
        "moves left": ("x", -1),
        "moves right": ("x", 1),
        "moves up": ("y", -1),
        "moves down": ("y", 1),
        "grows": ("radius", 1),
        "shrinks": ("radius", -1),
        "spins": ("angle", 1),
    }
    changing, sign = expected.pop(motion, ("", 0))
    if sign:
        assert (steps.pop(changing) * sign > 0).all()
    if motion == "bounces":
        height = -(pose.y - pose.y[0])
        assert height.max() > 0.12 and height[height.argmax() :].min() < 0.75 * height.max()
        steps.pop("y")
    assert all((step == 0).all() for step in steps.values())
    assert pose.visible[0] and pose.visible.all() == (motion != "blinks")
    box = boxes(actor(motion), num_frames, 8)
    assert (np.isnan(box).all(axis=1) == ~pose.visible).all()


def test_what_cannot_be_seen_to_spin_does_not_spin():
    spinning = {a.thing.shape for c in CLIPS for shot in c.shots for a in shot.actors if a.thing.motion == "spins"}
    assert spinning == set(SHAPES) - {"circle", "ring"}
