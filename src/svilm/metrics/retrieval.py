"""Ranks and recall of a retrieval, with ties and several right answers handled openly.

A query ranks items by similarity.  Its rank is that of its best-ranked positive item, 1 for the top; its
other positives do not count as competitors.  Items of exactly the same similarity have no order, so what is
reported is the expectation over all orders of them; a similarity that says nothing scores exactly chance.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

Positives = Sequence[Iterable[int]]
"""For each query the items that are right answers, at least one.  None instead means item i for query i."""
Ties = Literal["average", "optimistic", "pessimistic"]
RECALL_AT = (1, 5, 10)
_Counts = tuple[Int[np.ndarray, " queries"], Int[np.ndarray, " queries"]]
BLOCK_ELEMENTS = 2**22
"""Similarities are compared in blocks of at most this many numbers."""


@dataclass(frozen=True)
class Ranking:
    """What stands before and beside the best positive of each query."""

    ahead: Int[np.ndarray, " queries"]
    """Negative items with a higher similarity."""
    tied: Int[np.ndarray, " queries"]
    """Negative items with exactly the same similarity."""
    equals: Int[np.ndarray, " queries"]
    """Positive items with that similarity, itself included, so at least 1."""

    def ranks(self, ties: Ties = "average") -> Float[np.ndarray, " queries"]:
        """Rank of the best positive, from 1: behind half of the tied items ("average"), none or all of them.

        With several positives among the tied items "average" is the expected rank of the first of them,
        1 + ahead + tied / (equals + 1).
        """
        behind = {"average": self.tied / (self.equals + 1), "optimistic": 0, "pessimistic": self.tied}[ties]
        return np.asarray(1.0 + self.ahead + behind, dtype=np.float64)

    def recall(self, at: int, ties: Ties = "average") -> float:
        """Percent of queries with a positive among the first ``at`` items; expected percent for "average"."""
        if ties != "average":
            return 100.0 * float(np.mean(self.ranks(ties) <= at))
        missed = np.ones(len(self.ahead))
        for drawn in range(at):  # the chance that places ahead+1 to at all go to tied negatives, place by place
            negatives, left = self.tied - drawn, self.tied + self.equals - drawn
            chance = np.maximum(negatives, 0) / np.maximum(left, 1)
            missed *= np.where(drawn < at - self.ahead, chance, 1.0)
        return 100.0 * float(np.mean(1.0 - missed))

    def metrics(self, ties: Ties = "average") -> dict[str, float]:
        """R@1, R@5, R@10 (percent), median_rank, mean_rank and tied_queries (how many queries have a tie)."""
        ranks = self.ranks(ties)
        return {
            **{f"R@{at}": self.recall(at, ties) for at in RECALL_AT},
            "median_rank": float(np.median(ranks)),
            "mean_rank": float(np.mean(ranks)),
            "tied_queries": float(np.count_nonzero(self.tied)),
        }


def rank_similarity(similarity: Float[np.ndarray, "queries items"], positives: Positives | None = None) -> Ranking:
    """Rank the items (columns) for every query (row), higher similarity first.

    Raises ValueError for NaN, for a query without a positive, or for a positive that is not a column.
    """
    num_queries, num_items = similarity.shape
    blocks = (similarity[rows] for rows in _row_blocks(num_queries, num_items))
    return _rank(blocks, num_queries, num_items, positives)


def rank_embeddings(
    queries: Float[np.ndarray, "queries common"],
    items: Float[np.ndarray, "items common"],
    positives: Positives | None = None,
) -> Ranking:
    """As `rank_similarity` with dot products, in blocks of queries and items: the whole matrix is never kept.

    Products are summed in float64 and compared in float32, so that equal items tie wherever they stand.  Most need
    not be: a block is first computed in float32, and only what lies within its rounding error of the best positive
    is computed again.

    Beside its arguments this holds at most 16 bytes for each of BLOCK_ELEMENTS similarities, the vectors of a block
    in float64, and some 100 bytes for each query, item and positive: under 300 MB for a million items.
    Raises ValueError as `rank_similarity` does, and for a vector that is not finite.
    """
    flat, first = _flatten(positives, len(queries), len(items))
    owner = np.repeat(np.arange(len(queries)), np.diff(np.append(first, len(flat))))
    kind, slack = _rounding(queries, items)
    own = _exact(queries, items, owner, flat)
    best = np.maximum.reduceat(own, first)
    equals = np.add.reduceat((own == best[owner]).astype(np.int64), first)
    ahead, tied = np.zeros_like(equals), np.zeros_like(equals)
    by_item = np.argsort(flat, kind="stable")
    side = math.isqrt(BLOCK_ELEMENTS)
    for columns in _slices(len(items), side):
        inside = by_item[slice(*np.searchsorted(flat[by_item], [columns.start, columns.stop]))]
        for rows in _slices(len(queries), side):
            here = inside[(owner[inside] >= rows.start) & (owner[inside] < rows.stop)]
            own_places = owner[here] - rows.start, flat[here] - columns.start
            block = _Block(queries[rows], items[columns], own_places, best[rows])
            more, same = block.sieved(kind, slack[rows])
            ahead[rows] += more
            tied[rows] += same
    return Ranking(ahead, tied, equals)


@dataclass(frozen=True)
class _Block:
    """Some queries and some items, where the queries' own positives among these stand, and the similarity to beat."""

    queries: Float[np.ndarray, "queries common"]
    items: Float[np.ndarray, "items common"]
    positives: tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]
    best: Float[np.ndarray, " queries"]

    def sieved(self, kind: type[np.floating], slack: Float[np.ndarray, " queries"]) -> _Counts:
        """How many negatives are more similar than ``best``, and how many exactly as similar, for each query.

        Products in ``kind`` settle all that is further than ``slack`` from ``best``; the rest is computed exactly.
        """
        found = self._products(kind)
        over = found > (self.best + slack).astype(kind)[:, None]
        near = (found >= (self.best - slack).astype(kind)[:, None]) ^ over
        if 64 * np.count_nonzero(near) > near.size:  # vectors that are nearly all alike
            found = self._products(np.float64).astype(np.float32)
            return _counts(found > self.best[:, None]), _counts(found == self.best[:, None])
        row, column = np.nonzero(near)
        value = _exact(self.queries, self.items, row, column)
        more, same = (row[passed] for passed in (value > self.best[row], value == self.best[row]))
        length = len(self.queries)
        return _counts(over) + np.bincount(more, minlength=length), np.bincount(same, minlength=length)

    def _products(self, kind: type[np.floating]) -> Float[np.ndarray, "queries items"]:
        found = self.queries.astype(kind, copy=False) @ self.items.astype(kind, copy=False).T
        found[self.positives] = -np.inf  # they do not compete
        return found


