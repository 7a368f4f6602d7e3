"""A video's bytes: ranges, what is sent about them, and what cannot be opened."""

import os
from pathlib import Path

import pytest
from fake_index import FakeIndex
from hypothesis import given
from hypothesis import strategies as st
from served import get

import svilm.app.media
from svilm.app.media import container_type, opened, wanted_span
from svilm.app.refusal import Refusal


@pytest.fixture(scope="module")
def video(index: FakeIndex, port: int) -> tuple[str, bytes]:
    """Address and bytes of one video."""
    name = "video7.mp4"
    starts = get(port, "/api/index").json["starts"]
    ids = {each["video"]: each["id"] for each in starts}
    return f"/media/{ids[name]}", (index.root / name).read_bytes()


def test_whole_file_with_its_headers(port: int, video: tuple[str, bytes]) -> None:
    path, data = video
    answer = get(port, path)
    assert answer.status == 200
    assert answer.body == data
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("0-0", 0, 1),
        ("10-19", 10, 20),
        ("100-", 100, None),
        ("-7", -7, None),
        ("5-99999999", 5, None),
        ("-99999999", 0, None),
    ],
)
def test_ranges(port: int, video: tuple[str, bytes], asked: str, start: int, stop: int | None) -> None:
    path, data = video
    answer = get(port, path, {"Range": f"bytes={asked}"})
    assert answer.status == 206
    assert answer.body == data[start:stop]
    first = start % len(data)
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(answer.body) - 1}/{len(data)}"
    assert answer.headers["content-length"] == str(len(answer.body))


@pytest.mark.parametrize("asked", ["99999999-", "99999998-99999999", "-0"])
def test_range_behind_the_end(port: int, video: tuple[str, bytes], asked: str) -> None:
    path, data = video
    answer = get(port, path, {"Range": f"bytes={asked}"})
    assert answer.status == 416
    assert answer.headers["content-range"] == f"bytes */{len(data)}"
    assert answer.json["remedy"]


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=0-1,5-6",
        "bytes=5-2",
        "bytes=a-b",
        "bytes=",
        "bytes=-",
        "rows=0-1",
        "bytes=--1",
        "bytes=0x1-",
        "bytes=1-" + "9" * 60,
    ],
)
def test_a_range_that_is_none_is_ignored(port: int, video: tuple[str, bytes], asked: str) -> None:
    path, data = video
    answer = get(port, path, {"Range": asked})
    assert (answer.status, answer.body) == (200, data)


def test_if_range_and_if_none_match(port: int, video: tuple[str, bytes]) -> None:
    path, data = video
    headers = get(port, path, method="HEAD").headers
    for same in (headers["etag"], headers["last-modified"]):
        assert get(port, path, {"Range": "bytes=3-5", "If-Range": same}).status == 206
    other = get(port, path, {"Range": "bytes=3-5", "If-Range": '"another"'})
    assert (other.status, other.body) == (200, data)
    unchanged = get(port, path, {"If-None-Match": headers["etag"]})
    assert (unchanged.status, unchanged.body) == (304, b"")
    assert get(port, path, {"If-None-Match": '"another"'}).status == 200


def test_head_says_all_and_sends_nothing(port: int, video: tuple[str, bytes]) -> None:
    path, data = video
    answer = get(port, path, {"Range": "bytes=0-4"}, method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-length"] == str(len(data))


def test_one_answer_to_a_range_is_bounded(port: int, video: tuple[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    path, data = video
    monkeypatch.setattr(svilm.app.media, "MOST_BYTES", 100)
    answer = get(port, path, {"Range": "bytes=50-"})
    assert (answer.status, answer.body) == (206, data[50:150])
    assert answer.headers["content-range"] == f"bytes 50-149/{len(data)}"
    assert get(port, path).body == data


@given(size=st.integers(1, 50), first=st.integers(0, 60), last=st.integers(0, 60))
def test_spans_lie_in_the_file(size: int, first: int, last: int) -> None:
    for text in (f"bytes={first}-{last}", f"bytes={first}-", f"bytes=-{last}"):
        try:
            span = wanted_span(text, size)
        except Refusal as refusal:
            assert refusal.status == 416
            assert first >= size or (text == "bytes=-0")
        else:
            assert span is None or 0 <= span.start < span.stop <= size


def test_types_by_content_not_by_name(index: FakeIndex, port: int) -> None:
    ids = {each["video"]: each["id"] for each in get(port, "/api/index").json["starts"]}
    assert get(port, f"/media/{ids['old.avi']}", method="HEAD").headers["content-type"] == "video/x-msvideo"
    assert container_type(b"\x1a\x45\xdf\xa3....matroska") == "video/x-matroska"
    assert container_type(b"\x1a\x45\xdf\xa3....webm") == "video/webm"
    assert container_type(b"\0\0\0\x14ftypqt  ") == "video/quicktime"
    assert container_type(b"\x47" + b"\0" * 187 + b"\x47") == "video/mp2t"
    assert container_type(b"<html><script>") == "application/octet-stream"


def test_only_regular_files_below_the_root_are_opened(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "secret.mp4"
    (root / "inner").mkdir(parents=True)
    outside.write_bytes(b"secret")
    (root / "inner" / "own.mp4").write_bytes(b"own")
    (root / "out.mp4").symlink_to(outside)
    (root / "in.mp4").symlink_to(root / "inner" / "own.mp4")
    os.mkfifo(root / "pipe.mp4")
    for wrong in (
        root / "out.mp4",
        outside,
        root / "inner",
        root / "pipe.mp4",
        root / "absent.mp4",
        root / ".." / "secret.mp4",
    ):
        with pytest.raises(Refusal), opened(root, wrong):
            pass
    for right in (root / "inner" / "own.mp4", root / "in.mp4"):
        with opened(root, right) as file:
            file.file.seek(0)
            assert file.file.read() == b"own"


def test_a_link_that_is_swapped_in_after_the_look_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    (root / "day").mkdir(parents=True)
    (root / "day" / "own.mp4").write_bytes(b"own")
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "own.mp4").write_bytes(b"secret")
    resolve = Path.resolve

    def resolve_then_swap(path: Path, strict: bool = False) -> Path:
        found = resolve(path, strict)
        if path.name == "own.mp4":
            (root / "day").rename(tmp_path / "gone")
            (root / "day").symlink_to(tmp_path / "away")
        return found

    monkeypatch.setattr(Path, "resolve", resolve_then_swap)
    with pytest.raises(Refusal), opened(root, root / "day" / "own.mp4"):
        pass
