"""`svilm app`: the socket that listens and the loop that serves it, patient with clients within limits."""

import asyncio
import secrets
import socket
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from svilm.app.guard import is_local
from svilm.app.server import create_app
from svilm.search.index import Index

PATIENCE = 10.0
"""Seconds after which a connection is looked at; one that asked nothing from one look to the next is closed."""
MOST_CONNECTIONS = 512
EVERYWHERE = ("0.0.0.0", "::")
"""Addresses to listen on that mean all addresses of the machine."""


def serve(
    folder: Path,
    *,
    host: str,
    port: int,
    token: str = "",
    names: Sequence[str] = (),
    ideas: Sequence[str] = (),
    model: str | None = None,
    device: str = "auto",
    browse: bool = False,
) -> None:
    """Serve the page of an index until Ctrl-C, and print its address.

    Where others than this machine can come, a token is drawn if none is given.  Raises ValueError for a folder that
    is no index, an address that cannot be listened on, or a token that is too short.
    """
    if not token and (names or not is_local(host)):
        token = secrets.token_urlsafe(24)
    if host in EVERYWHERE:
        names = [*names, socket.gethostname()]
    with Index(folder, model=model, device=device) as index:
        app = create_app(index, host=host, token=token, names=names, ideas=ideas)
        with listen(host, port) as listening:
            address = _address(names[0] if names else host, listening.getsockname()[1], token)
            print(f"{len(index)} moments of {len(index.videos)} videos, to be searched at\n{address}", flush=True)
            if browse:
                webbrowser.open(address)
            server_of(app).run(sockets=[listening])


def _address(host: str, port: int, token: str) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + (f"?token={quote(token)}" if token else "")


class PatientProtocol(H11Protocol):
    """HTTP as uvicorn speaks it, to clients that keep sending and reading.

    uvicorn bounds the time between two requests only, so a client that sends half a request, or never reads its
    answer, would keep its connection for ever.
    """

    looked_at: Any = "nothing yet"
    timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start to watch a connection; one too many is closed at once."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        self.timer = self.loop.call_later(PATIENCE, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching."""
        if self.timer is not None:
            self.timer.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete and not self.transport.is_closing()
        if not answering and self.looked_at is self.cycle:
            self.transport.abort()
            return
        self.looked_at = "a request" if answering else self.cycle
        self.timer = self.loop.call_later(PATIENCE, self._look)


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to ``host`` and ``port`` (0: any free one).  Raises ValueError with a remedy where that fails."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=256)
    except (OSError, OverflowError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"cannot listen on {host} port {port} ({words}); choose another --port, or --host") from None


def server_of(app: ASGIApp) -> uvicorn.Server:
    """A uvicorn server of ``app`` that prints nothing by itself; ``server.run(sockets=[listen(...)])`` serves."""
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        lifespan="on",
        log_level="critical",
        access_log=False,  # addresses may hold the token
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)
