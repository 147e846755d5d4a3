"""What happens to a frame right before and after the denoiser: the autoencoder, one frame at a time."""

from __future__ import annotations

import numpy as np

from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.onnxruntime_backend import OnnxGraph, OnnxGraphs
from live2diff_trt.kernels import reference
from live2diff_trt.runtime.kv_ring import Array


class Stages:
    """The bundle's autoencoder. Pictures are float32 [3, height, width] in [−1, 1]."""

    def __init__(self, graphs: OnnxGraphs, spec: StreamSpec) -> None:
        self._spec = spec
        self._encoder = graphs.open("vae_encoder")
        self._decoder = graphs.open("vae_decoder")

    def encode(self, picture: Array) -> Array:
        """Return the picture's latent, of the spec's latent shape."""
        return self._run_one(self._encoder, "image", picture, "latent")

    def encode_depth(self, depth_map: Array) -> Array:
        """Return the latent of a normalised depth map, [depth_size, depth_size] in [−1, 1], seen as a grey picture."""
        picture = reference.resize_bilinear(depth_map, self._spec.width, self._spec.height)
        return self.encode(np.broadcast_to(picture, (3, *picture.shape)))

    def decode(self, latent: Array) -> Array:
        """Return the picture of a latent, roughly in [−1, 1], in the stream's dtype."""
        return self._run_one(self._decoder, "latent", latent, "image")

    def _run_one(self, graph: OnnxGraph, input_name: str, tensor: Array, output_name: str) -> Array:
        batch = np.ascontiguousarray(tensor[None], self._spec.dtype)
        return graph.run({input_name: batch})[output_name][0]
