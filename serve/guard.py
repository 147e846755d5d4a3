"""Stands before the application: who asks, from whose page, how large a request is, and what a browser may do."""

from __future__ import annotations

import hmac
import json
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from live2diff_trt.serve.settings import Limits, ServeSettings, is_local_name

PROTECTED = ("/api/", "/metrics")
"""Paths that need the token. The page itself holds no secret, and says so when it lacks one."""
SUBPROTOCOL = "live2diff"
TOKEN_SUBPROTOCOL = "token."
"""A browser can't send headers with a WebSocket; it names the token among the subprotocols, behind this."""
SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data: blob:; media-src 'self' blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(self), display-capture=(self), microphone=(), geolocation=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Refusal(Exception):  # noqa: N818 - an answer, not an error of ours
    """A request that goes no further."""

    def __init__(self, status: int, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.status, self.problem, self.remedy = status, problem, remedy


class Guard:
    """ASGI middleware.

    Args:
        app: that is guarded.
        settings: of the server.
        limits: for each visitor.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings, limits: Limits) -> None:
        self._app, self._settings, self._limits = app, settings, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, and pass it on or answer it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope, Headers(scope=scope))
        except Refusal as refusal:
            await _answer(scope, send, refusal)
            return
        if scope["type"] == "websocket":  # uvicorn bounds its messages
            await self._app(scope, receive, send)
            return
        body = BoundedBody(receive, self._limits.body_bytes)
        await self._app(scope, body.receive, body.only_if_bounded(_with_headers(send)))
        if body.is_too_large:
            await _answer(scope, send, _too_large(self._limits.body_bytes))

    def _check(self, scope: Scope, headers: Headers) -> None:
        self._check_host(headers)
        self._check_origin(headers)
        if scope["path"].startswith(PROTECTED):
            self._check_token(headers)
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > self._limits.body_bytes:
            raise _too_large(self._limits.body_bytes)

    def _check_host(self, headers: Headers) -> None:
        """A name of another server that leads to this machine would let its pages in."""
        host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        if self._settings.is_local and not self._settings.token and not is_local_name(host):
            raise Refusal(403, f"this server is not {host or 'a server without a name'}", "Use http://127.0.0.1")

    def _check_origin(self, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is None or origin in self._settings.origins:
            return
        if urlsplit(origin).netloc != headers.get("host"):
            raise Refusal(403, "pages of other servers may not use this one", "Allow it with --origin, if it is yours")

    def _check_token(self, headers: Headers) -> None:
        wanted = self._settings.token
        if wanted is None or hmac.compare_digest(_sent_token(headers).encode(), wanted.encode()):
            return
        raise Refusal(401, "the token is missing or wrong", "Use the address that the server showed when it started")


class BoundedBody:
    """The body of a request that did not say how long it is.

    Args:
        receive: gives it.
        most: bytes.

    Attributes:
        is_too_large: whether more came; the application was then told that the client has gone.
    """

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._left = receive, most
        self.is_too_large = False

    async def receive(self) -> Message:
        """Return the next message of the request."""
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.is_too_large = True
            return {"type": "http.disconnect"}
        return message

    def only_if_bounded(self, send: Send) -> Send:
        """Return a way for the application's answer that loses it if the body is too large."""

        async def send_if_bounded(message: Message) -> None:
            if not self.is_too_large:
                await send(message)

        return send_if_bounded


def _sent_token(headers: Headers) -> str:
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return token.strip()
    for name in headers.get("sec-websocket-protocol", "").split(","):
        if name.strip().startswith(TOKEN_SUBPROTOCOL):
            return name.strip().removeprefix(TOKEN_SUBPROTOCOL)
    return ""


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"a request has more than {most} bytes", "Send less")


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(SECURITY_HEADERS)
        await send(message)

    return send_with_headers


async def _answer(scope: Scope, send: Send, refusal: Refusal) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": refusal.problem})  # before accept: a plain 403
        return
    body = json.dumps({"type": "error", "control": None, "problem": refusal.problem, "remedy": refusal.remedy}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **SECURITY_HEADERS}
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
