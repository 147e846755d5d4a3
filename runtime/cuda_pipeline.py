"""The pipeline of TensorRT: pictures go up, one graph launch makes a tick, pictures come down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.runtime.device import DeviceMemory
from live2diff_trt.runtime.device_frames import FrameExchange
from live2diff_trt.runtime.device_stages import DeviceStages
from live2diff_trt.runtime.pipeline import Pending, Submitted
from live2diff_trt.runtime.prompt import PromptTokenizer
from live2diff_trt.runtime.stream_batch import StreamBatch
from live2diff_trt.runtime.tick import Tick
from live2diff_trt.runtime.tick_record import write_rows, write_source
from live2diff_trt.runtime.unet_session import UNetSession


@dataclass(frozen=True)
class SessionParts:
    """Everything that one stream on a GPU consists of.

    Attributes:
        unet: plans, kernels, ring, conditions and all device memory.
        tokenizer: of the prompt.
        stages: autoencoder and depth.
        tick: the order of the work.
        exchange: the way in and out.
    """

    unet: UNetSession
    tokenizer: PromptTokenizer
    stages: DeviceStages
    tick: Tick
    exchange: FrameExchange

    @property
    def memory(self) -> DeviceMemory:
        """The device's memory and stream."""
        return self.unet.memory

    def close(self) -> None:
        """Free everything, once nothing is on its way."""
        self.memory.device.set_current()
        self.memory.stream.sync()
        self.exchange.close()
        self.unet.close()


@dataclass(frozen=True)
class PendingPictures:
    """The pictures of several ticks or frames, in order."""

    pictures: Sequence[Pending] = field(default_factory=tuple)

    def wait(self) -> Sequence[Any]:
        """Return them once all are complete."""
        return [picture for pending in self.pictures for picture in pending.wait()]


class CudaPipeline:
    """One stream on a GPU.

    Attributes:
        parts: what it consists of.

    Inside a tick the host computes integers, copies the picture into pinned memory, and launches one graph. It neither
    reads the device nor waits for it.
    """

    def __init__(self, parts: SessionParts, spec: StreamSpec, seed: int) -> None:
        self.spec = spec
        self.parts = parts
        self._seed = seed % 2**64  # any integer's lowest bits, as bundle/noise.py takes them
        self._batch = StreamBatch(spec.steps)
        self._graph = parts.tick.capture(parts.memory)
        self._closed = False
        self.reset()

    @property
    def in_flight(self) -> int:
        """Frames that were submitted and have not left."""
        return self._batch.in_flight

    def set_prompt(self, prompt: str) -> None:
        """Change the prompt; it acts from the next tick on."""
        self._make_current()
        self.parts.unet.conditions.set_prompt(self.parts.tokenizer.tokenize(prompt))

    def gather(self, frame: int, image: Any) -> None:
        """Encode one of the first frames and estimate its depth; both are kept on the device until warm-up."""
        self._make_current()
        stream, stages, exchange = self.parts.memory.stream, self.parts.stages, self.parts.exchange
        slot = exchange.take_slot()
        slot.parameters["seed"] = self._seed
        write_source(slot.parameters, exchange.bring_in(slot, image), self.spec.width, self.spec.height)
        exchange.send_parameters(slot)
        stages.see(stream)
        stages.encode(stream, stages.clean.row(frame))
        stages.estimate_depth(stream)
        stages.keep_depth(stream, frame)
        exchange.finish(slot)

    def warm_up(self, frames: int) -> Pending:
        """Denoise the gathered frames together and fill every row's sink; a short clip repeats its last frame."""
        self._make_current()
        stream, stages = self.parts.memory.stream, self.parts.stages
        for missing in range(frames, self.spec.sink):
            stages.repeat_first(stream, frames - 1, missing)
        self.parts.tick.warm_up(stream)
        pictures: list[Pending] = []
        for frame in range(frames):
            slot = self.parts.exchange.take_slot()
            stages.decode(stream, stages.finished.row(frame))
            pictures.append(self.parts.exchange.bring_out(slot))
        return PendingPictures(pictures)

    def tick(self, frame: int | None, image: Any) -> Submitted:
        """Take one frame, or none while draining, and move every frame one step on. Returns without waiting."""
        self._make_current()
        exchange, window = self.parts.exchange, self.parts.unet.ring.window
        slot = exchange.take_slot()
        picture = exchange.nothing() if frame is None else exchange.bring_in(slot, image)
        write_source(slot.parameters, picture, self.spec.width, self.spec.height)
        if frame is not None:
            self._batch.enter(frame)
        slot.parameters["seed"] = self._seed
        write_rows(slot.parameters, self._batch.frames, window.view())
        exchange.send_parameters(slot)
        self._graph.launch(self.parts.memory.stream)
        window.advance(self._batch.active)
        finished = self._batch.advance()
        if finished is None:
            exchange.finish(slot)
            return Submitted(None, PendingPictures())
        return Submitted(finished, exchange.bring_out(slot))

    def reset(self) -> None:
        """Forget every frame."""
        self._make_current()
        self._batch.reset()
        self.parts.unet.ring.reset(self.parts.memory)

    def close(self) -> None:
        """Free everything on the device; closing twice is harmless."""
        if not self._closed:
            self._closed = True
            self._graph.close()
            self.parts.close()

    def _make_current(self) -> None:
        self.parts.memory.device.set_current()
