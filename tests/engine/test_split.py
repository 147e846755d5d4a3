"""The UNet cut where kernels compute: the same network, piece by piece, and only what must crosses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from live2diff_trt.bundle import signature
from live2diff_trt.bundle.errors import BundleError
from live2diff_trt.bundle.signature import TEMPORAL_ATTENTION_OP, GraphSignature
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.conformance.goldens import Goldens
from live2diff_trt.conformance.run import describe_recording
from live2diff_trt.engine.arena import arena_of, lifetimes_of, peak_bytes
from live2diff_trt.engine.onnxruntime_backend import OnnxGraphs, OnnxRuntimeOptions
from live2diff_trt.engine.split import (
    AttentionCut,
    GatedGeluCut,
    GroupNormCut,
    SpatialAttentionCut,
    UNetSplit,
    ViewCut,
)
from live2diff_trt.engine.split_graph import CutUNet, cut_unet, load_constants
from live2diff_trt.export.unet_graphs import write_unet_graphs
from live2diff_trt.model.configuration import UNetConfiguration
from live2diff_trt.model.stream_spec import describe_network
from live2diff_trt.model.weights import load_unet, random_unet
from tests.engine.segment_runner import SegmentRunner

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Exported:
    """A network's graphs in a folder, with the stream they are for."""

    folder: Path
    spec: StreamSpec

    @property
    def unet(self) -> Path:
        return self.folder / "unet.onnx"

    def cut(self, rows: int = 2) -> CutUNet:
        return cut_unet(self.unet, self.spec, rows)

    def run(self, border: GraphSignature, inputs: Arrays) -> Arrays:
        return OnnxGraphs(self.folder, [border], OnnxRuntimeOptions(threads=1)).open(border.name).run(inputs)


