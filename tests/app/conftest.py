"""A folder of drawn videos, an index of it without a model, and its page on a free port."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from fake_index import FakeIndex
from served import serving

from svilm.app.server import create_app
from svilm.data.world.long import untrimmed
from svilm.data.world.paint import render
from svilm.data.world.scenes import scene
from svilm.data.world.write import write_video


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five videos in two folders: short, long, and one in a format that no browser plays; and a file that is none."""
    folder = tmp_path_factory.mktemp("drawn") / "videos"
    (folder / "shapes" / "more").mkdir(parents=True)
    for number, name in enumerate(["shapes/red_circle.mp4", "shapes/more/two-squares.mp4", "video7.mp4"]):
        write_video(folder / name, render(scene(7, "train", number, size=64, num_frames=24, fps=8)), fps=8)
    write_video(folder / "long.mp4", render(untrimmed(7, 0).scene)[:80], fps=8)
    _write_avi(folder / "old.avi", render(scene(7, "train", 9, size=64, num_frames=24, fps=8)))
    (folder / "notes.mp4").write_text("this is not a video")
    return folder


@pytest.fixture(scope="session")
def index(drawn: Path) -> FakeIndex:
    """An index of the drawn videos."""
    return FakeIndex(drawn)


@pytest.fixture(scope="session")
def port(index: FakeIndex) -> Iterator[int]:
    """The port of a server of their page; for tests that leave index and server as they are."""
    with serving(create_app(index)) as port:
        yield port


def _write_avi(path: Path, video: np.ndarray) -> None:
    with av.open(str(path), "w", format="avi") as file:
        stream = file.add_stream("mpeg4", rate=8)
        stream.height, stream.width = video.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in video:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode(None))
