"""What guidance keeps on the device, and when it is written: origins, and the negative noise of warm-up."""

from __future__ import annotations

from dataclasses import replace

from cuda.core import Stream

from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.runtime.device import DeviceMemory, copy_on_device
from live2diff_trt.runtime.device_layout import BlockLayout, TensorLayout
from live2diff_trt.runtime.device_unet import DeviceUNet
from live2diff_trt.runtime.guidance import Guidance
from live2diff_trt.runtime.stream_rows import StreamRoom, StreamRows
from live2diff_trt.runtime.tick_graphs import Work


class DeviceGuidance:
    """Owner of what guided rows need beside the UNet's; nothing where no kind that there is room for needs it.

    Args:
        memory: where to allocate.
        spec: the stream.
        room: for which kinds of guidance, and how many steps.
    """

    def __init__(self, memory: DeviceMemory, spec: StreamSpec, room: StreamRoom) -> None:
        layout = guidance_layout(spec, room)
        address = memory.allocate("guidance", layout.nbytes) if layout.tensors else 0
        self._buffers = layout.at(address, memory.device_id)

    def origins(self, rows: StreamRows) -> DeviceTensor | None:
        """Return the clean latents that the virtual noise of T rows leads back to; None if their kind has none."""
        if not Guidance(rows.kind).has_origins:
            return None
        origins = self._buffers["origins"]
        return replace(origins, shape=(rows.steps, *origins.shape[1:]))

    def ask(self, stream: Stream, unet: DeviceUNet, step: int, run_pass: Work) -> DeviceTensor | None:
        """Run the warm-up frames under the negative prompt, if it has a row at this step, and fill that row's sink.

        Args:
            stream: where to enqueue.
            unet: that is asked.
            step: of denoising.
            run_pass: enqueues what ``unet.warm_up`` does.

        Returns:
            What the UNet gave, [sink, channels, height, width], kept until the next call; None where there is no row.
        """
        rows = unet.rows
        if step not in rows.negative_steps:
            return None
        unet.aim_warm_up(stream, rows.steps + rows.negative_steps.index(step))
        run_pass(stream)
        kept = self._buffers["negative output"]
        for frame in range(kept.shape[0]):
            copy_on_device(stream, kept.row(frame), unet.warm_up_rows.model_output.row(frame))
        return kept


def guidance_layout(spec: StreamSpec, room: StreamRoom) -> BlockLayout:
    """Return where origins lie, one for each of T rows, and the negative noise of warm-up's frames."""
    tensors: dict[str, TensorLayout] = {}
    if room.has_origins:
        tensors["origins"] = TensorLayout((room.max_steps, *spec.latent_shape), spec.dtype)
    if room.asks_the_unet:
        tensors["negative output"] = TensorLayout((spec.sink, *spec.latent_shape), spec.dtype)
    return BlockLayout(tensors)
