"""The network of the runtime's protocol, run by PyTorch in float32."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from live2diff_trt.model.temporal_attention import KeyValue, StreamingAttend, TemporalAttend, WarmUpAttend
from live2diff_trt.model.unet import CausalUNet, Conditions
from live2diff_trt.runtime.kv_ring import Array, KeyValues, KvRing


class TorchNetwork:
    """The causal UNet on the CPU. Caches are read where the ring keeps them: nothing is copied in."""

    def __init__(self, unet: CausalUNet) -> None:
        self._unet = unet
        self._heads = unet.configuration.motion_heads
        self._time: Mapping[str, Tensor] = {}
        self._prompt: Mapping[str, KeyValue] = {}

    @torch.inference_mode()
    def set_steps(self, timesteps: NDArray[np.int32]) -> None:
        """Compute every resnet's time projection for the denoising steps, [rows] int32."""
        self._time = self._unet.embed_time(torch.from_numpy(timesteps))

    @torch.inference_mode()
    def set_prompt(self, text_embeddings: Array) -> None:
        """Compute keys and values of every cross-attention for one prompt, [1, tokens, channels]."""
        self._prompt = self._unet.embed_prompt(torch.from_numpy(text_embeddings))

    @torch.inference_mode()
    def embed_depth(self, depth_latents: Array) -> Array:
        """Map depth latents, [frames, channels, height, width], to depth features."""
        return _to_numpy(self._unet.embed_depth(torch.from_numpy(depth_latents)))

    @torch.inference_mode()
    def tick(self, sample: Array, depth_features: Array, ring: KvRing) -> tuple[Array, KeyValues]:
        """Run all rows over the past in ``ring``, which is only read."""
        view = ring.view()
        attend = StreamingAttend(
            {place: (torch.from_numpy(k), torch.from_numpy(v)) for place, (k, v) in ring.past.items()},
            torch.tensor(view.position),
            torch.tensor(view.past_position),
            torch.from_numpy(view.past_bias("float32")),
            self._heads,
        )
        return self._run(sample, depth_features, self._time, attend), _new_slots(attend.new)

    @torch.inference_mode()
    def warm_up(self, row: int, sample: Array, depth_features: Array) -> tuple[Array, KeyValues]:
        """Run the warm-up frames as rows, all at denoising step ``row``."""
        time = {place: projection[row].expand(len(sample), -1) for place, projection in self._time.items()}
        attend = WarmUpAttend(self._heads)
        return self._run(sample, depth_features, time, attend), _new_slots(attend.new)

    def _run(self, sample: Array, depth_features: Array, time: Mapping[str, Tensor], attend: TemporalAttend) -> Array:
        prompt = {
            place: (keys.expand(len(sample), -1, -1), values.expand(len(sample), -1, -1))
            for place, (keys, values) in self._prompt.items()
        }
        conditions = Conditions(time, prompt, attend)
        return _to_numpy(self._unet(torch.from_numpy(sample), torch.from_numpy(depth_features), conditions))


def _to_numpy(tensor: Tensor) -> Array:
    return tensor.numpy()


def _new_slots(new: Mapping[str, KeyValue]) -> KeyValues:
    return {place: (_to_numpy(k), _to_numpy(v)) for place, (k, v) in new.items()}
