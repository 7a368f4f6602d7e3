"""LanceDB as the store: embedded, durable, with an approximate index where there are many moments."""

from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from svilm.search.records import SLACK, Filter, Hit, Moment
from svilm.search.store import Rows, Vector

APPROXIMATE_FROM = 20_000
"""Moments from which on an index is built; comparing fewer one by one takes milliseconds."""
EF, REFINE = 128, 4
"""Width of the search in the graph, and how many times the wanted number is compared exactly then.  LanceDB's own
values find 86 of 100 true neighbours among 100,000, these find all."""
NAMES_AT_ONCE = 500
KEPT = timedelta(days=1)
"""Old versions of the table stay for so long, for processes that are reading them."""
_TABLE = "moments"


def library() -> Any:
    """The module of LanceDB.  Raises ValueError where it is not installed."""
    try:
        import lancedb
    except ImportError:
        raise ValueError("the store lancedb needs LanceDB: pip install -e '.[search]' in svilm's checkout") from None
    return lancedb


class LanceStore:
    """One table of vectors with video, start and end; from ``approximate_from`` moments on with an index.

    Raises ValueError where LanceDB is not installed.
    """

    def __init__(self, folder: Path, width: int, approximate_from: int = APPROXIMATE_FROM) -> None:
        self.folder, self.width, self.approximate_from = folder, width, approximate_from
        self._database: Any = library().connect(str(folder))
        if not (folder / f"{_TABLE}.lance").is_dir():
            self._database.create_table(_TABLE, schema=self._schema(), exist_ok=True)
        self._table: Any = self._database.open_table(_TABLE)

    def update(self, added: Sequence[Rows], removed: Collection[str]) -> None:
        """Delete, add, and bring the approximate index up to date."""
        names = sorted({*removed, *(rows.video for rows in added)})
        for first in range(0, len(names), NAMES_AT_ONCE):
            self._table.delete(f"video IN ({', '.join(map(_quoted, names[first : first + NAMES_AT_ONCE]))})")
        if added:
            self._table.add(self._batches(added))
        if self._approximate():
            self._table.optimize(cleanup_older_than=KEPT)
        elif self.count() >= self.approximate_from:
            from lancedb.index import HnswSq

            self._table.create_index("vector", config=HnswSq(distance_type="dot", num_partitions=1))

    def search(self, vector: Vector, k: int, where: Filter) -> list[Hit]:
        """The nearest, with the index where there is one."""
        query = self._table.search(np.asarray(vector, np.float32)).distance_type("dot").limit(k)
        query = query.select(["video", "start", "end", "_distance"])
        if where != Filter():
            query = query.where(_condition(where), prefilter=True)
        if self._approximate():
            query = query.ef(max(EF, REFINE * k)).refine_factor(REFINE)
        rows = query.to_arrow().to_pylist()
        scores = [min(1.0, max(-1.0, 1.0 - row["_distance"])) for row in rows]
        return [
            Hit(rank, score, Moment(row["video"], row["start"], row["end"]))
            for rank, (row, score) in enumerate(zip(rows, scores, strict=True), start=1)
        ]

    def of(self, video: str) -> Rows:
        """Read by the video's name."""
        found = self._table.search().where(f"video = {_quoted(video)}").select(["start", "end", "vector"]).to_arrow()
        found = found.sort_by("start")
        bounds = np.stack([found["start"].to_numpy(), found["end"].to_numpy()], axis=1)
        vectors = found["vector"].combine_chunks().flatten().to_numpy().reshape(-1, self.width)
        return Rows(video, bounds, vectors)

    def count(self) -> int:
        """Moments in all."""
        return int(self._table.count_rows())

    def newest(self) -> "LanceStore":
        """Opened once more, since this one keeps the version of the table that it has read."""
        return LanceStore(self.folder, self.width, self.approximate_from)

    def close(self) -> None:
        """Let go of the table."""
        self._table = self._database = None

    def _approximate(self) -> bool:
        return any("vector" in index.columns for index in self._table.list_indices())

    def _schema(self) -> Any:
        import pyarrow as arrow

        vector = arrow.list_(arrow.float32(), self.width)
        fields = [("vector", vector), ("video", arrow.string()), ("start", arrow.float64()), ("end", arrow.float64())]
        return arrow.schema(fields)

    def _batches(self, added: Sequence[Rows]) -> Any:
        import pyarrow as arrow

        def batches() -> Iterator[Any]:
            for rows in added:
                vectors = np.ascontiguousarray(rows.vectors, np.float32).ravel()
                columns = [
                    arrow.FixedSizeListArray.from_arrays(arrow.array(vectors), self.width),
                    arrow.array([rows.video] * len(rows.bounds)),
                    *(arrow.array(np.ascontiguousarray(column)) for column in rows.bounds.T),
                ]
                yield arrow.record_batch(columns, schema=self._schema())

        return arrow.RecordBatchReader.from_batches(self._schema(), batches())


def _condition(where: Filter) -> str:
    seconds = f'"end" - "start" >= {where.shortest - SLACK!r}'
    if where.longest < float("inf"):
        seconds += f' AND "end" - "start" <= {where.longest + SLACK!r}'
    return f"starts_with(video, {_quoted(where.prefix)}) AND {seconds}"


def _quoted(text: str) -> str:
    """A text as SQL spells it: between quotes, inner quotes twice."""
    return "'" + text.replace("'", "''") + "'"
