"""The opponent computes what the network of the conformance tests computes, tick after tick, caches included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from live2diff_trt.benchmarks.limits import LimitSizes, add_limits
from live2diff_trt.benchmarks.results_file import ResultsFile
from live2diff_trt.benchmarks.timing import MeasurementError
from live2diff_trt.benchmarks.torch_tick import RingAttend, TorchTick, WindowBuffers, capture
from live2diff_trt.bundle.schedule import make_step_table
from live2diff_trt.conformance.torch_network import TorchNetwork
from live2diff_trt.export.presets import TINY
from live2diff_trt.model.configuration import UNetConfiguration
from live2diff_trt.model.temporal_attention import PositionTables, streaming_attention
from live2diff_trt.model.unet import CausalUNet
from live2diff_trt.model.weights import random_unet
from live2diff_trt.runtime.kv_ring import Array, KvRing
from live2diff_trt.runtime.kv_window import KvWindow

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
UNET = UNetConfiguration(
    block_channels=(32, 64),
    layers_per_block=1,
    cross_attention=(True, False),
    attention_heads=(8, 8),
    cross_attention_channels=32,
    norm_groups=8,
    motion=(True, True),
)
PRESET = replace(TINY, unet=UNET, width=64, height=64, step_list=(10, 20, 30))
SPEC = PRESET.spec()


def draw(*shape: int, seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def prompt() -> Array:
    return draw(1, SPEC.prompt_tokens, SPEC.text_channels, seed=0)


def inputs(seed: int) -> tuple[Array, Array]:
    return (
        draw(SPEC.steps, *SPEC.latent_shape, seed=seed),
        draw(SPEC.steps, *SPEC.depth_features_shape, seed=seed + 1000),
    )


def make_tick(unet: CausalUNet, count: int) -> TorchTick:
    tick = TorchTick(unet, SPEC)
    tick.set_steps(make_step_table(SPEC.step_list, SPEC.schedule).timesteps)
    tick.set_prompt(prompt())
    tick.fill_random_past(seed=5, count=count)
    return tick


def make_reference(unet: CausalUNet, tick: TorchTick, count: int) -> tuple[TorchNetwork, KvRing]:
    """The conformance network and a ring with the same past."""
    network, ring = TorchNetwork(unet), KvRing(SPEC)
    network.set_steps(make_step_table(SPEC.step_list, SPEC.schedule).timesteps)
    network.set_prompt(prompt())
    for _ in range(count):
        ring.write({}, [True] * SPEC.steps)
    for place, pair in tick.past_numpy().items():
        for ours, theirs in zip(ring.past[place], pair, strict=True):
            ours[:] = theirs
    return network, ring


def check_ticks(
    tick: TorchTick, step: Callable[[], None], network: TorchNetwork, ring: KvRing, ticks: int, tolerance: float
) -> None:
    for index in range(ticks):
        sample, depth_features = inputs(index)
        tick.load(sample, depth_features)
        step()
        wanted, new = network.tick(sample, depth_features, ring)
        ring.write(new, [True] * SPEC.steps)
        np.testing.assert_allclose(tick.model_output.numpy(force=True), wanted, atol=tolerance)
        for place, pair in tick.past_numpy().items():
            for ours, theirs in zip(pair, ring.past[place], strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=tolerance)
        tick.advance([True] * SPEC.steps)


@pytest.fixture(scope="module")
def unet() -> CausalUNet:
    return random_unet(UNET, 3, torch.float32)


@pytest.mark.parametrize("count", [0, 3, 8, 30])
def test_attention_equals_that_of_the_model(count: int) -> None:
    rows, window, positions, channels, heads = 3, 16, 5, 32, 8
    counts = KvWindow(rows, window, sink=8)
    for tick in range(count):
        counts.advance([row <= tick for row in range(rows)])  # so that every row is at another count
    view, buffers = counts.view(), WindowBuffers(rows, window, torch.float32, CPU)
    buffers.upload(counts)
    q, k, v = torch.from_numpy(draw(3, rows, positions, channels, seed=1))
    past_k, past_v = torch.from_numpy(draw(2, rows, window, positions, channels, seed=2))
    tables = PositionTables(*torch.from_numpy(draw(3, window, channels, seed=3)))
    position, past_position = torch.tensor(view.position), torch.tensor(view.past_position)
    bias = torch.from_numpy(view.past_bias("float32"))
    wanted = streaming_attention(q, k, v, past_k, past_v, tables, position, past_position, bias, heads)
    ours = RingAttend({"place": (past_k, past_v)}, buffers, heads)("place", q, k, v, tables)
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-5)
    for past, new in ((past_k, k), (past_v, v)):
        assert torch.equal(past[range(rows), view.write_slot], new)


@pytest.mark.parametrize("count", [0, 5, 21])
def test_ticks_equal_the_conformance_network(unet: CausalUNet, count: int) -> None:
    tick = make_tick(unet, count)
    check_ticks(tick, tick.step, *make_reference(unet, tick, count), ticks=4, tolerance=1e-5)


def test_a_tick_is_one_graph_to_the_compiler(unet: CausalUNet) -> None:
    tick = make_tick(unet, count=9)
    tick.compile(backend="eager")
    check_ticks(tick, tick.step, *make_reference(unet, tick, 9), ticks=2, tolerance=1e-5)


def test_a_step_repeated_before_advancing_changes_nothing(unet: CausalUNet) -> None:
    tick = make_tick(unet, count=9)
    tick.load(*inputs(0))
    tick.step()
    output, past = tick.model_output.clone(), tick.past_numpy()
    tick.step()
    assert torch.equal(tick.model_output, output)
    for place, pair in tick.past_numpy().items():
        for again, before in zip(pair, past[place], strict=True):
            np.testing.assert_array_equal(again, before)


def test_every_input_counts(unet: CausalUNet) -> None:
    tick = make_tick(unet, count=9)

    def run() -> torch.Tensor:
        tick.step()
        return tick.model_output.clone()

    tick.load(*inputs(0))
    outputs = [run()]
    tick.load(inputs(1)[0], inputs(0)[1])
    outputs.append(run())
    tick.load(inputs(1)[0], inputs(1)[1])
    outputs.append(run())
    tick.set_prompt(2 * prompt())
    outputs.append(run())
    tick.set_steps(np.array([500, 300, 100], np.int32))
    outputs.append(run())
    tick.fill_random_past(seed=6, count=9)
    outputs.append(run())
    for before, after in pairwise(outputs):
        assert (before - after).abs().max() > 1e-3


def test_the_same_seed_gives_the_same_past(unet: CausalUNet) -> None:
    one, other = make_tick(unet, 2).past_numpy(), make_tick(unet, 3).past_numpy()
    assert one.keys() == {cache.name for cache in SPEC.kv_caches}
    for place, pair in one.items():
        for ours, theirs in zip(pair, other[place], strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert 0.9 < ours.std() < 1.1


def test_other_dtypes_are_refused(unet: CausalUNet) -> None:
    with pytest.raises(MeasurementError, match="the stream is float16"):
        TorchTick(unet, replace(SPEC, dtype="float16"))


def test_warm_up_equals_that_of_the_conformance_network(unet: CausalUNet) -> None:
    tick = make_tick(unet, count=0)
    network, ring = make_reference(unet, tick, 0)
    generator = np.random.default_rng(4)
    sample = generator.standard_normal((SPEC.sink, *SPEC.latent_shape), np.float32)
    depth_features = generator.standard_normal((SPEC.sink, *SPEC.depth_features_shape), np.float32)
    for row in range(SPEC.steps):
        wanted, new = network.warm_up(row, sample, depth_features)
        ring.fill_sink(row, new)
        with torch.inference_mode():
            found = tick.warm_up(row, torch.from_numpy(sample), torch.from_numpy(depth_features))
        np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)
    for place, pair in tick.past_numpy().items():
        for ours, theirs in zip(pair, ring.past[place], strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_limits_are_recorded_with_their_rates(dtype: str) -> None:
    results = ResultsFile()
    add_limits(results, CPU, dtype, LimitSizes(copy_bytes=1 << 20, matrix_side=64))
    copy, matmul = results.entries
    assert (copy.name, matmul.name) == ("kernel/copy", "kernel/matmul")
    assert copy.p50_ms is not None
    assert copy.notes["bytes_read_and_written"] == 2 << 20
    assert copy.notes["tb_per_s"] == pytest.approx((2 << 20) / copy.p50_ms / 1e9, rel=0.1)
    assert matmul.p50_ms is not None
    assert matmul.notes["dtype"] == dtype
    assert matmul.notes["tflop_per_s"] == pytest.approx(2 * 64**3 / matmul.p50_ms / 1e9, rel=0.1)


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_replays_equal_the_conformance_network(compiled: bool) -> None:
    unet = random_unet(UNET, 3, torch.float32)
    tick = make_tick(random_unet(UNET, 3, torch.float32).to("cuda"), 6)
    reference = make_reference(unet, tick, 6)
    if compiled:
        tick.compile()
    tick.load(*inputs(0))
    replay = capture(tick.step, torch.cuda.Stream())
    check_ticks(tick, replay, *reference, ticks=4, tolerance=2e-2)  # convolutions may run in TF32
