"""Every kernel of the stream, as methods that check what they are given and launch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from live2diff_trt.kernels.attention import AttentionLauncher
from live2diff_trt.kernels.copies import CopyLauncher
from live2diff_trt.kernels.gated_gelu import GatedGeluLauncher
from live2diff_trt.kernels.group_norm import GroupNormLauncher
from live2diff_trt.kernels.latents import LatentLauncher
from live2diff_trt.kernels.library import KernelLibrary
from live2diff_trt.kernels.pictures import PictureLauncher
from live2diff_trt.kernels.spatial_attention import SpatialAttentionLauncher
from live2diff_trt.kernels.window import WindowLauncher

if TYPE_CHECKING:
    from cuda.core import Device


class Kernels(
    AttentionLauncher,
    CopyLauncher,
    GatedGeluLauncher,
    GroupNormLauncher,
    LatentLauncher,
    PictureLauncher,
    SpatialAttentionLauncher,
    WindowLauncher,
):
    """Launches any kernel on a stream or into a graph that is being built.

    Every method checks shape, dtype and device of every tensor first and raises DeviceTensorError or KernelError; it
    returns before the kernel ran.
    """

    @classmethod
    def load(cls, device: Device) -> Kernels:
        """Load or compile the kernels for a device, which must be current; raise KernelError if they can't be."""
        return cls(KernelLibrary.load(device))
