"""Streams on plans that they share. Run with ``pytest -m gpu`` where a GPU and a flavour of TensorRT are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from live2diff_trt import Stream
from live2diff_trt.engine.plan import PlanRuntime
from live2diff_trt.engine.plan_manifest import Form
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.runtime.errors import ControlError, DeviceMemoryError
from live2diff_trt.runtime.frame import FinishedFrame
from live2diff_trt.runtime.shared_engine import open_shared_engine
from tests.runtime.test_stream_controls import both_forms
from tests.runtime.test_stream_tensorrt import differences, finish, on_and_off, pictures

pytestmark = pytest.mark.gpu


@on_and_off
@both_forms
def test_streams_in_turn_are_what_they_are_alone(tiny_bundle: Path, plans: Path, form: Form, overlap: bool) -> None:
    options = TensorRTOptions(form=form, plans=plans, overlap=overlap)
    frames = pictures(40)
    expected = [finish(tiny_bundle, options, frames, seed=seed) for seed in range(3)]
    found: list[list[FinishedFrame]] = [[] for _ in range(3)]
    with closing(open_shared_engine(tiny_bundle, options)) as engine:
        streams = [engine.open_stream("a red fox", seed) for seed in range(3)]
        for picture in frames:
            for finished, stream in zip(found, streams, strict=True):
                finished.extend(stream(picture))
        for finished, stream in zip(found, streams, strict=True):
            finished.extend(stream.flush())
            stream.close()
    for one, other in zip(found, expected, strict=True):
        assert differences(one, other) == [0] * 40


@on_and_off
@both_forms
def test_threads_open_run_and_close_streams_at_once(tiny_bundle: Path, plans: Path, form: Form, overlap: bool) -> None:
    """Contexts of the same plans run at the same time, while others are made, captured and closed."""
    options = TensorRTOptions(form=form, plans=plans, overlap=overlap)
    frames = pictures(30)
    expected = [finish(tiny_bundle, options, frames, seed=seed) for seed in range(4)]
    with closing(open_shared_engine(tiny_bundle, options)) as engine:

        def use(seed: int) -> list[float]:
            apart = []
            for _ in range(3):
                with engine.open_stream("a red fox", seed) as stream:
                    finished = list(stream.run(frames, ahead=stream.full_ahead))
                apart += differences(finished, expected[seed])
            return apart

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(use, range(4))) == [[0] * 90] * 4


def test_plans_are_loaded_once_and_freed_with_the_last_stream(
    tiny_bundle: Path, plans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = TensorRTOptions(plans=plans)
    expected = finish(tiny_bundle, options, pictures(12))
    loaded: list[str] = []
    load = PlanRuntime.load

    def note(self: PlanRuntime, name: str, plan: bytes, structure: str) -> object:
        loaded.append(name)
        return load(self, name, plan, structure)

    monkeypatch.setattr(PlanRuntime, "load", note)
    engine = open_shared_engine(tiny_bundle, options)
    one, other = (engine.open_stream("a red fox", 0) for _ in range(2))
    engine.close()
    one.close()
    assert differences(list(other.run(pictures(12))), expected) == [0] * 12
    opened = other._pipeline.parts.unet.opened  # type: ignore[attr-defined]
    assert len(loaded) == len(set(loaded)) == len(opened.stored.manifest.plans)
    other.close()
    assert all(plan._engine is None for plan in opened._plans.values())


@on_and_off
@both_forms
def test_a_stream_takes_what_was_estimated(tiny_bundle: Path, plans: Path, form: Form, overlap: bool) -> None:
    options = TensorRTOptions(form=form, plans=plans, overlap=overlap)
    with (
        closing(open_shared_engine(tiny_bundle, options, max_steps=4)) as engine,
        engine.open_stream("", 0),
        engine.open_stream("", 1) as second,
    ):
        allocated = second._pipeline.parts.memory.allocated  # type: ignore[attr-defined]
        assert sum(allocated.values()) == engine.stream_bytes


def test_a_stream_that_does_not_fit_leaves_the_others_alone(
    tiny_bundle: Path, plans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = TensorRTOptions(plans=plans)
    expected = finish(tiny_bundle, options, pictures(14))
    with closing(open_shared_engine(tiny_bundle, options)) as engine, engine.open_stream("a red fox", 0) as stream:
        found = [frame for picture in pictures(14)[:10] for frame in stream(picture)]
        with monkeypatch.context() as patch:
            patch.setattr("live2diff_trt.runtime.cuda_session.free_memory", lambda _: engine.stream_bytes - 1)
            with pytest.raises(DeviceMemoryError, match="kv-cache ring"):
                engine.open_stream("", 0)
        with pytest.raises(ControlError):
            engine.open_stream(7, 0)  # type: ignore[arg-type]
        found += stream.run(pictures(14)[10:])
    assert differences(found, expected) == [0] * 14


def test_a_stream_of_its_own_lives_beside_shared_ones(tiny_bundle: Path, plans: Path) -> None:
    options = TensorRTOptions(plans=plans)
    expected = finish(tiny_bundle, options, pictures(12))
    with (
        closing(open_shared_engine(tiny_bundle, options)) as engine,
        engine.open_stream("a red fox", 0) as shared,
        Stream.open(tiny_bundle, prompt="a red fox", options=options) as alone,
    ):
        assert differences(list(shared.run(pictures(12))), expected) == [0] * 12
        assert differences(list(alone.run(pictures(12))), expected) == [0] * 12
