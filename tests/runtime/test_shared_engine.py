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
from live2diff_trt.engine.onnxruntime_backend import OnnxGraph, OnnxGraphs, OnnxRuntimeOptions
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
