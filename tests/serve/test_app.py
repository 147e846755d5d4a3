"""The HTTP API, over real connections."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from live2diff_trt import __version__
from live2diff_trt.serve.settings import Limits
from tests.serve.conftest import Serve
from tests.serve.made_up_server import PlainEngine, RunningServer, picture


def test_health(server: RunningServer) -> None:
    assert server.health() == {
        "status": "ok",
        "version": __version__,
        "seats": 4,
        "seats_taken": 0,
        "waiting": 0,
    }


def test_metrics_are_prometheus_text(server: RunningServer) -> None:
    answer = server.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    for name in ("sessions", "seats", "waiting", "frames_per_second", "process_memory_bytes", "free_memory_bytes"):
        assert server.metric(name) >= 0
    assert server.metric("session_memory_bytes") == 1000


def test_a_stream_is_described(serve: Serve) -> None:
    server = serve(prompt="a fox", seed=3, webrtc=False, stun=("stun:stun.example.com",))
    assert server.get("/api/stream").json() == {
        "width": 64, "height": 64, "step_list": [10, 11], "max_steps": 4, "timesteps": 50, "prompt": "a fox", "seed": 3,
        "webrtc": False, "stun": ["stun:stun.example.com"], "seats": 4, "seats_taken": 0, "waiting": 0,
        "styles": ["ink", "oil paint"],
    }  # fmt: skip


def test_a_session_is_seen_and_changed_by_who_knows_its_name(server: RunningServer, engine: PlainEngine) -> None:
    with server.visit() as visitor:
        visitor.stream(picture())
        path = f"/api/sessions/{visitor.name}"
        status = server.get(path).json()
        assert (status["state"], status["place"], status["way"]) == ("streaming", 0, "websocket")
        assert server.post(f"{path}/controls", {"type": "seed", "seed": 9}).json() == {
            "type": "done",
            "control": "seed",
        }
        assert engine.pipelines[0].seeds == [9]
        refused = server.post(f"{path}/controls", {"type": "step_list", "step_list": [9, 3]})
        assert refused.status_code == 409
        assert "does not rise" in refused.json()["problem"]
        assert server.post(f"{path}/controls", {"type": "pause"}).status_code == 200
        visitor.hear("status", lambda status: status["state"] == "paused")
        assert server.post(f"{path}/controls", {"type": "style", "style": "ink"}).status_code == 200
        assert server.post(f"{path}/controls", {"type": "style", "style": "none of them"}).status_code == 409


def test_a_session_that_is_ended_tells_its_visitor(server: RunningServer) -> None:
    with server.visit() as visitor:
        visitor.wait_for_state("warming up")
        assert httpx.delete(f"{server.address}/api/sessions/{visitor.name}").status_code == 204
        assert visitor.hear("error")["problem"] == "the session was ended"


@pytest.mark.parametrize("path", ["", "/controls", "/offer"])
def test_there_is_no_session_of_another_name(server: RunningServer, path: str) -> None:
    body = {"type": "rewarm"} if path == "/controls" else {"sdp": "x"}
    answer = server.post(f"/api/sessions/nobody{path}", body) if path else server.get("/api/sessions/nobody")
    assert answer.status_code == 404
    assert answer.json()["remedy"] == "Open one by the WebSocket /api/session"


def test_a_session_without_a_seat_takes_no_controls(serve: Serve) -> None:
    server = serve(max_sessions=1)
    with server.visit() as first, server.visit() as second:
        first.wait_for_state("warming up")
        second.wait_for_state("queued")
        for path, body in (("controls", {"type": "rewarm"}), ("offer", {"sdp": "v=0"})):
            answer = server.post(f"/api/sessions/{second.name}/{path}", body)
            assert answer.status_code == 409
            assert "no seat" in answer.json()["problem"]


@pytest.mark.parametrize(
    "body",
    [
        {}, {"type": "open"}, {"type": "seed", "seed": "1"}, {"type": "seed", "seed": 1, "path": "/etc/passwd"},
        {"type": "strength", "strength": 0}, {"type": "strength", "strength": 1.5},
        {"type": "prompt", "prompts": [{"text": "x" * 1001}]}, {"type": "prompt", "prompts": [{"text": "x"}] * 9},
        {"type": "step_list", "step_list": list(range(9))}, {"type": "shown", "frame": 1}, [], "seed", None,
        {"type": "style", "style": ["ink"]}, {"type": "style", "style": "x" * 61},
    ],
)  # fmt: skip
def test_what_is_no_control_is_refused(server: RunningServer, body: object) -> None:
    with server.visit() as visitor:
        visitor.wait_for_state("warming up")
        answer = server.post(f"/api/sessions/{visitor.name}/controls", body)
        assert answer.status_code == 422
        assert set(answer.json()) == {"type", "control", "problem", "remedy"}


def test_a_server_without_webrtc_says_so(serve: Serve) -> None:
    server = serve(webrtc=False)
    with server.visit() as visitor:
        visitor.wait_for_state("warming up")
        answer = server.post(f"/api/sessions/{visitor.name}/offer", {"sdp": "v=0"})
        assert answer.status_code == 422
        assert "WebSocket" in answer.json()["remedy"]


def test_requests_that_are_too_large_are_not_read(serve: Serve) -> None:
    server = serve(limits=Limits(body_bytes=1000))
    answer = server.post("/api/sessions/x/offer", {"sdp": "x" * 2000})
    assert answer.status_code == 413

    def without_length() -> Iterator[bytes]:
        yield from (b"x" * 600, b"x" * 600)

    streamed = httpx.post(f"{server.address}/api/sessions/x/offer", content=without_length())
    assert streamed.status_code == 413


def test_the_api_is_described(server: RunningServer) -> None:
    described = server.get("/openapi.json").json()
    assert set(described["paths"]) == {
        "/healthz", "/metrics", "/api/stream", "/api/sessions/{session}", "/api/sessions/{session}/controls",
        "/api/sessions/{session}/offer",
    }  # fmt: skip
    assert "HTTPValidationError" not in described["components"]["schemas"]
    for path in ("/docs", "/redoc"):
        assert server.get(path).status_code == 404
