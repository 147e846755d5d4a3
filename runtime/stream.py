"""Stream: frames in, finished frames out, each once and in order. See docs/frame-path.md for a frame's whole way."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np

from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.onnxruntime_backend import OnnxGraphs, OnnxRuntimeOptions
from live2diff_trt.kernels import reference
from live2diff_trt.runtime.denoiser import Denoiser, PhiloxNoise
from live2diff_trt.runtime.errors import FrameError, StreamClosedError
from live2diff_trt.runtime.frame import FinishedFrame, Image, SourceFrame
from live2diff_trt.runtime.kv_ring import Array
from live2diff_trt.runtime.onnx_network import OnnxNetwork
from live2diff_trt.runtime.prompt import PromptEncoder
from live2diff_trt.runtime.stages import Stages

logger = logging.getLogger(__name__)

ASSUMED_FRAME_RATE = Fraction(25)
"""Frames per second of frames that come without a presentation time."""


@dataclass(frozen=True, eq=False)
class _Arrival:
    """A frame on its way: which it is, when it is shown, when it came, and its picture until it is encoded."""

    index: int
    time: Fraction
    came_at: float
    picture: Array


class Stream:
    """One video stream through a bundle.

    The first frames (8) are kept until warm-up, which finishes them together. Every later frame leaves T − 1 ticks
    after it came; ``flush`` drains the last ones. A stream is used by one thread at a time.
    """

    def __init__(
        self, stages: Stages, prompts: PromptEncoder, network: OnnxNetwork, spec: StreamSpec, seed: int
    ) -> None:
        self._spec = spec
        self._stages = stages
        self._prompts = prompts
        self._network = network
        self._denoiser = Denoiser(spec, network, PhiloxNoise(seed, spec.latent_shape))
        self._next_index = 0
        self._source_size: tuple[int, int] | None = None
        self._before_warm_up: list[_Arrival] = []
        self._in_flight: dict[int, _Arrival] = {}
        self._closed = False

    @classmethod
    def open(
        cls,
        bundle: str | Path,
        *,
        prompt: str = "",
        seed: int = 0,
        step_list: tuple[int, ...] | None = None,
        options: OnnxRuntimeOptions | None = None,
    ) -> Stream:
        """Open a bundle and make it ready for the first frame.

        Args:
            bundle: the folder that ``live2diff-trt export`` wrote.
            prompt: what the video should look like.
            seed: of the stream's noise, 64 bits. Same seed, input, machine and threads: the same output, bit by bit.
            step_list: denoising steps other than the bundle's own; its length is T.
            options: of ONNX Runtime.

        Raises:
            BundleError: if the bundle is missing, damaged or of another version.
            SpecError: if the step list is not valid.
            BackendError: if ONNX Runtime is not installed, or lacks the provider.
        """
        opened = Bundle.open(bundle)
        spec = opened.spec if step_list is None else opened.spec.with_step_list(step_list)
        graphs = OnnxGraphs(opened.folder, opened.manifest.signatures, options or OnnxRuntimeOptions())
        stream = cls(Stages(graphs, spec), PromptEncoder(opened, graphs), OnnxNetwork(graphs, spec), spec, seed)
        stream.set_prompt(prompt)
        return stream

    @property
    def spec(self) -> StreamSpec:
        """The stream's size, steps and dtype."""
        return self._spec

    def set_prompt(self, prompt: str) -> None:
        """Change the prompt; it acts from the next tick on."""
        self._check_open()
        self._network.set_prompt(self._prompts.encode(prompt))

    def __call__(self, image: Image, time_of_frame: Fraction | None = None) -> list[FinishedFrame]:
        """Take one frame and return those that it finished: none, one, or the first eight together.

        Args:
            image: uint8 RGB, [any height, any width, 3]. It is read before this returns, not kept and not changed.
            time_of_frame: its presentation time in seconds; counted at 25 frames a second if not given.

        Raises:
            FrameError: if the image is of another shape or dtype.
            StreamClosedError: after ``close``.
        """
        self._check_open()
        arrival = self._receive(image, time_of_frame)
        if arrival.index < self._spec.sink:
            self._before_warm_up.append(arrival)
            return self._warm_up() if len(self._before_warm_up) == self._spec.sink else []
        self._in_flight[arrival.index] = arrival
        depth_map = reference.depth_normalise(self._stages.estimate_depth(arrival.picture))
        self._denoiser.enter(arrival.index, self._stages.encode(arrival.picture), self._stages.encode_depth(depth_map))
        return self._tick()

    def run(self, source: Iterable[SourceFrame | Image]) -> Iterator[FinishedFrame]:
        """Stream a whole source and flush. Yields every frame of it once, in order."""
        for frame in source:
            if isinstance(frame, SourceFrame):
                yield from self(frame.image, frame.time)
            else:
                yield from self(frame)
        yield from self.flush()

    def flush(self) -> list[FinishedFrame]:
        """Finish every frame still on its way. The next frame begins a new clip with a warm-up of its own."""
        self._check_open()
        finished = self._warm_up() if self._before_warm_up else []
        while self._denoiser.in_flight:
            finished += self._tick()
        self._denoiser.reset()
        self._next_index = 0
        return finished

    def close(self) -> None:
        """Let go of graphs and caches. Frames still on their way are dropped; closing twice is harmless."""
        if not self._closed:
            self._closed = True
            del self._stages, self._prompts, self._network, self._denoiser

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _receive(self, image: Image, time_of_frame: Fraction | None) -> _Arrival:
        came_at = time.perf_counter()
        _check_image(image)
        self._note_size(image.shape[1], image.shape[0])
        index = self._next_index
        self._next_index += 1
        picture = reference.preprocess(image, self._spec.width, self._spec.height)
        return _Arrival(index, index / ASSUMED_FRAME_RATE if time_of_frame is None else time_of_frame, came_at, picture)

    def _note_size(self, width: int, height: int) -> None:
        if self._source_size is not None and self._source_size != (width, height):
            logger.warning(
                "the source changed from %dx%d to %dx%d; it is cropped and resized anew",
                *self._source_size,
                width,
                height,
            )
        self._source_size = width, height

    def _warm_up(self) -> list[FinishedFrame]:
        """Denoise the first frames together; a short clip repeats its last one, and only real frames are delivered."""
        arrivals, self._before_warm_up = self._before_warm_up, []
        missing = self._spec.sink - len(arrivals)
        pictures = [arrival.picture for arrival in arrivals]
        latents = [self._stages.encode(picture) for picture in pictures]
        depth_maps = reference.depth_normalise(np.stack([self._stages.estimate_depth(picture) for picture in pictures]))
        depth_latents = [self._stages.encode_depth(depth_map) for depth_map in depth_maps]
        predictions = self._denoiser.warm_up(
            np.stack(latents + latents[-1:] * missing), np.stack(depth_latents + depth_latents[-1:] * missing)
        )
        return self._finish(arrivals, predictions[-1].x0[: len(arrivals)])

    def _tick(self) -> list[FinishedFrame]:
        tick = self._denoiser.tick()
        if tick.finished is None:
            return []
        return self._finish([self._in_flight.pop(tick.finished)], tick.prediction.x0[-1:])

    def _finish(self, arrivals: list[_Arrival], x0: Array) -> list[FinishedFrame]:
        """Decode clean latents, [frames, channels, height, width], of frames that are delivered together."""
        images = [reference.postprocess(self._stages.decode(latent)) for latent in x0]
        now = time.perf_counter()
        return [
            FinishedFrame(image, arrival.time, arrival.index, latency_ms=(now - arrival.came_at) * 1000)
            for arrival, image in zip(arrivals, images, strict=True)
        ]

    def _check_open(self) -> None:
        if self._closed:
            raise StreamClosedError("this stream was closed", "Open it again with Stream.open")


def _check_image(image: Image) -> None:
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
        or 0 in image.shape
    ):
        found = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise FrameError(f"a frame is {found}", "Pass uint8 RGB, [height, width, 3], neither side 0")
