"""Frames to a virtual camera, which other programs open like a real one."""

from __future__ import annotations

from fractions import Fraction
from types import TracebackType
from typing import Any

import numpy as np

from live2diff_trt.runtime.errors import SinkError
from live2diff_trt.runtime.frame import FinishedFrame
from live2diff_trt.runtime.sink_picture import check_size


class VirtualCameraSink:
    """Shows frames through pyvirtualcam: v4l2loopback on Linux, OBS's camera elsewhere.

    Args:
        device: as the system names it; the first that is free if empty.
        width, height: of every frame, in pixels.
        frame_rate: that programs are told, in frames per second.

    Raises:
        SinkError: pyvirtualcam is not installed; on entering, there is no virtual camera, or it can't be written to.
    """

    def __init__(self, device: str, width: int, height: int, frame_rate: Fraction) -> None:
        self._camera_type = _load_camera_type()
        self._device, self._width, self._height, self._frame_rate = device, width, height, frame_rate
        self._camera: Any = None

    def __enter__(self) -> VirtualCameraSink:
        try:
            self._camera = self._camera_type(
                width=self._width, height=self._height, fps=float(self._frame_rate), device=self._device or None
            )
        except (RuntimeError, OSError, ValueError) as error:
            raise SinkError(
                f"no virtual camera can be opened: {error}",
                "On Linux load one with `sudo modprobe v4l2loopback`, elsewhere install OBS",
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._camera.close()

    def write(self, frame: FinishedFrame) -> None:
        """Show one frame at once; raise SinkError if it is of another size, or the camera is gone."""
        check_size(frame, self._width, self._height, "the camera")
        try:
            self._camera.send(np.ascontiguousarray(frame.image))
        except (RuntimeError, OSError) as error:
            raise SinkError(f"the virtual camera is gone: {error}", "Load it again and start anew") from error


def _load_camera_type() -> Any:
    try:
        from pyvirtualcam import Camera
    except ImportError as error:
        raise SinkError(
            "pyvirtualcam is not installed", "Install it with `pip install 'live2diff-trt[virtual-camera]'`"
        ) from error
    return Camera
