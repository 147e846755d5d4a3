"""The UNet's graphs as modules with a flat list of tensors in and out, in the order of their signatures."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.export.temporal_op import OnnxStreamingAttend
from live2diff_trt.export.tensors import Tensors
from live2diff_trt.model.temporal_attention import KeyValue, StreamingAttend, WarmUpAttend
from live2diff_trt.model.unet import CausalUNet, Conditions


class _UNetGraph(nn.Module):
    """Holds the one network; its name, ``unet``, is the prefix that ``initialiser_name`` takes off again."""

    def __init__(self, unet: CausalUNet, spec: StreamSpec) -> None:
        super().__init__()
        self.unet = unet
        self.spec = spec

    def _take_time(self, tensors: Iterator[Tensor]) -> dict[str, Tensor]:
        return {entry.name: next(tensors) for entry in self.spec.time_projections}

    def _take_prompt(self, tensors: Iterator[Tensor]) -> dict[str, KeyValue]:
        return {entry.name: (next(tensors), next(tensors)) for entry in self.spec.prompt_kvs}

    def _embed_time(self, timesteps: Tensor) -> Tensors:
        projections = self.unet.embed_time(timesteps)
        return tuple(projections[entry.name] for entry in self.spec.time_projections)

    def _embed_prompt(self, text_embeddings: Tensor) -> Tensors:
        prompt = self.unet.embed_prompt(text_embeddings)
        return tuple(tensor for entry in self.spec.prompt_kvs for tensor in prompt[entry.name])

    def _embed_depth(self, depth_latent: Tensor) -> Tensors:
        return (self.unet.embed_depth(depth_latent),)


class UNetGraph(_UNetGraph):
    """One tick: ``bundle.signature.unet``."""

    def __init__(
        self, unet: CausalUNet, spec: StreamSpec, make_attend: type[StreamingAttend] = OnnxStreamingAttend
    ) -> None:
        super().__init__(unet, spec)
        self._make_attend = make_attend

    def forward(self, tensors: Tensors) -> Tensors:
        """Map the signature's inputs to its outputs."""
        following = iter(tensors)
        sample, depth_features = next(following), next(following)
        time, prompt = self._take_time(following), self._take_prompt(following)
        window = next(following), next(following), next(following)
        past = {cache.name: (next(following), next(following)) for cache in self.spec.kv_caches}
        attend = self._make_attend(past, *window, self.spec.heads)
        model_output = self.unet(sample, depth_features, Conditions(time, prompt, attend))
        return model_output, *_new_slots(attend.new, self.spec)


class UNetWarmUpGraph(_UNetGraph):
    """Warm-up: ``bundle.signature.unet_warmup``. That graph is derived from the tick's; this is what it must equal."""

    def forward(self, tensors: Tensors) -> Tensors:
        """Map the signature's inputs to its outputs."""
        following = iter(tensors)
        sample, depth_features = next(following), next(following)
        attend = WarmUpAttend(self.spec.heads)
        conditions = Conditions(self._take_time(following), self._take_prompt(following), attend)
        return self.unet(sample, depth_features, conditions), *_new_slots(attend.new, self.spec)


class TimeEmbedGraph(_UNetGraph):
    """Timesteps → time projections: ``bundle.signature.time_embed``."""

    def forward(self, tensors: Tensors) -> Tensors:
        """Map the signature's inputs to its outputs."""
        return self._embed_time(*tensors)


class PromptKvGraph(_UNetGraph):
    """Text embeddings → keys and values: ``bundle.signature.prompt_kv``."""

    def forward(self, tensors: Tensors) -> Tensors:
        """Map the signature's inputs to its outputs."""
        return self._embed_prompt(*tensors)


class DepthEmbedGraph(_UNetGraph):
    """Depth latent → depth features: ``bundle.signature.depth_embed``."""

    def forward(self, tensors: Tensors) -> Tensors:
        """Map the signature's inputs to its outputs."""
        return self._embed_depth(*tensors)


class HoistedGraph(_UNetGraph):
    """The three graphs above side by side: what is computed outside the tick."""

    def forward(self, tensors: Tensors) -> Tensors:
        """Map timesteps, text embeddings and depth latents to the outputs of all three, in that order."""
        timesteps, text_embeddings, depth_latent = tensors
        return *self._embed_time(timesteps), *self._embed_prompt(text_embeddings), *self._embed_depth(depth_latent)


def _new_slots(new: dict[str, KeyValue], spec: StreamSpec) -> Iterator[Tensor]:
    return (tensor for cache in spec.kv_caches for tensor in new[cache.name])