@pytest.fixture(scope="module")
def recorded(goldens: Goldens, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The network of the goldens, with trained weights: one layer a block, four levels."""
    folder = tmp_path_factory.mktemp("recorded")
    spec = describe_recording(goldens, goldens.recording(2))
    write_unet_graphs(folder, load_unet(goldens.configuration, goldens.weights()), spec)
    return Exported(folder, spec)


@pytest.fixture(scope="module")
def two_layers(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Two layers a block as in Stable Diffusion, two levels, latents of 8x8."""
    folder = tmp_path_factory.mktemp("two_layers")
    configuration = UNetConfiguration(
        block_channels=(32, 64),
        layers_per_block=2,
        cross_attention=(True, False),
        attention_heads=(4, 4),
        motion=(True, True),
        cross_attention_channels=16,
        norm_groups=8,
    )
    spec = StreamSpec(
        64, 64, (30, 40), "float32", prompt_tokens=5, depth_size=0, **describe_network(configuration, 8, 8)
    )
    write_unet_graphs(folder, random_unet(configuration, 5), spec)
    return Exported(folder, spec)


@pytest.fixture(params=["recorded", "two_layers"])
def exported(request: pytest.FixtureRequest) -> Exported:
    found: Exported = request.getfixturevalue(request.param)
    return found


def random_inputs(border: GraphSignature, rows: int, window: int) -> Arrays:
    """Random inputs of a graph; some slots of the past hidden."""
    generator = np.random.default_rng(7)
    inputs: Arrays = {}
    for spec in border.inputs:
        shape = tuple(rows if size == "rows" else int(size) for size in spec.shape)
        if spec.dtype == "int32":
            inputs[spec.name] = generator.integers(0, window, shape).astype(np.int32)
        elif spec.name == "past_bias":
            inputs[spec.name] = np.where(generator.random(shape) < 0.3, -np.inf, 0).astype(spec.dtype)
        else:
            inputs[spec.name] = generator.standard_normal(shape).astype(spec.dtype)
    return inputs


def assert_rows_agree(found: NDArray[Any], wanted: NDArray[Any]) -> None:
    """Each row within 1e-5 of its largest element."""
    assert found.shape == wanted.shape
    axes = tuple(range(1, wanted.ndim))
    error = np.abs(found - wanted).max(axes) / np.abs(wanted).max(axes)
    assert np.all(error <= 1e-5), error


# the same network


@pytest.mark.parametrize(("rows", "real"), [(3, 3), (1, 3), (2, 3), (2, 1)])
def test_segments_and_kernels_are_the_whole_unet(exported: Exported, tmp_path: Path, rows: int, real: int) -> None:
    border = signature.unet(exported.spec)
    inputs = random_inputs(border, real, exported.spec.window)
    wanted = exported.run(border, inputs)
    runner = SegmentRunner(exported.folder, tmp_path, exported.spec, rows, chunks=-(-real // rows))
    assert_rows_agree(runner.tick(inputs), wanted.pop("model_output"))
    assert runner.new.keys() == wanted.keys()
    for name, values in wanted.items():
        assert_rows_agree(runner.new[name], values)


@pytest.mark.parametrize("rows", [2, 3])
def test_the_same_segments_warm_up(exported: Exported, tmp_path: Path, rows: int) -> None:
    border = signature.unet_warmup(exported.spec)
    inputs = random_inputs(border, 0, exported.spec.window)
    wanted = exported.run(border, inputs)
    runner = SegmentRunner(exported.folder, tmp_path, exported.spec, rows, chunks=-(-exported.spec.sink // rows))
    assert_rows_agree(runner.warm_up(inputs), wanted.pop("model_output"))
    for name, values in wanted.items():
        assert_rows_agree(runner.new[name], values)


def test_a_tick_after_warm_up_needs_no_new_arena(two_layers: Exported, tmp_path: Path) -> None:
    """Three chunks of three rows for the warm-up's eight frames; a tick of three rows uses the first."""
    border = signature.unet(two_layers.spec)
    inputs = random_inputs(border, 3, two_layers.spec.window)
    runner = SegmentRunner(two_layers.folder, tmp_path, two_layers.spec, rows=3, chunks=3)
    runner.warm_up(random_inputs(signature.unet_warmup(two_layers.spec), 0, two_layers.spec.window))
    assert_rows_agree(runner.tick(inputs), two_layers.run(border, inputs)["model_output"])


def test_the_runner_notices_a_tensor_that_dies_too_early(two_layers: Exported, tmp_path: Path) -> None:
    """The other tests are only as good as this one: a skip connection whose bytes are given away."""
    inputs = random_inputs(signature.unet(two_layers.spec), 2, two_layers.spec.window)
    runner = SegmentRunner(two_layers.folder, tmp_path, two_layers.spec, rows=2, chunks=1)
    skip = max((one for one in runner._split.tensors if one.owns_memory), key=lambda one: one.last - one.first)
    other = next(one for one in runner._split.tensors if skip.first < one.first < skip.last and one.owns_memory)
    views = {one.name for one in runner._split.tensors if one.view_of == skip.name}
    offsets = {**runner.arena.offsets, **dict.fromkeys({skip.name, *views}, runner.arena.offsets[other.name])}
    runner.arena = replace(runner.arena, offsets=offsets)
    assert not np.all(np.isfinite(runner.tick(inputs)))


# what crosses


COMPUTED_BY_KERNELS = {"GroupNormalization", "Softmax", "Sigmoid", "Gelu", "Erf"}


def test_kernels_compute_every_norm_of_groups_attention_and_gate(recorded: Exported) -> None:
    cuts = recorded.cut().split.cuts
    transformers, resnets, motion_modules = 10, 14, 12
    norms = [cut for cut in cuts if isinstance(cut, GroupNormCut)]
    assert len(norms) == 2 * resnets + transformers + motion_modules + 1
    assert sum(cut.silu for cut in norms) == 2 * resnets + 1
    times = [f"time.{one.name}" for one in recorded.spec.time_projections]
    assert [cut.row_bias for cut in norms if cut.row_bias] == times
    attentions = [cut for cut in cuts if isinstance(cut, SpatialAttentionCut)]
    assert [cut.to_prompt for cut in attentions] == [False, True] * transformers
    assert {cut.heads for cut in attentions} == {8}
    assert sum(isinstance(cut, GatedGeluCut) for cut in cuts) == transformers + motion_modules


def test_segments_are_products_convolutions_and_what_fuses_with_them(exported: Exported) -> None:
    """Nothing but weights is seen in another shape: in a segment that would be a copy."""
    for model in exported.cut().models:
        constants = {tensor.name for tensor in model.graph.initializer}
        for node in model.graph.node:
            if constants.issuperset(node.input):
                constants.update(node.output)
        kinds = {node.op_type for node in model.graph.node if not constants.issuperset(node.output)}
        assert kinds <= {"Add", "Concat", "Conv", "LayerNormalization", "MatMul", "Resize"}
        assert kinds.isdisjoint(COMPUTED_BY_KERNELS)


def test_tokens_of_all_rows_are_one_matrix(exported: Exported) -> None:
    for model in exported.cut(3).models:
        for value in (*model.graph.input, *model.graph.output):
            shape = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
            assert len(shape) == 2 or len(shape) == 4 or (len(shape) == 3 and shape[0] == 3)


def test_there_is_a_segment_around_every_cut(exported: Exported) -> None:
    cut = exported.cut()
    assert len(cut.models) == len(cut.split.segments) == len(cut.split.cuts) + 1
    places = [attention.place for attention in cut.split.temporal_attentions]
    assert places == [cache.name for cache in exported.spec.kv_caches]
    assert [model.graph.name for model in cut.models] == [segment.name for segment in cut.split.segments]
    assert [segment.name for segment in cut.split.segments][:2] == ["segment_000", "segment_001"]


def test_views_lie_where_what_they_are_of_lies(exported: Exported) -> None:
    split = exported.cut(2).split
    offsets = arena_of(split, 2, 4).offsets
    views = [tensor for tensor in split.tensors if tensor.view_of]
    assert views
    assert all(offsets[view.name] == offsets[view.view_of] for view in views)
    assert all(view.row_bytes == split.tensor(view.view_of).row_bytes for view in views)
    seen = {cut.out for cut in split.cuts if isinstance(cut, ViewCut)}
    assert seen <= {view.name for view in views}


def test_a_skip_connection_lives_until_it_is_read(recorded: Exported) -> None:
    split = recorded.cut().split
    steps = 2 * len(split.cuts)
    longest = max((tensor for tensor in split.tensors if tensor.owns_memory), key=lambda one: one.last - one.first)
    assert longest.name == "add"  # the first convolution's result, with the depth features: the last block reads it
    assert longest.first == 0
    assert longest.last > 0.8 * steps


def test_the_arena_is_hardly_larger_than_what_is_alive_at_once(exported: Exported) -> None:
    split = exported.cut(2).split
    peak = peak_bytes(lifetimes_of(split, 2, 4))
    assert peak <= arena_of(split, 2, 4).bytes <= 1.1 * peak


def test_every_graph_input_but_the_past_is_read(exported: Exported) -> None:
    names = {tensor.name for tensor in signature.unet_warmup(exported.spec).inputs}
    assert set(exported.cut().split.graph_inputs) == names


def test_parts_lie_in_what_they_are_packed_in(exported: Exported) -> None:
    split = exported.cut().split
    packed: list[AttentionCut] = [*split.temporal_attentions]
    packed += [cut for cut in split.cuts if isinstance(cut, SpatialAttentionCut) and not cut.to_prompt]
    for attention in packed:
        parts = [split.tensor(name) for name in (attention.q, attention.k, attention.v)]
        assert [part.part for part in parts] == [0, 1, 2]
        (whole,) = {part.packed_in for part in parts}
        assert {split.tensor(whole).row_shape} == {(3, *part.row_shape) for part in parts}


def test_steps_are_in_order(exported: Exported) -> None:
    split = exported.cut().split
    assert [tensor.first for tensor in split.tensors] == sorted(tensor.first for tensor in split.tensors)
    assert all(tensor.first < tensor.last for tensor in split.tensors if tensor.name != "model_output")
    assert split.tensor("model_output").first == 2 * len(split.cuts)


# the segments' graphs


def test_segments_are_sound_graphs_without_weights_of_a_fixed_number_of_rows(exported: Exported) -> None:
    cut = exported.cut(5)
    for model, segment in zip(cut.models, cut.split.segments, strict=True):
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)  # raises where shapes disagree
        assert model.ByteSize() < 64 * 1024
        assert all(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 21)]
        assert not model.functions
        assert tuple(value.name for value in model.graph.input) == segment.inputs
        assert tuple(value.name for value in model.graph.output) == segment.outputs
        values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
        assert not any(dimension.dim_param for value in values for dimension in value.type.tensor_type.shape.dim)


def test_every_weight_is_in_one_segment_or_a_kernels(exported: Exported) -> None:
    whole = onnx.load(exported.unet, load_external_data=False)
    cut = exported.cut()
    weights = [tensor.name for model in cut.models for tensor in model.graph.initializer]
    assert sorted([*weights, *cut.split.constants]) == sorted(tensor.name for tensor in whole.graph.initializer)


def test_cutting_does_not_read_the_weights(exported: Exported, tmp_path: Path) -> None:
    alone = tmp_path / "unet.onnx"
    alone.write_bytes(exported.unet.read_bytes())
    assert cut_unet(alone, exported.spec, 2).split == exported.cut(2).split


def test_a_split_goes_through_json(exported: Exported) -> None:
    split = exported.cut().split
    assert UNetSplit.from_json(json.loads(json.dumps(split.to_json()))) == split


def test_a_split_of_too_few_segments_is_refused(exported: Exported) -> None:
    values = exported.cut().split.to_json()
    values["segments"].pop()
    with pytest.raises(ValueError, match="do not enclose"):
        UNetSplit.from_json(values)


def test_an_unknown_tensor_is_a_key_error(two_layers: Exported) -> None:
    with pytest.raises(KeyError, match="nothing"):
        two_layers.cut().split.tensor("nothing")


# what kernels read of the weights


def test_constants_are_read_from_the_data_file(recorded: Exported) -> None:
    split = recorded.cut().split
    constants = load_constants(recorded.unet, split)
    whole = {tensor.name: tensor for tensor in onnx.load(recorded.unet).graph.initializer}
    norms = sum(isinstance(cut, GroupNormCut) for cut in split.cuts)
    assert len(constants) == 3 * len(split.temporal_attentions) + 2 * norms
    for name, values in constants.items():
        np.testing.assert_array_equal(values, onnx.numpy_helper.to_array(whole[name]))


def test_constants_without_their_data_file_are_a_bundle_error(two_layers: Exported, tmp_path: Path) -> None:
    alone = tmp_path / "unet.onnx"
    alone.write_bytes(two_layers.unet.read_bytes())
    with pytest.raises(BundleError, match=r"can't be read.*Export the bundle again"):
        load_constants(alone, two_layers.cut().split)


# what is refused

Change = Callable[[onnx.GraphProto, list[onnx.NodeProto]], None]


def read_an_attention_too_late(graph: onnx.GraphProto, attentions: list[onnx.NodeProto]) -> None:
    """The second no longer depends on the first: both at the same level."""
    first = attentions[0]
    (product,) = (node for node in graph.node if first.input[0] in node.output)
    for node in graph.node:
        if first.output[0] in node.input:
            node.input[list(node.input).index(first.output[0])] = product.input[0]


def swap_places(graph: onnx.GraphProto, attentions: list[onnx.NodeProto]) -> None:
    first, second = attentions[:2]
    for index in (3, 4):
        first.input[index], second.input[index] = second.input[index], first.input[index]


def use_a_later_attention(graph: onnx.GraphProto, attentions: list[onnx.NodeProto]) -> None:
    attentions[0].input[0] = attentions[-1].output[0]


def change_heads(graph: onnx.GraphProto, attentions: list[onnx.NodeProto]) -> None:
    attentions[3].attribute[0].i += 1


def widen_a_query(graph: onnx.GraphProto, attentions: list[onnx.NodeProto]) -> None:
    (value,) = (value for value in graph.value_info if value.name == attentions[0].input[0])
    value.type.tensor_type.shape.dim[2].dim_value += 8


def query_by_something_else(graph: onnx.GraphProto, attentions: list[onnx.NodeProto]) -> None:
    (product,) = (node for node in graph.node if attentions[0].input[0] in node.output)
    product.op_type = "Gemm"


def look_at_the_past(graph: onnx.GraphProto, attentions: list[onnx.NodeProto]) -> None:
    (last,) = (node for node in graph.node if "model_output" in node.output)
    last.output[0] = "nearly"
    graph.node.append(helper.make_node("Where", ["past_bias", "nearly", "nearly"], ["model_output"]))


def break_a_group_of_channels(graph: onnx.GraphProto, attentions: list[onnx.NodeProto]) -> None:
    """The first skip connection crosses; in half precision its channels come in groups of 8."""
    (node,) = (node for node in graph.node if "depth_features" in node.input)
    (value,) = (value for value in graph.value_info if value.name == node.output[0])
    value.type.tensor_type.shape.dim[1].dim_value = 36


def forget_a_shape(graph: onnx.GraphProto, attentions: list[onnx.NodeProto]) -> None:
    (value,) = (value for value in graph.value_info if value.name == attentions[1].output[0])
    value.type.tensor_type.shape.dim[0].dim_param = "frames"


def add_an_unknown_node(graph: onnx.GraphProto, attentions: list[onnx.NodeProto]) -> None:
    graph.node.append(helper.make_node("Mystery", ["sample"], ["clue"], domain="live2diff"))


def forget_the_output(graph: onnx.GraphProto, attentions: list[onnx.NodeProto]) -> None:
    graph.node.append(helper.make_node("Identity", ["sample"], ["other"]))
    (last,) = (node for node in graph.node if "model_output" in node.output)
    last.output[0] = "elsewhere"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (read_an_attention_too_late, "not a chain of 20"),
        (swap_places, "where the attention of .* belongs"),
        (use_a_later_attention, "before it is made"),
        (change_heads, "has 9 heads"),
        (widen_a_query, "not as the manifest says"),
        (query_by_something_else, "not as the manifest says"),
        (break_a_group_of_channels, "36 channels, not a multiple of 8"),
        (forget_a_shape, "does not say the shape of"),
        (look_at_the_past, "uses past_bias outside"),
        (add_an_unknown_node, "live2diff::Mystery"),
        (forget_the_output, "does not make model_output"),
    ],
)
def test_another_graph_is_refused(two_layers: Exported, tmp_path: Path, change: Change, problem: str) -> None:
    model = onnx.load(two_layers.unet, load_external_data=False)
    change(model.graph, [node for node in model.graph.node if node.op_type == TEMPORAL_ATTENTION_OP])
    onnx.save(model, tmp_path / "unet.onnx")
    with pytest.raises(BundleError, match=rf"unet\.onnx.*{problem}.*Export the bundle again"):
        cut_unet(tmp_path / "unet.onnx", two_layers.spec, 2)


def test_another_network_is_refused(two_layers: Exported) -> None:
    fewer = replace(two_layers.spec, kv_caches=two_layers.spec.kv_caches[:-2])
    with pytest.raises(BundleError, match="not a chain of"):
        cut_unet(two_layers.unet, fewer, 2)


def test_what_is_no_graph_is_refused(two_layers: Exported, tmp_path: Path) -> None:
    (tmp_path / "unet.onnx").write_bytes(b"not a graph at all")
    with pytest.raises(BundleError, match=r"unet\.onnx is not a readable ONNX graph"):
        cut_unet(tmp_path / "unet.onnx", two_layers.spec, 2)
