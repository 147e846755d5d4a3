"""How far the structure of an output is from its input's: their depth, estimated by the bundle's own network."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine.onnxruntime_backend import OnnxGraphs, OnnxRuntimeOptions
from live2diff_trt.kernels import reference
from live2diff_trt.runtime.depth_network import DepthNetwork
from live2diff_trt.runtime.frame import Image
from live2diff_trt.runtime.kv_ring import Array


class DepthComparison:
    """Compares pictures by their depth, as the stream sees it.

    Attributes:
        bundle: whose depth network it is.
    """

    def __init__(self, bundle: Bundle, options: OnnxRuntimeOptions) -> None:
        self.bundle = bundle
        graphs = OnnxGraphs(bundle.folder, bundle.manifest.signatures, options)
        self._network = DepthNetwork(graphs, bundle.spec)

    @classmethod
    def open(cls, folder: Path, options: OnnxRuntimeOptions) -> DepthComparison:
        """Open the depth network of a bundle.

        Raises:
            BundleError: there is no intact bundle.
            BackendError: ONNX Runtime is missing or does not start.
        """
        return cls(Bundle.open(folder), options)

    def find_error(self, output_image: Image, input_image: Image) -> float:
        """Return the mean squared difference of two pictures' depth, uint8 [height, width, 3] each.

        Each depth map is scaled to [−1, 1] by itself, as a stream does with every frame after the warm-up; so the error
        is between 0 and 4.
        """
        difference = self._see_depth(output_image) - self._see_depth(input_image)
        return float(np.square(difference).mean(dtype=np.float64))

    def _see_depth(self, image: Image) -> Array:
        spec = self.bundle.spec
        depth_map = self._network.estimate(reference.preprocess(image, spec.width, spec.height))
        return reference.depth_normalise(depth_map)
