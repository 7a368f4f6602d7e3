"""What a hostile client tries: it is refused or served, nothing leaks, and the server stays up."""

import os
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
from fake_index import FakeIndex
from served import get, raw, serving

import svilm.app.serve
from svilm.app.server import LARGEST_PICTURE, LONGEST_QUERY, create_app
from svilm.data.world.paint import render
from svilm.data.world.scenes import scene
from svilm.data.world.write import write_video

SECRET = b"root:x:0:0"
CLIMBS = [
    "../../../../etc/passwd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "%252e%252e%252fetc%252fpasswd",
    "..%5c..%5cetc%5cpasswd",
    "..%c0%af..%c0%afetc/passwd",
    "....//....//etc/passwd",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "..;/..;/etc/passwd",
    "%00/etc/passwd",
    "video7.mp4%00.txt",
    "video7.mp4",
    "notes.mp4",
    "file:%2f%2f%2fetc%2fpasswd",
    "~/.ssh/id_rsa",
]


@pytest.mark.parametrize("climb", CLIMBS)
def test_no_path_opens_a_file(port: int, index: FakeIndex, climb: str) -> None:
    places = [f"/{climb}", f"/media/{climb}", f"/poster/{climb}", f"/page/{climb}", f"/static/{climb}"]
    places += [f"/api/film?video={climb}&start=0&end=1", f"/api/like?video={climb}&start=0&end=1"]
    for place in places:
        answer = get(port, place)
        assert 400 <= answer.status < 500, place
        assert SECRET not in answer.body
        assert str(index.root).encode() not in answer.body


