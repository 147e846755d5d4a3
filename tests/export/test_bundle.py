"""A whole bundle: what is in it, and that it appears complete or not at all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from live2diff_trt.bundle import replaced
from live2diff_trt.bundle.errors import NotWritableError, OutputExistsError, SpecError
from live2diff_trt.bundle.manifest import WEIGHTS_FILE, Bundle
from live2diff_trt.bundle.signature import TEMPORAL_ATTENTION_DOMAIN, TEMPORAL_ATTENTION_OP
from live2diff_trt.engine.initialisers import BundleInitialisers
from live2diff_trt.engine.onnxruntime_backend import OnnxGraphs, OnnxRuntimeOptions
from live2diff_trt.export.bundle import _complete_or_absent, export_bundle
from live2diff_trt.export.errors import ExportError
from live2diff_trt.export.presets import PRESETS, SD15, TINY
from live2diff_trt.export.weights_source import RandomWeights
from live2diff_trt.model.unet import CausalUNet
from live2diff_trt.model.weights import random_unet
from tests.windows_files import used_in


def load_graph(bundle: Path, name: str) -> onnx.ModelProto:
    return onnx.load(bundle / f"{name}.onnx", load_external_data=False)


def test_every_graph_is_valid_and_has_the_border_it_promises(tiny_bundle: Path) -> None:
    for border in Bundle.open(tiny_bundle).manifest.signatures:
        onnx.checker.check_model(str(tiny_bundle / border.file), full_check=True)
        graph = load_graph(tiny_bundle, border.name).graph
        for values, specs in ((graph.input, border.inputs), (graph.output, border.outputs)):
            found = [
                (value.name, tuple(size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim))
                for value in values
            ]
            assert found == [(spec.name, spec.shape) for spec in specs]


@pytest.mark.parametrize("name", ["unet", "unet_warmup"])
def test_norms_are_native(tiny_bundle: Path, name: str) -> None:
    model = load_graph(tiny_bundle, name)
    operators = [node.op_type for node in model.graph.node]
    assert next(opset.version for opset in model.opset_import if not opset.domain) >= 21
    # 2 per resnet, 1 per spatial transformer, 1 per motion module, 1 at the end; 3 per transformer block of either kind
    assert operators.count("GroupNormalization") == 2 * 8 + 4 + 3 + 1
    assert operators.count("LayerNormalization") == 3 * 4 + 3 * 3
    assert "InstanceNormalization" not in operators


def test_each_temporal_attention_is_one_node_that_reads_the_past_inputs(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    nodes = [node for node in load_graph(tiny_bundle, "unet").graph.node if node.domain == TEMPORAL_ATTENTION_DOMAIN]
    assert [node.op_type for node in nodes] == [TEMPORAL_ATTENTION_OP] * 6
    window = ["position", "past_position", "past_bias"]
    for node, cache in zip(nodes, bundle.spec.kv_caches, strict=True):
        tables = [f"{cache.name}.pe_{side}" for side in ("q", "k", "v")]
        assert list(node.input[1:]) == [
            *(f"{kind}_{side}.{cache.name}" for kind in ("new", "past") for side in ("k", "v")),
            *tables,
            *window,
        ]


def test_the_past_is_read_by_nothing_else(tiny_bundle: Path) -> None:
    readers = {
        node.domain
        for node in load_graph(tiny_bundle, "unet").graph.node
        if any(name.startswith(("past_", "position")) for name in node.input)
    }
    assert readers == {TEMPORAL_ATTENTION_DOMAIN}


def test_the_unets_graphs_share_one_data_file(tiny_bundle: Path) -> None:
    places = {}
    for name in ("unet", "unet_warmup"):
        initialisers = load_graph(tiny_bundle, name).graph.initializer
        assert all(uses_external_data(tensor) for tensor in initialisers)
        places[name] = {
            tensor.name: {entry.key: entry.value for entry in tensor.external_data} for tensor in initialisers
        }
    assert places["unet"] == places["unet_warmup"]
    assert {place["location"] for place in places["unet"].values()} == {WEIGHTS_FILE}


def test_every_initialiser_is_made_from_the_weights_as_the_manifest_says(tiny_bundle: Path) -> None:
    table = Bundle.open(tiny_bundle).manifest.initialisers
    weights = random_unet(TINY.unet, seed=3).state_dict()
    seen = set()
    for name in ("unet", "unet_warmup", "time_embed", "prompt_kv", "depth_embed"):
        for tensor in load_graph(tiny_bundle, name).graph.initializer:
            load_external_data_for_tensor(tensor, str(tiny_bundle))
            entry = table[tensor.name]
            sources = [weights[key] for key in entry.sources]
            wanted = sources[0] if entry.recipe == "copy" else sources[1][0, :16] @ sources[0].T
            np.testing.assert_allclose(numpy_helper.to_array(tensor), wanted.numpy(), atol=1e-6)
            seen.add(tensor.name)
    assert seen == set(table)
    assert {source for entry in table.values() for source in entry.sources} == set(weights)


def test_where_the_weights_came_from_is_recorded(tiny_bundle: Path) -> None:
    manifest = Bundle.open(tiny_bundle).manifest
    assert set(manifest.weights) == {"unet", "autoencoder", "depth", "text_encoder"}
    assert all(source == {"source": "random", "seed": 3} for source in manifest.weights.values())


def write_nothing(*_: object) -> dict[str, object]:
    return {}


def kill_helper(*_: object) -> dict[str, object]:
    """End the process that exports the smaller networks, as a system does that is out of memory."""
    for process in active_children():
        process.kill()
    return {}


@pytest.mark.parametrize(
    ("write_unet", "message"),
    [
        (write_nothing, "clip_skip 2 does not fit a text encoder of 2 layers"),
        (kill_helper, "the process that exports the smaller networks was killed. Free memory"),
    ],
    ids=["an error in the other process", "its end"],
)
def test_an_export_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_unet: Callable[..., dict[str, object]], message: str
) -> None:
    monkeypatch.setattr("live2diff_trt.export.bundle.write_unet_graphs", write_unet)
    with pytest.raises(ExportError, match=message):
        export_bundle(replace(TINY, width=64, height=64), RandomWeights(), tmp_path / "bundle", clip_skip=2)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_stays(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(OutputExistsError, match="--overwrite"):
        export_bundle(TINY, RandomWeights(), tmp_path / "bundle")


def test_overwriting_never_removes_what_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(ExportError, match="not a bundle"):
        export_bundle(TINY, RandomWeights(), tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"cat"


def test_a_size_that_can_not_be_had_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="The nearest is 512x320"):
        export_bundle(replace(SD15, width=500, height=333), RandomWeights(), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_presets_are_what_they_say() -> None:
    assert set(PRESETS) == {"tiny", "sd15"}
    with torch.device("meta"):
        parameters = sum(weight.numel() for weight in CausalUNet(SD15.unet).parameters())
    assert parameters == pytest.approx(1277.7e6, rel=1e-3)
    assert len(SD15.spec().kv_caches) == 40


def write_quickly(out: Path) -> None:
    """Write what stands for a bundle in the place of another, as an export does."""
    with _complete_or_absent(out, overwrite=True) as folder:
        (folder / "manifest.json").write_text("new")


def test_a_bundle_takes_the_place_of_another_as_a_whole(damaged_bundle: Path, windows_files: None) -> None:
    write_quickly(damaged_bundle)
    assert [path.name for path in damaged_bundle.iterdir()] == ["manifest.json"]
    assert list(damaged_bundle.parent.iterdir()) == [damaged_bundle]


@pytest.mark.parametrize("use", ["by a stream", "by a style"])
def test_on_windows_a_bundle_in_use_stays_whole_and_the_error_says_what_to_do(
    damaged_bundle: Path, monkeypatch: pytest.MonkeyPatch, windows_files: None, use: str
) -> None:
    monkeypatch.setattr(replaced, "RENAME_PAUSE_SECONDS", 0)
    bundle = Bundle.open(damaged_bundle)
    if use == "by a stream":
        graphs = OnnxGraphs(bundle.folder, bundle.manifest.signatures, OnnxRuntimeOptions(threads=1))
        held: object = graphs.open("vae_encoder")
        del graphs
    else:
        held = BundleInitialisers(bundle).read("model.embeddings.token_embedding.weight")
    assert len(used_in(damaged_bundle)) == 1
    with pytest.raises(NotWritableError, match=r"can't be written .*Access is denied.*Close what has it open"):
        write_quickly(damaged_bundle)
    assert Bundle.open(damaged_bundle).digest == bundle.digest
    assert list(damaged_bundle.parent.iterdir()) == [damaged_bundle]
    del held
    write_quickly(damaged_bundle)


def test_a_bundle_that_can_not_take_its_place_brings_the_old_one_back(
    damaged_bundle: Path, monkeypatch: pytest.MonkeyPatch, windows_files: None
) -> None:
    """As on Windows, where one of its own files may still be open."""
    monkeypatch.setattr(replaced, "RENAME_PAUSE_SECONDS", 0)
    digest = Bundle.open(damaged_bundle).digest
    open_files = ExitStack()

    def write_and_forget() -> None:
        with _complete_or_absent(damaged_bundle, overwrite=True) as folder:
            (folder / "manifest.json").write_text("new")
            open_files.enter_context((folder / "manifest.json").open())

    with open_files, pytest.raises(NotWritableError):
        write_and_forget()
    assert Bundle.open(damaged_bundle).digest == digest


def test_a_place_that_can_not_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(NotWritableError, match="choose another place"):
        write_quickly(tmp_path / "file" / "bundle")
