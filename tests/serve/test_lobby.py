from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live2diff_trt.runtime.errors import DeviceMemoryError
from live2diff_trt.serve.errors import LineFullError
from live2diff_trt.serve.lobby import Lobby, count_seats
from tests.serve.made_up_server import PlainEngine


class Guest:
    def __init__(self, lobby: Lobby) -> None:
        self.places: list[int] = []
        self._leaves = asyncio.Event()
        self.task = asyncio.create_task(self._stay(lobby))

    async def _stay(self, lobby: Lobby) -> None:
        async with lobby.seat(self.places.append):
            await self._leaves.wait()

    async def leave(self, cancelled: bool = False) -> None:
        if cancelled:
            self.task.cancel()
        self._leaves.set()
        await asyncio.wait([self.task])


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_seats_are_given_in_the_order_in_which_guests_came() -> None:
    async def evening() -> None:
        lobby = Lobby(1, 5)
        first, second, third, fourth = [Guest(lobby) for _ in range(4)]
        await settle()
        assert [guest.places[-1] for guest in (first, second, third, fourth)] == [0, 1, 2, 3]
        await third.leave(cancelled=True)
        assert fourth.places == [3, 2]
        await first.leave()
        await settle()
        assert (second.places[-1], fourth.places[-1]) == (0, 1)
        await second.leave()
        await settle()
        await fourth.leave()
        assert (lobby.taken, lobby.waiting) == (0, 0)

    asyncio.run(evening())


def test_a_full_line_is_refused() -> None:
    async def evening() -> None:
        lobby = Lobby(1, 1)
        guests = [Guest(lobby), Guest(lobby)]
        await settle()
        with pytest.raises(LineFullError, match="1 wait already"):
            async with lobby.seat(lambda place: None):
                pass
        for guest in guests:
            await guest.leave(cancelled=True)
        assert (lobby.taken, lobby.waiting) == (0, 0)

    asyncio.run(evening())


@given(st.integers(1, 3), st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=40))
def test_whoever_comes_and_goes_seats_are_never_lost(seats: int, moves: list[tuple[bool, int]]) -> None:
    async def evening() -> None:
        lobby = Lobby(seats, 100)
        there: list[Guest] = []
        for comes, which in moves:
            if comes:
                there.append(Guest(lobby))
            elif there:
                await there.pop(which % len(there)).leave(cancelled=which % 2 == 0 or lobby.waiting > 0)
            await settle()
            assert lobby.taken == min(seats, len(there))
            assert [guest.places[-1] for guest in there] == [0] * lobby.taken + list(range(1, lobby.waiting + 1))
        for guest in there:
            guest.task.cancel()
        await asyncio.gather(*(guest.task for guest in there), return_exceptions=True)
        assert (lobby.taken, lobby.waiting) == (0, 0)

    asyncio.run(evening())


@pytest.mark.parametrize(("free", "most", "seats"), [(10_000, 4, 4), (3_400, 4, 3), (1_112, 4, 1)])
def test_memory_bounds_the_seats(free: int, most: int, seats: int) -> None:
    assert count_seats(PlainEngine(free=free), most) == seats


def test_without_memory_for_one_there_is_no_server() -> None:
    with pytest.raises(DeviceMemoryError, match="Use fewer steps"):
        count_seats(PlainEngine(free=1_000), 4)
