"""The network of a bundle, run by ONNX Runtime on host arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.onnxruntime_backend import OnnxGraph, OnnxGraphs
from live2diff_trt.runtime.kv_ring import Array, KeyValues, KvRing

Named = dict[str, NDArray[Any]]


class OnnxNetwork:
    """The causal UNet and what is hoisted out of it. The past is read where the ring keeps it: nothing is copied."""

    def __init__(self, graphs: OnnxGraphs, spec: StreamSpec) -> None:
        self._spec = spec
        self._time_embed = graphs.open("time_embed")
        self._prompt_kv = graphs.open("prompt_kv")
        self._depth_embed = graphs.open("depth_embed")
        self._unet_warmup = graphs.open("unet_warmup")
        self._unet = graphs.open("unet")
        self._time: Named = {}
        self._negative_rows = 0
        self._prompt: Named = {}
        self._negative_prompt: Named = {}
        self._tick_prompt: Named = {}
        self._steps = spec.steps

    def close(self) -> None:
        """Let go of graphs, and so of the files that they map; closing twice is harmless."""
        self.__dict__.clear()

    def set_steps(self, timesteps: NDArray[np.int32]) -> None:
        """Compute every resnet's time projection for the denoising steps, [rows] int32.

        The first T are different ones. Rows beyond them are under the negative prompt, each at a timestep of those.
        """
        self._time = self._time_embed.run({"timesteps": timesteps})
        self._steps = len(np.unique(timesteps))
        self._negative_rows = len(timesteps) - self._steps
        self._spread_prompts()

    def set_prompt(self, text_embeddings: Array) -> None:
        """Compute keys and values of every cross-attention for one prompt, [1, tokens, channels]."""
        self._prompt = self._prompt_kv.run({"text_embeddings": text_embeddings})
        self._spread_prompts()

    def set_negative_prompt(self, text_embeddings: Array) -> None:
        """Compute the same of the prompt that rows beyond T are under."""
        self._negative_prompt = self._prompt_kv.run({"text_embeddings": text_embeddings})
        self._spread_prompts()

    def embed_depth(self, depth_latents: Array) -> Array:
        """Map depth latents, [frames, channels, height, width], to depth features."""
        return self._depth_embed.run({"depth_latent": depth_latents})["depth_features"]

    def tick(self, sample: Array, depth_features: Array, ring: KvRing) -> tuple[Array, KeyValues]:
        """Run all rows over the past in ``ring``, which is only read."""
        view = ring.view()
        window = {
            "position": view.position,
            "past_position": view.past_position,
            "past_bias": view.past_bias(self._spec.dtype),
        }
        past = {
            f"past_{side}.{place}": tensor
            for place, pair in ring.past.items()
            for side, tensor in zip(("k", "v"), pair, strict=True)
        }
        frame = {"sample": sample, "depth_features": depth_features}
        return self._run(self._unet, {**frame, **self._time, **self._tick_prompt, **window, **past})

    def warm_up(self, row: int, sample: Array, depth_features: Array) -> tuple[Array, KeyValues]:
        """Run the warm-up frames as rows, all at the denoising step of ``row`` and under its prompt."""
        frames = len(sample)
        time = _repeat({name: tensor[row : row + 1] for name, tensor in self._time.items()}, frames)
        frame = {"sample": sample, "depth_features": depth_features}
        prompt = self._prompt if row < self._steps else self._negative_prompt
        return self._run(self._unet_warmup, {**frame, **time, **_repeat(prompt, frames)})

    def _spread_prompts(self) -> None:
        """Give every row of a tick its copy of the prompt that it is under."""
        rows = _repeat(self._prompt, self._steps)
        negative = _repeat(self._negative_prompt, self._negative_rows)
        self._tick_prompt = {
            name: np.concatenate([tensor, negative[name]]) if name in negative else tensor
            for name, tensor in rows.items()
        }

    def _run(self, graph: OnnxGraph, inputs: Named) -> tuple[Array, KeyValues]:
        outputs = graph.run(inputs)
        new = {
            cache.name: (outputs[f"new_k.{cache.name}"], outputs[f"new_v.{cache.name}"])
            for cache in self._spec.kv_caches
        }
        return outputs["model_output"], new


def _repeat(tensors: Named, rows: int) -> Named:
    """Give every row its own copy of what all rows share: [1, …] → [rows, …]."""
    return {name: np.repeat(tensor, rows, axis=0) for name, tensor in tensors.items()}
