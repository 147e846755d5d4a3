"""The newest frames on the device, as the network takes them: what other denoising steps are warmed up from.

They lie in slots as a row's keys and values do, those of warm-up in the sink and streamed ones behind it; so each tick
keeps its frame where row 0 writes, with the kernel that writes there.
"""

from __future__ import annotations

import numpy as np
from cuda.core import Stream

from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.kernels.launchers import Kernels
from live2diff_trt.kernels.window import SLOT_COPY, NewSlots, slot_copies
from live2diff_trt.runtime.device import DeviceMemory, copy_on_device
from live2diff_trt.runtime.device_layout import BlockLayout, TensorLayout
from live2diff_trt.runtime.device_stages import DeviceStages

_KEPT = ("latents", "depth_latents")


class NewestFrames:
    """Owner of the clean latents and depth latents of the newest frames of one stream.

    Args:
        memory: where to allocate.
        kernels: that copy.
        spec: the stream.
        stages: what is kept of; ``clean`` and ``depth_latent``.
        parameters: of the tick that is denoised, uint8.
    """

    def __init__(
        self, memory: DeviceMemory, kernels: Kernels, spec: StreamSpec, stages: DeviceStages, parameters: DeviceTensor
    ) -> None:
        self._kernels = kernels
        self._spec = spec
        self._stages = stages
        self._parameters = parameters
        layout = newest_layout(spec)
        views = layout.at(memory.allocate("newest frames", layout.nbytes), memory.device_id)
        self._kept = {name: views[name] for name in _KEPT}
        self._copies = views["copies"]
        self._upload_copies(memory, views)

    def keep(self, stream: Stream) -> None:
        """Keep the frame that a tick takes, if it takes one, in place of the oldest. ``stream`` may be capturing."""
        self._kernels.scatter_slots(stream, copies=self._copies, rows=1, parameters=self._parameters)

    def keep_first(self, stream: Stream, frame: int) -> None:
        """Keep one of the first frames, whose depth was embedded just now."""
        for name, source in self._sources(frame).items():
            copy_on_device(stream, self._kept[name].row(frame), source)

    def settle(self, stream: Stream, streamed: int) -> None:
        """Put the newest frames where those of a warm-up are, in order: it is as if no others had been streamed.

        Args:
            stream: where to enqueue.
            streamed: how many frames ticks have kept since the last warm-up.
        """
        for frame, slot in enumerate(newest_slots(streamed, self._spec.window, self._spec.sink)):
            if slot != frame:  # a slot is read before a later frame is put there: it is never before the frame's own
                for kept in self._kept.values():
                    copy_on_device(stream, kept.row(frame), kept.row(slot))

    def give_back(self, stream: Stream, frame: int) -> None:
        """Let one of the frames that settled be the one that was encoded, and whose depth latent it was, last."""
        for name, target in self._sources(frame).items():
            copy_on_device(stream, target, self._kept[name].row(frame))

    def _sources(self, frame: int) -> dict[str, DeviceTensor]:
        return {"latents": self._stages.clean.row(frame), "depth_latents": self._stages.depth_latent.row(0)}

    def _upload_copies(self, memory: DeviceMemory, views: dict[str, DeviceTensor]) -> None:
        """Say where a tick's frame comes from and goes to: as new slots of two rings of one row."""
        for name in _KEPT:
            memory.upload(views[_table(name)], np.array([self._kept[name].address], np.uint64))
        pending = {"latents": self._first_clean(), "depth_latents": self._stages.depth_latent}
        new = [NewSlots(pending[name], views[_table(name)]) for name in _KEPT]
        memory.upload(self._copies, slot_copies(new).view(np.uint8))

    def _first_clean(self) -> DeviceTensor:
        first = self._stages.clean.row(0)
        return first.reshape(1, *first.shape)


def newest_slots(streamed: int, window: int, sink: int) -> list[int]:
    """Return the slots of the newest ``sink`` frames, oldest first, once ``streamed`` came behind those of warm-up.

    A slot is never before the place of its frame in that order; ``window`` is at least twice ``sink``.
    """
    frames = range(streamed, streamed + sink)  # numbered from the first one of warm-up
    return [frame if frame < sink else sink + (frame - sink) % (window - sink) for frame in frames]


def newest_layout(spec: StreamSpec) -> BlockLayout:
    """Return where the frames lie, and what says where they come from and go to."""
    kept = {name: TensorLayout((spec.window, *spec.latent_shape), spec.dtype) for name in _KEPT}
    tables = {_table(name): TensorLayout((1,), "uint64") for name in _KEPT}
    return BlockLayout({**kept, **tables, "copies": TensorLayout((len(_KEPT), SLOT_COPY.itemsize), "uint8")})


def _table(name: str) -> str:
    return f"row of {name}"
