"""One tick on the device: everything from the picture that came in to the picture that leaves, as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from cuda.core import Stream
from cuda.core.graph import Graph

from live2diff_trt.bundle.schedule import make_step_table
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.kernels.launchers import Kernels
from live2diff_trt.kernels.tick_parameters import MAXIMUM_ROWS, TICK_PARAMETERS
from live2diff_trt.runtime.device import DeviceMemory, copy_on_device
from live2diff_trt.runtime.device_layout import BlockLayout, TensorLayout
from live2diff_trt.runtime.device_stages import DeviceStages
from live2diff_trt.runtime.device_unet import DeviceUNet


class TickConstants:
    """What kernels read in every tick: its parameters, which the host uploads, and the step list's constants.

    Attributes:
        parameters: uint8 [bytes of TICK_PARAMETERS].
        step_table: float32 [4, MAXIMUM_ROWS]: sqrt(ā), sqrt(1 − ā), c_skip, c_out.
    """

    def __init__(self, memory: DeviceMemory, spec: StreamSpec) -> None:
        layout = constants_layout()
        views = layout.at(memory.allocate("constants", layout.nbytes), memory.device_id)
        self.parameters, self.step_table = views["parameters"], views["step_table"]
        table = make_step_table(spec.step_list, spec.schedule)
        values = np.zeros(self.step_table.shape, np.float32)
        values[:, : spec.steps] = table.sqrt_alpha, table.sqrt_one_minus_alpha, table.c_skip, table.c_out
        memory.upload(self.step_table, values)


def constants_layout() -> BlockLayout:
    """Return where the tick's parameters and the step table lie."""
    return BlockLayout(
        {
            "parameters": TensorLayout((TICK_PARAMETERS.itemsize,), "uint8"),
            "step_table": TensorLayout((4, MAXIMUM_ROWS), "float32"),
        }
    )


def capture_work(memory: DeviceMemory, work: Callable[[Stream], None]) -> Graph:
    """Run work once, so that everything late is loaded, then record it as a graph, ready to be launched."""
    work(memory.stream)
    memory.stream.sync()
    builder = memory.device.create_graph_builder()
    builder.begin_building()
    work(builder.stream)
    graph = builder.end_building().complete()
    builder.close()
    graph.upload(memory.stream)
    return graph


class Tick:
    """The order of a tick's work. It owns no memory but the graph.

    The host uploads the parameters and the source picture, then launches the graph; nothing else changes from tick to
    tick.
    """

    def __init__(
        self, kernels: Kernels, spec: StreamSpec, stages: DeviceStages, unet: DeviceUNet, constants: TickConstants
    ) -> None:
        self._kernels = kernels
        self._spec = spec
        self._stages = stages
        self._unet = unet
        self._constants = constants
        self._latent = stages.clean.row(0)
        self._x0 = replace(stages.x0, shape=(spec.steps, *spec.latent_shape))

    def capture(self, memory: DeviceMemory) -> Graph:
        """Record a tick as a graph."""
        return capture_work(memory, self.enqueue)

    def enqueue(self, stream: Stream) -> None:
        """Enqueue a whole tick."""
        self.enter(stream)
        self.denoise(stream)
        self._stages.decode(stream, self._stages.finished.row(0))

    def enter(self, stream: Stream) -> None:
        """Encode the frame that came in, noise its latent and put it into row 0, depth features too."""
        stages, rows = self._stages, self._unet.tick_rows
        stages.see(stream)
        stages.encode(stream, self._latent)
        stages.estimate_depth(stream)
        stages.measure_depth(stream)
        stages.embed_depth(stream, rows.depth_features.row(0))
        self._kernels.enter(stream, latent=self._latent, sample=rows.sample, **self._shared())

    def denoise(self, stream: Stream) -> None:
        """Run all rows once, predict their clean latents, and move each frame one row on."""
        rows = self._unet.tick_rows
        self._unet.tick(stream)
        self._kernels.lcm_step(
            stream,
            sample=rows.sample,
            model_output=rows.model_output,
            x0=self._x0,
            finished=self._stages.finished.row(0),
            **self._shared(),
        )
        for row in range(self._spec.steps - 1, 0, -1):
            copy_on_device(stream, rows.depth_features.row(row), rows.depth_features.row(row - 1))

    def warm_up(self, stream: Stream) -> None:
        """Denoise the first frames together, from their clean latents to ``finished``, and fill every row's sink."""
        stages, rows = self._stages, self._unet.warm_up_rows
        stages.measure_depth(stream, of_first_frames=True)
        for frame in range(self._spec.sink):
            stages.embed_depth(stream, rows.depth_features.row(frame), first_frame=frame)
        for step in range(self._spec.steps):
            clean = stages.clean if step == 0 else stages.x0
            self._kernels.enter_warm_up(stream, clean=clean, sample=rows.sample, row=step, **self._shared())
            self._unet.warm_up(stream, step)
            self._kernels.lcm_step_warm_up(
                stream,
                sample=rows.sample,
                model_output=rows.model_output,
                x0=stages.x0,
                finished=stages.finished,
                row=step,
                step_table=self._constants.step_table,
            )

    def _shared(self) -> dict[str, DeviceTensor]:
        return {"parameters": self._constants.parameters, "step_table": self._constants.step_table}
