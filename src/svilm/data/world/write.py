"""A drawn world on disk: H.264 videos, the annotation files of the real benchmarks, and the exact truth."""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8
from pydantic import Field
from tqdm import tqdm

from svilm.config import Config, build
from svilm.data.world.annotations import FOLDERS, write_annotations
from svilm.data.world.files import write_json
from svilm.data.world.long import untrimmed
from svilm.data.world.paint import render
from svilm.data.world.scenes import Split, jump_cut, scene
from svilm.data.world.truth import (
    ClipTruth,
    UntrimmedTruth,
    WorldError,
    clip_truth,
    read_truth,
    untrimmed_truth,
    write_records,
)

VERSION = 6
"""Goes up when the same settings draw something else, so that an older world is not taken for a new one."""

NUM_CAPTIONS = 5
"""Wordings of each clip's caption."""
FIRST_TEST_ID = 100_000
"""Number of the first test video: names must not depend on how many training clips there are."""

T = TypeVar("T")
R = TypeVar("R")


class WorldSettings(Config):
    """What decides every byte of a world; kept in its ``world.json``."""

    clips: int = Field(ge=1, le=FIRST_TEST_ID)
    """Training clips."""
    test_clips: int = Field(ge=0, le=FIRST_TEST_ID)
    """Held-out clips."""
    untrimmed: int = Field(ge=0, le=FIRST_TEST_ID)
    """Long videos with labelled segments."""
    seed: int = Field(ge=0)
    """Another seed, another world."""
    size: int = Field(ge=32, le=1024, multiple_of=2)
    """Height and width of the videos in pixels; even, as H.264 halves the colour planes."""
    frames: int = Field(ge=4, le=1024)
    """Frames of a clip."""
    fps: int = Field(ge=1, le=120)
    """Frames per second."""

    @property
    def jump_cuts(self) -> int:
        """Jump cuts: a quarter of the held-out clips, rounded up."""
        return -(-self.test_clips // 4)


@dataclass(frozen=True)
class World:
    """What was drawn, and where its files are."""

    folder: Path
    clips: int
    test_clips: int
    untrimmed: int
    scene_changes: int
    """Clips of both splits that have a scene change."""
    seconds: float
    """Time it took; next to nothing when the world was there already."""
    reused: bool

    @property
    def videos(self) -> Path:
        """Folder of all the short clips."""
        return self.folder / "videos"

    @property
    def videocc(self) -> Path:
        """The training clips in VideoCC's form."""
        return self.folder / "videocc" / "video_cc_public.csv"

    @property
    def msrvtt(self) -> Path:
        """Folder of MSRVTT_data.json, MSRVTT_train.9k.csv and MSRVTT_JSFUSION_test.csv."""
        return self.folder / "msrvtt"

    @property
    def msrvtt_qa(self) -> Path:
        """Folder of the questions on the clips, with their answers."""
        return self.folder / "msrvtt_qa"

    @property
    def ucf101(self) -> Path:
        """Folder of the lists by colour, and of the same clips in folders by class."""
        return self.folder / "ucf101"

    @property
    def hmdb51(self) -> Path:
        """Folder of the lists by action, and of the same clips in folders by class."""
        return self.folder / "hmdb51"

    @property
    def activitynet(self) -> Path:
        """The labelled segments of the long videos."""
        return self.folder / "activitynet" / "activity_net.v1-3.min.json"

    @property
    def long_videos(self) -> Path:
        """Folder of the long videos."""
        return self.folder / "untrimmed"

    @property
    def ava(self) -> Path:
        """Folder of the boxes with actions, and of those that a detector would find."""
        return self.folder / "ava"

    @property
    def scenes(self) -> Path:
        """Held-out clips with a scene change: video, start, end, caption, scene_changes."""
        return self.folder / "scenes.csv"

    @property
    def jump_cuts(self) -> Path:
        """The same of the jump cuts, whose scenes change before one and the same background."""
        return self.folder / "jump_cuts.csv"

    @property
    def jump_cut_videos(self) -> Path:
        """Folder of the jump cuts."""
        return self.folder / "jump_cuts"


def draw_world(
    folder: str | Path,
    *,
    clips: int = 2000,
    test_clips: int = 500,
    untrimmed: int = 120,
    seed: int = 0,
    size: int = 64,
    frames: int = 16,
    fps: int = 8,
    workers: int | None = None,
    force: bool = False,
) -> World:
    """Draw a world into a folder that is new or empty; the same world, if there already, is kept as it is.

    ``size`` is the side of the videos in pixels, ``workers`` how many processes draw (None: one for each
    core; the result does not depend on it, but a script that draws with more than one has to do so under
    ``if __name__ == "__main__"``).  ``force`` draws a world again, even over one of other settings.
    Raises ConfigError for a setting out of range, WorldError for a folder that holds anything else.
    """
    names = {"clips": clips, "test_clips": test_clips, "untrimmed": untrimmed}
    settings = build(WorldSettings, {**names, "seed": seed, "size": size, "frames": frames, "fps": fps})
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}, must be at least 1, or None for one per core")
    folder, began = Path(folder), time.monotonic()
    if _is_there(folder, settings, force):
        return _summary(folder, settings, read_truth(folder), began, reused=True)
    _write_settings(folder, settings, complete=False)
    _clear(folder)
    records, cuts, long = _draw_videos(folder, settings, workers or _cores())
    write_annotations(folder, records, cuts, long, seed)
    _write_settings(folder, settings, complete=True)
    return _summary(folder, settings, records, began, reused=False)