def _counts(true: Bool[np.ndarray, "queries items"]) -> Int[np.ndarray, " queries"]:
    counts: np.ndarray = np.count_nonzero(true, axis=1)
    return counts


def chance(num_queries: int, num_items: int, positives: Positives | None = None) -> Ranking:
    """The ranking by a similarity that says nothing: all items tied.

    Its metrics are what guessing scores.  For one positive per query: R@k = 100 k / num_items and mean rank
    (num_items + 1) / 2.
    """
    flat, first = _flatten(positives, num_queries, num_items)
    equals = np.diff(np.append(first, len(flat)))
    return Ranking(ahead=np.zeros_like(equals), tied=num_items - equals, equals=equals)


def inverted(positives: Positives, num_items: int) -> list[list[int]]:
    """For each item the queries it answers: turns captions -> videos into videos -> captions.

    An item that answers no query gets an empty list, which the ranking functions refuse: leave it out first.
    """
    queries: list[list[int]] = [[] for _ in range(num_items)]
    for query, items in enumerate(positives):
        for item in items:
            queries[item].append(query)
    return queries


def dual_softmax(
    similarity: Float[np.ndarray, "queries items"], temperature: float
) -> Float[np.ndarray, "queries items"]:
    """Similarity plus the log of its softmax over queries: does the item prefer this query to the others?

    An item that is near to every query loses its advantage.  Transductive: every score depends on all test
    queries at once and assumes that each item answers about as many, so report it in a row of its own.  For
    the other direction pass the transpose.  The published form (DSL of CAMoE) is similarity times softmax;
    the exponential of ours is exp(similarity) times softmax, which keeps the order of negative similarities,
    and the logarithm does not underflow into ties.
    """
    if not temperature > 0:
        raise ValueError(f"temperature of the dual softmax is {temperature}, must be above 0")
    wide = similarity.astype(np.float64)
    logits = (wide - wide.max(axis=0)) / temperature
    scores: np.ndarray = wide + logits - np.log(np.exp(logits).sum(axis=0))
    return scores


