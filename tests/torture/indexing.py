"""What becomes of an index whose making is killed at any instant, while its folder of videos changes."""

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from svilm.search.build import build_index
from svilm.search.ledger import Failure, read_about, read_videos
from svilm.search.moments import Splitting
from svilm.search.stores import open_store
from tiny_models import own_model
from torture.frame import Check, Outcome, Plan, first
from torture.rig import ended, processes

sys.path.append(str(Path(__file__).parents[1] / "data"))
from make_videos import write_video

SPLITTING = Splitting(shortest=0.5, longest=2.0)
VIDEOS = 20


def kill_indexing(plan: Plan) -> Outcome:
    """Killed again and again, an index ends as one that was made at once, also of videos that change meanwhile."""
    rng, problems = random.Random(f"index {plan.seed}"), list[str]()
    own_model().save_pretrained(plan.folder / "model")
    whole = _Making(plan.folder / "videos 0", plan.folder / "whole", plan.folder / "model", "exact", 1)
    _write_videos(whole.videos, rng, plan.number(VIDEOS, 6))
    for _ in range(2):  # the first process of all has much to import
        shutil.rmtree(whole.to, ignore_errors=True)
        begun = time.monotonic()
        code = ended(_started(whole))
        seconds = time.monotonic() - begun
    problems += [] if code == 0 else [f"left alone: exit code {code}"]
    kills, rounds, total = 0, 0, plan.number(60, 2)
    while kills < total and not problems:
        videos = plan.folder / f"videos {rounds + 1}"
        shutil.copytree(whole.videos, videos)
        store = rng.choice(("exact", "exact", "lancedb"))
        making = _Making(videos, plan.folder / f"index {rounds}", whole.model, store, rng.choice((0, 1, 2)))
        while (code := _killed(making, rng.uniform(0.1, 0.9) * seconds)) == -signal.SIGKILL:
            kills += 1
            _change(videos, rng)
            if kills >= total:
                seconds = 1e9
        problems += [] if code == 0 else [f"round {rounds}: exit code {code}: {_last_words(making)}"]
        fresh = _Making(videos, plan.folder / f"fresh {rounds}", whole.model, "exact", 0)
        ended(_started(making)), ended(_started(fresh))
        problems += [f"round {rounds}, {store}: {words}" for words in _differences(making.to, fresh.to)]
        rounds += 1
    words = f"{kills} kills in {rounds} indexes of videos that change: {len(problems)} differ"
    return Outcome(words, first(problems))


CHECKS: tuple[Check, ...] = (kill_indexing,)


class _Making:
    """An index to be made."""

    def __init__(self, videos: Path, to: Path, model: Path, store: str, workers: int) -> None:
        self.videos, self.to, self.model, self.store, self.workers = videos, to, model, store, workers


def _make(making: _Making) -> None:
    """Index in a process that leads a group, with what it says in a log."""
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)
    with open(making.to.with_suffix(".log"), "wb", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    build_index(
        making.videos,
        making.to,
        str(making.model),
        splitting=SPLITTING,
        store=making.store,
        workers=making.workers,
        device="cpu",
        batch=4,
    )


def _started(making: _Making) -> Any:
    process = processes().Process(target=_make, args=(making,))
    process.start()
    return process


def _killed(making: _Making, seconds: float) -> int | None:
    """The exit code of a process that is killed, with all that it has started, unless it ends before."""
    process = _started(making)
    process.join(min(seconds, 120.0))
    if process.exitcode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return ended(process)


def _write_videos(folder: Path, rng: random.Random, count: int) -> None:
    for number in range(count):
        place = folder / rng.choice(("", "a", "a/b"))
        place.mkdir(parents=True, exist_ok=True)
        write_video(place / f"{number}.mp4", rng.randrange(1, 40), rate=8, gop=rng.choice((4, 12)))
    (folder / "broken.mp4").write_bytes(rng.randbytes(500))


def _change(folder: Path, rng: random.Random) -> None:
    """Remove, rewrite, break or add a video, or leave all as it is."""
    paths = sorted(folder.rglob("*.mp4"))
    path, what = rng.choice(paths), rng.randrange(5)
    if what == 0 and len(paths) > 4:
        path.unlink()
    elif what == 1:
        write_video(path, rng.randrange(1, 40), rate=8)
    elif what == 2:
        path.write_bytes(path.read_bytes()[:300])
    elif what == 3:
        write_video(folder / f"new {rng.randrange(1000)}.mp4", rng.randrange(1, 40), rate=8)


def _differences(one: Path, other: Path) -> list[str]:
    """In what two indexes are not the same."""
    known = [read_videos(folder) for folder in (one, other)]
    if known[0] != known[1]:
        return [f"other videos: {sorted(set(map(str, known[0].values())) ^ set(map(str, known[1].values())))[:4]}"]
    stores = []
    for folder in (one, other):
        about = read_about(folder)
        assert about is not None
        stores.append(open_store(about.store, folder, about.width, about.id))
    found = [] if stores[0].count() == stores[1].count() else ["another number of moments"]
    for video in (name for name, row in known[0].items() if not isinstance(row, Failure)):
        rows = [store.of(video) for store in stores]
        if not np.array_equal(rows[0].bounds, rows[1].bounds):
            found.append(f"{video}: other moments")
        elif not np.allclose(rows[0].vectors, rows[1].vectors, atol=1e-5):
            found.append(f"{video}: other vectors")
    return found


def _last_words(making: _Making) -> str:
    return making.to.with_suffix(".log").read_text(errors="replace")[-400:]
