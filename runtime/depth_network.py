"""The bundle's depth network, run by ONNX Runtime."""

from __future__ import annotations

import numpy as np

from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.onnxruntime_backend import OnnxGraphs
from live2diff_trt.kernels import reference
from live2diff_trt.runtime.kv_ring import Array


class DepthNetwork:
    """Estimates depth, one picture at a time."""

    def __init__(self, graphs: OnnxGraphs, spec: StreamSpec) -> None:
        self._spec = spec
        self._graph = graphs.open("depth")

    def estimate(self, picture: Array) -> Array:
        """Return the inverse depth of a picture, float32 [3, any height, any width] in [−1, 1].

        Returns:
            float32 [depth_size, depth_size], of no particular scale.

        Raises:
            BackendError: if ONNX Runtime fails.
        """
        side = self._spec.depth_size
        seen = np.ascontiguousarray(reference.resize_bilinear(picture, side, side)[None], self._spec.float_type)
        return self._graph.run({"depth_image": seen})["depth_map"][0].astype(np.float32)
