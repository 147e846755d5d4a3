"""Who is let in."""

from __future__ import annotations

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from tests.serve.conftest import Serve
from tests.serve.made_up_server import RunningServer

TOKEN = "a-token-of-a-test-123"


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1.evil.example"]
)
def test_pages_of_other_servers_are_refused(server: RunningServer, origin: str) -> None:
    assert server.get("/api/stream", headers={"origin": origin}).status_code == 403
    assert server.post("/api/sessions/x/controls", {"type": "rewarm"}, headers={"origin": origin}).status_code == 403
    with pytest.raises(InvalidStatus) as refused, server.visit(origin=Origin(origin)):
        pass
    assert refused.value.response.status_code == 403


def test_our_own_page_and_allowed_ones_are_let_in(serve: Serve) -> None:
    server = serve(origins=("https://page.example",))
    for origin in (server.address, "https://page.example"):
        assert server.get("/api/stream", headers={"origin": origin}).status_code == 200
        with server.visit(origin=Origin(origin)):
            pass


def test_another_name_for_this_machine_is_refused(server: RunningServer) -> None:
    """DNS rebinding: a page's own name that leads here."""
    for host in ("evil.example", "evil.example:80", ""):
        assert server.get("/healthz", headers={"host": host}).status_code in (400, 403)
    assert server.get("/healthz", headers={"host": f"localhost:{server.port}"}).status_code == 200


def test_a_token_is_asked_for(serve: Serve) -> None:
    server = serve(token=TOKEN)
    for path in ("/api/stream", "/api/sessions/x", "/metrics"):
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}):
            answer = server.get(path, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        assert server.get(path, headers={"authorization": f"Bearer {TOKEN}"}).status_code in (200, 404)
    for path in ("/", "/healthz", "/page.js", "/openapi.json"):
        assert server.get(path).status_code == 200


def test_a_websocket_brings_its_token_as_a_header_or_as_a_subprotocol(serve: Serve) -> None:
    server = serve(token=TOKEN)
    names = [Subprotocol("live2diff"), Subprotocol(f"token.{TOKEN}")]
    with server.visit(subprotocols=names) as visitor:
        assert visitor.socket.subprotocol == "live2diff"
    with server.visit(additional_headers={"authorization": f"Bearer {TOKEN}"}):
        pass
    for options in ({}, {"subprotocols": [Subprotocol("token.wrong")]}):
        with pytest.raises(InvalidStatus) as refused, server.visit(**options):
            pass
        assert refused.value.response.status_code == 403


def test_headers_that_are_no_text_are_refused(serve: Serve) -> None:
    server = serve(token=TOKEN)
    answer = httpx.get(f"{server.address}/api/stream", headers={b"authorization": b"Bearer \xff\xfe"})
    assert answer.status_code == 401


def test_answers_tell_browsers_to_be_careful(server: RunningServer) -> None:
    for path in ("/", "/api/stream", "/nothing"):
        headers = server.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers
