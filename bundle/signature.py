"""Names, shapes and dtypes of every tensor that enters or leaves a graph of a bundle: the only place they are stated.

``export`` gives the graphs these names, the manifest records them, and a backend binds by them. A dimension that is a
string is symbolic: ``rows``, ``tokens``, ``frames``.
"""

from __future__ import annotations

from dataclasses import dataclass

from live2diff_trt.bundle.spec import StreamSpec

Dimension = int | str

TEMPORAL_ATTENTION_DOMAIN = "live2diff"
TEMPORAL_ATTENTION_OP = "TemporalAttention"


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph."""

    name: str
    shape: tuple[Dimension, ...]
    dtype: str


@dataclass(frozen=True)
class GraphSignature:
    """One graph's border: its inputs and outputs, in order."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def file(self) -> str:
        """The graph's file inside a bundle."""
        return f"{self.name}.onnx"


def bundle_signatures(spec: StreamSpec) -> tuple[GraphSignature, ...]:
    """Return the signatures of all graphs of a bundle, in the order in which a frame meets them."""
    return (
        text_encoder(spec),
        prompt_kv(spec),
        time_embed(spec),
        vae_encoder(spec),
        depth(spec),
        depth_embed(spec),
        unet_warmup(spec),
        unet(spec),
        vae_decoder(spec),
    )


def unet(spec: StreamSpec) -> GraphSignature:
    """The causal UNet for one tick: T rows, each another frame at another denoising step."""
    window = (
        TensorSpec("position", ("rows",), "int32"),
        TensorSpec("past_position", ("rows", spec.window), "int32"),
        TensorSpec("past_bias", ("rows", spec.window), spec.dtype),
    )
    past = tuple(
        TensorSpec(f"past_{side}.{cache.name}", ("rows", spec.window, cache.positions, cache.channels), spec.dtype)
        for cache in spec.kv_caches
        for side in ("k", "v")
    )
    return GraphSignature("unet", (*_unet_inputs(spec, "rows"), *window, *past), _unet_outputs(spec, "rows"))


def unet_warmup(spec: StreamSpec) -> GraphSignature:
    """The same network over the warm-up frames as rows, all at one denoising step, attention in both directions."""
    return GraphSignature("unet_warmup", _unet_inputs(spec, spec.sink), _unet_outputs(spec, spec.sink))


def _unet_inputs(spec: StreamSpec, rows: Dimension) -> tuple[TensorSpec, ...]:
    hoisted = (
        *(TensorSpec(f"time.{entry.name}", (rows, entry.channels), spec.dtype) for entry in spec.time_projections),
        *(
            TensorSpec(f"prompt_{side}.{entry.name}", (rows, spec.prompt_tokens, entry.channels), spec.dtype)
            for entry in spec.prompt_kvs
            for side in ("k", "v")
        ),
    )
    return (
        TensorSpec("sample", (rows, *spec.latent_shape), spec.dtype),
        TensorSpec("depth_features", (rows, *spec.depth_features_shape), spec.dtype),
        *hoisted,
    )


def _unet_outputs(spec: StreamSpec, rows: Dimension) -> tuple[TensorSpec, ...]:
    slots = (
        TensorSpec(f"new_{side}.{cache.name}", (rows, cache.positions, cache.channels), spec.dtype)
        for cache in spec.kv_caches
        for side in ("k", "v")
    )
    return (TensorSpec("model_output", (rows, *spec.latent_shape), spec.dtype), *slots)


def time_embed(spec: StreamSpec) -> GraphSignature:
    """Timesteps → every resnet's projection of their embedding. Run once per step list."""
    outputs = tuple(
        TensorSpec(f"time.{entry.name}", ("rows", entry.channels), spec.dtype) for entry in spec.time_projections
    )
    return GraphSignature("time_embed", (TensorSpec("timesteps", ("rows",), "int32"),), outputs)


def prompt_kv(spec: StreamSpec) -> GraphSignature:
    """Text embeddings → keys and values of every cross-attention. Run once per prompt."""
    outputs = tuple(
        TensorSpec(f"prompt_{side}.{entry.name}", ("rows", "tokens", entry.channels), spec.dtype)
        for entry in spec.prompt_kvs
        for side in ("k", "v")
    )
    embeddings = TensorSpec("text_embeddings", ("rows", "tokens", spec.text_channels), spec.dtype)
    return GraphSignature("prompt_kv", (embeddings,), outputs)


def text_encoder(spec: StreamSpec) -> GraphSignature:
    """Token ids → text embeddings. Run once per prompt."""
    ids = TensorSpec("token_ids", ("rows", spec.prompt_tokens), "int32")
    embeddings = TensorSpec("text_embeddings", ("rows", spec.prompt_tokens, spec.text_channels), spec.dtype)
    return GraphSignature("text_encoder", (ids,), (embeddings,))


def depth_embed(spec: StreamSpec) -> GraphSignature:
    """A frame's depth latent → what is added to the UNet's first convolution. Run once per frame."""
    latent = TensorSpec("depth_latent", ("frames", *spec.latent_shape), spec.dtype)
    features = TensorSpec("depth_features", ("frames", *spec.depth_features_shape), spec.dtype)
    return GraphSignature("depth_embed", (latent,), (features,))


def depth(spec: StreamSpec) -> GraphSignature:
    """A picture in [−1, 1] at the depth model's own size → its inverse depth, of no particular scale."""
    side = spec.depth_size
    image = TensorSpec("depth_image", ("frames", 3, side, side), spec.dtype)
    return GraphSignature("depth", (image,), (TensorSpec("depth_map", ("frames", side, side), spec.dtype),))


def vae_encoder(spec: StreamSpec) -> GraphSignature:
    """A picture in [−1, 1] → its latent, scaled as the UNet expects it (the posterior's mean)."""
    return GraphSignature("vae_encoder", (_image(spec),), (_latent(spec),))


def vae_decoder(spec: StreamSpec) -> GraphSignature:
    """A latent → the picture, roughly in [−1, 1]."""
    return GraphSignature("vae_decoder", (_latent(spec),), (_image(spec),))


def _image(spec: StreamSpec) -> TensorSpec:
    return TensorSpec("image", ("frames", 3, spec.height, spec.width), spec.dtype)


def _latent(spec: StreamSpec) -> TensorSpec:
    return TensorSpec("latent", ("frames", *spec.latent_shape), spec.dtype)
