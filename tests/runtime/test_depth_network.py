"""Depth is estimated from pictures of any size, the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine.onnxruntime_backend import OnnxGraphs, OnnxRuntimeOptions
from live2diff_trt.kernels import reference
from live2diff_trt.runtime.depth_network import DepthNetwork


def test_a_picture_of_any_size_has_a_depth_map(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    graphs = OnnxGraphs(bundle.folder, bundle.manifest.signatures, OnnxRuntimeOptions(threads=1))
    network, side = DepthNetwork(graphs, bundle.spec), bundle.spec.depth_size
    picture = np.random.default_rng(0).uniform(-1, 1, (3, 64, 96)).astype(np.float32)
    depth_map = network.estimate(picture)
    assert depth_map.shape == (side, side)
    assert depth_map.dtype == np.float32
    assert np.ptp(depth_map) > 0
    np.testing.assert_array_equal(network.estimate(reference.resize_bilinear(picture, side, side)), depth_map)
