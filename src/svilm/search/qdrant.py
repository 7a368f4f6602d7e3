"""Qdrant as the store: a server or a cluster of them, by its address, for what outgrows one machine."""

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID, uuid5

import numpy as np

from svilm.search.records import SLACK, Filter, Hit, Moment
from svilm.search.store import Rows, Vector

KEY = "QDRANT_API_KEY"
"""Variable of the environment that holds the key of a server that wants one."""
EF = 128
"""Width of the search in the graph."""
GRAPH = {"m": 20, "ef_construct": 300}
"""How a new collection's graph is built: as LanceDB builds its own, whose recall was measured."""
AT_ONCE = 256
"""Points or names in a request."""
_NAMESPACE = UUID("0b1d0ea4-2a05-4dd4-9b83-0a6f5c1f7a5e")


def connect(address: str) -> Any:
    """A client of the server at ``address``, or of a folder (Qdrant's local mode, meant for up to 20,000 moments).

    Raises ValueError where the client is not installed or nothing answers.
    """
    try:
        from qdrant_client import QdrantClient
    except ImportError:
        raise ValueError("the store qdrant needs its client: pip install -e '.[search]' in svilm's checkout") from None
    if "://" not in address:
        return QdrantClient(path=str(Path(address).absolute()), force_disable_check_same_thread=True)
    client = QdrantClient(url=address, api_key=os.environ.get(KEY), check_compatibility=False)
    with _answering(address):
        client.get_collections()
    return client


class QdrantStore:
    """One collection, called svilm-``name``.

    A collection that is there already is used as it is: make it beforehand to choose shards, replicas or another
    graph.  Raises ValueError where its vectors have another width.
    """

    def __init__(self, client: Any, width: int, name: str) -> None:
        self.width, self.name = width, f"svilm-{name}"
        self._client = client
        self._local = bool(client.init_options.get("path") or client.init_options.get("location") == ":memory:")
        with _answering(self.name):
            if not client.collection_exists(self.name):
                self._create()
            there = client.get_collection(self.name).config.params.vectors
        if getattr(there, "size", None) != width:
            raise ValueError(f"Qdrant's collection {self.name} does not hold vectors of {width} numbers; delete it")

    def _create(self) -> None:
        from qdrant_client import models

        self._client.create_collection(
            self.name,
            vectors_config=models.VectorParams(size=self.width, distance=models.Distance.DOT),
            hnsw_config=models.HnswConfigDiff(**GRAPH),
        )
        if not self._local:  # there it would do nothing but warn of it
            for field, kind in (("video", "keyword"), ("folders", "keyword"), ("seconds", "float")):
                self._client.create_payload_index(self.name, field, models.PayloadSchemaType(kind))

    def update(self, added: Sequence[Rows], removed: Collection[str]) -> None:
        """Delete the videos' points and put the new ones, whose numbers follow from video and place."""
        from qdrant_client import models

        with _answering(self.name):
            for names in _some(sorted({*removed, *(rows.video for rows in added)})):
                matches = models.FieldCondition(key="video", match=models.MatchAny(any=names))
                selector = models.FilterSelector(filter=models.Filter(must=[matches]))
                self._client.delete(self.name, selector, wait=True)
            for points in _some(_points(added)):
                self._client.upsert(self.name, points, wait=True)

    def search(self, vector: Vector, k: int, where: Filter) -> list[Hit]:
        """The nearest that the server finds."""
        from qdrant_client import models

        with _answering(self.name):
            found = self._client.query_points(
                self.name,
                query=np.asarray(vector, np.float32).tolist(),
                query_filter=_condition(where),
                search_params=None if self._local else models.SearchParams(hnsw_ef=max(EF, 2 * k)),
                limit=k,
            ).points
        return [
            Hit(rank, min(1.0, max(-1.0, point.score)), _moment(point.payload))
            for rank, point in enumerate(found, start=1)
        ]

    def of(self, video: str) -> Rows:
        """Read by the video's name."""
        from qdrant_client import models

        matches = models.FieldCondition(key="video", match=models.MatchValue(value=video))
        rows, page = list[tuple[float, float, list[float]]](), None
        with _answering(self.name):
            while True:
                points, page = self._client.scroll(
                    self.name, models.Filter(must=[matches]), limit=AT_ONCE, offset=page, with_vectors=True
                )
                rows += [(point.payload["start"], point.payload["end"], point.vector) for point in points]
                if page is None:
                    break
        rows.sort()
        bounds = np.array([row[:2] for row in rows], np.float64).reshape(-1, 2)
        return Rows(video, bounds, np.array([row[2] for row in rows], np.float32).reshape(-1, self.width))

    def count(self) -> int:
        """Moments in all."""
        with _answering(self.name):
            return int(self._client.count(self.name, exact=True).count)

    def newest(self) -> "QdrantStore":
        """This one: a server answers from what it has."""
        return self

    def close(self) -> None:
        """End the connection."""
        self._client.close()


def _points(added: Sequence[Rows]) -> Iterator[Any]:
    from qdrant_client import models

    for rows in added:
        folders = [f"{folder}/" for folder in map(str, PurePosixPath(rows.video).parents) if folder != "."]
        for number, (start, end) in enumerate(rows.bounds.tolist()):
            payload = {"video": rows.video, "folders": folders, "start": start, "end": end, "seconds": end - start}
            identity = str(uuid5(_NAMESPACE, f"{rows.video}\0{number}"))
            yield models.PointStruct(id=identity, vector=rows.vectors[number].tolist(), payload=payload)


def _condition(where: Filter) -> Any:
    from qdrant_client import models

    if where == Filter():
        return None
    longest = where.longest + SLACK if where.longest < float("inf") else None
    seconds = models.Range(gte=where.shortest - SLACK, lte=longest)
    must: list[Any] = [models.FieldCondition(key="seconds", range=seconds)]
    if where.prefix:
        must.append(models.FieldCondition(key="folders", match=models.MatchValue(value=where.prefix)))
    return models.Filter(must=must)


def _moment(payload: Any) -> Moment:
    return Moment(payload["video"], payload["start"], payload["end"])


def _some(items: Any) -> Iterator[list[Any]]:
    """Lists of at most AT_ONCE items."""
    some: list[Any] = []
    for item in items:
        some.append(item)
        if len(some) == AT_ONCE:
            yield some
            some = []
    if some:
        yield some


@contextmanager
def _answering(what: str) -> Iterator[None]:
    """A server that does not answer, or refuses, as a ValueError that says so."""
    from qdrant_client.http.exceptions import ApiException

    try:
        yield
    except ApiException as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"Qdrant at {what}: {words[:300]}") from None
