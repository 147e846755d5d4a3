"""Which rows there are, and for which there is room."""

from __future__ import annotations

import pytest

from live2diff_trt.kernels.tick_parameters import MAXIMUM_ROWS, MAXIMUM_STEPS
from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.guidance import GuidanceKind
from live2diff_trt.runtime.stream_rows import StreamRoom, StreamRows


@pytest.mark.parametrize(
    ("kind", "steps"), [("none", [0, 1, 2]), ("self", [0, 1, 2]), ("initialize", [0, 1, 2, 0]), ("full", [0, 1, 2] * 2)]
)
def test_rows_under_the_negative_prompt_come_behind_the_others(kind: GuidanceKind, steps: list[int]) -> None:
    rows = StreamRows(3, kind)
    assert list(rows.step_of_row) == steps
    assert rows.count == len(steps)
    assert rows.spread(["a", "b", "c"]) == ["abc"[step] for step in steps]


def test_rows_of_the_same_steps_and_kind_are_the_same() -> None:
    asked = StreamRows(2, "full")
    assert asked.negative_steps == (0, 1)
    assert asked == StreamRows(2, "full")
    assert {asked: "graphs"}[StreamRows(2, "full")] == "graphs"
    assert asked != StreamRows(2, "self")


@pytest.mark.parametrize(
    ("kinds", "rows", "asks_the_unet", "has_origins"),
    [
        ((), 4, False, False),
        (("self",), 4, False, True),
        (("initialize",), 5, True, True),
        (("self", "full"), 8, True, True),
        (("full",), 8, True, False),
    ],
)
def test_there_is_room_for_the_kind_that_takes_most(
    kinds: tuple[GuidanceKind, ...], rows: int, asks_the_unet: bool, has_origins: bool
) -> None:
    room = StreamRoom.of(4, kinds)
    assert (room.unet_rows, room.asks_the_unet, room.has_origins) == (rows, asks_the_unet, has_origins)


def test_kernels_take_the_most_rows_that_there_may_be() -> None:
    assert StreamRoom.of(MAXIMUM_STEPS, ("full", "initialize")).unet_rows == MAXIMUM_ROWS


def test_what_there_is_no_room_for_is_refused_with_the_remedy() -> None:
    room = StreamRoom.of(2, ("self",))
    for kind in ("none", "self"):
        room.check(2, kind)
    with pytest.raises(ControlError, match=r"room for 2 .* not for 3\. Open it with max_steps=3"):
        room.check(3, "self")
    with pytest.raises(ControlError, match=r"guidance_kinds=\('none', 'self', 'full'\), or use none or self"):
        room.check(2, "full")
    with pytest.raises(ControlError, match="there is no guidance 'half'"):
        StreamRoom.of(2, ("half",))
