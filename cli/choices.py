"""Values of options that several commands share, as the command line names them."""

from __future__ import annotations

from enum import Enum

from live2diff_trt.bundle.spec import FloatName


class DtypeChoice(str, Enum):
    """The dtypes."""

    fp16 = "fp16"
    fp32 = "fp32"

    @property
    def float_name(self) -> FloatName:
        """The dtype as a spec names it."""
        return "float16" if self is DtypeChoice.fp16 else "float32"


class FlavourChoice(str, Enum):
    """The flavours of TensorRT."""

    auto = "auto"
    tensorrt = "tensorrt"
    tensorrt_rtx = "tensorrt-rtx"


class FormChoice(str, Enum):
    """The forms of the UNet's plans."""

    in_segments = "split"  # str has a method called split
    whole = "whole"


class BackendChoice(str, Enum):
    """Who runs a bundle."""

    auto = "auto"
    onnxruntime = "onnxruntime"
    tensorrt = "tensorrt"


class ProviderChoice(str, Enum):
    """ONNX Runtime's providers."""

    cpu = "cpu"
    cuda = "cuda"


class PaceChoice(str, Enum):
    """How fast frames go."""

    all = "all"
    live = "live"
    source = "source"


class InterpolationChoice(str, Enum):
    """The ways between prompts."""

    linear = "linear"
    spherical = "spherical"


class GuidanceChoice(str, Enum):
    """The kinds of guidance."""

    none = "none"
    full = "full"
    self_ = "self"
    initialize = "initialize"


class Switch(str, Enum):
    """Whether something is done."""

    on = "on"
    off = "off"
