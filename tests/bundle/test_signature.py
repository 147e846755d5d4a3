"""The borders of all graphs follow from the spec."""

from __future__ import annotations

import pytest

from live2diff_trt.bundle.signature import GraphSignature, TensorSpec, bundle_signatures
from live2diff_trt.bundle.spec import StreamSpec

GRAPHS = (
    "text_encoder",
    "prompt_kv",
    "time_embed",
    "vae_encoder",
    "depth",
    "depth_embed",
    "unet_warmup",
    "unet",
    "vae_decoder",
)
INTEGERS = {"position", "past_position", "timesteps", "token_ids"}


@pytest.fixture(scope="module")
def graphs(spec: StreamSpec) -> dict[str, GraphSignature]:
    return {graph.name: graph for graph in bundle_signatures(spec)}


def tensors(graph: GraphSignature) -> tuple[TensorSpec, ...]:
    return graph.inputs + graph.outputs


def by_name(specs: tuple[TensorSpec, ...], prefix: str) -> dict[str, TensorSpec]:
    return {one.name.removeprefix(prefix): one for one in specs if one.name.startswith(prefix)}


def test_there_are_nine_graphs_in_the_order_of_a_frame(spec: StreamSpec) -> None:
    assert tuple(graph.name for graph in bundle_signatures(spec)) == GRAPHS
    assert tuple(graph.file for graph in bundle_signatures(spec)) == tuple(f"{name}.onnx" for name in GRAPHS)


@pytest.mark.parametrize("name", GRAPHS)
def test_names_are_unique_within_a_graph(graphs: dict[str, GraphSignature], name: str) -> None:
    names = [tensor.name for tensor in tensors(graphs[name])]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", GRAPHS)
def test_only_indices_are_integers(graphs: dict[str, GraphSignature], name: str) -> None:
    assert {tensor.name: tensor.dtype for tensor in tensors(graphs[name])} == {
        tensor.name: "int32" if tensor.name in INTEGERS else "float16" for tensor in tensors(graphs[name])
    }


@pytest.mark.parametrize("side", ["k", "v"])
def test_kv_cache_inputs_and_outputs_are_the_caches_of_the_spec(
    spec: StreamSpec, graphs: dict[str, GraphSignature], side: str
) -> None:
    past, new = by_name(graphs["unet"].inputs, f"past_{side}."), by_name(graphs["unet"].outputs, f"new_{side}.")
    names = [cache.name for cache in spec.kv_caches]
    assert list(past) == list(new) == list(by_name(graphs["unet_warmup"].outputs, f"new_{side}.")) == names
    for cache in spec.kv_caches:
        assert past[cache.name].shape == ("rows", 13, cache.height * cache.width, cache.channels)
        assert new[cache.name].shape == ("rows", cache.height * cache.width, cache.channels)


def test_the_tick_returns_the_prediction_and_the_new_slots_and_nothing_else(
    spec: StreamSpec, graphs: dict[str, GraphSignature]
) -> None:
    names = [f"new_{side}.{cache.name}" for cache in spec.kv_caches for side in ("k", "v")]
    assert [tensor.name for tensor in graphs["unet"].outputs] == ["model_output", *names]
    assert [tensor.name for tensor in graphs["unet_warmup"].outputs] == ["model_output", *names]


@pytest.mark.parametrize("name", GRAPHS)
def test_no_output_is_a_whole_cache(graphs: dict[str, GraphSignature], name: str) -> None:
    assert all(13 not in output.shape for output in graphs[name].outputs)


def test_warm_up_has_no_window_and_no_past(graphs: dict[str, GraphSignature]) -> None:
    names = [tensor.name for tensor in graphs["unet_warmup"].inputs]
    assert not [name for name in names if "past" in name or "position" in name]
    assert all(tensor.shape[0] == 5 for tensor in tensors(graphs["unet_warmup"]))  # the sink, static


@pytest.mark.parametrize(
    ("name", "symbols"),
    [
        ("text_encoder", {"rows"}),
        ("prompt_kv", {"rows", "tokens"}),
        ("time_embed", {"rows"}),
        ("vae_encoder", {"frames"}),
        ("depth", {"frames"}),
        ("depth_embed", {"frames"}),
        ("unet_warmup", set()),
        ("unet", {"rows"}),
        ("vae_decoder", {"frames"}),
    ],
)
def test_symbolic_axes(graphs: dict[str, GraphSignature], name: str, symbols: set[str]) -> None:
    assert {axis for tensor in tensors(graphs[name]) for axis in tensor.shape if isinstance(axis, str)} == symbols
    if name != "unet_warmup":
        batch = symbols - {"tokens"}
        assert {tensor.shape[0] for tensor in tensors(graphs[name])} == batch


@pytest.mark.parametrize(("source", "prefix"), [("time_embed", "time."), ("prompt_kv", "prompt_")])
def test_what_is_hoisted_is_what_the_unet_takes(graphs: dict[str, GraphSignature], source: str, prefix: str) -> None:
    made = by_name(graphs[source].outputs, prefix)
    assert len(made) == len(graphs[source].outputs) > 0
    for graph in ("unet", "unet_warmup"):
        taken = by_name(graphs[graph].inputs, prefix)
        assert list(taken) == list(made)
        for name, one in taken.items():
            assert (one.dtype, one.shape[-1], len(one.shape)) == (
                made[name].dtype,
                made[name].shape[-1],
                len(made[name].shape),
            )


def test_one_graph_gives_what_the_next_takes(graphs: dict[str, GraphSignature]) -> None:
    assert graphs["text_encoder"].outputs[0].name == graphs["prompt_kv"].inputs[0].name
    assert graphs["text_encoder"].outputs[0].shape[1:] == (77, 14)
    assert graphs["vae_encoder"].outputs == graphs["vae_decoder"].inputs
    assert graphs["vae_encoder"].inputs == graphs["vae_decoder"].outputs
    features = by_name(graphs["unet"].inputs, "depth_features")[""]
    assert graphs["depth_embed"].outputs[0].shape[1:] == features.shape[1:] == (6, 8, 24)
    assert graphs["depth"].inputs[0].shape[2:] == graphs["depth"].outputs[0].shape[1:] == (32, 32)
