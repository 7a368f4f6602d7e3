"""The default store: all vectors in one file, mapped into memory, and every one of them compared."""

import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64

from svilm.search.records import SLACK, Filter, Hit, Moment
from svilm.search.store import Rows, Vector

CHUNK = 1 << 15
"""Vectors compared at once; bounds the memory of a search."""
TABLE = "table.json"


class ExactStore:
    """Vectors and bounds as plain float32 and float64, in order of videos and time; ``table.json`` names the files.

    An update writes new files and then the table, so that it happens whole or not at all, and a process that
    searches meanwhile goes on with the files that it has mapped.
    """

    def __init__(self, folder: Path, width: int) -> None:
        self.folder, self.width = folder, width
        self._open()

    def _open(self) -> None:
        """Read the table and map its files; once more where another process has exchanged them meanwhile."""
        while True:
            table = self._table()
            try:
                return self._take(table)
            except (OSError, ValueError):
                if self._table()["generation"] == table["generation"]:
                    raise

    def _table(self) -> dict[str, Any]:
        if not (self.folder / TABLE).is_file():
            return {"generation": 0, "videos": [], "counts": []}
        table: dict[str, Any] = json.loads((self.folder / TABLE).read_text(encoding="utf-8"))
        return table

    def _take(self, table: dict[str, Any]) -> None:
        self._generation: int = table["generation"]
        self._videos: list[str] = table["videos"]
        self._ends = np.cumsum([0, *table["counts"]])
        total = int(self._ends[-1])
        self._vectors = self._map("vectors", np.float32, (total, self.width))
        self._bounds = self._map("bounds", np.float64, (total, 2))
        self._number = {video: number for number, video in enumerate(self._videos)}

    def _map(self, name: str, kind: type, shape: tuple[int, int]) -> np.ndarray:
        if not shape[0]:
            return np.empty(shape, kind)
        path = self._file(name)
        wanted = shape[0] * shape[1] * np.dtype(kind).itemsize
        if not path.is_file() or path.stat().st_size != wanted:
            raise ValueError(f"{path} does not have the {wanted} bytes that {TABLE} promises; index again from scratch")
        return np.memmap(path, kind, "r", shape=shape)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}-{self._generation:06d}"

    def update(self, added: Sequence[Rows], removed: Collection[str]) -> None:
        """Write everything anew in order, and then exchange it for what was here."""
        new = {rows.video: rows for rows in added}
        kept = (video for video in self._videos if video not in removed and video not in new)
        videos = sorted([*kept, *new])
        old = [self._file(name) for name in ("vectors", "bounds")]
        self._generation += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        counts = []
        with open(self._file("vectors"), "wb") as vectors, open(self._file("bounds"), "wb") as bounds:
            for video in videos:
                rows = new.get(video) or self.of(video)
                counts.append(len(rows.bounds))
                vectors.write(rows.vectors.astype(np.float32).tobytes())
                bounds.write(rows.bounds.astype(np.float64).tobytes())
            for file in (vectors, bounds):
                file.flush()
                os.fsync(file.fileno())
        table = {"generation": self._generation, "videos": videos, "counts": counts}
        part = self.folder / f"{TABLE}.part"
        part.write_text(json.dumps(table), encoding="utf-8")
        os.replace(part, self.folder / TABLE)
        self._open()
        for path in old:
            path.unlink(missing_ok=True)

    def search(self, vector: Vector, k: int, where: Filter) -> list[Hit]:
        """The nearest of all; of equally near ones those that come first by video and time."""
        admitted = self._admitted(where)
        rows, scores = np.empty(0, np.int64), np.empty(0, np.float32)
        query = np.ascontiguousarray(vector, np.float32)
        for first in range(0, len(self._vectors), CHUNK):
            near = self._vectors[first : first + CHUNK] @ query
            if admitted is not None:
                near = np.where(admitted[first : first + CHUNK], near, -np.inf)
            some = _best(near, k)
            rows, scores = np.concatenate([rows, first + some]), np.concatenate([scores, near[some]])
            best = _best(scores, k)
            rows, scores = rows[best], scores[best]
        found = zip(rows.tolist(), scores.clip(-1.0, 1.0).tolist(), strict=True)
        return [Hit(rank, score, self._moment(row)) for rank, (row, score) in enumerate(found, start=1)]

    def of(self, video: str) -> Rows:
        """Views of the mapped files."""
        number = self._number.get(video)
        first, last = (0, 0) if number is None else self._ends[number : number + 2].tolist()
        return Rows(video, self._bounds[first:last], self._vectors[first:last])

    def count(self) -> int:
        """Moments in all."""
        return len(self._vectors)

    def newest(self) -> "ExactStore":
        """Opened once more, since this one keeps the files that it has mapped."""
        return ExactStore(self.folder, self.width)

    def close(self) -> None:
        """Nothing to do: the files close with the object."""

    def _moment(self, row: int) -> Moment:
        number = int(np.searchsorted(self._ends, row, side="right")) - 1
        start, end = self._bounds[row].tolist()
        return Moment(self._videos[number], start, end)

    def _admitted(self, where: Filter) -> Bool[np.ndarray, " moments"] | None:
        if where == Filter():
            return None
        videos = np.array([video.startswith(where.prefix) for video in self._videos], dtype=bool)
        seconds = self._bounds[:, 1] - self._bounds[:, 0]
        fits = (seconds >= where.shortest - SLACK) & (seconds <= where.longest + SLACK)
        admitted: np.ndarray = np.repeat(videos, np.diff(self._ends)) & fits
        return admitted


def _best(scores: Float[np.ndarray, " rows"], k: int) -> Int64[np.ndarray, " best"]:
    """Numbers of the ``k`` largest finite scores, the largest first; of equal ones the first."""
    finite = np.isfinite(scores)
    scores, k = np.where(finite, scores, -np.inf), min(k, int(finite.sum()))
    if not k:
        return np.empty(0, np.int64)
    least = np.partition(scores, -k)[-k]
    rows = np.flatnonzero(scores >= least)
    return rows[np.argsort(-scores[rows], kind="stable")][:k]
