"""Ranking a gallery in bounded memory against the whole matrix of similarities and a sort of each of its rows."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from svilm.bench import apart
from svilm.bench.frame import How, Row, compare, lower, not_measured
from svilm.metrics.retrieval import rank_embeddings

SIZES = ((10_000, 10_000, 10_000), (1_000, 1_000_000, 100))
"""Queries, items, and how many of the queries the peer takes: the sorted rows of more would not fit into memory."""
SMALL = (20, 50, 20)
WIDTH = 256


def rows(how: How) -> Iterator[Row]:
    """Time and peak memory of both, each in a process of its own; the ranks are compared on a smaller gallery."""
    ours, peer = (ranking(plain, 300, 2_000) for plain in (False, True))
    np.testing.assert_array_equal(ours(), peer())
    for size in (SMALL,) if how.quick else SIZES:
        name = "retrieval, {:,} queries x {:,} items, against matrix and sort".format(*size)
        if not apart.can_measure():
            yield compare(name, ranking(False, *size[:2]), ranking(True, *size[:2]), replace(how, repetitions=1))
            yield not_measured(f"{name}: peak memory", apart.WHY_NOT)
            continue
        queries, items, some = size
        mine = apart.cost(ranking, (False, queries, items), (False, *SMALL[:2]))
        theirs = apart.cost(ranking, (True, some, items), (True, *SMALL[:2]))
        note = "" if some == queries else f"the peer's time is that of {some:,} queries, {queries / some:g} times"
        yield lower(name, mine.seconds, theirs.seconds * queries / some, "s", note)
        yield lower(f"{name}: peak memory", mine.megabytes, theirs.megabytes, "MB")


def ranking(plain: bool, num_queries: int, num_items: int) -> Callable[[], np.ndarray]:
    """Rank of item i for each query i, whose vector is that of the item with noise; by ours or by the plain way."""
    generator = np.random.default_rng(0)
    items = generator.standard_normal((num_items, WIDTH), dtype=np.float32)
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    queries = items[:num_queries] + 0.5 * generator.standard_normal((num_queries, WIDTH), dtype=np.float32)
    if plain:
        return partial(by_sorting, queries, items)
    positives = [[item] for item in range(num_queries)]
    return lambda: rank_embeddings(queries, items, positives).ranks()


def by_sorting(queries: np.ndarray, items: np.ndarray) -> np.ndarray:
    """The place of item i in the sorted row of query i, from 1."""
    order = np.argsort(-(queries @ items.T), axis=1)
    found: np.ndarray = 1.0 + (order == np.arange(len(queries))[:, None]).argmax(axis=1)
    return found
