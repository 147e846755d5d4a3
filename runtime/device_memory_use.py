"""How much of a GPU's memory is free, asked without making a context: that would take some itself."""

from __future__ import annotations

from cuda.bindings import driver
from cuda.core import Device

from live2diff_trt.runtime.device import checked


def free_memory(device_id: int) -> int:
    """Return the free bytes of a GPU, whoever holds the rest (NVML)."""
    return int(Device(device_id).to_system_device().memory_info.free)


def has_context(device_id: int) -> bool:
    """Whether this process has a CUDA context on the device already."""
    _, active = checked(driver.cuDevicePrimaryCtxGetState(checked(driver.cuDeviceGet(device_id))))
    return bool(active)
