"""Frames on their way between host and device: pinned staging used in turn, so that nobody waits inside a tick."""

from __future__ import annotations

from collections.abc import Sequence

from cuda.core import Event, Stream

from live2diff_trt.engine.tensorrt_options import OutputPlace
from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.kernels.tick_parameters import TICK_PARAMETERS
from live2diff_trt.runtime.device import (
    DeviceMemory,
    PinnedArray,
    copy_on_device,
    copy_to_device,
    copy_to_host,
    dense_bytes,
)
from live2diff_trt.runtime.device_image import DeviceImage, DevicePicture, is_on_device, view_picture
from live2diff_trt.runtime.frame import Image, check_image
from live2diff_trt.runtime.lanes import Lanes

SOURCE_BYTES = 1920 * 1080 * 3
"""Room for a picture that comes in; a larger one makes it grow."""


class FrameSlot:
    """One tick's staging in pinned memory: the picture and the parameters that go up, the picture that comes down.

    Args:
        output_bytes: of the picture that comes down.
        done: an event of the slot's own: its work is complete.

    Attributes:
        parameters: record of TICK_PARAMETERS, to be filled in before it is sent.
    """

    def __init__(self, output_bytes: int, done: Event) -> None:
        self._pinned_parameters = PinnedArray(TICK_PARAMETERS.itemsize)
        self.parameters = self._pinned_parameters.array.view(TICK_PARAMETERS)
        self.output = PinnedArray(output_bytes)
        self.done = done
        self.unread: PendingPicture | None = None
        self._source = PinnedArray(SOURCE_BYTES)
        self._owner: object = None

    def wait(self) -> None:
        """Wait until the tick that used this slot before is complete, and its picture is safe."""
        if self.unread is not None:
            self.unread.wait()
        else:
            self.done.sync()

    def send_parameters(self, stream: Stream, target: DeviceTensor) -> None:
        """Send the parameters, in the stream's order."""
        copy_to_device(stream, target.address, self._pinned_parameters, TICK_PARAMETERS.itemsize)

    def send_picture(self, stream: Stream, image: Image, address: int) -> None:
        """Send a picture, in the stream's order; it is read before this returns."""
        if len(self._source.array) < image.nbytes:
            self._source.close()
            self._source = PinnedArray(image.nbytes)
        self._source.array[: image.nbytes].reshape(image.shape)[:] = image
        copy_to_device(stream, address, self._source, image.nbytes)

    def keep(self, owner: object) -> None:
        """Keep another library's picture alive until the slot is used again."""
        self._owner = owner

    def close(self) -> None:
        """Free the pinned memory, after a picture that nobody fetched yet was taken out of it."""
        self.wait()
        for pinned in (self._pinned_parameters, self.output, self._source):
            pinned.close()


class PendingPicture:
    """The picture of one tick. On the host it is copied out of the slot once, when somebody waits for it."""

    def __init__(self, slot: FrameSlot, shape: tuple[int, ...], device_image: DeviceImage | None) -> None:
        self._slot = slot
        self._shape = shape
        self._picture: Image | DeviceImage | None = None
        self._device_image = device_image
        slot.unread = self

    def wait(self) -> Sequence[Image | DeviceImage]:
        """Return the picture once it is complete; the receiver owns it."""
        if self._picture is None:
            self._slot.done.sync()
            self._picture = self._device_image or self._slot.output.array.reshape(self._shape).copy()
            self._slot.unread = None
        return [self._picture]


class FrameExchange:
    """Owner of a stream's staging, and of the device's copy of the picture that came in.

    A slot is being filled, one is on its way through each lane, and one waits until its picture is fetched.

    Args:
        memory: where to allocate.
        lanes: pictures come in on the enter lane, and go out on the decode lane.
        parameters: of the frame that enters, on the device.
        output: the tick's finished picture on the device, uint8 [height, width, 3].
        place: where finished pictures are delivered.
    """

    def __init__(
        self, memory: DeviceMemory, lanes: Lanes, parameters: DeviceTensor, output: DeviceTensor, place: OutputPlace
    ) -> None:
        self._memory = memory
        self._lanes = lanes
        self._parameters = parameters
        self._output = output
        self._place: OutputPlace = place
        slots = 1 + lanes.count + 1
        self._slots = [FrameSlot(dense_bytes(output), memory.device.create_event()) for _ in range(slots)]
        self._turn = 0
        self._source = memory.allocate("source picture", SOURCE_BYTES)
        self._source_bytes = SOURCE_BYTES

    def take_slot(self) -> FrameSlot:
        """Return the slot whose turn it is; waits only if what it was used for last is not complete."""
        slot = self._slots[self._turn % len(self._slots)]
        self._turn += 1
        slot.wait()
        slot.keep(None)
        return slot

    def bring_in(self, slot: FrameSlot, image: object) -> DevicePicture:
        """Send a picture up, or view it where it is on the device already; raise FrameError if it is no picture."""
        if is_on_device(image):
            picture = view_picture(image, self._lanes.enter, self._memory.device_id)
            slot.keep(picture.owner)
            return picture
        pixels = check_image(image)
        if pixels.nbytes > self._source_bytes:
            self._grow_source(pixels.nbytes)
        slot.send_picture(self._lanes.enter, pixels, self._source)
        height, width, _ = pixels.shape
        return DevicePicture(self._source, width, height, width * 3, owner=None)

    def nothing(self) -> DevicePicture:
        """Return what a tick sees that no picture comes in with: a pixel that is always there."""
        return DevicePicture(self._source, 1, 1, 3, owner=None)

    def send_parameters(self, slot: FrameSlot) -> None:
        """Send the slot's parameters to where the enter lane reads them.

        Behind them that lane overwrites all that is pending, so it waits here until the denoise lane took it.
        """
        self._lanes.taken.wait()
        slot.send_parameters(self._lanes.enter, self._parameters)

    def bring_out(self, slot: FrameSlot) -> PendingPicture:
        """Take the finished picture away, so that the next tick may make another."""
        device_image = self._copy_output() if self._place == "device" else None
        if device_image is None:
            copy_to_host(self._lanes.decode, slot.output, self._output)
        self.finish(slot, self._lanes.decode)
        return PendingPicture(slot, self._output.shape, device_image)

    def finish(self, slot: FrameSlot, lane: Stream) -> None:
        """Mark the end of the slot's work: what its last lane was given so far."""
        lane.record(slot.done)

    def close(self) -> None:
        """Free the pinned memory; nothing may be on its way."""
        for slot in self._slots:
            slot.close()
        self._slots.clear()

    def _copy_output(self) -> DeviceImage:
        height, width, _ = self._output.shape
        buffer = self._memory.device.allocate(dense_bytes(self._output), stream=self._lanes.decode)
        copy = DeviceTensor(int(buffer.handle), self._output.shape, "uint8", self._memory.device_id)
        copy_on_device(self._lanes.decode, copy, self._output)
        return DeviceImage(buffer, height, width)

    def _grow_source(self, size: int) -> None:
        self._memory.release("source picture", self._source, self._lanes.enter)
        self._source = self._memory.allocate("source picture", size, self._lanes.enter)
        self._source_bytes = size
