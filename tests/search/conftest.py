"""A folder of small videos, good and bad, and a very small model."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tiny_models import own_model

sys.path.append(str(Path(__file__).parents[1] / "data"))
from make_videos import write_video


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "small"
    own_model().save_pretrained(folder)
    return folder


def write_scenes(path: Path, frames: int, change: int, seed: int) -> Path:
    """A video of 8 frames a second that shows one still picture and, from frame ``change`` on, another."""
    rng = np.random.default_rng(seed)
    pictures = np.repeat(np.repeat(rng.integers(0, 256, (2, 6, 8, 3), dtype=np.uint8), 8, 1), 8, 2)
    shown = iter([0, *range(frames)])  # it is asked once more, for the size
    return write_video(path, frames, rate=8, turn=lambda _: pictures[int(next(shown) >= change)])


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Five good videos and five files that must not be indexed."""
    root = tmp_path / "videos"
    (root / "sub" / "deep").mkdir(parents=True)
    write_scenes(root / "scenes.mp4", 48, 20, 0)
    write_scenes(root / "sub" / "it's ☃.mkv", 40, 24, 1)
    write_video(root / "sub" / "deep" / "one frame.mp4", 1)
    write_video(root / "sub" / "short.mp4", 12, rate=8)
    write_video(root / "upper.MP4", 20, rate=8)
    (root / "text.mp4").write_text("not a video")
    (root / "empty.mp4").touch()
    (root / "cut.mp4").write_bytes((root / "scenes.mp4").read_bytes()[:1500])
    os.mkfifo(root / "pipe.mp4")
    outside = write_video(tmp_path / "secret.mp4", 8)
    (root / "link.mp4").symlink_to(outside)
    (root / "notes.txt").write_text("no video by its name")
    return root
