"""Pictures in device memory, on their way in and out: DLPack and ``__cuda_array_interface__``, nothing copied."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np
from cuda.core import Buffer, Stream
from cuda.core.utils import StridedMemoryView

from live2diff_trt.runtime.errors import FrameError


class DevicePicture(NamedTuple):
    """A picture on its way in, as kernels read it: uint8 RGB in device memory that somebody else owns.

    Attributes:
        address: of its first pixel.
        width, height: in pixels.
        row_bytes: from one line to the next.
    """

    address: int
    width: int
    height: int
    row_bytes: int


class DeviceImage:
    """A finished picture on the device: uint8 RGB, [height, width, 3], contiguous.

    The receiver owns it: it is never written again and lives as long as this object or a view of it. It is complete
    when it is delivered: no stream needs to be waited for. Work that still reads it on another stream must be done
    before the last of them is let go, as its memory is then used for the next picture. Other libraries take it by
    DLPack (``torch.from_dlpack``) or ``__cuda_array_interface__`` (CuPy, Numba).

    Attributes:
        shape: (height, width, 3).
    """

    def __init__(self, buffer: Buffer, height: int, width: int) -> None:
        self.shape = (height, width, 3)
        self._buffer = buffer
        self._view = StridedMemoryView.from_buffer(buffer, self.shape, dtype=np.dtype(np.uint8))

    @property
    def address(self) -> int:
        """Where the first pixel lies."""
        return int(self._buffer.handle)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": self.shape, "typestr": "|u1", "data": (self.address, False), "version": 3, "strides": None}

    def __dlpack__(self, **options: Any) -> Any:
        return self._view.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._view.__dlpack_device__()


def view_picture(image: object, stream: Stream, device_id: int) -> tuple[DevicePicture, object]:
    """View another library's picture. Work on ``stream`` waits for what that library's stream still does to it.

    Returns:
        Where it lies, and what keeps it there.

    Raises:
        FrameError: if it is not uint8 [height, width, 3] on this device, pixels side by side.
    """
    view = StridedMemoryView.from_any_interface(image, int(stream.handle))
    shape = tuple(view.shape)
    strides = tuple(view.strides) if view.strides is not None else tuple(prod(shape[axis:]) for axis in (1, 2, 3))
    good = len(shape) == 3 and shape[2:] == (3,) and 0 not in shape and strides[1:] == (3, 1)
    if not good or view.dtype != np.uint8 or view.device_id != device_id:
        raise FrameError(
            f"a frame is {view.dtype} {list(shape)} with strides {list(strides)} on device {view.device_id}",
            f"Pass uint8 RGB, [height, width, 3], pixels side by side, on device {device_id}",
        )
    return DevicePicture(int(view.ptr), shape[1], shape[0], strides[0]), view
