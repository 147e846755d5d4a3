"""How a bundle is streamed by TensorRT. Plain data: importing it needs neither TensorRT nor a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from live2diff_trt.engine.flavour import FlavourChoice
from live2diff_trt.engine.plan_manifest import Form

OutputPlace = Literal["host", "device"]


@dataclass(frozen=True)
class TensorRTOptions:
    """Which plans run, and where.

    Attributes:
        flavour: ``auto`` takes what can work on this GPU; a named one that can't is an error.
        form: ``split`` reads the ring in place by our own kernels; ``whole`` is one plan a tick.
        rows: row count R of the plans; None takes the best of those that were built.
        refittable: plans whose weights ``Stream.set_style`` can exchange. Of others, those of which a style changes
            something are built with its weights, once.
        hot_restyle: hold the plans whose weights a style replaces twice, so that it is prepared beside the frames on
            their way, and not while they wait; it takes the memory of their weights once more.
        device: number of the CUDA device.
        plans: root of the plan store; None: the user's cache folder.
        output: whether finished pictures are delivered as numpy arrays or stay on the device.
        overlap: whether a frame enters and another is decoded while the UNet runs. More frames a second, for some more
            memory; pictures are the same, bit by bit.
    """

    flavour: FlavourChoice = "auto"
    form: Form = "split"
    rows: int | None = None
    refittable: bool = False
    hot_restyle: bool = False
    device: int = 0
    plans: Path | None = None
    output: OutputPlace = "host"
    overlap: bool = True
