"""Each store finds what comparing everything by hand finds."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from svilm.search import exact as exact_module
from svilm.search.exact import ExactStore
from svilm.search.lance import LanceStore
from svilm.search.qdrant import QdrantStore
from svilm.search.records import Filter, Moment
from svilm.search.store import Rows, Store
from svilm.search.stores import check_store, open_store

WIDTH = 8
NAMES = ("a.mp4", "b/c.mp4", "b/d.mp4", "b/e/f.mp4", "bb/g.mp4", "it's; \"--\\ %_.mp4", "Ünïcode ☃/x y.mp4", "b.mp4")


def rows_of(video, moments, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(moments, WIDTH)).astype(np.float32)
    ends = np.cumsum([0.0, *rng.uniform(0.5, 4, moments)])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return Rows(video, np.stack([ends[:-1], ends[1:]], axis=1), unit)


def by_hand(known, vector, k, where):
    """All moments admitted, by their cosine."""
    found = [
        (float(cosine), Moment(rows.video, start, end))
        for rows in known.values()
        for cosine, (start, end) in zip(rows.vectors @ vector, rows.bounds.tolist(), strict=True)
    ]
    return sorted((hit for hit in found if where.admits(hit[1])), key=lambda hit: -hit[0])[:k]


@pytest.fixture(params=["exact", "lancedb", "qdrant"])
def make(request, tmp_path):
    """Opens the store; for Qdrant the client's local mode stands for a server."""
    from qdrant_client import QdrantClient

    client = QdrantClient(":memory:") if request.param == "qdrant" else None

    def opened(folder=tmp_path) -> Store:
        if client is not None:
            return QdrantStore(client, WIDTH, folder.name)
        return (ExactStore if request.param == "exact" else LanceStore)(folder / request.param, WIDTH)

    return opened


def agree(store, known, where=Filter(), k=7, seed=0):  # noqa: B008
    vector = rows_of("query", 1, 1000 + seed).vectors[0]
    wanted = by_hand(known, vector, k, where)
    hits = store.search(vector, k, where)
    assert [hit.moment for hit in hits] == [moment for _, moment in wanted]
    assert [hit.rank for hit in hits] == list(range(1, len(wanted) + 1))
    np.testing.assert_allclose([hit.score for hit in hits], [score for score, _ in wanted], atol=1e-5)


def test_what_is_put_is_found(make):
    store = make()
    assert isinstance(store, Store) and store.count() == 0
    assert store.search(rows_of("query", 1, 5).vectors[0], 3, Filter()) == []
    known = {name: rows_of(name, 5, number) for number, name in enumerate(NAMES)}
    store.update(list(known.values()), [])
    assert store.count() == 40
    filters = [Filter(), Filter("b"), Filter("b/e/"), Filter("Ünïcode ☃"), Filter("none"), Filter("", 2.0, 3.0)]
    for where in [*filters, Filter("b", 1.0, math.inf), Filter("b", 3.9, 3.95)]:
        agree(store, known, where)
        agree(store, known, where, k=100)
    for name in NAMES:
        there = store.of(name)
        np.testing.assert_array_equal(there.bounds, known[name].bounds)
        np.testing.assert_allclose(there.vectors, known[name].vectors, atol=1e-6)
    assert len(store.of("unknown").bounds) == 0


def test_an_update_replaces_and_forgets_and_can_be_repeated(make, tmp_path):
    store = make()
    known = {name: rows_of(name, 4, number) for number, name in enumerate(NAMES)}
    store.update(list(known.values()), [])
    new = [rows_of(NAMES[1], 2, 50), rows_of("new/h.mp4", 3, 51)]
    known |= {rows.video: rows for rows in new}
    for name in (NAMES[0], NAMES[5]):
        known.pop(name)
    for _ in range(2):
        store.update(new, [NAMES[0], NAMES[5], "unknown"])
        assert store.count() == sum(len(rows.bounds) for rows in known.values())
        agree(store, known, k=100)
    store.close()
    if not isinstance(store, QdrantStore):
        agree(make(tmp_path), known)