def _summary(
    folder: Path, settings: WorldSettings, records: Sequence[ClipTruth], began: float, *, reused: bool
) -> World:
    return World(
        folder,
        settings.clips,
        settings.test_clips,
        settings.untrimmed,
        scene_changes=sum(bool(record.scene_changes) for record in records),
        seconds=time.monotonic() - began,
        reused=reused,
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# The folder


def _is_there(folder: Path, settings: WorldSettings, force: bool) -> bool:
    """Whether the folder holds this very world, whole.  Raises WorldError where nothing may be drawn."""
    if folder.exists() and not folder.is_dir():
        raise WorldError(f"{folder} is a file; give a new or an empty folder")
    if not folder.exists() or not any(folder.iterdir()):
        return False
    found = _read_settings(folder / "world.json")
    if found is None:
        raise WorldError(f"{folder} is not empty and not a drawn world; give a new or an empty folder")
    if force:
        return False
    whole = found.pop("complete", None)
    wanted = _settings_json(settings)
    if found != wanted:
        names = [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]
        there, asked = ([f"{name}={values.get(name)}" for name in names] for values in (found, wanted))
        raise WorldError(
            f"{folder} holds a world with {', '.join(there)}, asked for {', '.join(asked)}; "
            "give another folder, or use force (--force) to replace it"
        )
    return whole is True


def _settings_json(settings: WorldSettings) -> dict[str, Any]:
    return {"svilm_world": VERSION, **settings.model_dump(mode="json")}


def _write_settings(folder: Path, settings: WorldSettings, *, complete: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "world.json", {**_settings_json(settings), "complete": complete})


def _read_settings(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) and "svilm_world" in data else None


def _clear(folder: Path) -> None:
    """Remove the videos of a former world; every other file of it is written over."""
    drawn = ("videos/video*.mp4", "jump_cuts/cut*.mp4", "untrimmed/untrimmed*.mp4")
    for pattern in (*drawn, "ucf101/*/v_*.mp4", "hmdb51/*/video*.mp4"):
        for path in [*folder.glob(pattern)]:
            path.unlink()
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)


# Videos


def _draw_videos(
    folder: Path, settings: WorldSettings, workers: int
) -> tuple[list[ClipTruth], list[ClipTruth], list[UntrimmedTruth]]:
    """All videos with their truth files; returns the records of short clips, jump cuts and long videos."""
    clips = [("train", index) for index in range(settings.clips)]
    clips += [("test", index) for index in range(settings.test_clips)]
    draw, draw_cut = partial(_draw_clip, folder, settings), partial(_draw_jump_cut, folder, settings)
    draw_long = partial(_draw_untrimmed, folder, settings)
    with _Workers(workers) as run:
        records = write_records(folder / "truth.jsonl", run(draw, clips, "drawing clips"))
        jumping = run(draw_cut, range(settings.jump_cuts), "drawing jump cuts")
        cuts = write_records(folder / "jump_cuts" / "truth.jsonl", jumping)
        drawn = run(draw_long, range(settings.untrimmed), "drawing long videos")
        long = write_records(folder / "untrimmed" / "truth.jsonl", drawn)
    return records, cuts, long


class _Workers:
    """Maps a function over items in several processes, in order, with a progress bar."""

    def __init__(self, number: int) -> None:
        # Spawned, not forked: the caller may have threads (torch starts some), and forking those is not safe.
        self._pool = ProcessPoolExecutor(number, get_context("spawn")) if number > 1 else None

    def __call__(self, work: Callable[[T], R], items: Sequence[T], title: str) -> Iterator[R]:
        done = self._pool.map(work, items, chunksize=4) if self._pool and items else map(work, items)
        yield from tqdm(done, title, total=len(items), unit="video", leave=False)

    def __enter__(self) -> "_Workers":
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)


def _draw_clip(folder: Path, settings: WorldSettings, key: tuple[Split, int]) -> ClipTruth:
    split, index = key
    drawn = scene(settings.seed, split, index, size=settings.size, num_frames=settings.frames, fps=settings.fps)
    name = f"video{index + (FIRST_TEST_ID if split == 'test' else 0)}"
    record = clip_truth(drawn, name, NUM_CAPTIONS)
    write_video(folder / record.video, render(drawn), settings.fps)
    return record


def _draw_jump_cut(folder: Path, settings: WorldSettings, index: int) -> ClipTruth:
    drawn = jump_cut(settings.seed, index, size=settings.size, num_frames=settings.frames, fps=settings.fps)
    record = clip_truth(drawn, f"cut{index}", NUM_CAPTIONS, folder="jump_cuts")
    write_video(folder / record.video, render(drawn), settings.fps)
    return record


def _draw_untrimmed(folder: Path, settings: WorldSettings, index: int) -> UntrimmedTruth:
    long = untrimmed(settings.seed, index, size=settings.size, fps=settings.fps)
    record = untrimmed_truth(long, f"untrimmed{index}")
    write_video(folder / record.video, render(long.scene), settings.fps)
    return record


def write_video(path: Path, video: UInt8[np.ndarray, "frames height width 3"], fps: int) -> None:
    """Write RGB frames as an H.264 mp4 (yuv420p, the form that every player and dataset uses)."""
    import av

    # For the same bytes each time: one thread, and no macroblock tree, whose AVX-512 code reads beyond the
    # four macroblocks of a 64 pixels wide row and then decides by what it finds there.
    options = {"crf": "14", "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}
    options["g"] = str(4 * fps)  # a key frame every 4 s, as is usual
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width = video.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in video:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode(None))
