"""Text encoders: the graph's embeddings are transformers' hidden states."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir
import onnxruntime
import pytest
import torch
from torch._subclasses import FakeTensorMode
from transformers import CLIPTextModel

from live2diff_trt.bundle.signature import text_encoder
from live2diff_trt.bundle.spec import FloatName, StreamSpec
from live2diff_trt.export.errors import ExportError
from live2diff_trt.export.onnx_graph import export_graph
from live2diff_trt.export.text import TextEncoderGraph, build_text_encoder, random_text_encoder
from live2diff_trt.export.tokenizer import make_tokenizer

PROMPTS = ("a watercolor painting of a fox", "a robot", "masterpiece, best quality")


def make_spec(dtype: FloatName) -> StreamSpec:
    unused: dict[str, Any] = {"heads": 8, "kv_caches": (), "time_projections": (), "prompt_kvs": ()}
    unused |= {"depth_channels": 32, "depth_size": 64}
    return StreamSpec(128, 64, step_list=(30,), dtype=dtype, prompt_tokens=77, text_channels=32, **unused)


def encode(rows: int) -> torch.Tensor:
    """Return real prompts, padded with ends of text: [rows, 77] int32."""
    tokenizer = make_tokenizer("tiny")
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id("<|endoftext|>"), pad_token="<|endoftext|>", length=77)
    return torch.tensor([encoding.ids for encoding in tokenizer.encode_batch(PROMPTS[:rows])], dtype=torch.int32)


def on_a_gpu(model: CLIPTextModel) -> CLIPTextModel:
    """Return the model with weights that are a GPU's by name, inside a FakeTensorMode: nothing is computed."""
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            there = torch.empty(weight.shape, dtype=weight.dtype, device="cuda")
            setattr(module, name, torch.nn.Parameter(there, requires_grad=False))
    return model


def open_session(model: onnx_ir.Model) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(onnx_ir.to_proto(model).SerializeToString())


@pytest.fixture(scope="module")
def model() -> CLIPTextModel:
    return random_text_encoder("tiny", 0, torch.float32)


@pytest.fixture(scope="module")
def single(model: CLIPTextModel) -> onnxruntime.InferenceSession:
    return open_session(export_graph(TextEncoderGraph(model, clip_skip=0), text_encoder(make_spec("float32"))))


@pytest.fixture(scope="module")
def half() -> onnxruntime.InferenceSession:
    graph = TextEncoderGraph(random_text_encoder("tiny", 0, torch.float16), clip_skip=1)
    return open_session(export_graph(graph, text_encoder(make_spec("float16"))))


@pytest.mark.parametrize("rows", [1, 3])
def test_graph_equals_transformers(single: onnxruntime.InferenceSession, model: CLIPTextModel, rows: int) -> None:
    token_ids = encode(rows)
    (found,) = single.run(None, {"token_ids": token_ids.numpy()})

    assert found.shape == (rows, 77, 32)
    np.testing.assert_allclose(found, model(token_ids.long()).last_hidden_state.numpy(), atol=1e-4)


def test_half_precision_graph_masks_and_skips(half: onnxruntime.InferenceSession, model: CLIPTextModel) -> None:
    token_ids = encode(3)
    (found,) = half.run(None, {"token_ids": token_ids.numpy()})
    (expected,) = TextEncoderGraph(model, clip_skip=1)((token_ids,))

    assert found.dtype == np.float16
    np.testing.assert_allclose(found.astype(np.float32), expected.numpy(), atol=2e-2)


@pytest.mark.parametrize("clip_skip", [0, 1, 2])
def test_clip_skip_takes_an_earlier_hidden_state(clip_skip: int) -> None:
    model = make_three_layers()
    token_ids = encode(2)
    hidden = model(token_ids.long(), output_hidden_states=True).hidden_states[-(clip_skip + 1)]
    final_norm = dict(model.named_modules())["final_layer_norm"]
    (found,) = TextEncoderGraph(model, clip_skip)((token_ids,))
    torch.testing.assert_close(found, final_norm(hidden), rtol=1e-5, atol=1e-5)


def make_three_layers() -> CLIPTextModel:
    """Build a tiny text encoder with one more layer than the kind has, so that two can be skipped."""
    configuration = build_text_encoder("tiny").config
    configuration.num_hidden_layers = 3
    torch.manual_seed(0)
    return CLIPTextModel(configuration).eval().requires_grad_(False)


def test_no_token_sees_a_later_one(single: onnxruntime.InferenceSession) -> None:
    token_ids = encode(1)
    changed = token_ids.clone()
    changed[:, 40:] = 7
    (before,), (after,) = (single.run(None, {"token_ids": ids.numpy()}) for ids in (token_ids, changed))

    np.testing.assert_array_equal(before[:, :40], after[:, :40])
    assert np.abs(before[:, 40:] - after[:, 40:]).max() > 0.1


@pytest.mark.parametrize("clip_skip", [-1, 2])
def test_clip_skip_must_leave_a_layer(model: CLIPTextModel, clip_skip: int) -> None:
    with pytest.raises(ExportError, match="Use 0 for all layers"):
        TextEncoderGraph(model, clip_skip)


def test_clip_has_the_real_parameter_count() -> None:
    with torch.device("meta"):
        model = build_text_encoder("clip-vit-l")
    assert sum(parameter.numel() for parameter in model.parameters()) == 123_060_480


def test_it_computes_where_its_weights_are() -> None:
    """Whatever it makes itself, as the mask, has to be there too: PyTorch refuses tensors of two devices."""
    model = random_text_encoder("tiny", 0, torch.float32)
    with FakeTensorMode(), torch.no_grad():
        ids = torch.zeros(1, 77, dtype=torch.int32, device="cuda")
        (embeddings,) = TextEncoderGraph(on_a_gpu(model), 0)((ids,))
    assert embeddings.device.type == "cuda"