@pytest.mark.parametrize(
    "line", [b"GET ../../etc/passwd", b"GET /\0", b"GET /media/\xff\xfe", b"GET http://evil.example/"]
)
def test_broken_request_lines(port: int, line: bytes) -> None:
    said = raw(port, line + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert SECRET not in said
    assert said == b"" or said.startswith((b"HTTP/1.1 4", b"HTTP/1.1 200")), said[:80]
    assert get(port, "/api/index").status == 200


def _small_video(path: Path) -> None:
    write_video(path, render(scene(7, "train", 3, size=64, num_frames=8, fps=8)), fps=8)


@pytest.mark.parametrize("what", ["file", "folder", "gone", "pipe", "another"])
def test_files_exchanged_after_indexing(tmp_path: Path, what: str) -> None:
    root, outside = tmp_path / "videos", tmp_path / "outside"
    (root / "day").mkdir(parents=True)
    outside.mkdir()
    path = root / "day" / "own.mp4"
    _small_video(path)
    index = FakeIndex(root)
    (outside / "own.mp4").write_bytes(b"secret".ljust(path.stat().st_size, b"."))  # even of the same length
    with serving(create_app(index)) as port:
        video = get(port, "/api/index").json["starts"][0]["id"]
        assert get(port, f"/media/{video}").status == 200
        if what == "folder":
            path.unlink()
            path.parent.rmdir()
            path.parent.symlink_to(outside)
        else:
            path.unlink()
        if what == "file":
            path.symlink_to(outside / "own.mp4")
        elif what == "pipe":
            os.mkfifo(path)
        elif what == "another":
            path.write_bytes(b"another file")
        for place in (f"/media/{video}", f"/poster/{video}?at=0.1", f"/api/film?video={video}&start=0&end=1"):
            answer = get(port, place)
            assert answer.status == 410, place
            assert "run svilm index" in answer.json["remedy"]
            assert b"secret" not in answer.body
            assert str(tmp_path).encode() not in answer.body
        assert get(port, "/api/search?q=circle").status == 200


def test_queries_are_bounded(port: int, index: FakeIndex) -> None:
    longest = "x" * LONGEST_QUERY
    assert get(port, f"/api/search?q={longest}").status == 200
    assert get(port, f"/api/search?q={longest}x").status == 422
    assert get(port, f"/api/search?q={'x' * 60_000}").status == 422
    said = raw(port, b"GET /api/search?q=" + b"x" * 5_000_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert said == b"" or said.startswith(b"HTTP/1.1 4")
    said = raw(port, b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-Filler: y\r\n" * 100_000 + b"\r\n")
    assert said == b"" or said.startswith(b"HTTP/1.1 4")
    assert all(len(query) <= LONGEST_QUERY for query in index.asked)


@pytest.mark.parametrize(
    "values",
    [
        "q=a&k=1000000000",
        "q=a&k=0",
        "q=a&k=-1",
        "q=a&k=nan",
        "q=a&k=" + "9" * 5000,
        "q=",
        "q=%20%00%20",
        "k=3",
        "q=a&shortest=nan",
        "q=a&shortest=-1",
        "q=a&longest=inf",
        "q=a&shortest=5&longest=2",
        "q=a&folder=../..",
        "q=a&folder=/etc",
        "q=a&folder=%00",
    ],
)
def test_values_out_of_range(port: int, values: str) -> None:
    answer = get(port, f"/api/search?{values}")
    assert answer.status == 422
    assert set(answer.json) == {"error", "remedy"}


@pytest.mark.parametrize(
    "span",
    [
        "start=5&end=2",
        "start=0&end=1e9",
        "start=-1&end=1",
        "start=nan&end=1",
        "start=0&end=inf",
        "start=0&end=0",
        "end=1",
        "start=0",
    ],
)
def test_moments_that_are_none(port: int, span: str) -> None:
    video = get(port, "/api/index").json["starts"][0]["id"]
    for place in ("/api/film?", "/api/heat?noun=circle&", "/api/like?"):
        assert get(port, f"{place}video={video}&{span}").status == 422


def test_odd_words_are_only_words(port: int) -> None:
    for words in [
        "' OR 1=1 --",
        "<script>alert(1)</script>",
        "\u202e\U0001f600 ${jndi}",
        "%s%n{}",
        "a\r\nSet-Cookie: x=1",
        "\x7f\x1b[2J",
    ]:
        answer = get(port, f"/api/search?q={quote(words)}")
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        assert "set-cookie" not in answer.headers
    assert get(port, "/api/search?q=%ff%fe%80").status == 200


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"not a picture", "image/png", 415),
        (b"", "image/png", 415),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "image/png", 415),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml", 415),
        (b"%!PS-Adobe", "image/x-eps", 415),
        (b"GIF89a", "text/html", 415),
        (b"x" * (LARGEST_PICTURE + 1), "image/png", 413),
    ],
)
def test_pictures_that_are_none(port: int, body: bytes, kind: str, status: int) -> None:
    try:
        answer = get(port, "/api/picture", {"Content-Type": kind}, method="POST", body=body)
    except (BrokenPipeError, ConnectionResetError):
        assert status == 413  # it hung up while we still talked
    else:
        assert answer.status == status
        assert answer.json["remedy"]
    assert get(port, "/api/index").status == 200


def test_a_picture_that_unfolds_is_refused(port: int) -> None:
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(out, format="png")
    assert len(out.getvalue()) < LARGEST_PICTURE
    answer = get(port, "/api/picture", {"Content-Type": "image/png"}, method="POST", body=out.getvalue())
    assert answer.status == 413


def test_other_methods(port: int) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"):
        answer = get(port, "/api/index", method=method, body=b"")
        assert answer.status == 405
    assert get(port, "/api/picture").status == 405


def test_a_hundred_clients_at_once(drawn: Path) -> None:
    index = FakeIndex(drawn, seconds=0.05)
    with serving(create_app(index)) as port:
        video = get(port, "/api/index").json["starts"][0]["id"]
        places = [
            "/api/search?q=circle",
            f"/media/{video}",
            f"/poster/{video}?at=1",
            f"/api/heat?video={video}&start=0&end=1&noun=n{{}}",
        ]
        with ThreadPoolExecutor(100) as clients:
            answers = list(clients.map(lambda n: get(port, places[n % 4].format(n)), range(400)))
        assert {answer.status for answer in answers} <= {200, 503}
        assert Counter(answer.status for answer in answers)[200] > 100
        for answer in answers:
            assert answer.status == 200 or int(answer.headers["retry-after"]) > 0
        assert get(port, "/api/search?q=circle").status == 200