def _rank(blocks: Iterable[np.ndarray], num_queries: int, num_items: int, positives: Positives | None) -> Ranking:
    flat, first = _flatten(positives, num_queries, num_items)
    owner = np.repeat(np.arange(num_queries), np.diff(np.append(first, len(flat))))
    ahead, tied, equals = (np.zeros(num_queries, dtype=np.int64) for _ in range(3))
    start = 0
    for block in blocks:
        stop = start + len(block)
        if np.isnan(block).any():
            query, item = np.argwhere(np.isnan(block))[0]
            raise ValueError(
                f"similarity of query {start + query} and item {item} is NaN, so the items cannot be ranked; "
                "look for non-finite embeddings"
            )
        part = slice(*np.searchsorted(owner, [start, stop]))
        own = block[owner[part] - start, flat[part]]
        begins = first[start:stop] - first[start]
        best = np.maximum.reduceat(own, begins)
        equals[start:stop] = np.add.reduceat((own == best[owner[part] - start]).astype(np.int64), begins)
        ahead[start:stop] = np.count_nonzero(block > best[:, None], axis=1)
        tied[start:stop] = np.count_nonzero(block == best[:, None], axis=1) - equals[start:stop]
        start = stop
    return Ranking(ahead, tied, equals)


def _exact(
    queries: Float[np.ndarray, "queries common"],
    items: Float[np.ndarray, "items common"],
    query: Int[np.ndarray, " pairs"],
    item: Int[np.ndarray, " pairs"],
) -> Float[np.ndarray, " pairs"]:
    """Dot products of pairs, summed in float64, as float32."""
    found = np.empty(len(query), dtype=np.float32)
    for pairs in _row_blocks(len(query), 4 * queries.shape[1]):
        products = queries[query[pairs]].astype(np.float64) * items[item[pairs]]
        found[pairs] = products.sum(axis=1)
    return found


def _rounding(
    queries: Float[np.ndarray, "queries common"], items: Float[np.ndarray, "items common"]
) -> tuple[type[np.floating], Float[np.ndarray, " queries"]]:
    """In which type to multiply, and how far a product of it may be from the exact one, for each query."""
    long, longest = _lengths("query", queries), _lengths("item", items).max()
    kind = np.float32 if long.max() * longest < 1e30 else np.float64
    summing, comparing = (float(np.finfo(each).eps) / 2 for each in (kind, np.float32))
    share = queries.shape[1] * summing + 8 * comparing
    return kind, share * long * longest + 1e-36  # float32 is coarse near zero


def _lengths(name: str, vectors: Float[np.ndarray, "rows common"]) -> Float[np.ndarray, " rows"]:
    lengths: np.ndarray = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    if not np.isfinite(lengths).all():
        raise ValueError(
            f"the vector of {name} {int(np.argmin(np.isfinite(lengths)))} has no finite length, so the items cannot "
            "be ranked; look for NaN or infinity in the embeddings"
        )
    return lengths


def _row_blocks(num_rows: int, num_columns: int) -> Iterator[slice]:
    return _slices(num_rows, max(1, BLOCK_ELEMENTS // max(1, num_columns)))


def _slices(count: int, length: int) -> Iterator[slice]:
    return (slice(first, first + length) for first in range(0, count, length))


def _flatten(
    positives: Positives | None, num_queries: int, num_items: int
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " queries"]]:
    """All positives one query after the other, and where each query begins."""
    if num_queries == 0:
        raise ValueError("no queries to rank")
    if positives is None:
        if num_queries != num_items:
            raise ValueError(f"{num_queries} queries but {num_items} items: say which items are right by `positives`")
        return np.arange(num_queries), np.arange(num_queries)
    if len(positives) != num_queries:
        raise ValueError(f"{num_queries} queries but positives for {len(positives)}")
    rows = [sorted({int(item) for item in items}) for items in positives]
    for query, row in enumerate(rows):
        if not row:
            raise ValueError(f"query {query} has no positive item; leave it out of the evaluation")
        if row[0] < 0 or row[-1] >= num_items:
            raise ValueError(f"query {query} has positive items {row}, but items are 0 to {num_items - 1}")
    lengths = np.array([len(row) for row in rows])
    return np.concatenate(rows), np.cumsum(lengths) - lengths
