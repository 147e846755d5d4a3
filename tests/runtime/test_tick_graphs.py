"""A pass of warm-up is captured once, for every row: filling the sinks is a launch for each pass, and the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from live2diff_trt.engine.errors import PlanError
from live2diff_trt.engine.plan_manifest import Form
from live2diff_trt.runtime import tick
from live2diff_trt.runtime.device import DeviceMemory, fill_with_zeros
from live2diff_trt.runtime.device_conditions import HOISTED
from live2diff_trt.runtime.frame import FinishedFrame
from live2diff_trt.runtime.guidance import Guidance, GuidanceKind
from live2diff_trt.runtime.stream import Stream
from live2diff_trt.runtime.stream_rows import StreamRows
from live2diff_trt.runtime.tick_graphs import CapturedWork, Work
from tests.runtime.emulated_bench import Bench, pictures
from tests.runtime.emulated_device import EmulatedGpu
from tests.runtime.test_stream_controls import both_forms, give, same

FRAMES = pictures(15)
on_and_off = pytest.mark.parametrize("overlap", [False, True])


class EnqueuedWork:
    """Stands for ``CapturedWork``: what is launched is enqueued anew each time."""

    def __init__(self, memory: DeviceMemory, work: Work) -> None:
        self.launch = work

    def close(self) -> None:
        """Do nothing."""


def parts_of(overlap: bool) -> int:
    """Return how many graphs a tick is."""
    return 5 if overlap else 1


def plans_in(works: list[str]) -> set[str]:
    """Return the plans that were enqueued by the host."""
    return {work.removeprefix("plan ") for work in works if work.startswith("plan ")}


def change_rows(stream: Stream) -> list[FinishedFrame]:
    """Fill the sinks of rows of every kind, under two prompts, and of other steps."""
    finished = give(stream, FRAMES[:9])
    stream.set_guidance(Guidance("full", 1.3, "two cats"))
    finished += give(stream, FRAMES[9:11])
    stream.set_step_list((20, 30, 40))
    stream.set_prompt("a blue house")
    finished += give(stream, FRAMES[11:13])
    stream.set_guidance(Guidance("initialize", 1.3, "a green car"))
    return [*finished, *stream.run(FRAMES[13:], ahead=stream.full_ahead)]


@both_forms
@pytest.mark.parametrize(("rows", "overlap"), [(1, True), (3, False)])
def test_a_captured_pass_makes_the_bits_of_one_that_is_enqueued(
    bench: Bench, gpu: EmulatedGpu, monkeypatch: pytest.MonkeyPatch, form: Form, rows: int, overlap: bool
) -> None:
    kinds: tuple[GuidanceKind, ...] = ("full", "initialize")
    found = bench.device(change_rows, form, rows, guidance_kinds=kinds, max_steps=3, overlap=overlap)
    monkeypatch.setattr(tick, "CapturedWork", EnqueuedWork)
    expected = bench.device(change_rows, form, rows, guidance_kinds=kinds, max_steps=3, overlap=overlap)
    assert all(same(found, expected))


@on_and_off
@both_forms
@pytest.mark.parametrize("kind", ["full", "initialize"])
def test_filling_the_sinks_is_a_launch_for_each_pass(
    bench: Bench, gpu: EmulatedGpu, form: Form, kind: GuidanceKind, overlap: bool
) -> None:
    """Of a clip's first frames, and of the newest ones under another kind; no segment is enqueued by the host."""
    with bench.stream(form, 2, guidance_kinds=(kind,), overlap=overlap) as stream:
        give(stream, FRAMES[:7])
        gpu.works.clear()
        give(stream, FRAMES[7:8])
        assert gpu.works.count("graph") == StreamRows(2).count
        assert plans_in(gpu.works) <= {*HOISTED, "depth", "depth_embed", "vae_encoder", "vae_decoder"}
        stream.set_guidance(Guidance(kind, 1.3, "two cats"))
        gpu.works.clear()
        stream._change_if_due()
        assert gpu.works.count("graph") == StreamRows(2, kind).count
        assert plans_in(gpu.works) <= {*HOISTED, "depth_embed"}
        assert "upload" not in gpu.works


@on_and_off
def test_other_rows_need_no_other_pass(bench: Bench, gpu: EmulatedGpu, overlap: bool) -> None:
    with bench.stream("split", 2, max_steps=3, overlap=overlap) as stream:
        give(stream, FRAMES[:9])
        gpu.works.clear()
        stream.set_step_list((20, 30, 40))
        assert gpu.works == ["upload"] * parts_of(overlap)


@on_and_off
def test_a_hot_style_brings_a_pass_of_its_own_and_captures_nothing_in_the_swap(
    bench: Bench, gpu: EmulatedGpu, ink: Path, overlap: bool
) -> None:
    with bench.stream("split", 2, refittable=True, hot_restyle=True, overlap=overlap) as stream:
        give(stream, FRAMES[:10])
        gpu.works.clear()
        stream.set_style(ink)
        assert gpu.works.count("upload") == parts_of(overlap) + 1
        gpu.works.clear()
        give(stream, FRAMES[10:11])
        assert "upload" not in gpu.works
        assert plans_in(gpu.works) <= {*HOISTED, "depth_embed"}


@on_and_off
@both_forms
def test_a_pass_is_captured_anew_behind_a_refit(
    bench: Bench, gpu: EmulatedGpu, ink: Path, form: Form, overlap: bool
) -> None:
    with bench.stream(form, 2, refittable=True, overlap=overlap) as stream:
        give(stream, FRAMES[:10])
        stream.set_style(ink)
        stream._clip.drain()
        gpu.works.clear()
        stream._change_if_due()
        *before, last = (at for at, work in enumerate(gpu.works) if work == "refit")
        assert before
        assert gpu.works[last:].count("upload") == gpu.works.count("upload") == parts_of(overlap) + 1
        assert gpu.works[last:].count("graph") == gpu.works.count("graph") == StreamRows(2).count


@pytest.mark.usefixtures("gpu")
def test_what_was_closed_is_not_launched() -> None:
    with DeviceMemory() as memory:
        address = memory.allocate("anything", 16)
        captured = CapturedWork(memory, lambda stream: fill_with_zeros(stream, address, 16))
        captured.launch(memory.stream)
        for _ in range(2):
            captured.close()
        with pytest.raises(PlanError, match="graphs are gone"):
            captured.launch(memory.stream)
