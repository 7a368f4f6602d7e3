"""Tiny real videos, and text files as they come."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest


@pytest.fixture
def video(tmp_path: Path) -> Callable[..., Path]:
    """Writes a grey video of so many seconds to a path below the test's folder ``videos``."""

    def write(name: str, seconds: float = 2.0) -> Path:
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=8)
            stream.width = stream.height = 32
            for k in range(round(seconds * 8)):
                picture = np.full((32, 32, 3), 10 * k % 256, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
            container.mux(stream.encode(None))
        return path

    return write


@pytest.fixture
def names(tmp_path: Path) -> Callable[..., Path]:
    """Makes empty files of these names below the test's folder ``videos``, for tests that do not decode."""

    def touch(*names: str) -> Path:
        for name in names:
            path = tmp_path / "videos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        (tmp_path / "videos").mkdir(exist_ok=True)
        return tmp_path / "videos"

    return touch


@pytest.fixture
def text(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Writes a text file exactly as given."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write
