"""The pipeline of ONNX Runtime: host arrays, one picture at a time, nothing left pending."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.onnxruntime_backend import OnnxGraph, OnnxGraphs, OnnxRuntimeOptions
from live2diff_trt.kernels import reference
from live2diff_trt.runtime.denoiser import Denoiser, PhiloxNoise
from live2diff_trt.runtime.depth_network import DepthNetwork
from live2diff_trt.runtime.frame import Image, check_image, empty_frame
from live2diff_trt.runtime.guidance import NO_GUIDANCE, Guidance, GuidanceKind
from live2diff_trt.runtime.kv_ring import Array
from live2diff_trt.runtime.onnx_network import OnnxNetwork
from live2diff_trt.runtime.pipeline import Submitted
from live2diff_trt.runtime.prompt import PromptTokenizer
from live2diff_trt.runtime.stages import Stages
from live2diff_trt.runtime.stream_rows import StreamRoom

if TYPE_CHECKING:
    from live2diff_trt.engine.restyle import StyledWeights


@dataclass(frozen=True, eq=False)
class ReadyPictures:
    """Pictures that are complete already."""

    pictures: Sequence[Image]

    def wait(self) -> Sequence[Image]:
        """Return them; the receiver owns them."""
        return self.pictures


@dataclass(frozen=True, eq=False)
class StyledNetworks:
    """Whose weights a style replaces."""

    tokenizer: PromptTokenizer
    text_encoder: OnnxGraph
    network: OnnxNetwork


class HostPipeline:
    """One stream through a bundle's graphs.

    Args:
        bundle: the graphs.
        spec: the stream.
        options: of ONNX Runtime.
        seed: of the noise.
        guidance: of the first frames.
        room: for what it may be changed to. On the host, it is made when it is.
        graphs: the bundle's, if other pipelines share them; None: this one opens its own.
        find_graphs: returns those with other weights, if other pipelines share them; None: this one opens its own.

    Attributes:
        guidance: in effect.
    """

    def __init__(
        self,
        bundle: Bundle,
        spec: StreamSpec,
        options: OnnxRuntimeOptions,
        seed: int,
        guidance: Guidance = NO_GUIDANCE,
        *,
        room: StreamRoom,
        graphs: OnnxGraphs | None = None,
        find_graphs: Callable[[StyledWeights], OnnxGraphs] | None = None,
    ) -> None:
        graphs = graphs or OnnxGraphs(bundle.folder, bundle.manifest.signatures, options)
        self.spec = spec
        self.room = room
        self.guidance = guidance
        self._find_graphs = find_graphs or (lambda weights: open_styled_graphs(weights, options))
        self._stages = Stages(graphs, spec)
        self._depth = DepthNetwork(graphs, spec)
        self._styled = StyledNetworks(PromptTokenizer(bundle), graphs.open("text_encoder"), OnnxNetwork(graphs, spec))
        self._noise = PhiloxNoise(seed, spec.latent_shape)
        self._denoiser = Denoiser(spec, self._network, self._noise, guidance)
        self._gathered: list[Array] = []
        self._newest: deque[tuple[Array, Array]] = deque(maxlen=spec.sink)  # latents and depth latents
        self._negative_prompt: str | None = None
        self._see_negative_prompt()

    @property
    def full_ahead(self) -> int:
        """No frames: each is computed while it is submitted."""
        return 0

    @property
    def in_flight(self) -> int:
        """Frames that were submitted and have not left."""
        return self._denoiser.in_flight

    def empty_frame(self, height: int, width: int) -> Image:
        """Return a frame in ordinary memory."""
        return empty_frame(height, width)

    def encode_prompt(self, prompt: str) -> Array:
        """Return a prompt's text embeddings, [1, tokens, channels]."""
        return self._encode(self._styled.tokenizer.tokenize(prompt))

    def set_text_embeddings(self, embeddings: Array) -> None:
        """Compute keys and values of text embeddings, [1, tokens, channels]; they act from the next tick on."""
        self._network.set_prompt(embeddings.astype(self.spec.dtype))

    def set_seed(self, seed: int) -> None:
        """Draw other noise, from the next tick on."""
        self._noise = PhiloxNoise(seed, self.spec.latent_shape)
        self._denoiser.set_noise(self._noise)

    def prepare_rows(self, step_list: tuple[int, ...], kind: GuidanceKind) -> None:
        """Do nothing: whatever is done takes the processor from the frames, now or later."""

    def change_rows(self, step_list: tuple[int, ...], guidance: Guidance) -> None:
        """Go on with other denoising steps or another guidance, in new rows, warmed up from the newest frames."""
        self.spec = self.spec.with_step_list(step_list)
        self.guidance = guidance
        self._see_negative_prompt()
        self._denoiser = Denoiser(self.spec, self._network, self._noise, self.guidance)
        if self._newest:
            latents, depth_latents = zip(*self._newest, strict=True)
            self._denoiser.warm_up(np.stack(latents), np.stack(depth_latents))

    def prepare_style(self, weights: StyledWeights, check: Callable[[], None]) -> Callable[[], None]:
        """Open the graphs anew whose weights it replaces; return what puts them in the place of those in use."""
        check()
        styled = self._open_styled(weights)
        return lambda: self._go_on_with(styled)

    def set_guidance(self, guidance: Guidance) -> None:
        """Guide otherwise, from the next tick on. A negative prompt is encoded here, if it is another."""
        self.guidance = guidance
        self._see_negative_prompt()
        self._denoiser.set_guidance(guidance)

    def gather(self, frame: int, image: Any) -> None:
        """Take one of the first frames; it is read before this returns."""
        del self._gathered[frame:]
        self._gathered.append(self._see(image))

    def warm_up(self, frames: int) -> ReadyPictures:
        """Denoise the gathered frames together; a short clip repeats its last one."""
        pictures, self._gathered = self._gathered, []
        missing = self.spec.sink - frames
        latents = [self._stages.encode(picture) for picture in pictures]
        depth_maps = reference.depth_normalise(np.stack([self._depth.estimate(picture) for picture in pictures]))
        depth_latents = [self._stages.encode_depth(depth_map) for depth_map in depth_maps]
        latents += latents[-1:] * missing
        depth_latents += depth_latents[-1:] * missing
        predictions = self._denoiser.warm_up(np.stack(latents), np.stack(depth_latents))
        self._newest.extend(zip(latents, depth_latents, strict=True))
        return self._decode(predictions[-1].x0[:frames])

    def tick(self, frame: int | None, image: Any) -> Submitted:
        """Take one frame, or none while draining, and move every frame one step on."""
        if frame is not None:
            picture = self._see(image)
            depth_map = reference.depth_normalise(self._depth.estimate(picture))
            latent, depth_latent = self._stages.encode(picture), self._stages.encode_depth(depth_map)
            self._denoiser.enter(frame, latent, depth_latent)
            self._newest.append((latent, depth_latent))
        tick = self._denoiser.tick()
        finished = tick.prediction.x0[-1:] if tick.finished is not None else tick.prediction.x0[:0]
        return Submitted(tick.finished, self._decode(finished))

    def reset(self) -> None:
        """Forget every frame."""
        self._gathered.clear()
        self._newest.clear()
        self._denoiser.reset()

    def close(self) -> None:
        """Let go of graphs and caches; closing twice is harmless."""
        self.__dict__.clear()

    @property
    def _network(self) -> OnnxNetwork:
        return self._styled.network

    def _open_styled(self, weights: StyledWeights) -> StyledNetworks:
        graphs = self._find_graphs(weights)
        tokenizer = self._styled.tokenizer.with_template(weights.prompt_template)
        return StyledNetworks(tokenizer, graphs.open("text_encoder"), OnnxNetwork(graphs, self.spec))

    def _go_on_with(self, styled: StyledNetworks) -> None:
        """Let other networks compute. Of the step list and the prompts they know the negative one alone."""
        self._styled = styled
        self._negative_prompt = None
        self._see_negative_prompt()

    def _encode(self, token_ids: NDArray[np.int32]) -> Array:
        return self._styled.text_encoder.run({"token_ids": token_ids[None]})["text_embeddings"]

    def _see_negative_prompt(self) -> None:
        """Let the network see the negative prompt, if it has a use for it and does not see it yet."""
        prompt = self.guidance.negative_prompt
        if self.guidance.asks_the_unet and prompt != self._negative_prompt:
            embeddings = self._encode(self._styled.tokenizer.tokenize_negative(prompt))
            self._network.set_negative_prompt(embeddings.astype(self.spec.dtype))
            self._negative_prompt = prompt

    def _see(self, image: Any) -> Array:
        return reference.preprocess(check_image(image), self.spec.width, self.spec.height)

    def _decode(self, x0: Array) -> ReadyPictures:
        return ReadyPictures([reference.postprocess(self._stages.decode(latent)) for latent in x0])


def open_styled_graphs(weights: StyledWeights, options: OnnxRuntimeOptions) -> OnnxGraphs:
    """Return a bundle's graphs with other weights; each is opened when it is asked for."""
    bundle = weights.base.bundle
    return OnnxGraphs(bundle.folder, bundle.manifest.signatures, options, weights.changed)
