from __future__ import annotations

import threading

from live2diff_trt.serve.inbox import MOST_CONTROLS, Inbox, IncomingControl, IncomingFrame
from live2diff_trt.serve.messages import Rewarm
from tests.serve.made_up_server import picture


def frame(number: int) -> IncomingFrame:
    return IncomingFrame(picture, number, 0.0)


def control() -> IncomingControl:
    return IncomingControl(Rewarm(type="rewarm"), lambda error: None)


def test_the_newest_frame_wins_and_controls_come_first() -> None:
    inbox = Inbox()
    for number in range(3):
        inbox.put_frame(frame(number))
    changes = [control(), control()]
    assert all(inbox.put_control(change) for change in changes)
    taken = iter(inbox)
    assert [next(taken), next(taken)] == changes
    newest = next(taken)
    assert isinstance(newest, IncomingFrame)
    assert (newest.number, inbox.dropped) == (2, 2)


def test_there_is_room_for_so_many_controls() -> None:
    inbox = Inbox()
    assert [inbox.put_control(control()) for _ in range(MOST_CONTROLS + 1)] == [True] * MOST_CONTROLS + [False]


def test_closing_ends_who_waits() -> None:
    inbox = Inbox()
    seen: list[object] = []
    waiting = threading.Thread(target=lambda: seen.extend(inbox))
    waiting.start()
    inbox.close()
    waiting.join(5)
    assert not waiting.is_alive()
    inbox.put_frame(frame(0))
    assert not inbox.put_control(control())
    assert (list(inbox), seen) == ([], [])
