"""Puts the emulation in the place of CUDA and TensorRT: ``Stream.open`` then opens its TensorRT pipeline on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine import build as build_module
from live2diff_trt.engine.build import BuildOptions, build_plans
from live2diff_trt.engine.flavour import Flavour
from live2diff_trt.engine.gpu import Gpu
from live2diff_trt.engine.plan_manifest import Form
from live2diff_trt.engine.store import PlanStore, StoredPlans
from live2diff_trt.runtime import cuda_engine, cuda_session, device, device_image, opened_plans, plan_threads
from tests.runtime.emulated_device import Array, EmulatedBuffer, EmulatedDriver, EmulatedGpu
from tests.runtime.emulated_graphs import GraphCache, build_emulated_plan
from tests.runtime.emulated_kernels import EmulatedKernels
from tests.runtime.emulated_plans import EmulatedPlanRuntime

FLAVOUR = Flavour("tensorrt-rtx", "1.6.1.120", None)
GPU = Gpu("Emulated GPU", (8, 9), "1.0")


@dataclass(frozen=True, eq=False)
class EmulatedView:
    """Stands for ``StridedMemoryView``."""

    ptr: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    exporting_obj: Any
    dtype: Any = np.uint8
    device_id: int = 0

    @classmethod
    def from_any_interface(cls, image: Any, stream: int) -> EmulatedView:
        """View another library's picture; the stream waits for what its own still does to it."""
        image.gpu.streams[stream].wait(image.written)
        interface = image.__cuda_array_interface__
        return cls(interface["data"][0], interface["shape"], interface["strides"], image)

    @classmethod
    def from_buffer(cls, buffer: EmulatedBuffer, shape: tuple[int, ...], dtype: Any) -> EmulatedView:
        """View a buffer."""
        return cls(buffer.handle, shape, (shape[1] * shape[2], shape[2], 1), buffer, dtype)


class ForeignPicture:
    """A picture that another library puts onto the device, on a stream of its own, with padding behind every line."""

    def __init__(self, gpu: EmulatedGpu, image: Array) -> None:
        self.gpu = gpu
        height, width, _ = self.shape = image.shape
        row_bytes = 3 * width + 13
        self._buffer = EmulatedBuffer(gpu.memory, height * row_bytes)
        lines = gpu.memory.view(self._buffer.handle, [height, row_bytes], "uint8")
        stream, self.written = gpu.create_stream(), gpu.create_event()
        stream.submit("write", lambda: np.copyto(lines[:, : 3 * width], image.reshape(height, -1)))
        stream.record(self.written)
        self.__cuda_array_interface__ = {
            "data": (self._buffer.handle, False),
            "shape": image.shape,
            "strides": (row_bytes, 3, 1),
            "typestr": "|u1",
            "version": 3,
        }

    def __del__(self) -> None:
        self._buffer.close()


def build_emulated_plans(folder: Path, root: Path, form: Form, rows: int, *, refittable: bool = False) -> StoredPlans:
    """Build a bundle's plans into a store, everything but TensorRT's own work."""
    options = BuildOptions(GPU.compute_capability, GPU.compute_capability, form, rows, refittable)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_module, "build_plan", build_emulated_plan)
        return build_plans(Bundle.open(folder), FLAVOUR, PlanStore(root), options)


def install_emulated_gpu(patch: pytest.MonkeyPatch, graphs: GraphCache) -> EmulatedGpu:
    """Give the runtime an emulated GPU until the patch is undone."""
    gpu = EmulatedGpu()

    class Pinned:
        """Stands for the memory resource of pinned memory."""

        def allocate(self, size: int) -> EmulatedBuffer:
            return EmulatedBuffer(gpu.pinned, size)

    def open_runtime(flavour: Flavour, runtime_caches: Mapping[str, bytes]) -> EmulatedPlanRuntime:
        return EmulatedPlanRuntime(gpu, graphs, runtime_caches)

    def open_device(device_id: int = 0) -> Any:
        return gpu

    patch.setattr(build_module, "build_plan", build_emulated_plan)
    patch.setattr(device, "driver", EmulatedDriver(gpu))
    patch.setattr(device, "Device", open_device)
    patch.setattr(device, "LegacyPinnedMemoryResource", Pinned)
    patch.setattr(device_image, "StridedMemoryView", EmulatedView)
    patch.setattr(opened_plans, "PlanRuntime", open_runtime)
    patch.setattr(opened_plans, "Kernels", EmulatedKernels)
    patch.setattr(cuda_session, "Device", open_device)
    patch.setattr(plan_threads, "Device", open_device)
    patch.setattr(cuda_session, "choose_flavour", lambda *_: (FLAVOUR, "it is emulated"))
    patch.setattr(cuda_session, "detect_gpu", lambda _: GPU)
    for module in (cuda_session, cuda_engine):
        patch.setattr(module, "free_memory", lambda _: gpu.free_bytes)
    patch.setattr(cuda_session, "has_context", lambda _: False)
    return gpu
