"""What the denoiser asks of a backend: the UNet, and what is embedded before it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from live2diff_trt.runtime.kv_ring import Array, KeyValues, KvRing


class Network(Protocol):
    """The causal UNet of one backend, on host arrays of the stream's dtype.

    ``set_steps`` and ``set_prompt`` must have been called before ``tick`` and ``warm_up``; either may be called again
    between two ticks and takes effect in the next.
    """

    def set_steps(self, timesteps: NDArray[np.int32]) -> None:
        """Compute every resnet's time projection for the denoising steps, [rows] int32.

        Rows beyond T are those under the negative prompt, where guidance has some.
        """

    def set_prompt(self, text_embeddings: Array) -> None:
        """Compute keys and values of every cross-attention for one prompt, [1, tokens, channels], used by T rows."""

    def embed_depth(self, depth_latents: Array) -> Array:
        """Map depth latents, [frames, channels, height, width], to depth features."""

    def tick(self, sample: Array, depth_features: Array, ring: KvRing) -> tuple[Array, KeyValues]:
        """Run all rows over the past in ``ring``, which is only read.

        Returns:
            The model's output, [rows, channels, height, width], and each cache's new slot.
        """

    def warm_up(self, row: int, sample: Array, depth_features: Array) -> tuple[Array, KeyValues]:
        """Run the warm-up frames as rows, all at denoising step ``row``; return output and what fills the sink."""
