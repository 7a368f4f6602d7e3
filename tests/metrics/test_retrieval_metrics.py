"""Ranks by hand, and against the average over every order of tied items."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svilm.metrics import retrieval
from svilm.metrics.retrieval import Ranking, chance, dual_softmax, inverted, rank_embeddings, rank_similarity


def test_ranks_by_hand():
    similarity = np.array([[0.9, 0.1, 0.2, 0.3], [0.5, 0.4, 0.6, 0.1], [0.0, 0.0, 0.7, 0.8], [4.0, 3.0, 2.0, 1.0]])
    ranking = rank_similarity(similarity)
    assert ranking.ranks().tolist() == [1, 3, 2, 4]
    assert ranking.metrics() == {
        "R@1": 25.0,
        "R@5": 100.0,
        "R@10": 100.0,
        "median_rank": 2.5,
        "mean_rank": 2.5,
        "tied_queries": 0.0,
    }


def test_one_tie_counts_as_half():
    similarity = np.array([[0.5, 0.5, 0.1], [0.0, 1.0, 0.0], [0.9, 0.2, 0.2]])
    ranking = rank_similarity(similarity)
    assert ranking.ranks().tolist() == [1.5, 1, 2.5]
    assert ranking.ranks("optimistic").tolist() == [1, 1, 2]
    assert ranking.ranks("pessimistic").tolist() == [2, 1, 3]
    assert ranking.recall(1) == pytest.approx(100 * (0.5 + 1 + 0) / 3)
    assert ranking.recall(2) == pytest.approx(100 * (1 + 1 + 0.5) / 3)
    assert ranking.recall(1, "optimistic") == pytest.approx(100 * 2 / 3)
    assert ranking.recall(1, "pessimistic") == pytest.approx(100 / 3)
    assert ranking.metrics()["tied_queries"] == 2


def test_the_best_positive_counts_and_the_others_do_not_compete():
    similarity = np.array([[0.9, 0.8, 0.7, 0.6], [0.9, 0.8, 0.7, 0.6]])
    ranking = rank_similarity(similarity, [{1, 2}, {2, 3}])
    assert ranking.ranks().tolist() == [2, 3]
    assert rank_similarity(similarity, [[0, 1, 2, 3], [3]]).ranks().tolist() == [1, 4]


def test_ragged_captions_are_not_assumed_rectangular():
    videos_of_captions = [[0], [0], [1], [2], [2], [2]]
    captions_of_videos = inverted(videos_of_captions, 3)
    assert captions_of_videos == [[0, 1], [2], [3, 4, 5]]
    similarity = np.zeros((6, 3))
    for caption, (video,) in enumerate(videos_of_captions):
        similarity[caption, video] = 1
    assert rank_similarity(similarity, videos_of_captions).recall(1) == 100
    assert rank_similarity(similarity.T, captions_of_videos).recall(1) == 100


def _slow(similarity: np.ndarray, positives: list[set[int]], at: int) -> tuple[list[float], float]:
    """Expected ranks and recall, going through all orders of the items that keep higher similarity first."""
    ranks, hits = [], []
    for row, right in zip(similarity, positives, strict=True):
        found = []
        for order in itertools.permutations(range(len(row))):
            if all(row[a] >= row[b] for a, b in itertools.pairwise(order)):
                found.append(1 + next(n for n, item in enumerate(order) if item in right))
        ranks.append(float(np.mean(found)))
        hits.append(float(np.mean([rank <= at for rank in found])))
    return ranks, 100 * float(np.mean(hits))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_ties_are_the_average_over_all_orders(data):
    queries, items = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5))
    level = st.integers(0, 2)
    similarity = np.array(
        data.draw(st.lists(st.lists(level, min_size=items, max_size=items), min_size=queries, max_size=queries))
    )
    positives = [data.draw(st.sets(st.integers(0, items - 1), min_size=1)) for _ in range(queries)]
    at = data.draw(st.integers(1, 6))
    ranks, recall = _slow(similarity, positives, at)
    ranking = rank_similarity(similarity.astype(np.float64), positives)
    np.testing.assert_allclose(ranking.ranks(), ranks)
    assert ranking.recall(at) == pytest.approx(recall)


def test_a_constant_similarity_scores_chance():
    ranking = rank_similarity(np.full((40, 40), 0.3))
    assert ranking.metrics() == chance(40, 40).metrics()
    assert ranking.metrics() == pytest.approx(
        {"R@1": 2.5, "R@5": 12.5, "R@10": 25.0, "median_rank": 20.5, "mean_rank": 20.5, "tied_queries": 40}
    )


def test_chance_with_ragged_positives_in_closed_form():
    positives = [[0], [1, 2], [3, 4, 5, 6]]
    guess = chance(3, 20, positives)
    for at in (1, 5, 10):
        expected = np.mean([1 - math.comb(20 - len(p), at) / math.comb(20, at) for p in positives])
        assert guess.recall(at) == pytest.approx(100 * expected)
    assert guess.ranks() == pytest.approx([21 / 2, 21 / 3, 21 / 5])
    constant = rank_similarity(np.zeros((3, 20)), positives)
    assert constant.metrics() == guess.metrics()


def test_random_similarity_scores_chance_on_average():
    generator = np.random.default_rng(0)
    positives = [{3}, {1, 5}, {0, 2, 4}] * 500
    scored = rank_similarity(generator.random((1500, 8)), positives).metrics()
    expected = chance(1500, 8, positives).metrics()
    assert scored["R@1"] == pytest.approx(expected["R@1"], abs=4)
    assert scored["mean_rank"] == pytest.approx(expected["mean_rank"], abs=0.15)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_order_of_queries_and_items_does_not_matter(seed):
    generator = np.random.default_rng(seed)
    similarity = generator.integers(0, 4, (7, 9)).astype(np.float32)
    positives = [set(generator.choice(9, size=generator.integers(1, 4), replace=False).tolist()) for _ in range(7)]
    rows, columns = generator.permutation(7), generator.permutation(9)
    place = np.argsort(columns)
    moved = [{int(place[item]) for item in positives[row]} for row in rows]
    before = rank_similarity(similarity, positives)
    after = rank_similarity(similarity[rows][:, columns], moved)
    assert before.ranks()[rows].tolist() == after.ranks().tolist()
    assert before.metrics() == pytest.approx(after.metrics())


def test_blocks_change_nothing(monkeypatch):
    generator = np.random.default_rng(0)
    queries, items = generator.random((23, 5), dtype=np.float32), generator.random((11, 5), dtype=np.float32)
    positives = [generator.choice(11, size=1 + n % 4, replace=False).tolist() for n in range(23)]
    whole = rank_similarity((queries.astype(np.float64) @ items.T.astype(np.float64)).astype(np.float32), positives)
    for elements in (1, 22, 70, 10_000):
        monkeypatch.setattr(retrieval, "BLOCK_ELEMENTS", elements)
        for ranking in (
            rank_embeddings(queries, items, positives),
            rank_similarity(queries @ items.T, positives),
        ):
            assert ranking.ranks().tolist() == whole.ranks().tolist()


def test_equal_embeddings_tie_wherever_they_stand():
    generator = np.random.default_rng(0)
    items = generator.standard_normal((50, 256)).astype(np.float32)
    items[25:] = items[7]
    queries = generator.standard_normal((3, 256)).astype(np.float32)
    ranking = rank_embeddings(queries, items, [{7}] * 3)
    assert (ranking.tied == 25).all()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    spread=st.sampled_from([1.0, 1e-2, 1e-4, 1e-6, 1e-8]),
    scale=st.sampled_from([1e-25, 1e-3, 1.0, 1e6, 1e25]),
    kind=st.sampled_from([np.float32, np.float64]),
    side=st.integers(1, 40),
)
def test_the_sieve_finds_what_float64_finds(seed, spread, scale, kind, side):
    """Vectors nearly alike, some of them equal, of any length: the places where rounding decides."""
    generator = np.random.default_rng(seed)
    number, width = generator.integers(2, 60), int(generator.choice([1, 3, 64]))
    middle = generator.standard_normal(width)
    items = ((middle + spread * generator.standard_normal((number, width))) * scale).astype(kind)
    items[generator.integers(0, number, 5)] = items[generator.integers(0, number)]
    queries = (generator.standard_normal((9, width)) * scale**0.2).astype(kind)
    positives = [generator.choice(number, size=generator.integers(1, 3), replace=False).tolist() for _ in range(9)]
    with pytest.MonkeyPatch.context() as patch, np.errstate(over="ignore"):
        patch.setattr(retrieval, "BLOCK_ELEMENTS", side**2)
        found = rank_embeddings(queries, items, positives)
        similarity = (queries.astype(np.float64) @ items.T.astype(np.float64)).astype(np.float32)
    expected = rank_similarity(similarity, positives)
    for name in ("ahead", "tied", "equals"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()


def test_a_large_gallery_is_ranked_in_little_memory():
    generator = np.random.default_rng(0)
    queries, items = (generator.standard_normal((n, 8), dtype=np.float32) for n in (3, 2_000_000))
    tracemalloc.start()
    ranking = rank_embeddings(queries, items, [[0], [1], [2]])
    assert tracemalloc.get_traced_memory()[1] < 2**27  # the whole matrix in float64 would be 48 MB, with items 176
    tracemalloc.stop()
    best = np.array([queries[n] @ items[n] for n in range(3)])
    assert ranking.ahead.tolist() == pytest.approx([(items @ queries[n] > best[n]).sum() for n in range(3)], abs=2)


def test_dual_softmax_undoes_an_item_that_is_everybodys_favourite():
    generator = np.random.default_rng(0)
    similarity = generator.uniform(-1, 0, (30, 30)) + 0.7 * np.eye(30)
    similarity[:, 4] += 2.0
    assert rank_similarity(similarity).recall(1) < 10
    assert rank_similarity(dual_softmax(similarity, 0.05)).recall(1) > 60
    assert rank_similarity(dual_softmax(similarity, 1e-4)).metrics()["tied_queries"] == 0


def test_dual_softmax_picks_what_the_published_product_picks():
    generator = np.random.default_rng(0)
    similarity = generator.uniform(0.1, 0.3, (30, 30)) + 0.1 * np.eye(30)
    prior = np.exp(similarity / 0.01) / np.exp(similarity / 0.01).sum(axis=0)
    scores = dual_softmax(similarity, 0.01)
    np.testing.assert_allclose(np.exp(scores), np.exp(similarity) * prior)
    assert scores.argmax(axis=1).tolist() == (similarity * prior).argmax(axis=1).tolist()


def test_bad_input_is_refused():
    holed = np.zeros((3, 3))
    holed[1, 2] = np.nan
    with pytest.raises(ValueError, match="query 1 and item 2 is NaN"):
        rank_similarity(holed)
    with pytest.raises(ValueError, match="query 1 has no finite length"):
        rank_embeddings(np.array([[1.0], [np.nan]]), np.ones((2, 1)))
    with pytest.raises(ValueError, match="item 0 has no finite length"):
        rank_embeddings(np.ones((2, 1)), np.array([[np.inf], [1.0]]))
    with pytest.raises(ValueError, match="3 queries but 2 items"):
        rank_similarity(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="query 1 has no positive"):
        rank_similarity(np.zeros((2, 2)), [[0], []])
    with pytest.raises(ValueError, match="items are 0 to 1"):
        rank_similarity(np.zeros((2, 2)), [[0], [2]])
    with pytest.raises(ValueError, match="positives for 1"):
        rank_similarity(np.zeros((2, 2)), [[0]])
    with pytest.raises(ValueError, match="no queries"):
        chance(0, 5)
    with pytest.raises(ValueError, match="above 0"):
        dual_softmax(np.eye(2), 0.0)


def test_infinities_rank_as_numbers_do():
    ranking = rank_similarity(np.array([[-np.inf, 0.0], [0.0, np.inf]]))
    assert ranking.ranks().tolist() == [2, 1]
    assert isinstance(ranking, Ranking)
