"""Who may ask: every request passes here before the page sees it.

Against a web page elsewhere that reaches for a server on this machine: the Host header must name this server (a
name that was made to point here does not), and browsers say where a request comes from.  Against strangers on the
network: a token.
"""

import hashlib
import hmac
import html
import ipaddress
from collections.abc import Iterable
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from svilm.app.refusal import Refusal, busy

MOST_AT_ONCE = 256
"""Requests answered at the same time; the next ones are told to come back."""
SHORTEST_TOKEN = 16
"""Characters of a token."""
OPEN_TO_ALL = ("/style.css", "/icon.svg")
"""What is served without a token, for the page that asks for it; nothing of the index."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def is_local(host: str) -> bool:
    """Whether a host is this machine alone: "localhost", or an address that never leaves it."""
    address = _address(host)
    return host.lower() == "localhost" or (address is not None and address.is_loopback)


class Guard:
    """Lets requests through that may be answered, and adds the headers that tell browsers to be strict.

    ``host`` is the one that the server is bound to and ``names`` further ones under which it is reached.  With a
    ``token``, requests need it: as a cookie, which opening "/?token=..." once sets, or as "Authorization: Bearer".
    Raises ValueError where others than this machine could come without a token, or with one that is too short.
    """

    def __init__(self, app: ASGIApp, *, host: str, token: str = "", names: Iterable[str] = ()) -> None:
        self.app, self.token = app, token.encode()
        self.local = is_local(host)
        self.names = {name.lower() for name in names} | {"localhost"}
        if _address(host) is None:
            self.names.add(host.lower())
        if not token and (not self.local or len(self.names) > 1):
            raise ValueError(f"under host {host!r} and names {sorted(self.names)} others can come: give a token")
        if token and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
            raise ValueError(f"the token must be at least {SHORTEST_TOKEN} ASCII characters without spaces")
        # Browsers share cookies between all ports of a host, so each server's has a name of its own.
        self.cookie = "svilm_" + hashlib.sha256(self.token).hexdigest()[:12]
        self.inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_strictly(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "private, no-cache")
            await send(message)

        answer = self._stop(scope)
        if answer is None and self.inside >= MOST_AT_ONCE:
            answer = busy().response()
        if answer is not None:
            await answer(scope, receive, send_strictly)
            return
        self.inside += 1
        try:
            await self.app(scope, receive, send_strictly)
        finally:
            self.inside -= 1

    def _stop(self, scope: Scope) -> Response | None:
        """The answer to a request that goes no further, None for one that may."""
        headers = Headers(scope=scope)
        try:
            self._check_host(headers.get("host", ""))
            self._check_origin(scope, headers)
        except Refusal as refusal:
            return refusal.response()
        return self._check_token(scope, headers) if self.token else None

    def _check_host(self, header: str) -> None:
        name = _host_of(header)
        address = _address(name)
        known = name in self.names or (address is not None and (address.is_loopback or not self.local))
        if not known:
            raise Refusal(
                421,
                "this server does not go by that name",
                "open it under the address that svilm app printed, or start it with --name for this one",
            )

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        opened = headers.get("sec-fetch-mode") == "navigate" and scope["method"] == "GET" and scope["path"] == "/"
        foreign = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        origin = headers.get("origin")
        if origin is not None and _place_of(origin) != headers.get("host", "").lower():
            foreign = True
        if foreign and not opened:
            raise Refusal(403, "this request comes from another page", "ask from the page of this server")

    def _check_token(self, scope: Scope, headers: Headers) -> Response | None:
        if scope["path"] in OPEN_TO_ALL:
            return None
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        if scope["path"] == "/" and asked:
            if not self._is_right(asked[0]):
                return _ask_for_token("That token is not the right one.")
            answer = RedirectResponse("/", 303)  # takes the token out of the address bar and the history
            answer.set_cookie(self.cookie, asked[0], httponly=True, samesite="lax", secure=scope["scheme"] == "https")
            return answer
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._is_right(bearer.strip()):
            return None
        if self._is_right(cookie_parser(headers.get("cookie", "")).get(self.cookie, "")):
            return None
        if scope["path"] == "/" and "text/html" in headers.get("accept", ""):
            return _ask_for_token("This page needs a token.")
        remedy = (
            "open the address that svilm app printed, which ends in ?token=..., or send Authorization: Bearer TOKEN"
        )
        return Refusal(401, "a token is needed", remedy, headers={"WWW-Authenticate": "Bearer"}).response()

    def _is_right(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self.token)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _host_of(header: str) -> str:
    """The host of a Host header, without port and brackets, lower case."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower().removesuffix(".")


def _place_of(origin: str) -> str | None:
    """Host and port of an Origin header, lower case; None for one that is no address."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # a bracket that is never closed
        return None


def _ask_for_token(why: str) -> HTMLResponse:
    return HTMLResponse(_TOKEN_PAGE.format(why=html.escape(why)), 401, {"WWW-Authenticate": "Bearer"})


_TOKEN_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>svilm: token</title><link rel="icon" href="/icon.svg"><link rel="stylesheet" href="/style.css">
<body class="door"><main>
<h1>{why}</h1>
<p>Whoever started it has the address: <code>svilm app</code> printed it, with the token at its end.</p>
<form><label for="token">Token</label>
<div class="field"><input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button class="primary">Open</button></div></form>
</main></body></html>
"""
