"""What a stream may be guided by, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from live2diff_trt import Guidance, Stream
from live2diff_trt.runtime.errors import ControlError, StreamClosedError
from live2diff_trt.runtime.guidance import check_guidance
from tests.runtime.plain_pipeline import PlainPipeline


def test_nothing_is_guided_unless_asked() -> None:
    assert Guidance() == Guidance("none", 1.2, "", 1.0)


@pytest.mark.parametrize(
    ("guidance", "asks_the_unet", "has_origins"),
    [
        (Guidance("none"), False, False),
        (Guidance("full"), True, False),
        (Guidance("self"), False, True),
        (Guidance("initialize"), True, True),
    ],
)
def test_kinds_know_what_they_use(guidance: Guidance, asks_the_unet: bool, has_origins: bool) -> None:
    assert (guidance.asks_the_unet, guidance.has_origins) == (asks_the_unet, has_origins)
    assert bool(guidance.negative_steps(3)) == asks_the_unet


def test_full_guidance_asks_in_every_step_and_initialize_in_the_first() -> None:
    assert Guidance("full").negative_steps(3) == (0, 1, 2)
    assert Guidance("initialize").negative_steps(3) == (0,)


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda: Guidance("half"), "Use none or full or self or initialize"),  # type: ignore[arg-type]
        (lambda: Guidance("self", -0.1), "finite number, 0 or more"),
        (lambda: Guidance("self", math.inf), "finite number, 0 or more"),
        (lambda: Guidance("self", math.nan), "finite number, 0 or more"),
        (lambda: Guidance("self", "1.4"), "finite number, 0 or more"),  # type: ignore[arg-type]
        (lambda: Guidance("self", delta=-1), "finite number, 0 or more"),
        (lambda: Guidance("full", negative_prompt=None), "Pass a text"),  # type: ignore[arg-type]
        (lambda: Guidance("self", negative_prompt="blurry"), "use full or initialize"),
        (lambda: Guidance("none", negative_prompt="blurry"), "use full or initialize"),
        (lambda: Guidance("full", delta=0.5), "use self"),
    ],
)
def test_what_is_no_guidance_is_refused_with_the_remedy(make: Callable[[], Any], remedy: str) -> None:
    with pytest.raises(ControlError, match=remedy):
        make()


def test_what_is_not_even_a_guidance_is_refused() -> None:
    assert check_guidance(Guidance("self", 2)) == Guidance("self", 2)
    for wrong in (1.4, "self", None):
        with pytest.raises(ControlError, match="Pass one"):
            check_guidance(wrong)


def test_the_stream_passes_on_what_is_set() -> None:
    pipeline = PlainPipeline(guidance=Guidance("self", 1.3, delta=0.5))
    stream = Stream(pipeline)
    stream.set_guidance_scale(1.4)
    assert pipeline.guidance == Guidance("self", 1.4, delta=0.5)
    stream.set_guidance(Guidance("self", 2, delta=0.7))
    assert pipeline.guidance == Guidance("self", 2, delta=0.7)
    for wrong in (Guidance("initialize"), None):
        with pytest.raises(ControlError):
            stream.set_guidance(wrong)  # type: ignore[arg-type]
    for scale in (-1, math.nan, "much"):
        with pytest.raises(ControlError):
            stream.set_guidance_scale(scale)  # type: ignore[arg-type]
    assert pipeline.guidance == Guidance("self", 2, delta=0.7)
    stream.close()
    with pytest.raises(StreamClosedError):
        stream.set_guidance_scale(1.4)
