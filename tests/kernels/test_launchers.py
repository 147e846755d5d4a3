"""The door of the launchers: what is launched, and what is refused before anything is. No GPU is needed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from live2diff_trt.kernels.attention import lanes_of_head
from live2diff_trt.kernels.device_tensor import DeviceTensor, DeviceTensorError
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


def test_nine_rows_are_refused() -> None:
    with pytest.raises(KernelError, match="9 rows"):
        RecordedKernels().streaming_attention(None, **attention_tensors(rows=9))


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
