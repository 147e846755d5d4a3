"""Copies by a kernel: what is refused without a GPU, and what is copied on one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from live2diff_trt.kernels.copies import CopyLauncher
from live2diff_trt.kernels.device_tensor import DeviceTensor, DeviceTensorError
from live2diff_trt.kernels.library import KernelError
from tests.kernels.device import Gpu, open_gpu

SOURCE = DeviceTensor(256, (4, 8), "float16")


class NoLibrary:
    device_id = 0


@pytest.mark.parametrize(
    ("source", "target", "error"),
    [
        (SOURCE, replace(SOURCE, shape=(8, 4)), DeviceTensorError),
        (SOURCE, replace(SOURCE, dtype="float32"), DeviceTensorError),
        (replace(SOURCE, chunk_rows=2, chunk_bytes=64), SOURCE, DeviceTensorError),
        (replace(SOURCE, address=264), SOURCE, DeviceTensorError),
        (replace(SOURCE, shape=(3, 4)), replace(SOURCE, shape=(3, 4)), KernelError),
    ],
)
def test_what_can_t_be_copied_is_refused(source: DeviceTensor, target: DeviceTensor, error: type[Exception]) -> None:
    with pytest.raises(error):
        CopyLauncher(NoLibrary()).copy(None, source=source, target=target)  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(8,), (1200,), (320, 64, 64), (3, 5, 1024, 1024)])
def test_every_byte_is_copied(shape: tuple[int, ...]) -> None:
    gpu: Gpu
    with open_gpu() as gpu:
        values = np.random.default_rng(0).integers(0, 60000, shape).astype(np.uint16).view(np.float16)
        source, target = gpu.upload(values), gpu.upload(np.full(shape, np.nan, np.float16))
        gpu.kernels.copy(gpu.stream, source=source, target=target)
        np.testing.assert_array_equal(gpu.download(target).view(np.uint16), values.view(np.uint16))
