"""Counts what a point has to compute and to read: on tensors without memory, so that any size can be counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from live2diff_trt.benchmarks.point import Point
from live2diff_trt.bundle import signature
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.export.autoencoder import VaeDecoderGraph, VaeEncoderGraph, build_autoencoder
from live2diff_trt.export.depth import DepthGraph, build_depth
from live2diff_trt.export.wrappers import DepthEmbedGraph, UNetGraph
from live2diff_trt.model.temporal_attention import StreamingAttend
from live2diff_trt.model.unet import CausalUNet

Graph = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]


class Work(NamedTuple):
    """10¹² floating-point operations of products and convolutions, and bytes of kv-caches that are read once.

    A multiplication and an addition are two operations.
    """

    tflop: float
    cache_bytes: int = 0

    def plus(self, other: Work) -> Work:
        """Return both together."""
        return Work(self.tflop + other.tflop, self.cache_bytes + other.cache_bytes)

    def as_notes(self) -> dict[str, Any]:
        """Return the notes of an entry that does this work."""
        notes: dict[str, Any] = {"tflop": round(self.tflop, 6)}
        return {**notes, "cache_bytes": self.cache_bytes} if self.cache_bytes else notes


def count_work(point: Point) -> dict[str, Work]:
    """Return the work of every stage of a tick, by its name (``denoise`` is the UNet), and of the whole ``tick``."""
    preset = point.as_preset()
    cache_bytes = preset.spec().cache_bytes
    spec = preset.spec().with_dtype("float32")  # operations are as many in any type
    with torch.device("meta"):
        unet = CausalUNet(preset.unet)
        autoencoder = build_autoencoder(point.autoencoder)
        depth = DepthGraph(build_depth(point.depth).eval())
    encode = _count(VaeEncoderGraph(autoencoder), signature.vae_encoder(spec), spec)
    embed = encode.plus(_count(DepthEmbedGraph(unet, spec), signature.depth_embed(spec), spec))
    estimate = _count(depth, signature.depth(spec), spec)
    decode = _count(VaeDecoderGraph(autoencoder), signature.vae_decoder(spec), spec)
    denoise = Work(_count(UNetGraph(unet, spec, StreamingAttend), signature.unet(spec), spec).tflop, cache_bytes)
    enter = encode.plus(estimate).plus(embed)
    return {
        "encode": encode,
        "estimate_depth": estimate,
        "embed_depth": embed,
        "enter": enter,
        "denoise": denoise,
        "decode": decode,
        "tick": enter.plus(denoise).plus(decode),
    }


@torch.inference_mode()
def _count(graph: Graph, border: signature.GraphSignature, spec: StreamSpec) -> Work:
    """Count one pass, in evaluation mode, over T rows or one frame."""
    sizes = {"rows": spec.steps, "frames": 1}
    with torch.device("meta"):
        inputs = tuple(
            torch.empty(
                [sizes[size] if isinstance(size, str) else size for size in one.shape],
                dtype=getattr(torch, one.dtype),
            )
            for one in border.inputs
        )
    with FlopCounterMode(display=False) as counter:
        graph(inputs)
    return Work(counter.get_total_flops() / 1e12)
