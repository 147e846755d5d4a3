"""Streams of one engine: what they share, and that they don't disturb each other."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from live2diff_trt import Stream
from live2diff_trt.bundle.errors import SpecError
from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.bundle.signature import GraphSignature
from live2diff_trt.engine.errors import BackendError
from live2diff_trt.engine.initialisers import RESTYLED_GRAPHS
from live2diff_trt.engine.onnxruntime_backend import OnnxGraph, OnnxGraphs, OnnxRuntimeOptions
from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.frame import Image
from live2diff_trt.runtime.host_memory_estimate import estimate_host_stream
from live2diff_trt.runtime.kv_ring import KvRing
from live2diff_trt.runtime.shared_engine import SharedEngine, open_shared_engine

OPTIONS = OnnxRuntimeOptions(threads=1)


@pytest.fixture(scope="module")
def engine(tiny_bundle: Path) -> SharedEngine:
    return open_shared_engine(tiny_bundle, OPTIONS, max_steps=3)


def frames(seed: int, count: int = 11) -> list[Image]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8))


def test_streams_at_once_are_those_of_streams_alone(engine: SharedEngine, tiny_bundle: Path) -> None:
    expected = []
    for seed in range(2):
        with Stream.open(tiny_bundle, prompt=f"prompt {seed}", seed=seed, options=OPTIONS) as stream:
            expected.append([frame.image for frame in stream.run(frames(seed))])
    shown: list[list[Image]] = [[], []]

    def run(seed: int) -> None:
        with engine.open_stream(f"prompt {seed}", seed) as stream:
            for frame in frames(seed):
                with engine.turn():
                    shown[seed] += [finished.image for finished in stream(frame)]
            shown[seed] += [finished.image for finished in stream.flush()]

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for one, other in zip(shown, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_graphs_are_opened_once(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    open_file = OnnxGraphs._open_file

    def note(graphs: OnnxGraphs, signature: GraphSignature) -> OnnxGraph:
        opened.append(signature.name)
        return open_file(graphs, signature)

    monkeypatch.setattr(OnnxGraphs, "_open_file", note)
    engine = open_shared_engine(tiny_bundle, OPTIONS)
    for _ in range(2):
        engine.open_stream("", 0).close()
    assert len(opened) == len(set(opened)) == len(Bundle.open(tiny_bundle).manifest.signatures)
    engine.close()
    engine.close()
    with pytest.raises(BackendError, match="these graphs were closed"):
        engine.open_stream("", 0)


def test_a_style_is_its_streams_alone(tiny_bundle: Path, ink: Path, few: Path) -> None:
    """Each is what it is in a stream on graphs of its own, bit by bit, while a neighbour has another style."""

    def restyle(stream: Stream, styles: list[Path | str | None]) -> list[Image]:
        shown = []
        for index, picture in enumerate(frames(0, 20)):
            if index >= 11 and (index - 11) % 3 == 0:
                stream.set_style(styles[(index - 11) // 3])
            shown += [finished.image for finished in stream(picture)]
        return shown

    with Stream.open(tiny_bundle, prompt="a fox", options=OPTIONS) as stream:
        expected = restyle(stream, [ink, None, few])
    with Stream.open(tiny_bundle, prompt="a fox", options=OPTIONS) as stream:
        plain = [finished.image for picture in frames(0, 20) for finished in stream(picture)]
    engine = open_shared_engine(tiny_bundle, OPTIONS, styles={"ink": ink, "a few": few})
    assert engine.styles == ("ink", "a few")
    with engine.open_stream("a fox", 0) as one, engine.open_stream("a fox", 0) as other:
        before = [finished.image for picture in frames(0, 20)[:15] for finished in other(picture)]
        np.testing.assert_array_equal(restyle(one, ["ink", None, "a few"]), expected)
        assert (one.style, other.style) == ("a few", None)
        after = [finished.image for picture in frames(0, 20)[15:] for finished in other(picture)]
        np.testing.assert_array_equal([*before, *after], plain)


def test_graphs_are_opened_once_for_each_style(
    tiny_bundle: Path, ink: Path, few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    open_file = OnnxGraphs._open_file

    def note(graphs: OnnxGraphs, signature: GraphSignature) -> OnnxGraph:
        opened.append(signature.name)
        return open_file(graphs, signature)

    monkeypatch.setattr(OnnxGraphs, "_open_file", note)
    engine = open_shared_engine(tiny_bundle, OPTIONS, styles={"ink": ink, "few": few})
    at_start = len(opened)
    for _ in range(2):
        with engine.open_stream("", 0) as stream:
            for style in ("ink", "few", None):
                stream.set_style(style)
                stream(frames(0, 1)[0])
    assert len(opened) == at_start
    assert {name: opened.count(name) for name in ("vae_encoder", "depth")} == {"vae_encoder": 1, "depth": 1}
    assert {opened.count(graph) for graph in RESTYLED_GRAPHS} == {3}
    one = engine.open_stream("", 0)
    engine.close()
    one.set_style("ink")
    one(frames(0, 1)[0])
    assert one.style == "ink"
    one.close()


def test_a_style_is_known_by_its_name_alone(tiny_bundle: Path, ink: Path) -> None:
    engine = open_shared_engine(tiny_bundle, OPTIONS, styles={"ink": ink})
    with engine.open_stream("", 0) as stream:
        for style in (ink, str(ink), "", "Ink", 7):
            with pytest.raises(ControlError, match="there is no style"):
                stream.set_style(style)  # type: ignore[arg-type]


def test_steps_may_grow_as_far_as_there_is_room(engine: SharedEngine) -> None:
    assert engine.max_steps == 3
    with engine.open_stream("", 0) as stream:
        stream.set_step_list((10, 20, 30))
        with pytest.raises(Exception, match="room for 3"):
            stream.set_step_list((10, 20, 30, 40))


def test_a_step_list_that_is_longer_makes_its_room(tiny_bundle: Path) -> None:
    engine = open_shared_engine(tiny_bundle, OPTIONS, step_list=(10, 20, 30), max_steps=1)
    assert (engine.spec.steps, engine.max_steps) == (3, 3)
    with pytest.raises(SpecError):
        open_shared_engine(tiny_bundle, OPTIONS, max_steps=9)


def test_memory_is_known_before_it_is_taken(engine: SharedEngine) -> None:
    parts = estimate_host_stream(engine.spec, 3)
    assert engine.stream_bytes == sum(parts.values())
    ring = KvRing(engine.spec.with_step_list((1, 2, 3)))
    assert parts["kv-cache ring"] == 2 * ring._memory.nbytes
    assert 0 < engine.stream_bytes < engine.free_bytes()
