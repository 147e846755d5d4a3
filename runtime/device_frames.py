"""Frames on their way between host and device: page-locked memory used in turn, so that nobody waits inside a tick.

The driver copies nothing here. Kernels of a tick's own fetch what comes in, and deliver what leaves.
"""

from __future__ import annotations

from collections.abc import Sequence

from cuda.core import Event, Stream

from live2diff_trt.engine.tensorrt_options import OutputPlace
from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.kernels.launchers import Kernels
from live2diff_trt.kernels.tick_parameters import TICK_PARAMETERS
from live2diff_trt.runtime.device import DeviceMemory, PinnedArray, dense_bytes
from live2diff_trt.runtime.device_image import DeviceImage, DevicePicture, view_picture
from live2diff_trt.runtime.frame import Image, check_image, is_on_device
from live2diff_trt.runtime.guidance import Guidance
from live2diff_trt.runtime.lanes import Lanes
from live2diff_trt.runtime.page_locked import FramePool, address_of
from live2diff_trt.runtime.tick_record import TickRecord

SOURCE_BYTES = 1920 * 1080 * 3
"""Room for a picture that comes in; a larger one makes it grow."""


class FrameSlot:
    """One tick's staging in page-locked memory: the picture and the parameters that come in, the picture that leaves.

    Args:
        output_bytes: of the picture that leaves.
        done: an event of the slot's own: its work is complete.

    Attributes:
        record: the parameters, to be filled in before they are fetched.
        record_address: where they lie.
        pixels, pixel_bytes: where the picture lies that is fetched with them, and its size; 0 where there is none.
        output: what the picture that leaves is delivered to.
    """

    def __init__(self, output_bytes: int, done: Event) -> None:
        self._parameters = PinnedArray(TICK_PARAMETERS.itemsize)
        self._staging = PinnedArray(SOURCE_BYTES)
        self._owner: object = None
        self.record = TickRecord(self._parameters.array)
        self.record_address = self._parameters.address
        self.pixels, self.pixel_bytes = 0, 0
        self.output = PinnedArray(output_bytes)
        self.done = done
        self.unread: PendingPicture | None = None

    def wait(self) -> None:
        """Wait until the tick that used this slot before is complete, and its picture is safe; then forget its own."""
        if self.unread is not None:
            self.unread.wait()
        else:
            self.done.sync()
        self._owner = None
        self.pixels, self.pixel_bytes = 0, 0

    def take_picture(self, image: Image) -> None:
        """Take a picture that is to be fetched: a page-locked one where it lies, of another a copy."""
        address = address_of(image)
        if address is None:
            address = self._stage(image)
        else:
            self.keep(image)
        self.pixels, self.pixel_bytes = address, image.nbytes

    def keep(self, owner: object) -> None:
        """Keep memory alive that is read where it lies, until the slot is used again."""
        self._owner = owner

    def close(self) -> None:
        """Free the memory, after a picture that nobody asked for yet was taken out of it."""
        self.wait()
        for pinned in (self._parameters, self._staging, self.output):
            pinned.close()

    def _stage(self, image: Image) -> int:
        if len(self._staging.array) < image.nbytes:
            self._staging.close()
            self._staging = PinnedArray(image.nbytes)
        self._staging.array[: image.nbytes].reshape(image.shape)[:] = image
        return self._staging.address


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

    A slot is being filled, one is on its way through each lane, and one waits until its picture is asked for.

    Args:
        memory: where to allocate.
        kernels: that copy.
        lanes: pictures come in on the enter lane, and go out on the decode lane.
        parameters: of the frame that enters, on the device.
        output: the tick's finished picture on the device, uint8 [height, width, 3].
        place: where finished pictures are delivered.
    """

    def __init__(
        self,
        memory: DeviceMemory,
        kernels: Kernels,
        lanes: Lanes,
        parameters: DeviceTensor,
        output: DeviceTensor,
        place: OutputPlace,
    ) -> None:
        # What is launched in every tick is checked once, here.
        kernels.check_parameters(parameters)
        kernels.check_dense("output", output, output.shape, "uint8")
        self._memory = memory
        self._kernels = kernels
        self._lanes = lanes
        self._parameters = parameters.address
        self._output = output
        self._output_bytes = dense_bytes(output)
        self._place: OutputPlace = place
        slots = 1 + lanes.count + 1
        self._slots = [FrameSlot(self._output_bytes, memory.device.create_event()) for _ in range(slots)]
        self._turn = 0
        self._seed = 0
        self._guidance: Guidance | None = None
        self._source = memory.allocate("source picture", SOURCE_BYTES)
        self._source_bytes = SOURCE_BYTES
        self._pool = FramePool(memory.device)

    def empty_frame(self, height: int, width: int) -> Image:
        """Return a frame that is read where it lies, uint8 [height, width, 3]. The device must be current."""
        return self._pool.empty(height, width)

    def set_seed(self, seed: int) -> None:
        """Let the noise of every tick that begins from here on be of this seed, unsigned, 64 bits."""
        self._seed = seed  # a record whose tick has not run is not changed any more

    def set_guidance(self, guidance: Guidance) -> None:
        """Let every tick that begins from here on be guided so. Before that, records say nothing of it."""
        self._guidance = guidance

    def take_slot(self) -> FrameSlot:
        """Return the slot whose turn it is; waits only if what it was used for last is not complete."""
        slot = self._slots[self._turn % len(self._slots)]
        self._turn += 1
        slot.wait()
        return slot

    def bring_in(self, image: object) -> FrameSlot:
        """Return a slot whose record names a picture; raise FrameError if it is none.

        One on the host will be fetched with the record. One that is on the device already stays where it is.
        """
        slot = self.take_slot()
        if is_on_device(image):
            picture, owner = view_picture(image, self._lanes.enter, self._memory.device_id)
            slot.keep(owner)
        else:
            pixels = check_image(image)
            if pixels.nbytes > self._source_bytes:
                self._grow_source(pixels.nbytes)
            slot.take_picture(pixels)
            height, width, _ = pixels.shape
            picture = DevicePicture(self._source, width, height, width * 3)
        self._describe(slot, picture)
        return slot

    def bring_in_nothing(self) -> FrameSlot:
        """Return a slot whose record names what a tick sees that no picture comes in with: a pixel, always there."""
        slot = self.take_slot()
        self._describe(slot, DevicePicture(self._source, 1, 1, 3))
        return slot

    def fetch(self, slot: FrameSlot) -> None:
        """Let the enter lane fetch the slot's parameters, and its picture.

        There it overwrites the parameters that are pending, so it waits until the denoise lane took them.
        """
        self._lanes.taken.wait()
        self._kernels.fetch(
            self._lanes.enter,
            record=slot.record_address,
            parameters=self._parameters,
            pixels=slot.pixels,
            picture=self._source,
            size=slot.pixel_bytes,
        )

    def bring_out(self, slot: FrameSlot) -> PendingPicture:
        """Take the finished picture away, so that the next tick may make another."""
        device_image = self._new_device_image() if self._place == "device" else None
        self._kernels.deliver(
            self._lanes.decode,
            picture=self._output.address,
            pixels=slot.output.address if device_image is None else device_image.address,
            size=self._output_bytes,
        )
        self.finish(slot, self._lanes.decode)
        return PendingPicture(slot, self._output.shape, device_image)

    def finish(self, slot: FrameSlot, lane: Stream) -> None:
        """Mark the end of the slot's work: what its last lane was given so far."""
        lane.record(slot.done)

    def close(self) -> None:
        """Free the page-locked memory, but for frames that somebody still holds; nothing may be on its way."""
        for slot in self._slots:
            slot.close()
        self._slots.clear()
        self._pool.close()

    def _describe(self, slot: FrameSlot, picture: DevicePicture) -> None:
        height, width, _ = self._output.shape
        slot.record.write_seed(self._seed)
        if self._guidance is not None:
            slot.record.write_guidance(self._guidance.scale, self._guidance.delta)
        slot.record.write_source(picture, width, height)

    def _new_device_image(self) -> DeviceImage:
        height, width, _ = self._output.shape
        return DeviceImage(self._memory.device.allocate(self._output_bytes, stream=self._lanes.decode), height, width)

    def _grow_source(self, size: int) -> None:
        self._memory.release("source picture", self._source, self._lanes.enter)
        self._source = self._memory.allocate("source picture", size, self._lanes.enter)
        self._source_bytes = size
