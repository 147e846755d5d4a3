"""The door of the launchers: what is launched, and what is refused before anything is. No GPU is needed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from live2diff_trt.kernels.attention import lanes_of_head
from live2diff_trt.kernels.device_tensor import DeviceTensor, DeviceTensorError
from live2diff_trt.kernels.group_norm import MAXIMUM_CHUNKS, AtOnce, Chunks, group_norm_workspace
from live2diff_trt.kernels.launcher import row_arguments
from live2diff_trt.kernels.launchers import Kernels
from live2diff_trt.kernels.library import HEAD_CHANNELS, KernelError
from live2diff_trt.kernels.tick_parameters import TICK_PARAMETERS, WINDOW
from live2diff_trt.kernels.window import NewSlots, slot_copies

PARAMETERS = DeviceTensor(256, (TICK_PARAMETERS.itemsize,), "uint8")


class RecordedKernels(Kernels):
    """Notes what would be launched."""

    def __init__(self) -> None:
        library: Any = type("Library", (), {"device_id": 0})()
        super().__init__(library)
        self.launches: list[tuple[str, tuple[int, int, int], tuple[int, int, int], tuple[object, ...]]] = []

    def launch(self, stream: Any, kernel: str, grid: Any, block: Any, *arguments: object) -> None:
        self.launches.append((kernel, grid, block, arguments))


def attention_tensors(rows: int = 3, positions: int = 7, channels: int = 320) -> dict[str, Any]:
    tensor = DeviceTensor(1024, (rows, positions, channels), "float16", chunk_rows=2, chunk_bytes=16384)
    addresses = DeviceTensor(2048, (rows,), "uint64")
    return {
        **dict.fromkeys(("q", "k", "v", "out"), tensor),
        "tables": (DeviceTensor(512, (WINDOW, channels), "float16"),) * 3,
        "past_k_rows": addresses,
        "past_v_rows": addresses,
        "parameters": PARAMETERS,
        "heads": 8,
    }


def test_streaming_attention_is_launched_for_its_heads() -> None:
    kernels = RecordedKernels()
    kernels.streaming_attention(None, **attention_tensors())
    ((kernel, grid, block, arguments),) = kernels.launches
    assert kernel == "streaming_attention_float16_40"
    assert grid == (math.ceil(7 * 8 / 24), 3, 1)  # 6 groups of 5 lanes in each of 4 warps
    assert block == (128, 1, 1)
    assert arguments[:2] == (1024, 8192)
    assert [type(one) for one in arguments] == [int, np.int64] * 4 + [np.int32] + [int] * 6 + [np.int32] * 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": DeviceTensor(1024, (3, 7, 320), "float32")},
        {"v": DeviceTensor(1024, (2, 7, 320), "float16")},
        {"out": DeviceTensor(1024, (3, 7, 320), "float16", device_id=1)},
        {"q": DeviceTensor(1024 + 8, (3, 7, 320), "float16")},
        {"tables": (DeviceTensor(512, (8, 320), "float16"),) * 3},
        {"past_k_rows": DeviceTensor(512, (2,), "uint64")},
        {"past_v_rows": DeviceTensor(512, (3,), "int64")},
        {"parameters": DeviceTensor(256, (100,), "uint8")},
        {"out": DeviceTensor(1024, (3, 7, 320), "float16", chunk_rows=1, chunk_bytes=8192)},
        {"out": DeviceTensor(1024, (3, 7, 320), "float16", chunk_rows=2, chunk_bytes=8192)},
        {"heads": 7},
        {"heads": 5},
        {"heads": 0},
    ],
)
def test_what_does_not_fit_is_refused(wrong: dict[str, Any]) -> None:
    kernels = RecordedKernels()
    with pytest.raises((DeviceTensorError, KernelError)):
        kernels.streaming_attention(None, **{**attention_tensors(), **wrong})
    assert not kernels.launches


def test_more_rows_than_a_tick_has_are_refused() -> None:
    with pytest.raises(KernelError, match="17 rows"):
        RecordedKernels().streaming_attention(None, **attention_tensors(rows=17))


def test_dense_tensors_join_chunked_ones() -> None:
    chunked = DeviceTensor(256, (3, 4), "float16", chunk_rows=2, chunk_bytes=256)
    dense = DeviceTensor(512, (3, 4), "float32")
    assert row_arguments(chunked=chunked, dense=dense) == (256, 128, 512, 8, 2)
    assert row_arguments(dense=dense) == (512, 12, 3)
    one_chunk = replace(chunked, shape=(2, 4))
    assert row_arguments(one_chunk=one_chunk) == (256, 8, 2)


def test_lanes_divide_every_head() -> None:
    lanes = {(head, size): lanes_of_head(head, size) for head in HEAD_CHANNELS for size in (2, 4)}
    assert lanes == {
        (4, 2): 1, (8, 2): 1, (40, 2): 5, (80, 2): 10, (160, 2): 10,
        (4, 4): 1, (8, 4): 1, (40, 4): 10, (80, 4): 10, (160, 4): 10,
    }  # fmt: skip


def test_kernels_refuse_other_types() -> None:
    image = DeviceTensor(256, (3, 8, 8), "float64")
    with pytest.raises(KernelError, match="image is float64"):
        RecordedKernels().postprocess(None, image=image, pixels=DeviceTensor(256, (8, 8, 3), "uint8"))


def test_a_slot_of_odd_bytes_is_refused() -> None:
    odd = NewSlots(DeviceTensor(256, (2, 1, 3), "float16"), DeviceTensor(512, (2,), "uint64"))
    with pytest.raises(DeviceTensorError, match="6 bytes"):
        slot_copies([odd])


def group_norm_tensors(rows: int = 3, positions: int = 4096, channels: int = 320) -> dict[str, Any]:
    tensor = DeviceTensor(1024, (rows, positions, channels), "float16")
    return {
        "x": tensor,
        "out": replace(tensor, address=2048),
        "scale": DeviceTensor(256, (channels,), "float16"),
        "bias": DeviceTensor(512, (channels,), "float16"),
        "row_bias": DeviceTensor(768, (2, channels), "float16"),
        "statistics": DeviceTensor(4096, group_norm_workspace(rows, 32), "float32"),
        "groups": 32,
        "epsilon": 1e-5,
        "silu": True,
    }


def test_group_norm_of_few_positions_is_one_launch() -> None:
    kernels = RecordedKernels()
    kernels.group_norm(None, **group_norm_tensors(positions=1024, channels=640))
    ((kernel, grid, block, arguments),) = kernels.launches
    assert kernel == "group_norm_once_float16_8"  # 5 vectors of 8 bytes in a group of 20 channels
    assert grid == (32, 3, 1)
    assert block == (864, 1, 1)  # at 171 positions, 6 times
    x, out, row_bias = (1024, 3 * 1024 * 640), (2048, 3 * 1024 * 640), (768, 3 * 640)
    sizes = (1024, 640, 32, 171)
    assert arguments == (*x, *row_bias, *out, 3, 2, 256, 512, *sizes, np.float32(1e-5), 1)
    assert isinstance(arguments[-2], np.float32)


@pytest.mark.parametrize(
    ("positions", "channels", "kernels"),
    [
        (1024, 320, ["group_norm_once_float16_4"]),
        (3264, 320, ["group_norm_once_float16_4"]),
        (3265, 320, ["group_statistics_float16", "group_normalise_float16"]),
        (1024, 960, ["group_norm_once_float16_4"]),
        (1024, 1280, ["group_norm_once_float16_16"]),
        (1024, 1920, ["group_norm_once_float16_8"]),
        (1632, 1280, ["group_norm_once_float16_16"]),
        (1633, 1280, ["group_statistics_float16", "group_normalise_float16"]),
        (64, 1280, ["group_norm_once_float16_16"]),
        (64, 96, ["group_statistics_float16", "group_normalise_float16"]),  # 6 bytes, of which no vectors are
    ],
)
def test_one_launch_keeps_groups_that_fit(positions: int, channels: int, kernels: list[str]) -> None:
    recorded = RecordedKernels()
    recorded.group_norm(None, **group_norm_tensors(positions=positions, channels=channels))
    assert [kernel for kernel, *_ in recorded.launches] == kernels


def test_group_norm_is_two_launches() -> None:
    kernels = RecordedKernels()
    kernels.group_norm(None, **group_norm_tensors())
    statistics, normalise = kernels.launches
    assert statistics[0] == "group_statistics_float16"
    assert normalise[0] == "group_normalise_float16"
    for _, grid, block, _ in kernels.launches:
        assert grid == (64, 3, 1)
        assert block == (480, 1, 1)  # 40 vectors at 12 positions
    sizes = (4096, 320, 32, 64)
    x, out = (1024, 3 * 4096 * 320), (2048, 3 * 4096 * 320)
    assert statistics[3] == (*x, 768, 3 * 320, 3, 2, 4096, *sizes)
    assert normalise[3] == (*x, 768, 3 * 320, *out, 3, 2, 4096, 256, 512, *sizes, np.float32(1e-5), 1)
    assert isinstance(normalise[3][-2], np.float32)


def test_group_norm_without_a_row_bias_passes_no_address() -> None:
    kernels = RecordedKernels()
    kernels.group_norm(None, **{**group_norm_tensors(), "row_bias": None})
    assert [arguments[2] for _, _, _, arguments in kernels.launches] == [0, 0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"x": DeviceTensor(1024, (3, 4096, 320), "float32")},
        {"x": DeviceTensor(1024, (3, 4096 * 320), "float16")},
        {"x": DeviceTensor(1024, (3, 0, 320), "float16")},
        {"x": DeviceTensor(1024 + 8, (3, 4096, 320), "float16")},
        {"x": DeviceTensor(1024, (17, 4096, 320), "float16")},
        {"x": DeviceTensor(1024, (3, 4096, 324), "float16")},
        {"x": DeviceTensor(1024, (3, 1, 8192), "float16")},
        {"out": DeviceTensor(1024, (2, 4096, 320), "float16")},
        {"scale": DeviceTensor(256, (32,), "float16")},
        {"bias": DeviceTensor(256, (320,), "float32")},
        {"row_bias": DeviceTensor(256, (2, 640), "float16")},
        {"row_bias": DeviceTensor(256, (17, 320), "float16")},
        {"row_bias": DeviceTensor(256, (2, 320), "float16", device_id=1)},
        {"statistics": DeviceTensor(256, (1000,), "float32")},
        {"statistics": DeviceTensor(256, (100000,), "float16")},
        {"statistics": DeviceTensor(256, (100, 1000), "float32")},
        {"groups": 0},
        {"groups": 33},
        {"groups": 160},
    ],
)
def test_group_norm_refuses_what_does_not_fit(wrong: dict[str, Any]) -> None:
    kernels = RecordedKernels()
    with pytest.raises((DeviceTensorError, KernelError)):
        kernels.group_norm(None, **{**group_norm_tensors(), **wrong})
    assert not kernels.launches


@given(st.integers(1, 20000), st.integers(1, 640))
def test_chunks_hold_every_position_once(positions: int, vectors: int) -> None:
    chunks = Chunks.of(positions, vectors)
    assert 1 <= chunks.count <= MAXIMUM_CHUNKS
    assert (chunks.count - 1) * chunks.positions < positions <= chunks.count * chunks.positions
    assert chunks.threads % 32 == 0
    assert vectors <= chunks.threads <= 640
    lanes = chunks.threads // vectors
    assert chunks.count == 1 or chunks.positions >= 2 * lanes or chunks.count == MAXIMUM_CHUNKS


@given(st.integers(1, 20000), st.integers(1, 40000).map(lambda half: 2 * half))
def test_groups_are_kept_at_once(positions: int, group_bytes: int) -> None:
    at_once = AtOnce.of(positions, group_bytes)
    if at_once is None:
        assert group_bytes % 4 or positions * group_bytes > 1024 * 16
        return
    vectors, rest = divmod(group_bytes, at_once.vector_bytes)
    assert rest == 0
    assert at_once.threads % 32 == 0
    assert at_once.lanes * vectors <= at_once.threads <= 1024
    assert -(-positions // at_once.lanes) * at_once.vector_bytes <= 128


def spatial_tensors(tokens: int = 77) -> dict[str, Any]:
    q = DeviceTensor(1024, (3, 130, 320), "float16", chunk_rows=2, chunk_bytes=2 * 130 * 640)
    k = DeviceTensor(2048, (2, tokens, 320), "float16")
    return {"q": q, "k": k, "v": replace(k, address=4096), "out": replace(q, address=8192), "heads": 8}


def test_spatial_attention_is_launched_for_its_heads() -> None:
    kernels = RecordedKernels()
    kernels.spatial_attention(None, **spatial_tensors())
    ((kernel, grid, block, arguments),) = kernels.launches
    assert kernel == "spatial_attention_float16_40"
    assert grid == (2, 8, 3)
    assert block == (128, 1, 1)
    row, keys = 2 * 130 * 320, 2 * 77 * 320
    assert arguments == (1024, row, 2048, keys, 4096, keys, 8192, row, 2, 2, 130, 77, 8)


@pytest.mark.parametrize(("head_channels", "blocks"), [(4, 2), (8, 2), (40, 5), (80, 9), (160, 9)])
def test_spatial_attention_of_float32_has_fewer_queries_in_a_block(head_channels: int, blocks: int) -> None:
    kernels = RecordedKernels()
    tensor = DeviceTensor(1024, (1, 130, head_channels), "float32")
    kernels.spatial_attention(None, q=tensor, k=tensor, v=tensor, out=tensor, heads=1)
    ((kernel, grid, _, _),) = kernels.launches
    assert kernel == f"spatial_attention_float32_{head_channels}"
    assert grid == (blocks, 1, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": DeviceTensor(2048, (2, 77, 640), "float16")},
        {"k": DeviceTensor(2048, (2, 0, 320), "float16")},
        {"k": DeviceTensor(2048, (1, 77, 320), "float16")},
        {"v": DeviceTensor(2048, (2, 78, 320), "float16")},
        {"v": DeviceTensor(2048, (2, 77, 320), "float32")},
        {"v": DeviceTensor(2056, (2, 77, 320), "float16")},
        {"out": DeviceTensor(2048, (3, 131, 320), "float16")},
        {"out": DeviceTensor(2048, (3, 130, 320), "float16", device_id=1)},
        {"q": DeviceTensor(2048, (3, 130, 320), "int32")},
        {"heads": 7},
        {"heads": 5},
        {"heads": 0},
    ],
)
def test_spatial_attention_refuses_what_does_not_fit(wrong: dict[str, Any]) -> None:
    kernels = RecordedKernels()
    with pytest.raises((DeviceTensorError, KernelError)):
        kernels.spatial_attention(None, **{**spatial_tensors(), **wrong})
    assert not kernels.launches


def test_gated_gelu_is_launched() -> None:
    kernels = RecordedKernels()
    x, out = DeviceTensor(1024, (2, 4096, 2560), "float16"), DeviceTensor(2048, (2, 4096, 1280), "float16")
    kernels.gated_gelu(None, x=x, out=out)
    assert kernels.launches == [
        ("gated_gelu_float16", (1280, 2, 1), (256, 1, 1), (1024, 2 * 4096 * 2560, 2048, 2 * 4096 * 1280, 2, 4096, 1280))
    ]


@pytest.mark.parametrize(
    ("x_shape", "out_shape"),
    [((2, 7, 64), (2, 7, 64)), ((2, 7, 64), (2, 8, 32)), ((2, 7, 24), (2, 7, 12)), ((17, 7, 64), (17, 7, 32))],
)
def test_gated_gelu_refuses_what_does_not_fit(x_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
    kernels = RecordedKernels()
    with pytest.raises((DeviceTensorError, KernelError)):
        kernels.gated_gelu(None, x=DeviceTensor(1024, x_shape, "float16"), out=DeviceTensor(2048, out_shape, "float16"))
    assert not kernels.launches


def step_tensors(rows: int, outputs: int, *, origins: bool) -> dict[str, Any]:
    sample = DeviceTensor(1024, (rows, 4, 8, 8), "float16", chunk_rows=2, chunk_bytes=1024)
    return {
        "sample": sample,
        "model_output": replace(sample, shape=(outputs, 4, 8, 8)),
        "x0": DeviceTensor(4096, (rows, 4, 8, 8), "float32"),
        "finished": DeviceTensor(8192, (4, 8, 8), "float16"),
        "parameters": PARAMETERS,
        "step_table": DeviceTensor(512, (4, 8), "float32"),
        "origins": DeviceTensor(16384, (rows, 4, 8, 8), "float16") if origins else None,
    }


@pytest.mark.parametrize(
    ("rows", "outputs", "origins", "kernel"),
    [
        *((3, 3, False, "lcm_step"), (3, 3, True, "lcm_step_self")),
        *((3, 6, False, "lcm_step_full"), (3, 4, True, "lcm_step_initialize")),
        *((1, 2, False, "lcm_step_full"), (1, 2, True, "lcm_step_initialize"), (8, 16, False, "lcm_step_full")),
    ],
)
def test_rows_and_origins_say_how_a_step_is_guided(rows: int, outputs: int, origins: bool, kernel: str) -> None:
    kernels = RecordedKernels()
    kernels.lcm_step(None, **step_tensors(rows, outputs, origins=origins))
    ((launched, grid, _, arguments),) = kernels.launches
    assert (launched, grid) == (f"{kernel}_float16", (1, 1, 1))
    pointers = 4 if origins else 3
    assert [type(one) for one in arguments] == [int, np.int64] * pointers + [np.int32] + [int] * 3 + [np.int32] * 2
    assert arguments[-2:] == (rows, 256)


@pytest.mark.parametrize(
    ("rows", "outputs", "origins"), [(3, 4, False), (3, 6, True), (3, 2, False), (2, 5, False), (9, 9, False)]
)
def test_rows_that_no_guidance_has_are_refused(rows: int, outputs: int, origins: bool) -> None:
    kernels = RecordedKernels()
    with pytest.raises(KernelError):
        kernels.lcm_step(None, **step_tensors(rows, outputs, origins=origins))
    assert not kernels.launches


@pytest.mark.parametrize(
    ("asked", "origins", "kind"),
    [(False, False, ""), (False, True, "_self"), (True, False, "_full"), (True, True, "_initialize")],
)
def test_a_warm_up_step_is_guided_by_what_it_is_given(asked: bool, origins: bool, kind: str) -> None:
    kernels = RecordedKernels()
    tensors = step_tensors(8, 8, origins=origins)
    tensors |= {"finished": tensors["sample"], "negative_output": tensors["sample"] if asked else None}
    kernels.lcm_step_warm_up(None, **tensors, row=7)
    ((launched, _, _, arguments),) = kernels.launches
    assert launched == f"lcm_step_warm_up{kind}_float16"
    pointers, addresses = 4 + asked + origins, 2 if kind else 1
    types = [int, np.int64] * pointers + [np.int32] + [int] * addresses + [np.int32] * 2
    assert [type(one) for one in arguments] == types
    wrong = {"negative_output": replace(tensors["sample"], shape=(7, 4, 8, 8))}
    with pytest.raises(DeviceTensorError):
        kernels.lcm_step_warm_up(None, **{**tensors, **wrong}, row=7)
    with pytest.raises(KernelError, match="no step 8"):
        kernels.lcm_step_warm_up(None, **tensors, row=8)
