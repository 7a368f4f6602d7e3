"""The picture of the first batch: what must be in it, not how it looks; looking is done by people."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from svilm.draw.batch import first_batch
from svilm.types import Batch, Entry, Paste

FOREGROUND, BACKGROUND = (59, 130, 246), (224, 112, 26)


def make_batch(
    clips: int,
    frames: int,
    size: int,
    mask: torch.Tensor | None = None,
    caption: str = "a red circle moves left",
) -> Batch:
    """Clips of one grey each, lighter from clip to clip."""
    shades = torch.arange(clips, dtype=torch.uint8) * 20 + 40
    video = shades[:, None, None, None, None].expand(clips, frames, size, size, 3).clone()
    paste = None
    if mask is not None:
        paste = Paste(mask, torch.roll(torch.arange(clips), 1))
    return Batch(
        entries=tuple(Entry(f"video{i}", f"video{i}.mp4", (caption,), ((),)) for i in range(clips)),
        captions=(caption,) * clips,
        nouns=tuple(("red circle",) if i % 2 else () for i in range(clips)),
        video=video,
        seconds=torch.arange(frames).float().expand(clips, frames) / 4,
        view=torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(clips, 4),
        text_ids=torch.zeros(1, 3, dtype=torch.long),
        text_mask=torch.ones(1, 3, dtype=torch.bool),
        caption_index=torch.zeros(clips, dtype=torch.long),
        noun_index=torch.zeros(clips, 2, dtype=torch.long),
        noun_mask=torch.zeros(clips, 2, dtype=torch.bool),
        paste=paste,
    )


def pixels_of(path: Path) -> np.ndarray:
    """A picture as numbers (high, wide, 3)."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def count_of(path: Path, colour: tuple[int, int, int]) -> int:
    """How many pixels of a picture have exactly this colour."""
    return int((pixels_of(path) == colour).all(axis=-1).sum())


class TestFirstBatch:
    def test_bars_share_the_strip_as_the_mask_says(self, tmp_path: Path) -> None:
        mask = torch.tensor([[True, True, True, False]] * 3)
        first_batch(make_batch(3, 8, 32, mask), tmp_path / "first.png")
        own, pasted = (count_of(tmp_path / "first.png", colour) for colour in (FOREGROUND, BACKGROUND))
        # three quarters of each bar; the legend adds one small block of each colour
        assert 2.5 < own / pasted < 3.2

    def test_the_pixels_of_every_clip_are_there(self, tmp_path: Path) -> None:
        first_batch(make_batch(3, 4, 32), tmp_path / "first.png")
        for shade in (40, 60, 80):
            assert count_of(tmp_path / "first.png", (shade, shade, shade)) > 4 * 80 * 80

    def test_without_cut_and_paste_there_are_no_bars(self, tmp_path: Path) -> None:
        first_batch(make_batch(2, 8, 32), tmp_path / "first.png")
        for colour in (FOREGROUND, BACKGROUND):
            assert not count_of(tmp_path / "first.png", colour)

    def test_seams_are_black_and_as_many_as_the_mask_has(self, tmp_path: Path) -> None:
        mask = torch.tensor([[False, True, True, False]])
        whole = torch.ones(1, 4, dtype=torch.bool)
        for name, value in (("two", mask), ("none", whole)):
            first_batch(make_batch(1, 8, 32, value, caption=""), tmp_path / f"{name}.png")
        two, none = (pixels_of(tmp_path / f"{name}.png") for name in ("two", "none"))
        row = two.shape[0] - 100  # through the frames
        assert (none[row].max(axis=-1) < 30).sum() == 0
        assert (two[row].max(axis=-1) < 30).sum() >= 4  # two seams, each a few pixels wide

    @pytest.mark.parametrize(("frames", "size"), [(8, 64), (32, 224), (1, 16)])
    def test_sizes_keep_the_picture_readable(self, tmp_path: Path, frames: int, size: int) -> None:
        first_batch(make_batch(9, frames, size), tmp_path / "first.png", clips=8)
        high, wide, _ = pixels_of(tmp_path / "first.png").shape
        assert 500 < wide < 1600 and 1000 < high < 1700

    @pytest.mark.parametrize("caption", [r"costs $\no$ money", "一个人 пишет", "x " * 500, "<b>&amp;\n\ttab", ""])
    def test_any_caption_is_drawn_without_a_warning(self, tmp_path: Path, caption: str) -> None:
        first_batch(make_batch(2, 2, 16, caption=caption), tmp_path / "first.png")
        assert (tmp_path / "first.png").stat().st_size > 1000
