"""The virtual camera, with a made-up one in the place of the system's."""

from __future__ import annotations

import sys
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from live2diff_trt.runtime.errors import SinkError
from live2diff_trt.runtime.frame import FinishedFrame, Image
from live2diff_trt.runtime.sink import open_sink

RATE = Fraction(25)


class MadeUpCamera:
    """Takes what pyvirtualcam's takes.

    Attributes:
        opened: all of them.
        absent: whether there is none.
    """

    opened: list[MadeUpCamera]
    absent = False

    def __init__(self, **options: Any) -> None:
        if self.absent:
            raise RuntimeError("no such device")
        self.options, self.shown, self.closed, self.gone = options, list[Image](), False, False
        self.opened.append(self)

    def send(self, image: Image) -> None:
        if self.gone:
            raise RuntimeError("unplugged")
        assert image.flags.c_contiguous
        self.shown.append(image)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def cameras(monkeypatch: pytest.MonkeyPatch) -> type[MadeUpCamera]:
    kind = type("OfThisTest", (MadeUpCamera,), {"opened": []})
    module = ModuleType("pyvirtualcam")
    module.Camera = kind  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyvirtualcam", module)
    return kind


def frame(width: int = 96, height: int = 64) -> FinishedFrame:
    return FinishedFrame(np.zeros((height, width, 3), np.uint8)[:, ::-1], Fraction(0), 0, 0.0)


@pytest.mark.parametrize(("name", "device"), [("virtual-camera", None), ("virtual-camera:/dev/video9", "/dev/video9")])
def test_frames_are_shown(cameras: type[MadeUpCamera], name: str, device: str | None) -> None:
    with open_sink(name, width=96, height=64, frame_rate=RATE) as sink:
        sink.write(frame())
        sink.write(frame())
    (camera,) = cameras.opened
    assert camera.options == {"width": 96, "height": 64, "fps": 25.0, "device": device}
    assert len(camera.shown) == 2
    assert camera.closed


def test_what_can_not_be_shown(cameras: type[MadeUpCamera], monkeypatch: pytest.MonkeyPatch) -> None:
    with open_sink("virtual-camera", width=96, height=64, frame_rate=RATE) as sink:
        with pytest.raises(SinkError, match="frame 0 is 64x64, the camera 96x64"):
            sink.write(frame(64))
        cameras.opened[0].gone = True
        with pytest.raises(SinkError, match="the virtual camera is gone: unplugged"):
            sink.write(frame())
    cameras.absent = True
    with pytest.raises(SinkError, match=r"no virtual camera can be opened: no such device.*modprobe v4l2loopback"):
        open_sink("virtual-camera", width=96, height=64, frame_rate=RATE).__enter__()
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(SinkError, match=r"pyvirtualcam is not installed.*\[virtual-camera\]"):
        open_sink("virtual-camera", width=96, height=64, frame_rate=RATE)
