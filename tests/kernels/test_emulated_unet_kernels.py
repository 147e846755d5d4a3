"""The emulated kernels that stand in for parts of the UNet, through the real launchers: rows, chunks, what repeats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from live2diff_trt.kernels import reference
from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.kernels.group_norm import group_norm_workspace
from tests.runtime.emulated_device import EmulatedGpu
from tests.runtime.emulated_kernels import EmulatedKernels

Array = NDArray[Any]
CHUNK_ROWS = 2


class Bench:
    """An emulated GPU with tensors on it."""

    def __init__(self) -> None:
        self.gpu: Any = EmulatedGpu()
        self.stream: Any = self.gpu.create_stream()
        self.kernels = EmulatedKernels.load(self.gpu)

    def tensor(self, values: Array, chunk_rows: int = 0) -> DeviceTensor:
        row_bytes = values[0].nbytes
        chunk_bytes = -(-chunk_rows * row_bytes // 256) * 256 + 256 if chunk_rows else 0
        size = -(-len(values) // chunk_rows) * chunk_bytes if chunk_rows else values.nbytes
        address = self.gpu.memory.allocate(size)
        tensor = DeviceTensor(address, values.shape, values.dtype.name, self.gpu.device_id, chunk_rows, chunk_bytes)
        for row, line in enumerate(values):
            self._view(tensor, row)[...] = line
        return tensor

    def values(self, tensor: DeviceTensor) -> Array:
        self.stream.sync()
        return np.stack([self._view(tensor, row) for row in range(tensor.shape[0])])

    def _view(self, tensor: DeviceTensor, row: int) -> Array:
        one = tensor.row(row)
        view: Array = self.gpu.memory.view(one.address, one.shape, one.dtype)
        return view


@pytest.fixture
def bench() -> Bench:
    return Bench()


def random_normal(*shape: int) -> Array:
    return np.random.default_rng(shape).standard_normal(shape, np.float32)


@pytest.mark.parametrize("key_rows", [1, 2, 3])
def test_spatial_attention(bench: Bench, key_rows: int) -> None:
    q, k, v = random_normal(3, 9, 16), random_normal(key_rows, 5, 16), random_normal(key_rows, 5, 16) * 2
    chunk_rows = CHUNK_ROWS if key_rows > CHUNK_ROWS else 0
    out = bench.tensor(np.zeros_like(q), CHUNK_ROWS)
    bench.kernels.spatial_attention(
        bench.stream, q=bench.tensor(q), k=bench.tensor(k, chunk_rows), v=bench.tensor(v, chunk_rows), out=out, heads=2
    )
    np.testing.assert_array_equal(bench.values(out), reference.spatial_attention(q, k, v, 2))


@pytest.mark.parametrize("row_bias_rows", [0, 1, 2, 3])
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("positions", [9, 8193])  # in one launch, in two
def test_group_norm(bench: Bench, row_bias_rows: int, silu: bool, positions: int) -> None:
    x, scale, bias = random_normal(3, positions, 16), random_normal(16), random_normal(16) + 1
    row_bias = random_normal(row_bias_rows, 16) if row_bias_rows else None
    on_device = bench.tensor(x, CHUNK_ROWS)
    bench.kernels.group_norm(
        bench.stream,
        x=on_device,
        out=on_device,
        scale=bench.tensor(scale),
        bias=bench.tensor(bias),
        row_bias=None if row_bias is None else bench.tensor(row_bias, CHUNK_ROWS if row_bias_rows > CHUNK_ROWS else 0),
        statistics=bench.tensor(np.zeros(group_norm_workspace(3, 4), np.float32)),
        groups=4,
        epsilon=1e-2,
        silu=silu,
    )
    expected = reference.group_norm(x, scale, bias, row_bias, 4, float(np.float32(1e-2)), silu)
    np.testing.assert_array_equal(bench.values(on_device), expected)


def test_gated_gelu(bench: Bench) -> None:
    x = random_normal(3, 9, 32)
    out = bench.tensor(np.zeros((3, 9, 16), np.float32), CHUNK_ROWS)
    bench.kernels.gated_gelu(bench.stream, x=bench.tensor(x), out=out)
    np.testing.assert_array_equal(bench.values(out), reference.gated_gelu(x))
