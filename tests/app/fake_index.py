"""An index without a model: as much of `svilm.Index` as the page uses, over real files, with made-up similarities."""

import re
import time
from pathlib import Path
from typing import Any

import numpy as np

from svilm.data.decode import DecodeError, index_video
from svilm.model import HeatMap
from svilm.search.index import EVERYWHERE, Index
from svilm.search.records import Filter, Hit, IndexedVideo, Moment


class FakeIndex(Index):
    """All videos below a folder in moments of ``window`` seconds; a text is near a moment by chance, for ever."""

    def __init__(self, root: Path, *, window: float = 2.0, can_ground: bool = True, seconds: float = 0.0) -> None:
        self.folder, self.place, self.seconds, self.grounds = root, root, seconds, can_ground
        self.window, self.stale = window, False
        self.asked: list[str] = []
        self._look()

    def _look(self) -> None:
        root = self.place
        videos: dict[str, IndexedVideo] = {}
        failures: dict[str, str] = {}
        self.moments: list[Moment] = []
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.suffix in (".csv", "") or path.is_dir():
                continue
            try:
                found = index_video(path)
            except DecodeError as error:
                failures[name] = str(error)
                continue
            starts = np.arange(0.0, max(found.duration - 0.5 * self.window, 0.1), self.window)
            ends = [*starts[1:], found.duration]
            self.moments += [Moment(name, float(start), float(end)) for start, end in zip(starts, ends, strict=True)]
            status = path.stat()
            videos[name] = IndexedVideo(
                name, found.duration, found.width, found.height, status.st_size, status.st_mtime_ns, len(starts)
            )
        self.videos, self.failures, self.model_name = videos, failures, "/home/somebody/runs/made-up"

    @property
    def root(self) -> Path:
        return self.place

    @property
    def can_ground(self) -> bool:
        return self.grounds

    def __len__(self) -> int:
        return len(self.moments)

    def search(self, query: Any, k: int = 10, where: Filter = EVERYWHERE) -> list[Hit]:
        self.asked += [query] if isinstance(query, str) else []
        time.sleep(self.seconds)
        return self._best(query, k, where)

    def encode_like(self, example: Any, **span: Any) -> Any:
        self.asked.append(f"like {getattr(example, 'shape', example)} {span}")
        return np.array([*span.values(), 1.0])

    def timeline(self, query: Any, video: str) -> list[tuple[Moment, float]]:
        return [(moment, self._score(query, moment)) for moment in self.moments if moment.video == video]

    def nouns(self, query: str) -> tuple[str, ...]:
        return tuple(re.findall(r"(?:red |blue |green )?(?:circle|square|car|man|pan|triangle)", query.lower()))

    def ground(self, moment: Moment, noun: str) -> HeatMap:
        count, side = 8, 32
        y, x = np.mgrid[:side, :side] / side
        at = np.linspace(0.2, 0.8, count)
        heat = np.stack([np.exp(-((x - a) ** 2 + (y - 0.5) ** 2) / 0.02) for a in at]).astype(np.float32)
        seconds = np.linspace(moment.start, moment.end, count, endpoint=False).astype(np.float32)
        pixels = np.zeros((count, side, side, 3), dtype=np.uint8)
        return HeatMap(noun, heat, pixels, seconds, 0, 0.5, (0.25, 0.0, 0.75, 1.0))

    def path_of(self, video: str) -> Path:
        if video not in self.videos:
            raise KeyError(video)
        return self.root / video

    def refresh(self) -> bool:
        stale, self.stale = self.stale, False
        if stale:
            self._look()
        return stale

    def close(self) -> None:
        pass

    def _best(self, query: Any, k: int, where: Filter) -> list[Hit]:
        inside = [moment for moment in self.moments if where.admits(moment)]
        best = sorted(inside, key=lambda moment: -self._score(query, moment))[:k]
        return [Hit(rank, self._score(query, moment), moment) for rank, moment in enumerate(best, start=1)]

    def _score(self, query: Any, moment: Moment) -> float:
        seed = sum(map(ord, f"{query}{moment.video}{moment.start:.1f}"))
        return float(np.random.default_rng(seed).uniform(-0.1, 0.5))
