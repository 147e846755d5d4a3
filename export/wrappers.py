"""The UNet's graphs as modules with a flat list of tensors in and out, in the order of their signatures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from torch import Tensor, nn

from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.export.temporal_op import OnnxStreamingAttend
from live2diff_trt.model.temporal_attention import KeyValue, StreamingAttend, WarmUpAttend
from live2diff_trt.model.unet import CausalUNet, Conditions

Tensors = tuple[Tensor, ...]


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


class StreamingAttendMaker(Protocol):
    """Makes the temporal attention of a tick: one that computes, or one that emits the graph's node."""

    def __call__(
        self,
        past: Mapping[str, KeyValue],
        position: Tensor,
        past_position: Tensor,
        past_bias: Tensor,
        heads: int,
    ) -> StreamingAttend | OnnxStreamingAttend:
        """Return a fresh one for a pass through the network."""


class UNetGraph(_UNetGraph):
    """One tick: ``bundle.signature.unet``."""

    def __init__(
        self, unet: CausalUNet, spec: StreamSpec, make_attend: StreamingAttendMaker = OnnxStreamingAttend
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
        projections = self.unet.embed_time(tensors[0])
        return tuple(projections[entry.name] for entry in self.spec.time_projections)


class PromptKvGraph(_UNetGraph):
    """Text embeddings → keys and values: ``bundle.signature.prompt_kv``."""

    def forward(self, tensors: Tensors) -> Tensors:
        """Map the signature's inputs to its outputs."""
        prompt = self.unet.embed_prompt(tensors[0])
        return tuple(tensor for entry in self.spec.prompt_kvs for tensor in prompt[entry.name])


class DepthEmbedGraph(_UNetGraph):
    """Depth latent → depth features: ``bundle.signature.depth_embed``."""

    def forward(self, tensors: Tensors) -> Tensors:
        """Map the signature's inputs to its outputs."""
        return (self.unet.embed_depth(tensors[0]),)


def _new_slots(new: dict[str, KeyValue], spec: StreamSpec) -> Iterator[Tensor]:
    return (tensor for cache in spec.kv_caches for tensor in new[cache.name])
