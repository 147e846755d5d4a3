from __future__ import annotations

import asyncio
from fractions import Fraction

import pytest

from live2diff_trt.serve.errors import SessionError
from live2diff_trt.serve.messages import Done, Message, Status
from live2diff_trt.serve.outbox import MOST_MESSAGES, Outbox
from live2diff_trt.serve.visitor_stream import OutgoingFrame
from tests.serve.made_up_server import picture


def frame(number: int) -> OutgoingFrame:
    return OutgoingFrame(picture(), Fraction(0), number, 0.0)


def status(fps: float) -> Status:
    return Status(
        state="streaming", place=0, waiting=0, way="websocket", fps=fps, latency_ms_p50=None, latency_ms_p99=None,
        frames_in=0, frames_out=0, frames_dropped=0, frames_damaged=0, step_list=[1], style=None,
    )  # fmt: skip


async def take_all(outbox: Outbox) -> list[Message | OutgoingFrame]:
    taken: list[Message | OutgoingFrame] = []

    async def take() -> None:
        async for item in outbox:
            taken.append(item)  # noqa: PERF401 - what came before it is cancelled counts

    task = asyncio.create_task(take())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    return taken


def test_all_messages_the_newest_status_and_the_newest_picture() -> None:
    async def send() -> None:
        outbox = Outbox(2)
        for number in range(3):
            outbox.put_frame(frame(number))
            outbox.put(status(number))
            outbox.put(Done(control=str(number)))
        taken = await take_all(outbox)
        assert taken[:4] == [Done(control="0"), Done(control="1"), Done(control="2"), status(2)]
        assert [one.number for one in taken if isinstance(one, OutgoingFrame)] == [2]
        assert outbox.dropped == 2

    asyncio.run(send())


def test_pictures_wait_until_earlier_ones_came() -> None:
    async def send() -> None:
        outbox = Outbox(2)
        for number in (5, 6):
            outbox.put_frame(frame(number))
            assert len(await take_all(outbox)) == 1
        outbox.put_frame(frame(7))
        outbox.note_shown(99)
        assert await take_all(outbox) == []
        outbox.note_shown(6)  # and so 5 as well
        assert len(await take_all(outbox)) == 1

    asyncio.run(send())


def test_who_asks_and_does_not_read_is_told_so() -> None:
    async def send() -> None:
        outbox = Outbox(2)
        for _ in range(MOST_MESSAGES):
            outbox.put(Done(control="seed"))
        with pytest.raises(SessionError, match="wait to be read"):
            outbox.put(Done(control="seed"))
        outbox.put(status(1))

    asyncio.run(send())
