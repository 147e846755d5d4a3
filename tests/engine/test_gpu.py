"""Which GPU is found, and what is an error instead."""

from __future__ import annotations

import sys
from enum import IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from live2diff_trt.engine.errors import GpuError
from live2diff_trt.engine.gpu import Gpu, detect_gpu


class CUresult(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_SYSTEM_DRIVER_MISMATCH = 803


class LibraryMissingError(RuntimeError):
    pass


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretend to be a machine with some GPUs."""

    def machine(
        gpus: int = 0, *, init: CUresult = CUresult.CUDA_SUCCESS, driver: bool = True, nvml: bool = True
    ) -> None:
        def start(_: int) -> tuple[CUresult]:
            if not driver:
                raise LibraryMissingError("libcuda.so.1")
            return (init,)

        def read_kernel_mode_version() -> tuple[int, ...]:
            if not nvml:
                raise LibraryMissingError("libnvidia-ml.so.1")
            return (580, 65, 6)

        system = SimpleNamespace(
            get_kernel_mode_driver_version=read_kernel_mode_version,
            get_user_mode_driver_version=lambda: (13, 0),
        )

        def device(index: int) -> SimpleNamespace:
            return SimpleNamespace(name=f"NVIDIA Test {index}", compute_capability=(8, 9), uuid=f"a{index}-b")

        modules: dict[str, dict[str, Any]] = {
            "cuda.core": {"Device": device, "system": system},
            "cuda.bindings.driver": {
                "CUresult": CUresult, "cuInit": start, "cuDeviceGetCount": lambda: (CUresult.CUDA_SUCCESS, gpus)
            },
            "cuda.pathfinder": {"DynamicLibNotFoundError": LibraryMissingError},
        }  # fmt: skip
        for name, content in modules.items():
            module = ModuleType(name)
            module.__dict__.update(content)
            monkeypatch.setitem(sys.modules, name, module)

    return machine


def test_a_gpu_is_described(machine: Any) -> None:
    machine(2)
    assert detect_gpu() == Gpu("NVIDIA Test 0", (8, 9), "580.65.6", "a0-b")
    assert detect_gpu(1) == Gpu("NVIDIA Test 1", (8, 9), "580.65.6", "a1-b")


def test_without_nvml_the_driver_is_known_by_its_cuda(machine: Any) -> None:
    machine(1, nvml=False)
    assert detect_gpu() == Gpu("NVIDIA Test 0", (8, 9), "13.0", "a0-b")


@pytest.mark.parametrize("state", [{"driver": False}, {"init": CUresult.CUDA_ERROR_NO_DEVICE}, {}])
def test_no_driver_or_no_gpu_is_none(machine: Any, state: dict[str, Any]) -> None:
    machine(0, **state)
    assert detect_gpu() is None


def test_a_number_that_no_gpu_has_is_an_error(machine: Any) -> None:
    machine(2)
    with pytest.raises(GpuError, match=r"there is no GPU 2.*--device from 0 to 1"):
        detect_gpu(2)


def test_a_driver_that_fails_is_an_error(machine: Any) -> None:
    machine(1, init=CUresult.CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)
    with pytest.raises(GpuError, match="SYSTEM_DRIVER_MISMATCH"):
        detect_gpu()


def test_without_cuda_core_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    with pytest.raises(GpuError, match=r"live2diff-trt\[cuda\]"):
        detect_gpu()


def test_a_gpu_names_files() -> None:
    gpu = Gpu("NVIDIA GeForce RTX 4090 / x", (8, 9), "580.65.06", "1f00-A2")
    assert gpu.slug == "nvidia-geforce-rtx-4090-x-580.65.06"
    assert gpu.card_slug == "nvidia-geforce-rtx-4090-x-580.65.06-1f00-a2"


@pytest.mark.gpu
def test_the_gpu_of_this_machine() -> None:
    gpu = detect_gpu()
    assert gpu is not None
    assert gpu.name
    assert gpu.compute_capability >= (7, 5)
    assert len(gpu.uuid) >= 32
    assert gpu.driver.count(".") >= 1
