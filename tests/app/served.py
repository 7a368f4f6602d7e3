"""A server of the page on a free port, in a thread, and plain requests to it."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.types import ASGIApp

from svilm.app.serve import listen, server_of


@contextmanager
def serving(app: ASGIApp) -> Iterator[int]:
    """The port of a real uvicorn that serves ``app`` as `svilm app` does."""
    server = server_of(app)
    with listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started and thread.is_alive():
                thread.join(0.02)
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(20)
    assert not thread.is_alive()


class Answer:
    """Status, headers (lower case) and body of an answer."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status, self.body = answer.status, answer.read()
        self.headers = {name.lower(): value for name, value in answer.getheaders()}

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def get(
    port: int, path: str, headers: dict[str, str] | None = None, *, method: str = "GET", body: Any = None
) -> Answer:
    """One request on a connection of its own; the path is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host="Host" in (headers or {}), skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def raw(port: int, data: bytes, *, patience: float = 10.0) -> bytes:
    """What the server says to bytes that are sent as they are, until it closes or is silent."""
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as connection:
        said = b""
        try:
            connection.sendall(data)
            while part := connection.recv(1 << 16):
                said += part
        except (TimeoutError, BrokenPipeError, ConnectionResetError):
            pass
        return said
