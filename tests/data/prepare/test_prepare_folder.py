"""Anybody's tables and folders, hostile ones among them: read right or refused by line, no address opened."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from svilm.data.manifest import Manifest
from svilm.data.prepare import folder
from svilm.data.prepare.common import Clip, Listing, PrepareError, Refusal, prepare

Text = Callable[[str, str | bytes], Path]
Names = Callable[..., Path]


def clips(listing: Listing) -> list[Clip]:
    return [row for row in listing.read() if isinstance(row, Clip)]


def refused(listing: Listing) -> dict[str, str]:
    return {row.place: row.reason for row in listing.read() if isinstance(row, Refusal)}


@pytest.mark.parametrize(
    "content",
    [
        "video,start,end,caption\na.mp4,1,2.5,a dog\n",
        "caption;video;end;start\na dog;a.mp4;0:02.5;0:00:01\n",
        "\ufeffVideo Path\tBegin\tStop\tText\r\na.mp4\t1\t2.5\ta dog\r\n",
        '"file","start time","end time","description"\n"a.mp4","1","2.5","a dog"\n',
    ],
)
def test_tables(text: Text, tmp_path: Path, content: str) -> None:
    listing = folder.listing(text("x.csv", content))
    (clip,) = clips(listing)
    assert (clip.id, clip.names, clip.captions) == ("a.mp4:1.000-2.500", ("a.mp4",), ("a dog",))
    assert (clip.start, clip.end, clip.place, listing.split) == (1.0, 2.5, "line 2", "train")


def test_optional_columns(text: Text, tmp_path: Path) -> None:
    content = "id,video,start,end,scene_changes,caption,note\nx,a.mp4,,,1.5;3.0,a dog,n\ny,a.mp4,2,,,a cat,n\n"
    listing = folder.listing(text("x.csv", content), split="test")
    first, second = clips(listing)
    assert (first.id, first.start, first.end, first.scene_changes) == ("x", None, None, (1.5, 3.0))
    assert (second.id, second.start, second.end, second.scene_changes) == ("y", 2.0, None, ())
    assert listing.notes == ("columns not used: note (column 7)",)
    assert listing.split == "test"


def test_ids_are_made_where_there_are_none(text: Text, tmp_path: Path) -> None:
    content = "video,caption\na.b.mp4,a dog\na.b.mp4,a cat\na.b.mp4,a dog\n"
    listing = folder.listing(text("x.csv", content))
    assert [clip.id for clip in clips(listing)] == ["a.b.mp4", "a.b.mp4#2"]
    assert refused(listing) == {"line 4": "repeats an earlier row"}


def test_json_lines(text: Text, tmp_path: Path) -> None:
    rows = [
        {"video": "a.mp4", "start": 1, "end": 2.5, "caption": "a dog"},
        {"path": "b.mp4", "captions": ["a cat", "a grey cat"], "scene_changes": [1, 2.5]},
        {"video": "c.mp4", "caption": 5},
        {"video": ["c.mp4"], "caption": "a dog"},
        {"video": "c.mp4", "caption": "a dog", "start": True},
        {"video": "c.mp4", "caption": "a dog", "scene_changes": 4},
        {"video": "c.mp4", "caption": "a dog", "scene_changes": [3, 1]},
        {"video": "c.mp4", "caption": []},
        {"video": "c.mp4"},
        {"caption": "a dog"},
    ]
    listing = folder.listing(text("x.jsonl", "\n".join(map(json.dumps, rows))))
    assert [(clip.names, clip.captions, clip.start) for clip in clips(listing)] == [
        (("a.mp4",), ("a dog",), 1.0),
        (("b.mp4",), ("a cat", "a grey cat"), None),
    ]
    assert clips(listing)[1].scene_changes == (1.0, 2.5)
    assert list(refused(listing)) == [f"line {n}" for n in range(3, 11)]


def test_a_row_without_the_id_that_others_have(text: Text) -> None:
    listing = folder.listing(
        text("x.jsonl", '{"id":"a","video":"v.mp4","caption":"a cat"}\n{"video":"v.mp4","caption":"a dog"}\n')
    )
    assert [clip.id for clip in clips(listing)] == ["a"]
    assert refused(listing) == {"line 2": "no id, where others have one"}
    table = folder.listing(text("x.csv", "id,video,caption\na,v.mp4,a cat\n,v.mp4,a dog\n"))
    assert refused(table) == {"line 3": "no id, where others have one"}


def test_texts_beside_the_videos(names: Names) -> None:
    long = "x" * 251 + ".mp4"  # beside which no .json can be
    root = names("a.b.mp4", "sub/two.mkv", "red-car_2.mp4", "odd.mp4", "meta.mp4", "bad.mp4", long)
    (root / "a.b.txt").write_text("a dog\n\n a cat \n")
    (root / "sub" / "two.txt").write_text("\ufefftwo birds")
    (root / "odd.txt").write_bytes(b"\xff\xfe")
    (root / "meta.json").write_text('{"caption": "a meta dog"}')
    (root / "bad.json").write_text('{"caption": ')
    listing = folder.listing(root)
    assert {clip.id: clip.captions for clip in clips(listing)} == {
        "a.b.mp4": ("a dog", "a cat"),
        "meta.mp4": ("a meta dog",),
        "sub/two.mkv": ("two birds",),
    }
    assert refused(listing) == {
        "bad.mp4": "not JSON",
        "odd.mp4": "not UTF-8",
        "red-car_2.mp4": "no caption beside the video",
        long: "no caption beside the video",
    }
    named = folder.listing(root, names_as_captions=True)
    assert {clip.id: clip.captions for clip in clips(named)}["red-car_2.mp4"] == ("red car 2",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty file"),
        ("start,end\n1,2\n", "line 1 must name the columns"),
        ("video,caption\n", "no rows"),
    ],
)
def test_tables_that_are_none(text: Text, names: Names, content: str, message: str) -> None:
    with pytest.raises(PrepareError, match=rf"x\.csv: {message}"):
        prepare(folder.listing(text("x.csv", content)), to=names() / "m.jsonl", videos=names())


class Canary(BaseHTTPRequestHandler):
    """Counts who asks."""

    hits = 0

    def do_GET(self) -> None:
        """Count."""
        type(self).hits += 1
        self.send_error(404)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


HOSTILE = [
    # video, start, end, caption; whether it is accepted
    ("a.mp4", "0", "1", "a dog", True),
    ("clip: 1.mp4", "0", "1", "a dog", True),
    ("link.mp4", "0", "1", "a dog", True),
    ("sub/../a.mp4", "1", "2", "a dog", True),
    ("../../etc/passwd", "0", "1", "a dog", False),
    ("/etc/passwd", "0", "1", "a dog", False),
    ("{url}/a.mp4", "0", "1", "a dog", False),
    ("concat:a.mp4|a.mp4", "0", "1", "a dog", False),
    ("subfile,,start,0,end,9,,:a.mp4", "0", "1", "a dog", False),
    ("data:video/mp4;base64,AAAA", "0", "1", "a dog", False),
    ("pipe:0", "0", "1", "a dog", False),
    ("tcp://127.0.0.1:9/a.mp4", "0", "1", "a dog", False),
    ("a.mp4\x00.jpg", "0", "1", "a dog", False),
    ("a.mp4", "nan", "1", "a dog", False),
    ("a.mp4", "0", "1e999", "a dog", False),
    ("a.mp4", "2", "1", "a dog", False),
    ("a.mp4", "-1", "1", "a dog", False),
    ("a.mp4", "0", "9" * 100_000, "a dog", False),
    ("a.mp4", "50", "60", "a dog", False),
    ("a.mp4", "0", "1", "", False),
    ("", "0", "1", "a dog", False),
    ("a.mp4", "0", "2", "x" * 2_000_000, False),
    ("a.mp4", "0", "1.5", "U+2028\u2028and U+0085\u0085inside", True),
]


def test_hostile_rows(video: Callable[..., Path], text: Text, tmp_path: Path) -> None:
    root = video("a.mp4").parent
    video("clip: 1.mp4")
    video("../elsewhere.mp4")
    (root / "link.mp4").symlink_to(tmp_path / "elsewhere.mp4")
    with HTTPServer(("127.0.0.1", 0), Canary) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        rows = [[value.replace("{url}", url) for value in row[:4]] for row in HOSTILE]
        path = text("x.tsv", "\n".join("\t".join(row) for row in [["video", "start", "end", "caption"], *rows]))
        summary = prepare(folder.listing(path), to=tmp_path / "m.jsonl", videos=root, extractor="rules")
        server.shutdown()
    assert Canary.hits == 0
    wanted = [row[4] for row in HOSTILE]
    assert summary.rows == len(HOSTILE) and summary.written == sum(wanted)
    lost = [example for tally in summary.losses.values() for example in tally.examples]
    assert all(
        any(f"line {n}" in example.split(" (")[0] for example in lost) for n, good in enumerate(wanted, 2) if not good
    )
    for entry in Manifest(tmp_path / "m.jsonl"):
        assert Manifest(tmp_path / "m.jsonl").path_of(entry).is_file()
