"""The three stores, by their names.

exact    files in the index, mapped into memory and searched whole: exact, and fast enough for a million moments
lancedb  an embedded database in the index, with an approximate index from some size on
qdrant   a Qdrant server or cluster, by its address
"""

from pathlib import Path

from svilm.search.store import Store


def open_store(kind: str, folder: Path, width: int, name: str) -> Store:
    """The store that ``kind`` says: "exact", "lancedb", or "qdrant=" and an address.

    ``folder`` is the index's, ``name`` what it is called where several share a server.  Raises ValueError for
    another kind, and where the library for it is not installed.
    """
    if kind == "exact":
        from svilm.search.exact import ExactStore

        return ExactStore(folder / "exact", width)
    if kind == "lancedb":
        from svilm.search.lance import LanceStore

        return LanceStore(folder / "lancedb", width)
    if kind.startswith("qdrant="):
        from svilm.search.qdrant import QdrantStore, connect

        return QdrantStore(connect(kind.removeprefix("qdrant=")), width, name)
    raise _unknown(kind)


def check_store(kind: str) -> None:
    """Raise ValueError, as ``open_store`` would, for a store that cannot be had; before any video is read for it."""
    if kind == "lancedb":
        from svilm.search.lance import library

        library()
    elif kind.startswith("qdrant="):
        from svilm.search.qdrant import connect

        connect(kind.removeprefix("qdrant=")).close()
    elif kind != "exact":
        raise _unknown(kind)


def _unknown(kind: str) -> ValueError:
    return ValueError(f"store {kind!r}: choose exact, lancedb, or qdrant=ADDRESS such as qdrant=http://localhost:6333")
