"""Autoencoders: both halves as graphs agree with the modules, and random ones behave like trained ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from live2diff_trt.bundle.signature import vae_decoder, vae_encoder
from live2diff_trt.bundle.spec import FloatName, StreamSpec
from live2diff_trt.export.autoencoder import (
    AutoencoderKind,
    VaeDecoderGraph,
    VaeEncoderGraph,
    build_autoencoder,
    random_autoencoder,
)
from live2diff_trt.export.onnx_graph import export_graph

Models = tuple[onnx_ir.Model, onnx_ir.Model]
Sessions = tuple[onnxruntime.InferenceSession, onnxruntime.InferenceSession]


def make_spec(dtype: FloatName) -> StreamSpec:
    unused: dict[str, Any] = {"heads": 8, "kv_caches": (), "time_projections": (), "prompt_kvs": ()}
    unused |= {"depth_channels": 32, "depth_size": 64}
    return StreamSpec(
        128, 64, step_list=(30,), dtype=dtype, prompt_tokens=77, text_channels=32, latent_channels=16, **unused
    )


def export_halves(dtype: FloatName) -> Models:
    autoencoder = random_autoencoder("tiny", 0, getattr(torch, dtype))
    spec = make_spec(dtype)
    encoder = export_graph(VaeEncoderGraph(autoencoder), vae_encoder(spec))
    return encoder, export_graph(VaeDecoderGraph(autoencoder), vae_decoder(spec))


def open_session(model: onnx_ir.Model) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(onnx_ir.to_proto(model).SerializeToString())


@pytest.fixture(scope="module")
def models() -> Models:
    return export_halves("float32")


@pytest.fixture(scope="module")
def single(models: Models) -> Sessions:
    return open_session(models[0]), open_session(models[1])


@pytest.fixture(scope="module")
def half() -> Sessions:
    encoder, decoder = export_halves("float16")
    return open_session(encoder), open_session(decoder)


def make_picture(frames: int, height: int = 64, width: int = 128) -> torch.Tensor:
    blocks = torch.rand(frames, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return nn.functional.interpolate(blocks, size=(height, width), mode="bilinear")


def run(session: onnxruntime.InferenceSession, tensor: torch.Tensor) -> NDArray[Any]:
    outputs: list[NDArray[Any]] = session.run(None, {session.get_inputs()[0].name: tensor.numpy()})
    return outputs[0]


@pytest.mark.parametrize("frames", [1, 3])
def test_graphs_equal_modules(single: Sessions, frames: int) -> None:
    autoencoder = random_autoencoder("tiny", 0, torch.float32)
    picture = make_picture(frames)
    (latent,) = VaeEncoderGraph(autoencoder)((picture,))
    (decoded,) = VaeDecoderGraph(autoencoder)((latent,))

    assert latent.shape == (frames, 16, 8, 16)
    assert decoded.shape == picture.shape
    np.testing.assert_allclose(run(single[0], picture), latent.numpy(), atol=1e-4)
    np.testing.assert_allclose(run(single[1], latent), decoded.numpy(), atol=1e-4)


def test_half_precision_graphs_take_and_give_half_precision(half: Sessions, single: Sessions) -> None:
    for session in half:
        assert [value.type for value in (*session.get_inputs(), *session.get_outputs())] == ["tensor(float16)"] * 2

    picture = make_picture(2).half()
    latent = run(half[0], picture)
    decoded = run(half[1], torch.from_numpy(latent))
    np.testing.assert_allclose(latent, run(single[0], picture.float()), atol=2e-2)
    np.testing.assert_allclose(decoded, run(single[1], torch.from_numpy(latent).float()), atol=2e-2)


def test_weights_keep_their_names(models: Models) -> None:
    parameters = dict(random_autoencoder("tiny", 0, torch.float32).named_parameters())
    for model, half_name in zip(models, ("encoder", "decoder"), strict=True):
        wanted = {f"autoencoder.{name}" for name in parameters if name.startswith(f"{half_name}.")}
        assert set(model.graph.initializers) == wanted


@pytest.mark.parametrize("kind", ["tiny", "taesd", "kl"])
def test_random_latents_and_pictures_are_of_sane_size(kind: AutoencoderKind) -> None:
    autoencoder = random_autoencoder(kind, 3, torch.float32)
    (latent,) = VaeEncoderGraph(autoencoder)((make_picture(1, 128, 128),))
    (decoded,) = VaeDecoderGraph(autoencoder)((latent,))

    for tensor, (least, most) in ((latent, (0.3, 2.5)), (decoded, (0.1, 1.5))):
        deviation = tensor.std(dim=(0, 2, 3))
        assert least < deviation.min()
        assert deviation.max() < most
        assert tensor.mean(dim=(0, 2, 3)).abs().max() < 1.5


def test_kl_latent_is_the_scaled_mean() -> None:
    autoencoder = random_autoencoder("kl", 0, torch.float32)
    picture = make_picture(1, 64, 64)
    posterior = autoencoder.encode(picture).latent_dist
    (latent,) = VaeEncoderGraph(autoencoder)((picture,))

    assert torch.equal(latent, posterior.mean * 0.18215)
    (decoded,) = VaeDecoderGraph(autoencoder)((latent,))
    torch.testing.assert_close(decoded, autoencoder.decode(posterior.mean).sample, rtol=1e-3, atol=1e-3)


def test_random_weights_follow_the_seed() -> None:
    first, again, other = (random_autoencoder("tiny", seed, torch.float32).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(tensor, again[key]) for key, tensor in first.items())
    assert not torch.equal(first["encoder.layers.0.weight"], other["encoder.layers.0.weight"])


@pytest.mark.parametrize(("kind", "parameters"), [("taesd", 2_445_063), ("kl", 83_653_863)])
def test_real_kinds_have_the_real_parameter_count(kind: AutoencoderKind, parameters: int) -> None:
    with torch.device("meta"):
        autoencoder = build_autoencoder(kind)
    assert sum(parameter.numel() for parameter in autoencoder.parameters()) == parameters
