"""Is a graph what it was traced from? Runs it by ONNX Runtime against PyTorch, on random inputs, per tensor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from live2diff_trt.bundle import signature
from live2diff_trt.bundle.signature import GraphSignature, TensorSpec
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.deviation import deviation
from live2diff_trt.engine.onnxruntime_backend import OnnxGraphs, OnnxRuntimeOptions
from live2diff_trt.engine.random_inputs import random_input
from live2diff_trt.export.wrappers import (
    DepthEmbedGraph,
    PromptKvGraph,
    TimeEmbedGraph,
    UNetGraph,
    UNetWarmUpGraph,
)
from live2diff_trt.model.temporal_attention import StreamingAttend
from live2diff_trt.model.unet import CausalUNet

TOLERANCES = {"float32": 1e-4, "float16": 1e-1}
"""Largest deviation that passes. In half precision both sides round after every operator, in another order, and a norm
over the few positions of a small size amplifies that: only an export in float32 is checked for more than gross errors.
"""

_SYMBOLIC_SIZES = {"rows": 3, "frames": 3, "tokens": 7}  # none of them a size that was traced


@dataclass(frozen=True)
class GraphCheck:
    """How far one output of a graph is from PyTorch's."""

    graph: str
    tensor: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance."""
        return self.error <= self.tolerance


def check_unet(folder: Path, unet: CausalUNet, spec: StreamSpec) -> Iterator[GraphCheck]:
    """Check the UNet's five graphs in ``folder``, one after the other."""
    pairs: list[tuple[nn.Module, GraphSignature]] = [
        (UNetGraph(unet, spec, StreamingAttend), signature.unet(spec)),
        (UNetWarmUpGraph(unet, spec), signature.unet_warmup(spec)),
        (TimeEmbedGraph(unet, spec), signature.time_embed(spec)),
        (PromptKvGraph(unet, spec), signature.prompt_kv(spec)),
        (DepthEmbedGraph(unet, spec), signature.depth_embed(spec)),
    ]
    for module, border in pairs:
        yield from check_graph(folder, module, border)


def check_graph(folder: Path, module: nn.Module, border: GraphSignature) -> Iterator[GraphCheck]:
    """Run a graph and the module it must equal on the same random inputs; compare every output."""
    inputs = {spec.name: _random_tensor(spec, index) for index, spec in enumerate(border.inputs)}
    with torch.inference_mode():
        wanted = module(tuple(torch.from_numpy(tensor) for tensor in inputs.values()))
    found = OnnxGraphs(folder, [border], OnnxRuntimeOptions()).open(border.name).run(inputs)
    for spec, tensor in zip(border.outputs, wanted, strict=True):
        yield GraphCheck(border.name, spec.name, deviation(found[spec.name], tensor.numpy()), TOLERANCES[spec.dtype])


def _random_tensor(spec: TensorSpec, seed: int) -> NDArray[Any]:
    shape = tuple(_SYMBOLIC_SIZES[size] if isinstance(size, str) else size for size in spec.shape)
    return random_input(spec.name, shape, spec.dtype, np.random.default_rng(seed))
