"""Which GPU is in this machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from live2diff_trt.engine.errors import GpuError


@dataclass(frozen=True)
class Gpu:
    """A GPU, as far as plans and what is kept of them depend on it.

    Attributes:
        name: as the driver calls it.
        compute_capability: (major, minor).
        driver: version of the driver.
        uuid: of this very card; empty where it does not matter which of its kind it is.
    """

    name: str
    compute_capability: tuple[int, int]
    driver: str
    uuid: str = ""

    @property
    def slug(self) -> str:
        """Name and driver as a part of a file's name."""
        return _as_file_name(f"{self.name}-{self.driver}")

    @property
    def card_slug(self) -> str:
        """The same, and which card it is."""
        return _as_file_name(f"{self.name}-{self.driver}-{self.uuid}")


def _as_file_name(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def detect_gpu(device_id: int = 0) -> Gpu | None:
    """Return a GPU of this machine, or None where there is no driver or no GPU at all.

    Raises:
        GpuError: if cuda-core is not installed, the driver fails, or there are GPUs but none of that number.
    """
    try:
        cuda, driver = import_module("cuda.core"), import_module("cuda.bindings.driver")
        missing_library = import_module("cuda.pathfinder").DynamicLibNotFoundError
    except ImportError as error:
        raise GpuError(
            f"the GPU can't be asked for: {error}", "Install cuda-core with `pip install live2diff-trt[cuda]`"
        ) from error
    try:
        count = _count_devices(driver)
    except missing_library:
        return None
    if count == 0:
        return None
    if not 0 <= device_id < count:
        raise GpuError(f"there is no GPU {device_id}", f"Choose --device from 0 to {count - 1}")
    device = cuda.Device(device_id)
    capability = device.compute_capability
    try:
        version = cuda.system.get_kernel_mode_driver_version()
    except missing_library:  # no NVML, as in some containers: the version of CUDA that the driver speaks tells less
        version = cuda.system.get_user_mode_driver_version()
    return Gpu(
        str(device.name), (int(capability[0]), int(capability[1])), ".".join(map(str, version)), str(device.uuid)
    )


def _count_devices(driver: Any) -> int:
    (status,) = driver.cuInit(0)
    if status == driver.CUresult.CUDA_ERROR_NO_DEVICE:
        return 0
    count = 0
    if status == driver.CUresult.CUDA_SUCCESS:
        status, count = driver.cuDeviceGetCount()
    if status != driver.CUresult.CUDA_SUCCESS:
        raise GpuError(f"the CUDA driver does not start ({status.name})", "Mend the driver: `nvidia-smi` must work")
    return int(count)
