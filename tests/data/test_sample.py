"""Which frames make a clip, judged by their times; and which part of the picture is seen."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from make_videos import read_numbers, set_display_matrix, write_video

from svilm.config import ConfigError, build, override
from svilm.data.decode import DecodeError, VideoIndex, index_video, read_frames
from svilm.data.sample import MIDDLE, Sampling, Views, choose_frames, clip_bounds, load_clip

WHOLE = Sampling(num_frames=8, size=48, short_side=48, min_scale=1, max_scale=1)
"""No margin and no change of scale: as little cropping as the picture's shape allows."""


LOSSLESS: dict[str, Any] = {"codec": "ffv1", "pixels": "bgr0"}


def ramps(picture: np.ndarray) -> np.ndarray:
    """Red from 0 to 200 along x, green along y."""
    height, width = picture.shape[:2]
    picture = np.zeros_like(picture)
    picture[:, :, 0] = np.rint((np.arange(width) + 0.5) / width * 200)
    picture[:, :, 1] = np.rint((np.arange(height) + 0.5) / height * 200)[:, None]
    return picture


def uniform(num_frames: int) -> Sampling:
    return Sampling(num_frames=num_frames)


@st.composite
def videos(draw: st.DrawFn) -> tuple[np.ndarray, float]:
    """Frame times of a video of 1 to 200 frames, regular or not, and its duration."""
    count = draw(st.integers(1, 200))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    steps = rng.exponential(0.1, count) + 1e-3 if draw(st.booleans()) else np.full(count, 1 / 30)
    return np.concatenate([[0.0], np.cumsum(steps[:-1])]), float(steps.sum())


@st.composite
def clips(draw: st.DrawFn) -> tuple[np.ndarray, float, float]:
    """Frame times, start and end of a clip inside the video, often all of it."""
    times, duration = draw(videos())
    if draw(st.booleans()):
        return times, 0.0, duration
    start = duration * draw(st.floats(0, 0.95))
    return times, start, start + (duration - start) * draw(st.floats(0.02, 1))


@given(clips(), st.integers(1, 40), st.one_of(st.none(), st.integers(0, 9)), st.sampled_from([1, 3, 8, 0]))
@settings(max_examples=200, deadline=None)
def test_chosen_frames_lie_in_the_clip(
    clip: tuple[np.ndarray, float, float], num_frames: int, seed: int | None, stride: int
) -> None:
    times, start, end = clip
    strategy: dict[str, Any] = {"strategy": "dense", "stride": stride} if stride else {}
    sampling = Sampling(num_frames=num_frames, **strategy)
    rng = None if seed is None else np.random.default_rng(seed)
    numbers = choose_frames(times, start, end, sampling, rng)
    assert len(numbers) == num_frames
    assert (np.diff(numbers) >= 0).all()
    inside = (times >= start) & (times < end)
    if inside.any():
        assert inside[numbers].all()
    else:  # no frame begins within the clip: it shows the one that began before
        assert (numbers == np.flatnonzero(times <= start)[-1]).all()
    if stride and stride * (num_frames - 1) < inside.sum():
        assert (np.diff(numbers) == stride).all()


@given(clips(), st.integers(1, 40), st.one_of(st.none(), st.integers(0, 9)))
@settings(max_examples=200, deadline=None)
def test_uniform_frames_are_on_screen_in_their_stretch_of_time(
    clip: tuple[np.ndarray, float, float], num_frames: int, seed: int | None
) -> None:
    times, start, end = clip
    rng = None if seed is None else np.random.default_rng(seed)
    numbers = choose_frames(times, start, end, uniform(num_frames), rng)
    stretches = np.linspace(start, end, num_frames + 1)
    shown_until = np.append(times[1:], np.inf)[numbers]
    first_of_clip = np.searchsorted(times, start)
    for number, until, early, late in zip(numbers, shown_until, stretches[:-1], stretches[1:], strict=True):
        assert times[number] <= late + 1e-9 or number == first_of_clip
        assert until >= early - 1e-9
    # the tail is not lost: what comes after the last frame is shorter than one stretch
    assert end - shown_until[-1] <= (end - start) / num_frames + 1e-9


