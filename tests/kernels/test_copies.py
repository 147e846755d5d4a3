"""Copies by a kernel: what is refused without a GPU, and what is copied on one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from live2diff_trt.kernels.copies import CopyLauncher
from live2diff_trt.kernels.device_tensor import DeviceTensor, DeviceTensorError
from live2diff_trt.kernels.library import KernelError
from live2diff_trt.kernels.tick_parameters import TICK_PARAMETERS
from live2diff_trt.runtime.device import PinnedArray
from tests.kernels.device import POISON, Gpu, open_gpu

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


class RecordedCopies(CopyLauncher):
    """Notes what would be launched."""

    def __init__(self) -> None:
        super().__init__(NoLibrary())  # type: ignore[arg-type]
        self.launches: list[tuple[str, int, tuple[object, ...]]] = []

    def launch(self, stream: Any, kernel: str, grid: Any, block: Any, *arguments: object) -> None:
        self.launches.append((kernel, grid[0], arguments))


@pytest.mark.parametrize(("size", "blocks"), [(0, 1), (1, 1), (4096, 1), (4097, 2), (512 * 512 * 3, 32), (10**8, 32)])
def test_what_comes_in_and_leaves_takes_few_blocks(size: int, blocks: int) -> None:
    copies = RecordedCopies()
    copies.fetch(None, record=16, parameters=32, pixels=48, picture=64, size=size)
    copies.deliver(None, picture=64, pixels=48, size=size)
    assert copies.launches == [("fetch", blocks, (16, 32, 48, 64, size)), ("deliver", blocks, (64, 48, size))]
    assert [type(arguments[-1]) for *_, arguments in copies.launches] == [np.int64] * 2


@pytest.mark.parametrize("odd", ["record", "parameters", "pixels", "picture"])
def test_unaligned_addresses_are_refused(odd: str) -> None:
    addresses = {**dict.fromkeys(("record", "parameters", "pixels", "picture"), 256), odd: 257}
    with pytest.raises(KernelError, match="0x101"):
        RecordedCopies().fetch(None, **addresses, size=3)
    if odd in ("picture", "pixels"):
        with pytest.raises(KernelError, match="0x101"):
            RecordedCopies().deliver(None, picture=addresses["picture"], pixels=addresses["pixels"], size=3)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(8,), (1200,), (320, 64, 64), (3, 5, 1024, 1024)])
def test_every_byte_is_copied(shape: tuple[int, ...]) -> None:
    gpu: Gpu
    with open_gpu() as gpu:
        values = np.random.default_rng(0).integers(0, 60000, shape).astype(np.uint16).view(np.float16)
        source, target = gpu.upload(values), gpu.upload(np.full(shape, np.nan, np.float16))
        gpu.kernels.copy(gpu.stream, source=source, target=target)
        np.testing.assert_array_equal(gpu.download(target).view(np.uint16), values.view(np.uint16))


@pytest.mark.gpu
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 4097, 512 * 512 * 3, 1919 * 1079 * 3])
def test_pictures_come_in_from_page_locked_memory_and_leave_to_it(size: int) -> None:
    """Nothing behind the last byte is touched, on either side."""
    gpu: Gpu
    random = np.random.default_rng(size)
    with open_gpu() as gpu:
        record, pixels, delivered = (
            PinnedArray(TICK_PARAMETERS.itemsize),
            PinnedArray(size + 32),
            PinnedArray(size + 32),
        )
        for pinned in (record, pixels):
            pinned.array[:] = random.integers(0, 256, len(pinned.array), np.uint8)
        delivered.array[:] = POISON
        parameters, picture = (gpu.poisoned((1, count), "uint8") for count in (TICK_PARAMETERS.itemsize, size + 32))
        gpu.kernels.fetch(
            gpu.stream,
            record=record.address,
            parameters=parameters.address,
            pixels=pixels.address,
            picture=picture.address,
            size=size,
        )
        gpu.kernels.deliver(gpu.stream, picture=picture.address, pixels=delivered.address, size=size)
        np.testing.assert_array_equal(gpu.download(parameters)[0], record.array)  # which waits
        for found in (gpu.download(picture)[0], delivered.array):
            np.testing.assert_array_equal(found[:size], pixels.array[:size])
            assert (found[size:] == POISON).all()
        assert gpu.outside_is_untouched(parameters)
        for pinned in (record, pixels, delivered):
            pinned.close()
