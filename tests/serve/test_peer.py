"""WebRTC for real: a peer sends video over the network, and gets video back."""

from __future__ import annotations

import asyncio
import random
import re
from pathlib import Path

import numpy as np
import pytest

from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions
from live2diff_trt.runtime.shared_engine import open_shared_engine
from tests.serve.conftest import Serve
from tests.serve.made_up_peer import MadeUpPeer
from tests.serve.made_up_server import RunningServer, Visitor, picture, wait_until


async def connect(server: RunningServer, visitor: Visitor, peer: MadeUpPeer) -> None:
    sdp = await peer.offer()
    answer = await asyncio.to_thread(server.post, f"/api/sessions/{visitor.name}/offer", {"sdp": sdp})
    assert answer.status_code == 200, answer.text
    await peer.accept(answer.json()["sdp"])


def mean_colour(image: object) -> object:
    return np.asarray(image).astype(int).mean((0, 1))


def test_video_goes_in_and_comes_out(server: RunningServer) -> None:
    async def visit(visitor: Visitor) -> None:
        peer = MadeUpPeer(picture(200, 40, 90))
        await connect(server, visitor, peer)
        await peer.wait_for_pictures(5)
        assert np.abs(mean_colour(peer.pictures[-1]) - np.array((200, 40, 90))).max() < 20
        peer.source.image = picture(10, 220, 90)
        seen = len(peer.pictures)
        await peer.wait_for_pictures(seen + 20)
        assert np.abs(mean_colour(peer.pictures[-1]) - np.array((10, 220, 90))).max() < 20
        await peer.close()

    with server.visit() as visitor:
        visitor.wait_for_state("warming up")
        asyncio.run(visit(visitor))
        status = visitor.hear("status", lambda status: status["frames_out"] >= 20)
        assert (status["state"], status["way"]) == ("streaming", "webrtc")
        assert status["latency_ms_p50"] > 0
        assert server.metric("webrtc_connections") == 1
    wait_until(lambda: server.metric("webrtc_connections") == 0, "the connection is closed with its session")


def test_a_session_that_ends_ends_its_video(server: RunningServer) -> None:
    async def visit(visitor: Visitor) -> None:
        peer = MadeUpPeer(picture())
        await connect(server, visitor, peer)
        await peer.wait_for_pictures(1)
        await asyncio.to_thread(visitor.socket.close)
        for _ in range(100):
            if peer.has_ended:
                break
            await asyncio.sleep(0.05)
        assert peer.has_ended
        await peer.close()

    with server.visit() as visitor:
        visitor.wait_for_state("warming up")
        asyncio.run(visit(visitor))
    wait_until(lambda: server.metric("sessions") == 0, "the session is over")


def test_another_offer_takes_the_place_of_the_first_and_the_websocket_that_of_both(server: RunningServer) -> None:
    async def visit(visitor: Visitor) -> None:
        first, second = MadeUpPeer(picture()), MadeUpPeer(picture())
        await connect(server, visitor, first)
        await first.wait_for_pictures(1)
        await connect(server, visitor, second)
        await second.wait_for_pictures(1)
        assert server.metric("webrtc_connections") == 1
        await asyncio.to_thread(visitor.stream, picture())
        assert server.metric("webrtc_connections") == 0
        await asyncio.gather(first.close(), second.close())

    with server.visit() as visitor:
        visitor.wait_for_state("warming up")
        asyncio.run(visit(visitor))


@pytest.mark.parametrize(
    "sdp",
    ["x", "v=0\r\n", "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n", "\x00", "m=video 9 UDP 96\r\n", "v=0\nm="],
)
def test_what_is_no_offer_is_refused(server: RunningServer, sdp: str) -> None:
    with server.visit() as visitor:
        visitor.wait_for_state("warming up")
        answer = server.post(f"/api/sessions/{visitor.name}/offer", {"sdp": sdp})
        assert answer.status_code == 422, answer.text
        assert answer.json()["remedy"]
        visitor.stream(picture())


def test_damaged_offers_break_nothing(server: RunningServer) -> None:
    """Lines of a real offer are lost, cut, doubled, swapped, or their numbers replaced."""
    offer = asyncio.run(_make_offer())
    chance = random.Random(7)
    with server.visit() as visitor:
        visitor.wait_for_state("warming up")
        for _ in range(60):
            answer = server.post(f"/api/sessions/{visitor.name}/offer", {"sdp": _damage(offer, chance)})
            assert answer.status_code in (200, 422), answer.text
        visitor.stream(picture())
    wait_until(lambda: server.metric("webrtc_connections") == 0, "all connections are closed")


async def _make_offer() -> str:
    peer = MadeUpPeer(picture())
    sdp = await peer.offer()
    await peer.close()
    return sdp


def _damage(offer: str, chance: random.Random) -> str:
    lines = offer.splitlines()
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(lines))
        line = lines[place]
        lines[place : place + 1] = chance.choice(
            [
                [],
                [line[: chance.randrange(len(line) + 1)]],
                [line, line],
                [re.sub(r"\d+", "99999999999", line)],
                [line[::-1]],
            ]
        )
    return "\r\n".join(lines) + "\r\n"


def test_the_network_changes_the_video(serve: Serve, tiny_bundle: Path) -> None:
    engine = open_shared_engine(tiny_bundle, OnnxRuntimeOptions(threads=1))
    server = serve(engine, prompt="a fox")

    async def visit(visitor: Visitor) -> None:
        peer = MadeUpPeer(picture(200, 40, 90))
        await connect(server, visitor, peer)
        await peer.wait_for_pictures(4)
        assert peer.pictures[-1].shape == (64, 64, 3)
        assert np.abs(peer.pictures[-1].astype(int) - picture(200, 40, 90)).mean() > 30
        assert np.ptp(peer.pictures[-1]) > 50  # what went in was flat
        await peer.close()

    with server.visit() as visitor:
        visitor.wait_for_state("warming up")
        asyncio.run(visit(visitor))