@given(st.integers(1, 200), st.sampled_from([1, 2, 7, 32]))
@settings(max_examples=60, deadline=None)
def test_regular_video_gives_the_middle_of_each_stretch(count: int, num_frames: int) -> None:
    numbers = choose_frames(np.arange(count) / 25, 0.0, count / 25, uniform(num_frames), None)
    ideal = (np.arange(num_frames) + 0.5) * count / num_frames
    assert np.abs(numbers + 0.5 - ideal).max() <= 0.5 + 1e-9
    assert count - 1 - numbers[-1] <= count / num_frames


@pytest.mark.parametrize(("count", "num_frames"), [(1, 32), (5, 4), (40, 32), (63, 32), (100, 16)])
@pytest.mark.parametrize("strategy", ["uniform", "dense"])
def test_training_can_draw_every_frame(count: int, num_frames: int, strategy: Any) -> None:
    times = np.cumsum(np.random.default_rng(1).uniform(0.02, 0.06, count))
    sampling, rng = Sampling(num_frames=num_frames, strategy=strategy, stride=1), np.random.default_rng(2)
    drawn = [choose_frames(times, times[0], times[-1] + 0.04, sampling, rng) for _ in range(400)]
    assert set(np.concatenate(drawn).tolist()) == set(range(count))


def test_dense_windows() -> None:
    times, sampling = np.arange(100) / 25, Sampling(num_frames=4, strategy="dense", stride=5)
    assert choose_frames(times, 0.0, 4.0, sampling, None).tolist() == [42, 47, 52, 57]
    assert choose_frames(times, 1.0, 1.36, sampling, None).tolist() == [25, 30, 33, 33]
    rng = np.random.default_rng(0)
    firsts = {int(choose_frames(times, 0.0, 4.0, sampling, rng)[0]) for _ in range(2000)}
    assert firsts == set(range(85))


