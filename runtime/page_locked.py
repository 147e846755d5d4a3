"""Frames that are born where the GPU reads them: page-locked memory, lent out and taken back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from cuda.core import Device

from live2diff_trt.runtime.device import PinnedArray
from live2diff_trt.runtime.frame import Image


class FrameOwner:
    """What numpy keeps alive as long as there is a frame or a view of it: then its memory goes back.

    Attributes:
        address: of the frame's first byte.
    """

    def __init__(self, block: PinnedArray, height: int, width: int, give_back: Callable[[PinnedArray], None]) -> None:
        self.address = block.address
        self._block = block
        self._give_back = give_back
        self.__array_interface__ = {
            "shape": (height, width, 3),
            "typestr": "|u1",
            "data": (block.address, False),
            "version": 3,
        }

    def __del__(self) -> None:
        self._give_back(self._block)


class FramePool:
    """Lends page-locked frames, and keeps the memory of those that came back for the next ones.

    Frames may come back in any thread, and after ``close``.

    Args:
        device: that reads them.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._free: deque[PinnedArray] = deque()
        self._closed = False

    def empty(self, height: int, width: int) -> Image:
        """Return a frame in which nothing was written, uint8 [height, width, 3]. The device must be current."""
        return np.asarray(FrameOwner(self._take(height * width * 3), height, width, self._give_back))

    def close(self) -> None:
        """Free what nobody holds; the rest is freed when it comes back. Closing twice is harmless."""
        self._closed = True
        while self._free:
            self._free.pop().close()

    def _take(self, size: int) -> PinnedArray:
        while self._free:
            block = self._free.pop()
            if len(block.array) >= size:
                return block
            block.close()  # frames became larger, so that it is of no use any more
        return PinnedArray(size)

    def _give_back(self, block: PinnedArray) -> None:
        if self._closed:
            self._device.set_current()  # which it need not be in the thread that let go of the frame
            block.close()
        else:
            self._free.append(block)


def address_of(image: Image) -> int | None:
    """Return the address of a page-locked frame; None for any other array, views of such a frame included."""
    owner = image.base  # of a view, the frame
    return owner.address if isinstance(owner, FrameOwner) else None
