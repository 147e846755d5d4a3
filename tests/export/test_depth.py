"""Depth networks: the tiny one as a graph, the folding of BiT's filters, the sizes of the real ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir
import onnxruntime
import pytest
import torch
from torch import nn
from transformers import BitConfig, DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config
from transformers.models.bit.modeling_bit import BitBottleneckLayer, WeightStandardizedConv2d

from live2diff_trt.bundle.signature import depth
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.export.depth import (
    DepthGraph,
    DepthKind,
    build_depth,
    depth_size,
    fold_weight_standardisation,
    random_depth,
)
from live2diff_trt.export.onnx_graph import export_graph


def make_spec(side: int) -> StreamSpec:
    unused: dict[str, Any] = {"heads": 8, "kv_caches": (), "time_projections": (), "prompt_kvs": ()}
    unused |= {"prompt_tokens": 77, "text_channels": 32, "depth_channels": 32}
    return StreamSpec(128, 64, step_list=(30,), dtype="float32", depth_size=side, **unused)


def open_session(model: onnx_ir.Model) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(onnx_ir.to_proto(model).SerializeToString())


def make_picture(frames: int, side: int) -> torch.Tensor:
    blocks = torch.rand(frames, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return nn.functional.interpolate(blocks, size=(side, side), mode="bilinear")


def make_small_depth_anything() -> nn.Module:
    """Depth Anything as it is, but 4 layers of 16 channels."""
    backbone = Dinov2Config(
        image_size=56,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )
    sizes = {"reassemble_hidden_size": 16, "neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8}
    torch.manual_seed(0)
    network: nn.Module = DepthAnythingForDepthEstimation(DepthAnythingConfig(backbone_config=backbone, **sizes))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def tiny() -> onnxruntime.InferenceSession:
    graph = DepthGraph(random_depth("tiny", 0, torch.float32))
    return open_session(export_graph(graph, depth(make_spec(depth_size("tiny")))))


@pytest.fixture(scope="module")
def small_depth_anything() -> onnxruntime.InferenceSession:
    return open_session(export_graph(DepthGraph(make_small_depth_anything()), depth(make_spec(56))))


@pytest.mark.parametrize("frames", [1, 3])
def test_tiny_graph_equals_module(tiny: onnxruntime.InferenceSession, frames: int) -> None:
    picture = make_picture(frames, 128)
    (expected,) = DepthGraph(random_depth("tiny", 0, torch.float32))((picture,))
    (found,) = tiny.run(None, {"depth_image": picture.numpy()})

    assert found.shape == (frames, 128, 128)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_tiny_map_follows_the_picture() -> None:
    picture = make_picture(1, 64)
    (found,) = DepthGraph(random_depth("tiny", 5, torch.float32))((picture,))
    brightness = picture.mean(dim=1)
    assert torch.corrcoef(torch.stack((found.flatten(), brightness.flatten())))[0, 1] > 0.8


@pytest.mark.parametrize("frames", [1, 3])
def test_depth_anything_is_normalised_and_exported_unmasked(
    small_depth_anything: onnxruntime.InferenceSession, frames: int
) -> None:
    picture = make_picture(frames, 56)
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    expected = make_small_depth_anything()((picture / 2 + 0.5 - mean) / deviation).predicted_depth
    (found,) = small_depth_anything.run(None, {"depth_image": picture.numpy()})

    assert expected.std() > 0
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def make_bit_layer() -> nn.Module:
    torch.manual_seed(0)
    configuration = BitConfig(global_padding="same", layer_type="bottleneck", num_groups=4)
    layer: nn.Module = BitBottleneckLayer(configuration, 16, 32, stride=2, is_first_layer=True)
    return layer.eval().requires_grad_(False)


def test_folded_filters_give_the_same_features() -> None:
    layer = make_bit_layer()
    features = torch.randn(2, 16, 12, 12)
    expected = layer(features)
    fold_weight_standardisation(layer)

    assert not any(isinstance(part, WeightStandardizedConv2d) for part in layer.modules())
    assert set(layer.state_dict()) == set(make_bit_layer().state_dict())
    torch.testing.assert_close(layer(features), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "millions", "side"), [("dpt-hybrid", 122.38, 384), ("depth-anything-small", 24.79, 518)]
)
def test_real_kinds_have_the_real_size(kind: DepthKind, millions: float, side: int) -> None:
    with torch.device("meta"):
        network = build_depth(kind)
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
    assert depth_size(kind) == side


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dpt-hybrid", "depth-anything-small"])
def test_real_kinds_export(kind: DepthKind) -> None:
    graph = DepthGraph(random_depth(kind, 0, torch.float32))
    side = depth_size(kind)
    session = open_session(export_graph(graph, depth(make_spec(side))))
    # Traced with two frames.
    picture = make_picture(1, side)
    (expected,) = graph((picture,))
    (found,) = session.run(None, {"depth_image": picture.numpy()})
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-3)
