"""JSON: strict, told by line or character, and never all in memory."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svilm.data.prepare import jsons
from svilm.data.prepare.jsons import json_items, json_objects, json_rows, load_json
from svilm.data.prepare.tables import PrepareError, Refusal, Row

Text = Callable[[str, str | bytes], Path]

BROKEN = {
    "cut": '{"a": {"x": 1}, "b": {"x"',
    "no end": '{"a": 1',
    "not an object": "[1, 2]",
    "more": '{"a": 1} {"b": 2}',
    "no colon": '{"a" 1}',
    "number as key": "{1: 2}",
    "double key": '{"a": {"x": 1, "x": 2}}',
    "double item": '{"a": {"x": 1}, "b": 1, "a": {"x": 2}}',
    "too large a number": '{"a": 1e999}',
    "NaN": '{"a": NaN}',
    "infinite": '{"a": [-Infinity]}',
    "deep": '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "huge number": '{"a": ' + "9" * 5000 + "}",
    "empty": "",
    "not UTF-8": b'{"a": "\xe9"}',
    "comma at the end": '{"a": 1,}',
}


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_broken_files_name_the_file(
    text: Text, content: str | bytes, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsons, "PIECE", piece)
    with pytest.raises(PrepareError, match=r"x\.json: "):
        list(json_items(text("x.json", content)))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PrepareError, match="no such file"):
        list(json_items(tmp_path / "x.json"))
    with pytest.raises(PrepareError, match="no such file"):
        load_json(tmp_path / "x.json")


def test_a_folder_is_no_file_that_is_missing(text: Text) -> None:
    folder = text("val.jsonl", "{}").parent
    for read in (load_json, lambda path: list(json_objects(path)), lambda path: list(json_items(path))):
        with pytest.raises(PrepareError, match=r"is a folder; give one annotation file, such as val\.jsonl in it"):
            read(folder)


def test_an_early_mistake_is_found_without_reading_on(text: Text, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsons, "PIECE", 100)
    path = text("x.json", '{"a": {"x" 1}, "b": "' + "x" * 10_000 + '"}')
    with pytest.raises(PrepareError, match="at character 11"):
        list(json_items(path))


def test_a_value_without_end_is_given_up(text: Text, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsons, "PIECE", 100)
    monkeypatch.setattr(jsons, "MAX_VALUE", 500)
    with pytest.raises(PrepareError, match="the value at character 6 has no end"):
        list(json_items(text("x.json", '{"a": "' + "x" * 100_000)))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=6), VALUES, max_size=5), st.integers(1, 40), st.sampled_from([None, 2]))
def test_items_are_those_of_the_whole_file(
    tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any], piece: int, indent: int | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "x.json"
    path.write_bytes(json.dumps(data, indent=indent).encode())
    before, jsons.PIECE = jsons.PIECE, piece
    try:
        assert list(json_items(path)) == list(data.items())
    finally:
        jsons.PIECE = before
    assert load_json(path) == data


@pytest.mark.parametrize("piece", range(1, 14))
def test_numbers_cut_anywhere(text: Text, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsons, "PIECE", piece)
    path = text("x.json", '{"a": 1.25e+10, "b": -0.5, "c": 12}')
    assert list(json_items(path)) == [("a", 1.25e10), ("b", -0.5), ("c", 12)]


def test_lines(text: Text) -> None:
    lines = [
        '{"a": 1}',
        "",
        "[1]",
        '{"a": NaN}',
        '{"a": 1, "a": 2}',
        '{"a"',
        "[" * 100_000,
        '{"a": "\u2028"}',
    ]
    rows = list(json_rows(text("x.jsonl", "\ufeff" + "\r\n".join(lines))))
    assert [row.place for row in rows] == [f"line {n}" for n in (1, 3, 4, 5, 6, 7, 8)]
    assert [row.values for row in rows if isinstance(row, Row)] == [{"a": 1}, {"a": "\u2028"}]
    assert {row.reason for row in rows if isinstance(row, Refusal)} == {"not an object", "not JSON"}
