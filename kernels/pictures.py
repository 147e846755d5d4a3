"""Launches what happens to pictures and depth maps outside the plans."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from live2diff_trt.kernels.device_tensor import DeviceTensor, DeviceTensorError
from live2diff_trt.kernels.launcher import THREADS, TILE, Launcher, check_element_type, tiles

if TYPE_CHECKING:
    from cuda.core import Stream
    from cuda.core.graph import GraphBuilder

_RANGE_THREADS = 1024  # as in depth.cu


class PictureLauncher(Launcher):
    """Pictures between bytes and the networks."""

    def preprocess(self, stream: Stream | GraphBuilder, *, parameters: DeviceTensor, image: DeviceTensor) -> None:
        """Crop, resize and scale the source picture that the parameters name, to [−1, 1].

        Args:
            stream: where to launch.
            parameters: the tick's, uint8: address and size of the picture, and what is kept of it.
            image: [3, height, width]; written.
        """
        dtype = check_element_type("image", image)
        _, height, width = _sizes("image", image, 3)
        self.check_parameters(parameters)
        self.check_dense("image", image, (3, height, width), dtype)
        self.launch(
            stream,
            f"preprocess_{dtype}",
            tiles(width, height),
            (*TILE, 1),
            parameters.address,
            image.address,
            np.int32(width),
            np.int32(height),
        )

    def postprocess(self, stream: Stream | GraphBuilder, *, image: DeviceTensor, pixels: DeviceTensor) -> None:
        """Turn a decoded picture, roughly in [−1, 1], into bytes; ties round to even, what is no number becomes black.

        Args:
            stream: where to launch.
            image: [3, height, width].
            pixels: uint8 [height, width, 3]; written.
        """
        dtype = check_element_type("image", image)
        _, height, width = _sizes("image", image, 3)
        self.check_dense("image", image, (3, height, width), dtype)
        self.check_dense("pixels", pixels, (height, width, 3), "uint8")
        self.launch(
            stream,
            f"postprocess_{dtype}",
            (-(-width * height // THREADS), 1, 1),
            (THREADS, 1, 1),
            image.address,
            pixels.address,
            np.int32(width),
            np.int32(height),
        )

    def resize_bilinear(self, stream: Stream | GraphBuilder, *, image: DeviceTensor, resized: DeviceTensor) -> None:
        """Resize planes by bilinear interpolation, without antialias.

        Args:
            stream: where to launch.
            image: [planes, any height, any width].
            resized: [planes, height, width]; written.
        """
        dtype = check_element_type("image", image)
        planes, from_height, from_width = _sizes("image", image, 3)
        _, height, width = _sizes("resized", resized, 3)
        self.check_dense("image", image, image.shape, dtype)
        self.check_dense("resized", resized, (planes, height, width), dtype)
        self.launch(
            stream,
            f"resize_bilinear_{dtype}",
            tiles(width, height, planes),
            (*TILE, 1),
            image.address,
            resized.address,
            np.int32(from_width),
            np.int32(from_height),
            np.int32(width),
            np.int32(height),
        )

    def depth_range(
        self, stream: Stream | GraphBuilder, *, depth_maps: DeviceTensor, depth_range: DeviceTensor
    ) -> None:
        """Find the smallest and the largest depth of all maps together.

        Args:
            stream: where to launch.
            depth_maps: [frames, side, side], dense.
            depth_range: float32 [2]; written.
        """
        dtype = check_element_type("depth_maps", depth_maps)
        self.check_dense("depth_maps", depth_maps, _sizes("depth_maps", depth_maps, 3), dtype)
        self.check_dense("depth_range", depth_range, (2,), "float32")
        if depth_maps.address % 16:  # read in vectors
            raise DeviceTensorError("depth_maps begins at an unaligned address", "Allocate it with 256-byte alignment")
        self.launch(
            stream,
            f"depth_range_{dtype}",
            (1, 1, 1),
            (_RANGE_THREADS, 1, 1),
            depth_maps.address,
            np.int64(math.prod(depth_maps.shape)),
            depth_range.address,
        )

    def depth_to_image(
        self,
        stream: Stream | GraphBuilder,
        *,
        depth_maps: DeviceTensor,
        depth_range: DeviceTensor,
        images: DeviceTensor,
    ) -> None:
        """Scale depth maps from a range to [−1, 1], resize them, and repeat each in three channels.

        Args:
            stream: where to launch.
            depth_maps: [frames, side, side], dense.
            depth_range: float32 [2], what ``depth_range`` found; where both are equal the pictures become 0.
            images: [frames, 3, height, width], dense; written.
        """
        dtype = check_element_type("depth_maps", depth_maps)
        frames, side, _ = _sizes("depth_maps", depth_maps, 3)
        height, width = _sizes("images", images, 4)[2:]
        self.check_dense("depth_maps", depth_maps, (frames, side, side), dtype)
        self.check_dense("depth_range", depth_range, (2,), "float32")
        self.check_dense("images", images, (frames, 3, height, width), dtype)
        self.launch(
            stream,
            f"depth_to_image_{dtype}",
            tiles(width, height, frames),
            (*TILE, 1),
            depth_maps.address,
            depth_range.address,
            images.address,
            np.int32(side),
            np.int32(width),
            np.int32(height),
        )


def _sizes(name: str, tensor: DeviceTensor, axes: int) -> tuple[int, ...]:
    """Return a tensor's shape; raise DeviceTensorError unless it has this many axes and elements."""
    if len(tensor.shape) != axes or 0 in tensor.shape:
        raise DeviceTensorError(f"{name} is {list(tensor.shape)}", f"Pass a tensor of {axes} axes that holds something")
    return tensor.shape
