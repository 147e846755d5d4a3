"""One tick on the device: everything from the picture that came in to the picture that leaves, in order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from cuda.core import Stream

from live2diff_trt.bundle.schedule import StepTable
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.kernels.launchers import Kernels
from live2diff_trt.kernels.tick_parameters import MAXIMUM_STEPS, TICK_PARAMETERS
from live2diff_trt.runtime.device import DeviceMemory
from live2diff_trt.runtime.device_guidance import DeviceGuidance
from live2diff_trt.runtime.device_layout import BlockLayout, TensorLayout
from live2diff_trt.runtime.device_stages import DeviceStages
from live2diff_trt.runtime.device_unet import DeviceUNet
from live2diff_trt.runtime.lanes import Lanes
from live2diff_trt.runtime.newest_frames import NewestFrames
from live2diff_trt.runtime.stream_rows import StreamRows
from live2diff_trt.runtime.tick_graphs import CapturedWork, TickGraphs, TickPart, Work


class TickConstants:
    """What kernels read in every tick: its parameters, which the host writes, and the step list's constants.

    Attributes:
        pending_parameters: uint8 [bytes of TICK_PARAMETERS], of the frame that enters: what is fetched from the host.
        parameters: the same of the tick that is denoised.
        step_table: float32 [4, MAXIMUM_STEPS]: sqrt(ā), sqrt(1 − ā), c_skip, c_out.
    """

    def __init__(self, memory: DeviceMemory) -> None:
        self._memory = memory
        layout = constants_layout()
        views = layout.at(memory.allocate("constants", layout.nbytes), memory.device_id)
        self.pending_parameters, self.parameters = views["pending_parameters"], views["parameters"]
        self.step_table = views["step_table"]

    def set_steps(self, table: StepTable) -> None:
        """Let kernels take other denoising steps, in the order of the memory's stream. Waits for the device."""
        values = np.zeros(self.step_table.shape, np.float32)
        values[:, : len(table.timesteps)] = table.sqrt_alpha, table.sqrt_one_minus_alpha, table.c_skip, table.c_out
        self._memory.upload(self.step_table, values)


def constants_layout() -> BlockLayout:
    """Return where the tick's parameters and the step table lie."""
    parameters = TensorLayout((TICK_PARAMETERS.itemsize,), "uint8")
    return BlockLayout(
        {
            "pending_parameters": parameters,
            "parameters": parameters,
            "step_table": TensorLayout((4, MAXIMUM_STEPS), "float32"),
        }
    )