def test_frames_go_by_time_not_by_number() -> None:
    times = np.concatenate([np.arange(90) / 90, 1 + np.arange(10)])  # 1 s at 90 frames a second, 10 s at one
    numbers = choose_frames(times, 0.0, 11.0, uniform(11), None)
    assert numbers.tolist() == [45, *range(90, 100)]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    """40 frames of 96x64 at 10 a second."""
    return index_video(write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", 40, width=96, height=64))


def test_clip_for_evaluation(video: VideoIndex) -> None:
    sampling = Sampling(num_frames=5, size=56, short_side=64, fit="squash")
    clip = load_clip(video.path, 1.0, 2.0, sampling, None)
    assert clip.frames.shape == (5, 56, 56, 3) and clip.frames.dtype == torch.uint8
    assert read_numbers(clip.frames.numpy()) == [11, 13, 15, 17, 19]
    assert clip.seconds.tolist() == pytest.approx([1.1, 1.3, 1.5, 1.7, 1.9])
    assert clip.box == (0, 0, 1, 1) and not clip.mirrored
    again = load_clip(video.path, 1.0, 2.0, sampling, None, index=video)
    assert torch.equal(clip.frames, again.frames)


def test_centre_crop(video: VideoIndex) -> None:
    clip = load_clip(video.path, None, None, Sampling(num_frames=2, size=56), None)
    expected = read_frames(video, [10, 30], resize=(96, 64))[:, 4:60, 20:76]
    assert np.array_equal(clip.frames.numpy(), expected)
    assert clip.box == pytest.approx((20 / 96, 4 / 64, 76 / 96, 60 / 64))
    square = load_clip(video.path, None, None, WHOLE, None)
    assert square.box == pytest.approx((12 / 72, 0, 60 / 72, 1))


def test_default_is_short_side_256_and_crop_224(tmp_path: Path) -> None:
    path = write_video(tmp_path / "wide.mp4", 1, width=480, height=270)
    clip = load_clip(path, None, None, Sampling(num_frames=1), None)
    assert clip.frames.shape == (1, 224, 224, 3)
    assert clip.box == pytest.approx((115 / 455, 16 / 256, 339 / 455, 240 / 256))


def test_training_clips_are_repeatable_and_different(video: VideoIndex) -> None:
    sampling = Sampling(num_frames=6, size=32)

    def draw(seed: int) -> Any:
        return load_clip(video.path, 0.5, 3.5, sampling, np.random.default_rng(seed), flip=0.5, index=video)

    one, same, other = draw(1), draw(1), draw(2)
    assert torch.equal(one.frames, same.frames) and one.box == same.box and one.mirrored == same.mirrored
    assert not torch.equal(one.frames, other.frames)
    drawn = [draw(seed) for seed in range(40)]
    assert {clip.mirrored for clip in drawn} == {True, False}
    widths = [clip.box[2] - clip.box[0] for clip in drawn]
    short = round(32 * 8 / 7)
    for clip, width in zip(drawn, widths, strict=True):
        assert min(clip.box) >= 0 and max(clip.box) <= 1
        height = clip.box[3] - clip.box[1]
        assert 32 / (short * 1.33) - 0.01 <= height <= 32 / (short * 0.9) + 0.01
        assert width * 96 == pytest.approx(height * 64, rel=0.03)  # the square is a square of the picture
        assert clip.frames.shape == (6, 32, 32, 3)
    assert len({round(clip.box[0], 3) for clip in drawn}) > 15  # of 19 even places in this small picture
    assert len({round(width, 3) for width in widths}) > 5


@given(st.integers(40, 200), st.integers(40, 200), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_training_cuts_before_it_scales(width: int, height: int, seed: int) -> None:
    with TemporaryDirectory() as folder:
        path = write_video(Path(folder) / "ramp.mkv", 1, width=width, height=height, turn=ramps, **LOSSLESS)
        clip = load_clip(path, None, None, Sampling(num_frames=1, size=32), np.random.default_rng(seed))
    x0, y0, x1, y1 = clip.box
    assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
    pixels = [length * edge for length, edge in zip((width, height) * 2, clip.box, strict=True)]
    assert np.allclose(pixels, np.rint(pixels)) and not (np.rint(pixels[:2]) % 2).any()
    # red grows along x, green along y: the pixels say where they come from
    at = (np.arange(32) + 0.5) / 32
    seen = clip.frames[0].numpy().astype(float) / 200
    inside = slice(2, -2)  # at the border nothing beyond it is mixed in
    assert np.abs(seen[:, :, 0].mean(0) - (x0 + at * (x1 - x0)))[inside].max() < 0.02
    assert np.abs(seen[:, :, 1].mean(1) - (y0 + at * (y1 - y0)))[inside].max() < 0.02


@pytest.mark.parametrize("size", [(64, 64), (340, 256), (101, 75)])
def test_training_crops_lean_to_no_side(size: tuple[int, int], tmp_path: Path) -> None:
    index = index_video(write_video(tmp_path / "video.webm", 1, width=size[0], height=size[1], codec="libvpx-vp9"))
    sampling = Sampling(num_frames=1, size=64 if size == (64, 64) else 96)
    boxes = np.array(
        [load_clip(index.path, None, None, sampling, np.random.default_rng(n), index=index).box for n in range(300)]
    )
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 * size
    assert np.abs(centres.mean(0) - np.array(size) / 2).max() < 0.5 + 4 * centres.std(0).max() / len(boxes) ** 0.5
    middle = sampling.model_copy(update={"random_crop": False, "min_scale": 1.0, "max_scale": 1.0})
    training, evaluation = (
        load_clip(index.path, None, None, middle, rng, index=index).box for rng in (np.random.default_rng(0), None)
    )
    assert np.abs((np.array(training) - evaluation) * (size * 2)).max() <= 1.5


def test_training_shows_what_evaluation_shows(tmp_path: Path) -> None:
    """The same square, cut out before or after the scaling."""
    fixed = Sampling(
        num_frames=2, size=56, short_side=64, min_scale=1, max_scale=1, random_crop=False, strategy="dense"
    )
    path = write_video(tmp_path / "squares.mp4", 3, width=192, height=128)
    training, evaluation = (load_clip(path, None, None, fixed, rng) for rng in (np.random.default_rng(0), None))
    assert training.box == pytest.approx(evaluation.box, abs=2 / 128)
    assert (training.frames.int() - evaluation.frames.int()).abs().float().mean() < 4
    whole = fixed.model_copy(update={"size": 64, "fit": "squash"})
    training, evaluation = (load_clip(path, None, None, whole, rng) for rng in (np.random.default_rng(0), None))
    assert training.box == (0, 0, 1, 1) and torch.equal(training.frames, evaluation.frames)


def test_mirroring_is_the_callers_choice(video: VideoIndex) -> None:
    def draw(flip: float) -> Any:
        return load_clip(video.path, 0, 4, WHOLE, np.random.default_rng(0), flip=flip, index=video)

    plain, mirrored = draw(0.0), draw(1.0)
    assert not plain.mirrored and mirrored.mirrored
    assert torch.equal(mirrored.frames, plain.frames.flip(2))
    assert mirrored.frames.is_contiguous()
    assert not load_clip(video.path, 0, 4, WHOLE, None, flip=1.0, index=video).mirrored


def test_turned_video_is_cut_like_its_upright_twin(video: VideoIndex, tmp_path: Path) -> None:
    path = write_video(tmp_path / "turned.mp4", 40, width=96, height=64, turn=np.rot90)
    set_display_matrix(path, 0, 1, -1, 0)
    sampling = Sampling(num_frames=4, size=40)
    for seed in range(3):
        turned = load_clip(path, 0, 4, sampling, np.random.default_rng(seed))
        upright = load_clip(video.path, 0, 4, sampling, np.random.default_rng(seed), index=video)
        assert turned.box == upright.box and turned.seconds.tolist() == upright.seconds.tolist()
        assert (turned.frames.int() - upright.frames.int()).abs().float().mean() < 4


@pytest.mark.parametrize("frames", [1, 2])
def test_very_short_videos(frames: int, tmp_path: Path) -> None:
    path = write_video(tmp_path / "short.mp4", frames)
    for rng in (None, np.random.default_rng(0)):
        clip = load_clip(path, None, None, Sampling(num_frames=32, size=48, fit="squash"), rng)
        assert set(read_numbers(clip.frames.numpy())) == set(range(frames))


def test_clip_outside_of_the_video(video: VideoIndex) -> None:
    assert clip_bounds(video, None, None) == (0.0, video.duration)
    assert clip_bounds(video, 3.0, 4.4) == (3.0, video.duration)
    for start, end in [(3.0, 4.6), (4.0, 4.2), (10.0, None)]:
        with pytest.raises(DecodeError, match=r"lasts 4\.00 s") as caught:
            clip_bounds(video, start, end)
        assert caught.value.reason == "outside_clip"
    for start, end in [(2.0, 2.0), (3.0, 1.0), (-1.0, 1.0), (0.0, float("nan")), (0.0, float("inf"))]:
        with pytest.raises(ValueError, match="empty or not finite"):
            clip_bounds(video, start, end)


def test_a_clip_with_boxes_keeps_its_middle(video: VideoIndex) -> None:
    assert clip_bounds(video, 2.0, 3.0, centred=True) == (2.0, 3.0)
    assert clip_bounds(video, 3.0, 4.4, centred=True) == pytest.approx((3.4, 4.0))
    with pytest.raises(DecodeError, match=r"the middle of the clip .* does not lie in the video") as caught:
        clip_bounds(video, 3.7, 4.4, centred=True)
    assert caught.value.reason == "outside_clip"
    one = Sampling(num_frames=1, size=48)
    for centred, shown in ((True, 3.7), (False, 3.5)):
        clip = load_clip(video.path, 3.06, 4.44, one, None, index=video, centred=centred)
        assert clip.seconds.tolist() == pytest.approx([shown])


def test_one_late_frame_is_tolerated_in_slow_video(tmp_path: Path) -> None:
    index = index_video(write_video(tmp_path / "slow.mkv", milliseconds=[0, 2000, 4000, 6000], frames=4))
    assert clip_bounds(index, 0, index.duration + 1.4)[1] == index.duration


def test_clip_beyond_the_end_of_a_cut_file_is_damage_not_a_wrong_annotation(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"container_options": {"movflags": "faststart"}, "width": 320, "height": 240}
    path = write_video(tmp_path / "cut.mp4", 40, **arguments)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DecodeError, match="does not lie in the video") as caught:
        load_clip(path, 3.5, 4.0, WHOLE, None)
    assert caught.value.reason == "damaged"


def test_settings_are_checked() -> None:
    assert override(Sampling(), ["strategy=dense", "stride=14"]).stride == 14
    for wrong in ({"num_frames": 0}, {"min_scale": 2.0}, {"short_side": 100}, {"strategy": "random"}):
        with pytest.raises(ConfigError):
            build(Sampling, wrong)


def test_a_single_view_is_the_middle() -> None:
    assert Views().of(Sampling()) == Views().of(Sampling(strategy="dense")) == (MIDDLE,)


def test_views_in_time(video: VideoIndex) -> None:
    sampling = Sampling(num_frames=5, size=48, short_side=48)
    numbers = [
        choose_frames(video.seconds, 0.0, 4.0, sampling, None, view.moment).tolist()
        for view in Views(clips=2).of(sampling)
    ]
    assert numbers == [[2, 10, 18, 26, 34], [6, 14, 22, 30, 38]]
    dense = sampling.model_copy(update={"strategy": "dense", "stride": 3})
    firsts = [choose_frames(video.seconds, 0.0, 4.0, dense, None, view.moment)[0] for view in Views(clips=4).of(dense)]
    assert firsts == [0, 9, 18, 27]  # the last window ends with the video
    clips = [load_clip(video.path, None, None, WHOLE, None, view=view) for view in Views(clips=2).of(WHOLE)]
    for clip, first in zip(clips, (0.1, 0.3), strict=True):
        assert clip.seconds.tolist() == pytest.approx([first + 0.5 * k for k in range(8)])


def test_views_along_the_longer_side(video: VideoIndex, tmp_path: Path) -> None:
    tall = write_video(tmp_path / "tall.mp4", 4, width=64, height=96)
    boxes = {
        path: [load_clip(path, None, None, WHOLE, None, view=view).box for view in Views(crops=3).of(WHOLE)]
        for path in (video.path, tall)
    }
    wide = [(0, 0, 48 / 72, 1), (12 / 72, 0, 60 / 72, 1), (24 / 72, 0, 1, 1)]
    assert boxes[video.path] == [pytest.approx(box) for box in wide]
    assert boxes[tall] == [pytest.approx((box[1], box[0], box[3], box[2])) for box in wide]
    margin = Sampling(num_frames=2, size=40, short_side=48)
    tops = {load_clip(video.path, None, None, margin, None, view=view).box[1] for view in Views(crops=3).of(margin)}
    assert tops == {4 / 48}  # the shorter side is cut in the middle


def test_each_moment_comes_with_each_place() -> None:
    views = Views(clips=2, crops=3).of(Sampling())
    assert [(view.moment, view.place) for view in views] == [
        (0.25, 0.0), (0.25, 0.5), (0.25, 1.0), (0.75, 0.0), (0.75, 0.5), (0.75, 1.0),
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"views\.crops = 3"):
        Views(crops=3).of(Sampling(fit="squash"))
