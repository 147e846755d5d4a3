"""The session's WebSocket, over real connections."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from live2diff_trt.engine.errors import BackendError
from live2diff_trt.serve.jpeg import decode_jpeg
from live2diff_trt.serve.settings import Limits
from tests.serve.conftest import Serve
from tests.serve.made_up_server import PlainEngine, RunningServer, picture, wait_until


def test_pictures_come_back_with_the_number_they_were_sent_with(server: RunningServer) -> None:
    with server.visit() as visitor:
        assert visitor.welcome["stream"]["width"] == 64
        visitor.wait_for_state("warming up")
        visitor.stream(picture())
        visitor.wait_for_state("streaming")
        for red in range(0, 250, 50):
            number, file = visitor.stream(picture(red, 100, 90))
            sent = visitor.sent[number]
            assert not isinstance(sent, bytes)
            assert np.abs(decode_jpeg(file, 64 * 64).astype(int) - sent).max() < 12


def test_a_status_tells_rates_and_latency(server: RunningServer) -> None:
    with server.visit() as visitor:
        for _ in range(3):
            visitor.stream(picture())
        status = visitor.hear("status", lambda status: status["frames_out"] >= 2 and status["fps"] > 0)
        assert status["way"] == "websocket"
        assert 0 < status["latency_ms_p50"] <= status["latency_ms_p99"]
        assert status["frames_in"] >= status["frames_out"]
        assert status["step_list"] == [10, 11]
    assert server.metric("frames_out_total") >= 2
    assert server.metric("latency_seconds_count") >= 2


def test_controls_reach_the_stream_and_are_answered(server: RunningServer, engine: PlainEngine) -> None:
    with server.visit() as visitor:
        visitor.wait_for_state("warming up")
        visitor.say(type="prompt", prompts=[{"text": "a fox"}])
        assert visitor.hear("done")["control"] == "prompt"
        assert engine.pipelines[0].encoded == ["", "a fox"]
        visitor.say(type="seed", seed=7)
        assert visitor.hear("done")["control"] == "seed"
        assert engine.pipelines[0].seeds == [7]


def test_a_style_is_chosen_by_its_name_and_told_once_it_is_in_effect(
    server: RunningServer, engine: PlainEngine
) -> None:
    with server.visit() as visitor, server.visit() as other:
        assert visitor.welcome["stream"]["styles"] == ["ink", "oil paint"]
        visitor.wait_for_state("warming up")
        visitor.stream(picture())
        visitor.say(type="style", style="oil paint")
        assert visitor.hear("done")["control"] == "style"
        visitor.stream(picture())
        visitor.hear("status", lambda status: status["style"] == "oil paint")
        visitor.say(type="style", style="ink/../../etc/passwd")
        assert "there is no style" in visitor.hear("refused")["problem"]
        visitor.say(type="style", style=None)
        assert visitor.hear("done")
        visitor.stream(picture())
        visitor.hear("status", lambda status: status["style"] is None)
        other.stream(picture())
        assert other.hear("status", lambda status: status["frames_out"] > 0)["style"] is None
    assert [len(pipeline.styles) for pipeline in engine.pipelines] == [2, 0]


def test_a_control_that_is_not_valid_is_refused_with_its_remedy(server: RunningServer) -> None:
    with server.visit() as visitor:
        visitor.wait_for_state("warming up")
        visitor.say(type="pause")
        refused = visitor.hear("refused")
        assert refused["control"] == "pause"
        assert refused["remedy"] == "Pause after the first frame"
        visitor.say(type="step_list", step_list=[3, 2])
        assert "does not rise" in visitor.hear("refused")["problem"]


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "null", "[]", "{}", '{"type":"open","path":"/etc/passwd"}', '{"type":"seed","seed":"7"}',
        '{"type":"seed","seed":7,"file":"x"}', '{"type":"seed","seed":-1}', '{"type":"seed","seed":9007199254740992}',
        '{"type":"strength","strength":NaN}', '{"type":"prompt","prompts":[]}', "\u0000", '{"type":["seed"]}',
        '{"type":"style"}', '{"type":"style","style":7}', '{"type":"style","style":"x","file":"x"}',
        json.dumps({"type": "style", "style": "x" * 61}),
    ],
)  # fmt: skip
def test_malformed_messages_are_refused_and_change_nothing(server: RunningServer, text: str) -> None:
    with server.visit() as visitor:
        visitor.wait_for_state("warming up")
        visitor.socket.send(text)
        assert visitor.hear("refused")["problem"]
        visitor.say(type="seed", seed=1)
        assert visitor.hear("done")


def test_what_is_no_picture_is_counted_and_the_session_goes_on(server: RunningServer) -> None:
    with server.visit() as visitor:
        visitor.wait_for_state("warming up")
        visitor.send_frame(b"no picture")
        visitor.hear("status", lambda status: status["frames_damaged"] == 1)
        visitor.send_frame(b"\xff\xd8\xff\xd9")
        visitor.hear("status", lambda status: status["frames_damaged"] == 2)
        visitor.stream(picture())


def test_a_picture_that_is_too_large_is_not_decoded(serve: Serve) -> None:
    server = serve(limits=Limits(source_pixels=64 * 64, status_seconds=0.05))
    with server.visit() as visitor:
        visitor.wait_for_state("warming up")
        visitor.send_frame(picture(side=128))
        visitor.hear("status", lambda status: status["frames_damaged"] == 1)


def test_a_message_that_is_too_large_ends_the_session(serve: Serve) -> None:
    server = serve(limits=Limits(frame_bytes=10_000))
    with server.visit() as visitor:
        visitor.send_frame(b"x" * 20_000)
        assert visitor.hear_to_the_end() == 1009


def test_an_empty_picture_ends_the_session_with_its_reason(server: RunningServer) -> None:
    with server.visit() as visitor:
        visitor.socket.send(b"1234")
        assert "4 bytes" in visitor.hear("error")["problem"]


def test_more_frames_than_are_allowed_are_dropped(serve: Serve) -> None:
    server = serve(limits=Limits(frames_per_second=5, status_seconds=0.05))
    with server.visit() as visitor:
        visitor.wait_for_state("warming up")
        for _ in range(30):
            visitor.send_frame(picture())
        visitor.hear("status", lambda status: status["frames_in"] == 30 and status["frames_dropped"] >= 20)


def test_a_flood_of_messages_ends_the_session(serve: Serve) -> None:
    server = serve(limits=Limits(frames_per_second=5, controls_per_second=5))
    with server.visit() as visitor:
        visitor.wait_for_state("warming up")
        with suppress(ConnectionClosed):  # a quick server ends it before all are sent; what it said is heard below
            for number in range(100):
                visitor.say(type="shown", frame=number)
        assert "too many" in visitor.hear("error")["problem"]


def test_too_many_controls_are_refused(serve: Serve) -> None:
    server = serve(limits=Limits(controls_per_second=2))
    with server.visit() as visitor:
        visitor.wait_for_state("warming up")
        for seed in range(4):
            visitor.say(type="seed", seed=seed)
        assert "controls came in a second" in visitor.hear("refused")["problem"]


def test_the_next_visitor_sees_its_place_move(serve: Serve) -> None:
    server = serve(max_sessions=1)
    with server.visit() as first:
        first.wait_for_state("warming up")
        with server.visit() as second:
            assert second.wait_for_state("queued")["place"] == 1
            with server.visit() as third:
                assert third.hear("status", lambda status: status["place"] == 2)["waiting"] == 2
                second.say(type="seed", seed=1)
                assert "no seat yet" in second.hear("refused")["problem"]
                first.socket.close()
                second.wait_for_state("warming up")
                assert third.hear("status", lambda status: status["place"] == 1)["state"] == "queued"
                assert server.health() == {**server.health(), "seats": 1, "seats_taken": 1, "waiting": 1}


def test_a_full_line_is_refused(serve: Serve) -> None:
    server = serve(max_sessions=1, max_waiting=0)
    with server.visit() as first:
        first.wait_for_state("warming up")
        with server.visit() as second:
            assert second.hear("error")["remedy"] == "Come back later"
    assert server.metric("sessions_refused_total") == 1


def test_memory_decides_how_many_seats_there_are(serve: Serve) -> None:
    assert serve(PlainEngine(free=2500), max_sessions=8).health()["seats"] == 2


def test_sessions_that_are_opened_too_fast_are_refused(serve: Serve) -> None:
    server = serve(limits=Limits(sessions_per_minute=2))
    for _ in range(2):
        with server.visit():
            pass
    with server.visit_unwelcomed() as socket:
        assert json.loads(socket.recv())["problem"] == "too many sessions are opened at once"


def test_an_error_of_the_engine_ends_its_session_alone(server: RunningServer, engine: PlainEngine) -> None:
    with server.visit() as healthy:
        healthy.stream(picture())
        with server.visit() as visitor:
            visitor.wait_for_state("warming up")
            engine.error = BackendError("the card fell off", "Put it back")
            visitor.send_frame(picture())
            error = visitor.hear("error")
            assert (error["problem"], error["remedy"]) == ("the card fell off", "Put it back")
        healthy.stream(picture())
    assert server.metric("sessions_failed_total") == 1


def test_a_bug_in_a_stream_ends_its_session_and_frees_its_seat(server: RunningServer, engine: PlainEngine) -> None:
    with server.visit() as visitor:
        visitor.wait_for_state("warming up")
        engine.error = ZeroDivisionError("a bug")
        visitor.send_frame(picture())
        assert "fault of the server" in visitor.hear("error")["problem"]
        assert visitor.hear_to_the_end() == 1011
    wait_until(lambda: server.health()["seats_taken"] == 0, "the seat is free")


def test_a_seat_on_which_nothing_comes_is_given_away(serve: Serve) -> None:
    server = serve(limits=Limits(idle_seconds=0.3, status_seconds=0.05))
    with server.visit() as visitor:
        assert "no frame came" in visitor.hear("error")["problem"]
    assert server.health()["seats_taken"] == 0


def test_a_visitor_who_vanishes_frees_its_session_within_5_seconds(server: RunningServer) -> None:
    """It never says goodbye, and answers nothing: its network is gone."""
    with socket.create_connection(("127.0.0.1", server.port)) as vanished:
        vanished.sendall(
            f"GET /api/session HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        wait_until(lambda: server.health()["seats_taken"] == 1, "the session opens")
        began = time.monotonic()
        wait_until(lambda: server.health()["seats_taken"] == 0, "the seat is free", 6)
        assert time.monotonic() - began < 5
        assert server.metric("sessions") == 0


def test_a_slow_reader_gets_the_newest_and_holds_up_nobody(server: RunningServer) -> None:
    with server.visit() as slow, server.visit() as quick:
        slow.wait_for_state("warming up")
        for _ in range(60):
            slow.send_frame(picture())
            quick.send_frame(picture())
            time.sleep(0.005)
        quick.stream(picture())
        status = slow.hear("status", lambda status: status["frames_in"] == 60)
        assert status["frames_out"] <= 3  # no more than may be unseen
        pictures = [slow.stream(picture())[0] for _ in range(5)]
        assert pictures == sorted(pictures)
        assert pictures[-1] >= 50  # what lay between was dropped


def test_a_hundred_sessions_leave_nothing_behind(serve: Serve, engine: PlainEngine) -> None:
    server = serve(max_sessions=2, max_waiting=100, limits=Limits(sessions_per_minute=1000))
    for number in range(80):
        with server.visit() as visitor:
            if number % 8 == 0:
                visitor.stream(picture())
    together = [server.visit() for _ in range(20)]
    for visit in together:
        visit.__enter__()
    for visit in reversed(together):
        visit.__exit__(None, None, None)
    wait_until(lambda: server.metric("sessions") == 0, "all sessions are over")
    assert server.health() == {**server.health(), "seats_taken": 0, "waiting": 0}
    wait_until(lambda: engine.closed == len(engine.pipelines), "all streams are closed")
    assert server.metric("sessions_opened_total") == 100


def test_sessions_that_are_there_end_when_the_server_is_stopped(serve: Serve, engine: PlainEngine) -> None:
    server = serve()
    with server.visit() as visitor:
        visitor.stream(picture())
        server.stop()
        assert visitor.hear_to_the_end() == 1012
    assert engine.closed == len(engine.pipelines) == 1