def test_slow_clients_hold_nobody_up(index: FakeIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svilm.app.serve, "PATIENCE", 0.3)
    with serving(create_app(index)) as port:
        video = get(port, "/api/index").json["starts"][0]["id"]
        beginnings = [b"", b"GET /api/index HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "]
        slow = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(60)]
        try:
            for number, connection in enumerate(slow):
                connection.sendall(beginnings[number % 3])
            assert get(port, f"/media/{video}").status == 200
            began = time.monotonic()
            closed = [_is_closed(connection) for connection in slow]
            assert all(closed)
            assert time.monotonic() - began < 5
        finally:
            for connection in slow:
                connection.close()


def _is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_no_more_connections_than_allowed(index: FakeIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svilm.app.serve, "MOST_CONNECTIONS", 8)
    with serving(create_app(index)) as port:
        held = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(8)]
        try:
            one_more = socket.create_connection(("127.0.0.1", port), timeout=5)
            assert _is_closed(one_more)
            one_more.close()
        finally:
            for connection in held:
                connection.close()
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                assert get(port, "/api/index").status == 200
                return
            except (ConnectionResetError, BrokenPipeError):
                time.sleep(0.05)
        pytest.fail("the server did not come back")


def test_a_slow_upload_is_ended(index: FakeIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svilm.app.server.UPLOAD_SECONDS", 0.3)
    with serving(create_app(index)) as port:
        head = (
            b"POST /api/picture HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
        )
        assert raw(port, head + b"abc").startswith(b"HTTP/1.1 408")


def test_a_client_that_stops_reading_is_given_up(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svilm.app.media.GRACE", 0.3)
    monkeypatch.setattr("svilm.app.media.SLOWEST", 1 << 30)
    monkeypatch.setattr(svilm.app.serve, "PATIENCE", 0.3)
    _small_video(tmp_path / "large.mp4")
    with open(tmp_path / "large.mp4", "ab") as file:  # what follows the last box of an mp4 is not read
        file.write(b"\0\0\0\x08free" + bytes(40 << 20))
    index = FakeIndex(tmp_path)
    app = create_app(index)
    with serving(app) as port:
        video = get(port, "/api/index").json["starts"][0]["id"]
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(f"GET /media/{video} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            deadline = time.monotonic() + 8
            while app.inside == 0 and time.monotonic() < deadline:
                time.sleep(0.01)
            while app.inside and time.monotonic() < deadline:
                time.sleep(0.05)
            assert app.inside == 0


def test_work_that_fails_says_nothing_of_its_inside(drawn: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(FakeIndex):
        def timeline(self, query: str, video: str) -> list:
            raise RuntimeError(f"secret {self.root}")

    with serving(create_app(Failing(drawn))) as port:
        video = get(port, "/api/index").json["starts"][0]["id"]
        answer = get(port, f"/api/timelines?q=a&video={video}")
        assert answer.status == 500
        assert set(answer.json) == {"error", "remedy"}
        assert b"secret" not in answer.body
        assert get(port, "/api/index").status == 200
    assert "secret" in caplog.text


def test_threads_end_with_the_server(index: FakeIndex) -> None:
    before = {thread.name for thread in threading.enumerate()}
    with serving(create_app(index)) as port:
        get(port, "/api/search?q=circle")
    deadline = time.monotonic() + 5
    while {
        t.name for t in threading.enumerate() if t.name.startswith("svilm-app")
    } - before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not {t.name for t in threading.enumerate() if t.name.startswith("svilm-app")} - before