def test_all_may_go(make):
    store = make()
    store.update([rows_of("a.mp4", 3, 0)], [])
    store.update([], ["a.mp4"])
    assert store.count() == 0 and store.search(rows_of("q", 1, 1).vectors[0], 3, Filter()) == []


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 6), st.booleans()), max_size=8))
def test_any_history_ends_in_what_a_table_would_hold(tmp_path_factory, history):
    for kind in (ExactStore, LanceStore):
        store, known = kind(tmp_path_factory.mktemp("history"), WIDTH), {}
        for number, (name, moments, gone) in enumerate(history):
            rows = [] if gone else [rows_of(name, moments, number)]
            store.update(rows, [name] if gone else [])
            known.pop(name, None)
            known |= {one.video: one for one in rows}
        agree(store, known, k=100)
        assert store.count() == sum(len(rows.bounds) for rows in known.values())


def test_the_exact_store_searches_in_pieces(tmp_path, monkeypatch):
    known = {name: rows_of(name, 40, number) for number, name in enumerate(NAMES)}
    store = ExactStore(tmp_path, WIDTH)
    store.update(list(known.values()), [])
    for chunk in (1, 7, 64, 1000):
        monkeypatch.setattr(exact_module, "CHUNK", chunk)
        for k in (1, 5, 400):
            agree(store, known, k=k)
            agree(store, known, Filter("b", 1.5), k=k)


def test_equal_scores_come_in_order_of_video_and_time(tmp_path, monkeypatch):
    vector = rows_of("q", 1, 0).vectors[0]
    same = [Rows(name, np.array([[0, 1.0], [1, 2]]), np.stack([vector, vector])) for name in ("b", "a", "c")]
    store = ExactStore(tmp_path, WIDTH)
    store.update(same, [])
    monkeypatch.setattr(exact_module, "CHUNK", 2)
    found = [(hit.moment.video, hit.moment.start) for hit in store.search(vector, 3, Filter())]
    assert found == [("a", 0), ("a", 1), ("b", 0)]


def test_an_open_exact_store_goes_on_while_another_is_updated(tmp_path):
    first = {"a.mp4": rows_of("a.mp4", 3, 0)}
    ExactStore(tmp_path, WIDTH).update(list(first.values()), [])
    reader = ExactStore(tmp_path, WIDTH)
    ExactStore(tmp_path, WIDTH).update([rows_of("b.mp4", 3, 1)], ["a.mp4"])
    agree(reader, first)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_store_that_was_opened_earlier_finds_what_another_process_added(make):
    make().update([rows_of("a.mp4", 3, 0)], [])
    reader = make()
    changed = {"b.mp4": rows_of("b.mp4", 3, 1), "c.mp4": rows_of("c.mp4", 2, 2)}
    make().update(list(changed.values()), ["a.mp4"])
    agree(reader.newest(), changed)


def test_a_file_cut_short_is_noticed(tmp_path):
    ExactStore(tmp_path, WIDTH).update([rows_of("a.mp4", 3, 0)], [])
    file = next(tmp_path.glob("vectors-*"))
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(ValueError, match="does not have the 96 bytes"):
        ExactStore(tmp_path, WIDTH)


def test_a_store_that_is_exchanged_while_it_is_opened_is_opened_again(tmp_path, monkeypatch):
    writer, known = ExactStore(tmp_path, WIDTH), {}
    for number in range(2):
        writer.update([rows_of(f"{number}.mp4", 3, number)], [])
        known[f"{number}.mp4"] = rows_of(f"{number}.mp4", 3, number)
    through, exchanges = ExactStore._map, [2, 3]

    def map_late(store, *given):
        if exchanges:
            number = exchanges.pop()
            known[f"{number}.mp4"] = rows_of(f"{number}.mp4", 3, number)
            with monkeypatch.context() as patch:
                patch.setattr(ExactStore, "_map", through)
                writer.update([known[f"{number}.mp4"]], [])
        return through(store, *given)

    monkeypatch.setattr(ExactStore, "_map", map_late)
    agree(ExactStore(tmp_path, WIDTH), known, k=100)
    assert not exchanges


