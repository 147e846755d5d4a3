"""The check finds a graph that is not its module, and passes those that are: two layers, any shape, any T."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.export.check import check_unet
from live2diff_trt.export.unet_graphs import write_unet_graphs
from live2diff_trt.model.configuration import UNetConfiguration
from live2diff_trt.model.stream_spec import describe_network
from live2diff_trt.model.unet import CausalUNet
from live2diff_trt.model.weights import random_unet

CONFIGURATION = UNetConfiguration(
    block_channels=(32, 96, 64, 64),
    layers_per_block=2,
    cross_attention_channels=48,
    norm_groups=16,
    attention_heads=(4,) * 4,
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CausalUNet, StreamSpec]:
    """A UNet of two layers per block, other channels, not square, T = 4, with its graphs."""
    spec = StreamSpec(
        width=128, height=64, step_list=(0, 16, 32, 45), dtype="float32", prompt_tokens=9, depth_size=64,
        **describe_network(CONFIGURATION, 8, 16),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("graphs")
    unet = random_unet(CONFIGURATION, seed=5)
    write_unet_graphs(folder, unet, spec)
    return folder, unet, spec


def test_the_graphs_of_another_network_equal_it(written: tuple[Path, CausalUNet, StreamSpec]) -> None:
    checks = list(check_unet(*written))
    assert {check.graph for check in checks} == {"unet", "unet_warmup", "time_embed", "prompt_kv", "depth_embed"}
    assert sum(check.graph == "unet" for check in checks) == 1 + 2 * 40
    assert max(check.error for check in checks) < 1e-5


def test_a_changed_graph_fails(written: tuple[Path, CausalUNet, StreamSpec], tmp_path: Path) -> None:
    folder, unet, spec = written
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    model = onnx.load(folder / "depth_embed.onnx", load_external_data=True)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "flow_conv_in.conv_in.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 0.1, bias.name))
    onnx.save(model, tmp_path / "depth_embed.onnx")
    failed = {check.graph for check in check_unet(tmp_path, unet, spec) if not check.passed}
    assert failed == {"depth_embed"}
