import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from svilm.config import ConfigError, build
from svilm.data.augment import CutPaste, cut_and_paste, sample_paste, targets
from svilm.types import Paste


def _generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _runs(mask: torch.Tensor) -> list[tuple[int, int]]:
    """Start and duration of the foreground of each clip; fails unless it is one stretch."""
    runs = []
    for row in mask.tolist():
        start, duration = row.index(True), sum(row)
        assert all(row[start : start + duration])
        runs.append((start, duration))
    return runs


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 20), st.integers(2, 20), st.sampled_from([0, 2, 3, 5]), st.integers(0, 2**32 - 1))
def test_every_draw_is_a_legal_one(batch, steps, block, seed):
    paste = sample_paste(batch, steps, CutPaste(block=block), _generator(seed))
    alone = batch - 1 if block and batch % block == 1 else None
    size = block or batch
    for clip, (start, duration) in enumerate(_runs(paste.mask)):
        partner = int(paste.partner[clip])
        assert partner // size == clip // size, "the partner lies in the same block"
        if clip == alone:
            assert (partner, duration) == (clip, steps)
        else:
            assert partner != clip
            assert steps / 2 <= duration < steps
            assert 0 <= start <= steps - duration
    assert sorted(paste.partner.tolist()) == list(range(batch)), "each clip is a background once"
    torch.testing.assert_close(paste.beta, paste.mask.float().mean(dim=1))


@pytest.mark.parametrize("steps", [2, 8, 16])
def test_durations_and_starts_are_uniform_and_each_step_is_both(steps):
    paste = sample_paste(20_000, steps, CutPaste(), _generator())
    runs = _runs(paste.mask)
    durations = range(-(-steps // 2), steps)
    share = {d: sum(run[1] == d for run in runs) / len(runs) for d in durations}
    assert set(share) == {d for _, d in runs}
    assert all(abs(s - 1 / len(durations)) < 0.02 for s in share.values())
    for duration in durations:
        starts = [s for s, d in runs if d == duration]
        counts = np.bincount(starts, minlength=steps - duration + 1) / len(starts)
        assert len(counts) == steps - duration + 1
        assert abs(counts - 1 / len(counts)).max() < 0.03
    foreground = paste.mask.float().mean(dim=0)
    assert foreground.min() > 0.2
    assert foreground.max() < 1


def test_all_cyclic_partners_are_equally_likely():
    generator = _generator()
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(3000):
        partner = tuple(sample_paste(4, 2, CutPaste(), generator).partner.tolist())
        counts[partner] = counts.get(partner, 0) + 1
    assert len(counts) == 6  # (4 - 1)! cycles of four clips
    assert min(counts.values()) > 400


def test_the_draw_depends_on_the_generator_alone():
    first, again, other = (sample_paste(16, 8, CutPaste(), _generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first.mask, again.mask)
    assert torch.equal(first.partner, again.partner)
    assert not torch.equal(first.mask, other.mask)


@pytest.mark.parametrize(
    ("batch", "steps", "config"),
    [
        (1, 8, CutPaste()),
        (5, 1, CutPaste()),
        (5, 1, CutPaste(literal=True)),
        (5, 8, CutPaste(probability=0.0)),
    ],
)
def test_nothing_to_paste(batch, steps, config):
    paste = sample_paste(batch, steps, config, _generator())
    assert paste.mask.all()
    assert paste.partner.tolist() == list(range(batch))
    torch.testing.assert_close(targets(paste), torch.eye(batch))
    video = torch.randint(0, 255, (batch, steps, 1, 1, 3), dtype=torch.uint8)
    assert torch.equal(cut_and_paste(video, paste, 1), video)


def test_probability_is_the_share_of_clips_with_a_background():
    paste = sample_paste(5000, 8, CutPaste(probability=0.3), _generator())
    own = paste.partner == torch.arange(5000)
    assert 0.27 < 1 - own.float().mean() < 0.33
    assert torch.equal(paste.mask.all(dim=1), own)


def test_literal_ranges_are_the_printed_ones_but_keep_a_background():
    runs = _runs(sample_paste(20_000, 8, CutPaste(literal=True), _generator()).mask)
    printed = {(s, d + 1) for d in range(4, 8) for s in range(8 - d) if d + 1 < 8}
    assert set(runs) == printed
    with pytest.raises(ValueError, match=r"3 steps; use at least 4 steps or literal=false"):
        sample_paste(4, 3, CutPaste(literal=True), _generator())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("frames_per_step", [1, 2, 3])
def test_pixels_come_from_the_right_clip_at_the_same_time(dtype, frames_per_step):
    batch, steps = 4, 5
    frames = steps * frames_per_step
    video = torch.arange(batch * frames * 2 * 3 * 3).view(batch, frames, 2, 3, 3).to(dtype)
    before = video.clone()
    paste = sample_paste(batch, steps, CutPaste(), _generator())
    blended = cut_and_paste(video, paste, frames_per_step)
    assert blended.dtype == dtype
    assert torch.equal(video, before)
    for clip in range(batch):
        for frame in range(frames):
            own = paste.mask[clip, frame // frames_per_step]
            source = clip if own else int(paste.partner[clip])
            assert torch.equal(blended[clip, frame], video[source, frame])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([0, 2, 3]), st.floats(0, 1), st.integers(0, 1000))
def test_targets_are_equation_5(batch, steps, block, probability, seed):
    paste = sample_paste(batch, steps, CutPaste(block=block, probability=probability), _generator(seed))
    expected = torch.zeros(batch, batch)
    for i in range(batch):
        p = int(paste.partner[i])
        beta = int(paste.mask[i].sum()) / steps
        if p == i:
            expected[i, i] = 1
        else:
            expected[i, i] = beta
            expected[i, p] = 1 - beta
    torch.testing.assert_close(targets(paste), expected)


def test_a_clip_that_is_its_own_partner_belongs_to_its_caption_alone():
    paste = Paste(torch.tensor([[True, False, False]]), torch.tensor([0]))
    assert targets(paste).tolist() == [[1.0]]


def test_errors_name_what_is_wrong():
    paste = sample_paste(2, 4, CutPaste(), _generator())
    with pytest.raises(ValueError, match=r"2 clips x 6 frames .* 4 steps with 2 frames per step"):
        cut_and_paste(torch.zeros(2, 6, 1, 1, 3), paste, 2)
    with pytest.raises(ValueError, match="batch 0"):
        sample_paste(0, 4, CutPaste(), _generator())
    for bad in ({"probability": 1.1}, {"block": 1}, {"block": -2}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            build(CutPaste, bad)
