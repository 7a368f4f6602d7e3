"""Who may ask: host names, other pages, tokens."""

import asyncio
from typing import Any

import pytest
from fake_index import FakeIndex
from served import get, raw, serving

from svilm.app.guard import HEADERS, Guard, is_local
from svilm.app.server import create_app

TOKEN = "correct-horse-battery"


async def _nothing(scope: Any, receive: Any, send: Any) -> None: ...


@pytest.mark.parametrize(
    "name",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.nip.example",
        "10.0.0.1",
        "[::2]",
        "",
        "a b",
        "[",
        "@localhost",
    ],
)
def test_a_name_that_is_not_this_server_is_refused(port: int, name: str) -> None:
    answer = get(port, "/api/index", {"Host": name})
    assert answer.status == 421
    assert "moments" not in answer.body.decode()


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST:99", "127.0.0.1", "127.0.0.1:8642", "[::1]:1", "localhost."])
def test_names_of_this_machine(port: int, name: str) -> None:
    assert get(port, "/api/index", {"Host": name}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://[::1"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ],
)
def test_other_pages_cannot_ask(port: int, headers: dict[str, str]) -> None:
    answer = get(port, "/api/search?q=circle", headers)
    assert answer.status == 403
    assert "access-control-allow-origin" not in answer.headers


def test_other_pages_can_link_to_this_one(port: int) -> None:
    answer = get(port, "/?q=circle", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"})
    assert answer.status == 200


def test_every_answer_has_the_headers(port: int) -> None:
    for path in ("/", "/app.js", "/api/index", "/nothing", "/api/search", "/media/0"):
        answer = get(port, path)
        for name, value in HEADERS.items():
            assert answer.headers[name.lower()] == value
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


def test_without_the_token_nothing_of_the_index(index: FakeIndex) -> None:
    with serving(create_app(index, token=TOKEN)) as port:
        wanted = ["/api/index", "/api/search?q=circle", "/media/" + "0" * 18, "/", "/app.js", "/poster/x", "/x"]
        wrong: list[dict[str, str]] = [
            {},
            {"Authorization": "Bearer no"},
            {"Authorization": f"Basic {TOKEN}"},
            {"Cookie": "a=b"},
        ]
        for path in wanted:
            for headers in wrong:
                answer = get(port, path, headers)
                assert answer.status == 401, path
                assert answer.json["remedy"]
                assert TOKEN.encode() not in answer.body
        assert get(port, f"/api/index?token={TOKEN}").status == 401  # only the page takes it, and hides it
        assert get(port, "/style.css").status == 200


def test_the_token_opens_the_page_and_leaves_the_address(index: FakeIndex) -> None:
    with serving(create_app(index, token=TOKEN)) as port:
        asked = get(port, "/", {"Accept": "text/html"})
        assert asked.status == 401
        assert b"<form>" in asked.body
        assert get(port, "/?token=wrong-wrong-wrong", {"Accept": "text/html"}).status == 401
        opened = get(port, f"/?token={TOKEN}")
        assert (opened.status, opened.headers["location"]) == (303, "/")
        cookie = opened.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=lax" in cookie.lower()
        other = 'broken={"a": 1, b; '  # of another program on this machine
        assert get(port, "/", {"Cookie": other + cookie.partition(";")[0]}).status == 200
        assert get(port, "/api/index", {"Authorization": f"Bearer {TOKEN}"}).status == 200


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"host": "0.0.0.0"}, "give a token"),
        ({"host": "192.168.1.2"}, "give a token"),
        ({"host": "127.0.0.1", "names": ["videos.example"]}, "give a token"),
        ({"host": "0.0.0.0", "token": "short"}, "at least 16"),
        ({"host": "0.0.0.0", "token": "with spaces in it and long"}, "without spaces"),
        ({"host": "0.0.0.0", "token": "ü" * 20}, "ASCII"),
    ],
)
def test_others_need_a_good_token(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Guard(_nothing, **settings)


def test_names_of_a_server_for_others(index: FakeIndex) -> None:
    app = create_app(index, host="0.0.0.0", token=TOKEN, names=["Videos.example"])
    with serving(app) as port:
        answers = {
            name: get(port, "/style.css", {"Host": name}).status
            for name in ("videos.example", "192.168.1.2:80", "evil.example")
        }
    assert answers == {"videos.example": 200, "192.168.1.2:80": 200, "evil.example": 421}


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("127.9.9.9", True),
        ("0.0.0.0", False),
        ("::", False),
        ("a.example", False),
    ],
)
def test_is_local(host: str, local: bool) -> None:
    assert is_local(host) == local


def test_two_hosts_or_none_are_no_request(port: int) -> None:
    for heads in (b"", b"Host: localhost\r\nHost: evil.example\r\n"):
        said = raw(port, b"GET /api/index HTTP/1.1\r\n" + heads + b"Connection: close\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 4")
        assert b"moments" not in said


def test_too_many_at_once_are_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svilm.app.guard.MOST_AT_ONCE", 1)
    sent: list[Any] = []

    async def run() -> None:
        going = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await going.wait()

        async def send(message: Any) -> None:
            sent.append(message)

        guard = Guard(slow, host="127.0.0.1")
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
        }
        first = asyncio.ensure_future(guard(scope, _nothing, send))
        await asyncio.sleep(0)
        await guard(scope, _nothing, send)
        going.set()
        await first

    asyncio.run(run())
    assert sent[0]["status"] == 503
    assert dict(sent[0]["headers"])[b"retry-after"]