class Tick:
    """The order of a tick's work, and on which lane each part of it runs. It owns no memory.

    The parameters and the source picture are fetched before; nothing else changes from tick to tick.

    Args:
        kernels: of the stream.
        spec: of the stream.
        stages: before and after the UNet.
        unet: the UNet, and which rows it has.
        constants: what kernels read in every tick.
        newest: the newest frames.
        lanes: the streams.
        guidance: what guided rows need, changed in place.
    """

    def __init__(
        self,
        kernels: Kernels,
        spec: StreamSpec,
        stages: DeviceStages,
        unet: DeviceUNet,
        constants: TickConstants,
        newest: NewestFrames,
        lanes: Lanes,
        guidance: DeviceGuidance,
    ) -> None:
        self._kernels = kernels
        self._spec = spec
        self._stages = stages
        self._unet = unet
        self._constants = constants
        self._newest = newest
        self._lanes = lanes
        self._guidance = guidance
        self._origins = guidance.origins(unet.rows)
        self._latent = stages.clean.row(0)
        self._leaving = stages.finished.row(0)
        held = (unet.rows.steps, *spec.latent_shape)
        self._x0 = replace(stages.x0, shape=held)
        self._sample = replace(unet.tick_rows.sample, shape=held)
        # That the enter lane waits until what was pending is taken is not here: fetching comes before the first part.
        self._parts = (
            TickPart(self.enter, lanes.enter, signals=(lanes.entered,)),
            TickPart(self.take, lanes.denoise, waits=(lanes.entered,), signals=(lanes.taken,)),
            TickPart(self.denoise, lanes.denoise),
            TickPart(self.move_on, lanes.denoise, waits=(lanes.decoded,), signals=(lanes.left,)),
            TickPart(self.decode, lanes.decode, waits=(lanes.left,), signals=(lanes.decoded,)),
        )

    def with_rows(self, rows: StreamRows) -> Tick:
        """Return the tick of the same stream with other rows, over the same memory."""
        unet = self._unet.with_rows(rows)
        parts = self._stages, unet, self._constants, self._newest, self._lanes, self._guidance
        return Tick(self._kernels, self._spec, *parts)

    def with_networks(self, stages: DeviceStages, unet: DeviceUNet) -> Tick:
        """Return the tick of the same stream with other plans, over the same memory."""
        parts = stages, unet, self._constants, self._newest, self._lanes, self._guidance
        return Tick(self._kernels, self._spec, *parts)

    def capture(self, memory: DeviceMemory) -> TickGraphs:
        """Record a tick: each part as a graph of its own; without overlap, all of it as one.

        Nothing is run, so it may be done while ticks are on their way. A tick of this kind of guidance, of any steps,
        was enqueued before.
        """
        whole = TickPart(self.enqueue, self._lanes.denoise)
        return TickGraphs(memory, self._parts if self._lanes.overlap else (whole,))

    def capture_warm_up(self, memory: DeviceMemory) -> CapturedWork:
        """Record a pass of warm-up through the UNet: the same one for every row, of any steps and kind of guidance.

        Nothing is run, so it may be done while ticks are on their way. One was enqueued before.
        """
        return CapturedWork(memory, self._unet.warm_up)

    def enqueue_once(self, stream: Stream, kinds: Iterable[StreamRows]) -> None:
        """Enqueue all that is captured later, so that nothing of it has to be loaded then: ticks of rows, and a pass.

        What they write is to be forgotten.
        """
        for rows in kinds:
            self.with_rows(rows).enqueue(stream)
        self._unet.aim_warm_up(stream, 0)
        self._unet.warm_up(stream)

    def enqueue(self, stream: Stream) -> None:
        """Enqueue a whole tick on one stream."""
        for part in self._parts:
            part.work(stream)

    def enter(self, stream: Stream) -> None:
        """Encode the frame that came in and estimate its depth. Both are pending then, as its parameters are."""
        stages = self._stages
        stages.see(stream)
        stages.encode(stream, self._latent)
        stages.estimate_depth(stream)
        stages.measure_depth(stream)
        stages.embed_depth(stream, stages.depth_features)

    def take(self, stream: Stream) -> None:
        """Take what is pending, and keep the frame: parameters; the latent, noised, and depth features into row 0."""
        rows = self._unet.tick_rows
        self._take_parameters(stream)
        self._newest.keep(stream)
        self._kernels.enter(stream, latent=self._latent, sample=rows.sample, **self._shared())
        self._kernels.copy(stream, source=self._stages.depth_features, target=rows.depth_features.row(0))
        if self._origins is not None and not self._unet.rows.negative_steps:  # else lcm_step finds it
            self._kernels.copy(stream, source=self._latent, target=self._origins.row(0))

    def denoise(self, stream: Stream) -> None:
        """Run all rows through the UNet once; those under the negative prompt see what the rows at their steps do."""
        rows = self._unet.tick_rows
        for row, step in enumerate(self._unet.rows.negative_steps, start=self._unet.rows.steps):
            for seen in (rows.sample, rows.depth_features):
                self._kernels.copy(stream, source=seen.row(step), target=seen.row(row))
        self._unet.tick(stream)

    def move_on(self, stream: Stream) -> None:
        """Predict every row's clean latent, move each frame one row on, and let the last row's leave."""
        rows = self._unet.tick_rows
        self._kernels.lcm_step(
            stream,
            sample=self._sample,
            model_output=rows.model_output,
            x0=self._x0,
            finished=self._leaving,
            origins=self._origins,
            **self._shared(),
        )
        for travelling in (rows.depth_features, self._origins):
            if travelling is not None:
                self._move_rows_on(stream, travelling)

    def decode(self, stream: Stream) -> None:
        """Decode the latent that leaves."""
        self._stages.decode(stream, self._leaving)

    def warm_up(self, stream: Stream, run_pass: Work) -> None:
        """Denoise the first frames together, from their clean latents to ``finished``, and fill every row's sink.

        ``run_pass`` launches what ``capture_warm_up`` recorded.
        """
        stages, rows = self._stages, self._unet.warm_up_rows
        self._take_parameters(stream)
        stages.measure_depth(stream, of_first_frames=True)
        for frame in range(self._spec.sink):
            stages.embed_depth(stream, rows.depth_features.row(frame), first_frame=frame)
            self._newest.keep_first(stream, frame)
        self._fill_sinks(stream, run_pass)

    def warm_up_again(self, stream: Stream, run_pass: Work) -> None:
        """Fill every row's sink anew, from the newest frames where ``NewestFrames.settle`` put them; as ``warm_up``."""
        stages, rows = self._stages, self._unet.warm_up_rows
        self._take_parameters(stream)
        for frame in range(self._spec.sink):
            self._newest.give_back(stream, frame)
            stages.embed_depth_latent(stream, rows.depth_features.row(frame))
        self._fill_sinks(stream, run_pass)

    def _fill_sinks(self, stream: Stream, run_pass: Work) -> None:
        """Denoise the latents that are clean together, step by step."""
        stages, rows = self._stages, self._unet.warm_up_rows
        for step in range(self._unet.rows.steps):
            clean = stages.clean if step == 0 else stages.x0
            self._kernels.enter_warm_up(stream, clean=clean, sample=rows.sample, row=step, **self._shared())
            negative_output = self._guidance.ask(stream, self._unet, step, run_pass)
            self._unet.aim_warm_up(stream, step)
            run_pass(stream)
            self._kernels.lcm_step_warm_up(
                stream,
                sample=rows.sample,
                model_output=rows.model_output,
                x0=stages.x0,
                finished=stages.finished,
                row=step,
                negative_output=negative_output,
                origins=None if self._origins is None else stages.clean,
                **self._shared(),
            )

    def _move_rows_on(self, stream: Stream, rows: DeviceTensor) -> None:
        for row in range(self._unet.rows.steps - 1, 0, -1):
            self._kernels.copy(stream, source=rows.row(row - 1), target=rows.row(row))

    def _take_parameters(self, stream: Stream) -> None:
        self._kernels.copy(stream, source=self._constants.pending_parameters, target=self._constants.parameters)

    def _shared(self) -> dict[str, DeviceTensor]:
        return {"parameters": self._constants.parameters, "step_table": self._constants.step_table}
