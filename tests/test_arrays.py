"""Damaged files of NumPy raise one kind of error, whatever is wrong with them."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from svilm.arrays import read_arrays

TABLE = np.arange(12, dtype=np.float32).reshape(4, 3)


def saved(kind: str) -> bytes:
    file = BytesIO()
    if kind == "npy":
        np.save(file, TABLE)
    else:
        (np.savez if kind == "npz" else np.savez_compressed)(file, table=TABLE)
    return file.getvalue()


@pytest.mark.parametrize(("kind", "name"), [("npy", ""), ("npz", "table"), ("compressed", "table")])
def test_arrays_by_name(kind: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(saved(kind))
    found = read_arrays(tmp_path / "a")
    assert list(found) == [name] and np.array_equal(found[name], TABLE)


@given(
    kind=st.sampled_from(["npy", "npz", "compressed"]),
    length=st.integers(0, 400),
    changes=st.lists(st.tuples(st.integers(0, 399), st.integers(0, 255)), max_size=4),
)
@example(kind="npy", length=400, changes=[(8, 1)])  # tokenize.TokenError
@example(kind="npz", length=400, changes=[(241, 99)])  # NotImplementedError: of a later version
@example(kind="npz", length=400, changes=[(243, 1)])  # RuntimeError: encrypted
@example(kind="compressed", length=400, changes=[(28, 0)])  # zlib.error
@settings(deadline=None, max_examples=300)
def test_damage_is_a_value_error(
    kind: str, length: int, changes: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = bytearray(saved(kind)[:length])
    for place, value in changes:
        if place < len(data):
            data[place] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data)
    try:
        assert all(isinstance(array, np.ndarray) for array in read_arrays(path).values())
    except ValueError as error:
        assert str(error) and "\n" not in str(error)


def test_what_holds_no_plain_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"^it holds Python objects, which are not read; save numbers or texts only$"):
        read_arrays(tmp_path / "o.npy")
    for content in (b"", b"\x00\x00\x00\x20ftypisom", b"PK and text"):
        (tmp_path / "clip.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"^it is no \.npy and no \.npz, whatever its name$"):
            read_arrays(tmp_path / "clip.npz")
    with pytest.raises(ValueError, match="No such file"):
        read_arrays(tmp_path / "none.npy")
