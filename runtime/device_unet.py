"""What the tick asks of the causal UNet on the device, whichever form its plans have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from cuda.core import Stream

from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.plan import Plan
from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.runtime.device_conditions import DeviceConditions
from live2diff_trt.runtime.device_layout import BlockLayout, TensorLayout
from live2diff_trt.runtime.stream_rows import StreamRows


@dataclass(frozen=True)
class UNetRows:
    """What one pass of the UNet reads and writes, rows in chunks of what a plan takes.

    Attributes:
        sample: [rows, channels, height, width], the stream's dtype; an input. In a tick, those under the negative
            prompt come behind the others.
        depth_features: [rows, depth channels, height, width]; an input.
        model_output: as sample; valid until the next pass.
    """

    sample: DeviceTensor
    depth_features: DeviceTensor
    model_output: DeviceTensor


class DeviceUNet(Protocol):
    """One form of the UNet. Its passes are enqueued on a stream, which may be capturing.

    Attributes:
        rows: which they are in a tick.
        tick_rows: T rows, each another frame at another step, and behind them those under the negative prompt.
        warm_up_rows: the warm-up frames. Both may share memory: warm-up forgets the rows of the stream.
    """

    rows: StreamRows
    tick_rows: UNetRows
    warm_up_rows: UNetRows

    def with_plans(
        self, plans: Mapping[str, Plan], conditions: DeviceConditions, constants: Mapping[str, DeviceTensor]
    ) -> DeviceUNet:
        """Return this UNet over the same rows, with other plans, and kernels that read other weights."""

    def with_rows(self, rows: StreamRows) -> DeviceUNet:
        """Return this UNet with other rows, over the same memory: no more than it was opened with room for."""

    def tick(self, stream: Stream) -> None:
        """Run all rows over the ring; the new slots are written into it in place."""

    def aim_warm_up(self, stream: Stream, row: int) -> None:
        """Let warm-up's next pass be at a row's denoising step, under its prompt, and fill that row's sink."""

    def warm_up(self, stream: Stream) -> None:
        """Run the warm-up frames as the row that was aimed at, and fill its sink in place.

        Every such pass enqueues the same work over the same addresses: captured once, it is that of every row.
        """


def row_layout(spec: StreamSpec, rows: int, chunk_rows: int) -> BlockLayout:
    """Return where the UNet's inputs of ``rows`` rows lie, in chunks."""
    return BlockLayout(
        {
            "sample": TensorLayout((rows, *spec.latent_shape), spec.dtype, chunk_rows),
            "depth_features": TensorLayout((rows, *spec.depth_features_shape), spec.dtype, chunk_rows),
        }
    )
