"""What one more stream will take of the host's memory, where ONNX Runtime's sessions and weights are shared."""

from __future__ import annotations

from math import prod

import numpy as np

from live2diff_trt.bundle.spec import StreamSpec

PICTURES = 24
"""Float pictures of the stream's size that are held at once: a warm-up's, in and out, and those on their way."""


def estimate_host_stream(spec: StreamSpec, max_steps: int) -> dict[str, int]:
    """Return what one stream holds beside the shared graphs, without guidance: purpose → bytes.

    What a graph needs while it runs is not in it: streams that take turns (``SharedEngine.turn``) share that as well.

    Args:
        spec: the stream.
        max_steps: the largest T.
    """
    item = np.dtype(spec.dtype).itemsize
    rows = spec.with_step_list(tuple(range(max_steps)))
    prompt = sum(2 * spec.prompt_tokens * prompt_kv.channels for prompt_kv in spec.prompt_kvs) * item
    latent = prod(spec.latent_shape) * 4
    return {
        "kv-cache ring": 2 * rows.cache_bytes,  # when the steps change, the new one is filled beside the old one
        "prompt": prompt * (1 + max_steps + spec.sink),  # one, a copy for each row, and for each warm-up frame
        "newest frames": 2 * spec.sink * latent,
        "depth features": prod(spec.depth_features_shape) * item * (max_steps + spec.sink),
        "pictures": PICTURES * 3 * spec.width * spec.height * 4,
    }
