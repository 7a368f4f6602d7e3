"""Search among many moments: our exact store and the approximate index of LanceDB, against plain numpy."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64

from svilm.bench.frame import How, Row, higher, lower, not_measured, seconds_of
from svilm.search.exact import ExactStore
from svilm.search.ledger import size_on_disk
from svilm.search.records import Filter
from svilm.search.store import Rows, Store, Vectors

WIDTH = 256
MOMENTS = 100
"""Of a video."""
QUERIES = 50
K = 10
SCENES = 2000
"""Centres that the vectors lie around, as those of real videos do: evenly spread ones have no neighbours to find."""


def rows(how: How) -> Iterator[Row]:
    """50,000 moments of 256 numbers in 500 videos, ten of them wanted; recall, seconds and bytes."""
    videos = 20 if how.quick else 500
    vectors, queries = _scenes(videos * MOMENTS), _scenes(QUERIES, seed=1)
    bounds = np.stack([np.arange(MOMENTS) * 2.0, np.arange(MOMENTS) * 2.0 + 2], axis=1)
    added = [
        Rows(f"{number % 10}/{number:05}.mp4", bounds, vectors[number * MOMENTS : (number + 1) * MOMENTS])
        for number in range(videos)
    ]
    added.sort(key=lambda rows: rows.video)  # the order of the stores
    table = np.concatenate([rows.vectors for rows in added])
    said = f"{len(table):,} moments of {WIDTH}"
    with tempfile.TemporaryDirectory() as folder:
        exact = ExactStore(Path(folder) / "exact", WIDTH)
        building = _seconds(lambda: exact.update(added, []))
        mine, numpy = seconds_of([_ask(exact, queries), _by_numpy(table, queries)], how)
        yield lower(f"exact search, {said}, against numpy in memory", mine / QUERIES, numpy / QUERIES, "s/query")
        yield higher("recall@10 of it", _recall(exact, table, queries), 1.0, "share")
        yield from _approximate(Path(folder), exact, added, table, queries, said, building, how)


def _approximate(
    folder: Path,
    exact: ExactStore,
    added: list[Rows],
    table: Vectors,
    queries: Vectors,
    said: str,
    building: float,
    how: How,
) -> Iterator[Row]:
    from svilm.search.lance import LanceStore

    try:
        lance = LanceStore(folder / "lancedb", WIDTH, approximate_from=1000)
    except ValueError as error:
        yield not_measured("LanceDB", str(error))
        return
    built = _seconds(lambda: lance.update(added, []))
    yield lower(f"building LanceDB's index, {said}, against the exact store", built, building, "s")
    yield higher("recall@10 of it, against exact search", _recall(lance, table, queries), 1.0, "share")
    one = Filter("3")
    for name, where in (("search", Filter()), ("search in a tenth of the videos", one)):
        mine, theirs = seconds_of([_ask(lance, queries, where), _ask(exact, queries, where)], how)
        yield lower(f"{name} with it, against exact search", mine / QUERIES, theirs / QUERIES, "s/query")
    same = [
        len({hit.moment for hit in lance.search(query, K, one)} & {hit.moment for hit in exact.search(query, K, one)})
        for query in queries
    ]
    yield higher("recall@10 in a tenth of the videos", sum(same) / (K * len(queries)), 1.0, "share")
    ours, peer = (size_on_disk(folder / name) / 1e6 for name in ("lancedb", "exact"))
    yield lower("its size, against the exact store", ours, peer, "MB")


def _scenes(count: int, seed: int = 0) -> Vectors:
    """Unit vectors around the same centres for every seed."""
    centres = np.random.default_rng(99).normal(size=(SCENES, WIDTH))
    rng = np.random.default_rng(seed)
    found = centres[rng.integers(SCENES, size=count)] + 0.7 * rng.normal(size=(count, WIDTH))
    unit: np.ndarray = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _ask(store: Store, queries: Vectors, where: Filter | None = None) -> Callable[[], object]:
    return lambda: [store.search(query, K, where or Filter()) for query in queries]


def _by_numpy(table: Vectors, queries: Vectors) -> Callable[[], object]:
    return lambda: [_nearest(table, query) for query in queries]


def _nearest(table: Vectors, query: Float[np.ndarray, " common"]) -> Int64[np.ndarray, " best"]:
    scores = table @ query
    some = np.argpartition(-scores, K)[:K]
    return some[np.argsort(-scores[some])]


def _recall(store: Store, table: Vectors, queries: Vectors) -> float:
    """Share of the found that are as near as the true neighbours."""
    found = 0
    for query in queries:
        wanted = table[_nearest(table, query)] @ query
        scores = np.array([hit.score for hit in store.search(query, K, Filter())])
        found += int((scores >= wanted[-1] - 1e-5).sum())
    return found / (K * len(queries))


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
