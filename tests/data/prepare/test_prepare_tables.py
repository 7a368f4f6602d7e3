"""Tables: every row is read right or refused by its line, and rows in = accepted + refused."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svilm.data.prepare import tables
from svilm.data.prepare.tables import (
    BadRow,
    PrepareError,
    Refusal,
    Row,
    csv_rows,
    file_name,
    microseconds,
    one_line,
    open_table,
    seconds,
    span,
)

Text = Callable[[str, str | bytes], Path]
COLUMNS = ("video", "caption")


def read(path: Path, delimiter: str = ",") -> tuple[list[list[str]], dict[str, str]]:
    """The accepted rows, and the reason for each refused place."""
    rows = list(csv_rows(path, COLUMNS, delimiter))
    good = [[row.text(column) for column in COLUMNS] for row in rows if isinstance(row, Row)]
    return good, {row.place: row.reason for row in rows if isinstance(row, Refusal)}


@pytest.mark.parametrize(
    ("content", "good", "bad"),
    [
        ("a,b\nc,d\n", [["a", "b"], ["c", "d"]], {}),
        ("a,b\r\nc,d\r\n", [["a", "b"], ["c", "d"]], {}),
        ("a,b\nc,d", [["a", "b"], ["c", "d"]], {}),
        ("\ufeffa,b\n", [["a", "b"]], {}),
        ("a,b\n\n \nc,d\n", [["a", "b"], ["c", "d"]], {}),
        ('a,"b, c"\n', [["a", "b, c"]], {}),
        ('a,"b ""c"" d"\n', [["a", 'b "c" d']], {}),
        ('a,5" screen\n', [["a", '5" screen']], {}),
        ('a,"b\nc"\nd,e\n', [["a", "b\nc"], ["d", "e"]], {}),
        ("a,b\u2028c\u0085d\n", [["a", "b\u2028c\u0085d"]], {}),
        # refused
        ("a\nc,d\n", [["c", "d"]], {"line 1": "too few columns"}),
        ("a,b,c\nc,d\n", [["c", "d"]], {"line 1": "too many columns"}),
        ("a,b\x00\nc,d\n", [["c", "d"]], {"line 1": "NUL character"}),
        (b"a,\xe9\nc,d\n", [["c", "d"]], {"line 1": "not UTF-8"}),
        ('a,"b" c\nc,d\n', [["c", "d"]], {"line 1": "badly quoted"}),
        ("a,b\rc\nc,d\n", [["c", "d"]], {"line 1": "badly quoted"}),
        # an open quote refuses its own line and swallows no other
        ('a,"b\nc,d\ne,f\n', [["c", "d"], ["e", "f"]], {"line 1": "unbalanced quote"}),
        ('a,"b\nc,d\ne,f"\n', [["c", "d"], ["e", 'f"']], {"line 1": "unbalanced quote"}),
        ('a,"b\nx\n', [], {"line 1": "unbalanced quote", "line 2": "too few columns"}),
        ('"', [], {"line 1": "unbalanced quote"}),
        ("\x00", [], {"line 1": "NUL character"}),
    ],
)
def test_rows(text: Text, content: str | bytes, good: list[list[str]], bad: dict[str, str]) -> None:
    assert read(text("x.csv", content)) == (good, bad)


def test_a_quote_joins_only_so_many_lines(text: Text) -> None:
    inside = "\n".join(["words"] * (tables.MAX_JOINED + 1))
    good, bad = read(text("x.csv", f'a,"{inside}\nend"\nc,d\n'))
    assert good == [["c", "d"]]
    assert bad["line 1"] == "unbalanced quote"
    assert len(bad) == 1 + tables.MAX_JOINED + 1


def test_long_lines_are_refused(text: Text, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_LINE", 64)
    good, bad = read(text("x.csv", f"a,{'b' * 1000}\nc,{'d' * 61}\nc,{'d' * 62}\ne,f\n"))
    assert good == [["c", "d" * 61], ["e", "f"]]
    assert bad == {"line 1": "line too long", "line 3": "line too long"}


def test_a_field_beyond_the_csv_limit_is_refused(text: Text) -> None:
    good, bad = read(text("x.csv", 'a,"' + "b" * 200_000 + '"\nc,d\n'))
    assert (good, bad) == ([["c", "d"]], {"line 1": "badly quoted"})


@pytest.mark.parametrize("content", ["", "\n \n", b"\xef\xbb\xbf", "\ufeff\r\n"])
def test_empty_file(text: Text, content: str | bytes) -> None:
    with pytest.raises(PrepareError, match=r"x\.csv: empty file"):
        list(csv_rows(text("x.csv", content), COLUMNS, ","))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PrepareError, match=r"x\.csv: no such file"):
        open_table(tmp_path / "x.csv", {"video": ()})


def test_a_folder_is_called_one_and_its_files_are_named(text: Text) -> None:
    folder = text("val.jsonl", "{}").parent
    (folder / "clip.mp4").touch()
    with pytest.raises(PrepareError, match=r"is a folder; give one annotation file, such as val\.jsonl in it$"):
        open_table(folder, {"video": ()})
    (folder / "val.jsonl").unlink()
    with pytest.raises(PrepareError, match=r"is a folder; give one annotation file$"):
        open_table(folder, {"video": ()})


def test_lines_that_end_in_cr_alone(text: Text) -> None:
    with pytest.raises(PrepareError, match=r"x\.csv: its lines end in CR alone, .*; save it with the line ends LF"):
        open_table(text("x.csv", "video,caption\ra.mp4,a dog\r"), {"video": (), "caption": ()})
    assert read(text("y.csv", 'a,"b\rc"\nd,e\r'))[0] == [["a", "b\rc"], ["d", "e"]]


def test_a_header_that_is_not_printable_is_quoted_once(text: Text) -> None:
    with pytest.raises(PrepareError, match=r"reads 'a,b\\x07'; needed: video"):
        open_table(text("x.csv", "a,b\x07\n"), {"video": ()})


WORDS = st.text(st.characters(exclude_characters="\x00\r\n", exclude_categories=["Cs"]), max_size=20)
ROWS = st.lists(st.tuples(st.text("ab", min_size=1, max_size=3), WORDS), min_size=1, max_size=8)


@given(ROWS, st.sampled_from(",;\t|"))
def test_what_csv_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], delimiter: str
) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="\n").writerows(rows)
    path = tmp_path_factory.getbasetemp() / "x.csv"
    path.write_bytes(buffer.getvalue().encode())
    found = list(csv_rows(path, COLUMNS, delimiter))
    assert [tuple(row.values.values()) for row in found if isinstance(row, Row)] == rows


@given(st.binary(max_size=200))
def test_any_bytes_are_rows_or_refusals(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "x.csv"
    path.write_bytes(content)
    try:
        found = list(csv_rows(path, COLUMNS, ","))
    except PrepareError:
        return
    places = [row.place for row in found]
    assert len(places) == len(set(places))
    assert len(found) <= content.count(b"\n") + 1


# Named columns


@pytest.mark.parametrize(
    "header",
    [
        "video_id,sentence",
        "key;video_id;sentence",
        "Video ID\tSENTENCE\tother",
        '"video_id"|"sentence"',
        "\ufeffvideo_id,sentence",
    ],
)
def test_columns_by_name(text: Text, header: str) -> None:
    delimiter = next(mark for mark in ";\t|," if mark in header)
    values = [
        "v1" if "id" in name.lower() else "a dog" if "ent" in name.lower() else "" for name in header.split(delimiter)
    ]
    path = text("x.csv", f"{header}\r\n{delimiter.join(values)}\r\n")
    table = open_table(path, {"video": ("video_id",), "caption": ("sentence",)})
    (row,) = table
    assert isinstance(row, Row)
    assert (row.place, row.text("video"), row.text("caption"), row.text("start")) == (
        "line 2",
        "v1",
        "a dog",
        "",
    )


def test_the_first_alias_wins(text: Text) -> None:
    path = text("x.csv", "video_id,file,caption\nid,name.mp4,a dog\n")
    table = open_table(path, {"video": ("file", "video_id"), "caption": ()})
    assert table.columns == ("video_id (column 1)", "video", "caption")


def test_missing_column_is_named(text: Text) -> None:
    path = text("x.csv", "video,words\nv,a dog\n")
    with pytest.raises(PrepareError, match=r"x\.csv: line 1 must name the columns.*needed: video, caption or text"):
        open_table(path, {"video": (), "caption": ("text",)})


def test_header_that_is_not_utf8(text: Text) -> None:
    with pytest.raises(PrepareError, match=r"line 1: not UTF-8.*save the file as UTF-8"):
        open_table(text("x.csv", "video,caption\n".encode("utf-16")), {"video": ()})


# Values


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("0", 0.0),
        ("12.5", 12.5),
        ("1e2", 100.0),
        ("1:02", 62.0),
        ("1:02.5", 62.5),
        ("01:00:01", 3601.0),
        ("5.", 5.0),
    ],
)
def test_seconds(written: str, value: float) -> None:
    assert seconds(written) == value


BAD_TIMES = [
    "",
    "-1",
    "nan",
    "inf",
    "1e999",
    "9" * 400,
    "9" * 10,
    "1_0",
    "1,5",
    "12:60",
    "1:2:3:4",
    "\u0661",
    "0x10",
    "abc",
    "--",
]


@pytest.mark.parametrize("written", BAD_TIMES)
def test_bad_seconds(written: str) -> None:
    with pytest.raises(BadRow, match="not a time"):
        seconds(written)


def test_microseconds() -> None:
    assert microseconds("2500000") == 2.5
    assert microseconds("2500000.0") == 2.5
    for written in ["2.5", "-1", "1e6", "9" * 5000, "nan", ""]:
        with pytest.raises(BadRow, match="microseconds"):
            microseconds(written)


def test_span() -> None:
    assert span("1", "2.5") == (1.0, 2.5)
    assert span("", "2") == (None, 2.0)
    assert span("", "") == (None, None)
    for start, end in [("2", "2"), ("3", "2"), ("", "0")]:
        with pytest.raises(BadRow, match="end is not after start"):
            span(start, end)


def test_captions_and_names() -> None:
    assert one_line("  a\u2028dog \n runs ") == "a dog runs"
    assert file_name(" Trip: day 1.mp4 ") == "Trip: day 1.mp4"
    for caption in ["", " ", "...", "NaN", "null", "a \ud800 dog", "a\0dog"]:
        with pytest.raises(BadRow):
            one_line(caption)
    for name in ["", " ", "a\0.mp4", "a\nb", "\ud800.mp4"]:
        with pytest.raises(BadRow):
            file_name(name)