def test_a_vector_that_is_no_number_hides_no_other(tmp_path, monkeypatch):
    known = {name: rows_of(name, 4, number) for number, name in enumerate(NAMES)}
    store = ExactStore(tmp_path, WIDTH)
    broken = rows_of("broken.mp4", 2, 99)
    broken.vectors[:] = np.nan
    store.update([*known.values(), broken], [])
    for chunk in (7, 1000):
        monkeypatch.setattr(exact_module, "CHUNK", chunk)
        for k in (1, 5, 400):
            agree(store, known, k=k)
            agree(store, known, Filter("b", 1.5), k=k)


def test_lancedb_finds_the_same_with_its_index(tmp_path):
    known = {f"{n % 7}/{n}.mp4": rows_of(f"{n % 7}/{n}.mp4", 8, n) for n in range(200)}
    store = LanceStore(tmp_path, WIDTH, approximate_from=1500)
    store.update(list(known.values()), [])
    assert store._approximate()
    later = {"late.mp4": rows_of("late.mp4", 5, 999)}
    store.update(list(later.values()), ["0/0.mp4"])
    known.pop("0/0.mp4")
    for seed in range(5):
        agree(store, known | later, k=10, seed=seed)
        agree(store, known | later, Filter("3", 1.0, 3.0), k=10, seed=seed)


def test_a_qdrant_collection_of_another_width_is_refused():
    from qdrant_client import QdrantClient

    client = QdrantClient(":memory:")
    QdrantStore(client, WIDTH, "x")
    with pytest.raises(ValueError, match="does not hold vectors of 9 numbers"):
        QdrantStore(client, 9, "x")


def test_stores_are_opened_by_their_name(tmp_path):
    assert isinstance(open_store("exact", tmp_path, WIDTH, "x"), ExactStore)
    assert isinstance(open_store("lancedb", tmp_path, WIDTH, "x"), LanceStore)
    local = open_store(f"qdrant={tmp_path / 'local'}", tmp_path, WIDTH, "x")
    local.update([rows_of("a.mp4", 3, 0)], [])
    local.close()
    again = open_store(f"qdrant={tmp_path / 'local'}", tmp_path, WIDTH, "x")
    assert isinstance(again, QdrantStore) and again.count() == 3
    again.close()
    for kind in ("exact", "lancedb", f"qdrant={tmp_path / 'local'}"):
        check_store(kind)
    for look in (check_store, lambda kind: open_store(kind, tmp_path, WIDTH, "x")):
        with pytest.raises(ValueError, match="choose exact, lancedb, or qdrant=ADDRESS"):
            look("chroma")


def test_a_server_that_does_not_answer_is_named(tmp_path):
    for look in (check_store, lambda kind: open_store(kind, tmp_path, WIDTH, "x")):
        with pytest.raises(ValueError, match=r"Qdrant at http://127.0.0.1:9"):
            look("qdrant=http://127.0.0.1:9")


@pytest.mark.parametrize("folder", ["../x", "/etc", "a/../../b", "a\0b"])
def test_a_filter_stays_below_the_root(folder):
    with pytest.raises(ValueError, match="give one below the index's root"):
        Filter(folder)


@pytest.mark.parametrize(("shortest", "longest"), [(-1, 2), (3, 2), (math.nan, 2), (0, math.nan)])
def test_lengths_of_a_filter_must_make_sense(shortest, longest):
    with pytest.raises(ValueError, match="shortest must be at least 0"):
        Filter("", shortest, longest)
