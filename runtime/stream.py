"""Stream: frames in, finished frames out, each once and in order. See docs/frame-path.md for a frame's whole way."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

from live2diff_trt.bundle.manifest import TOKENIZER_FILE, Bundle
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.errors import BackendError
from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.runtime.errors import FrameError, StreamClosedError
from live2diff_trt.runtime.frame import FinishedFrame, Image, SourceFrame
from live2diff_trt.runtime.pipeline import Pending, Pipeline

logger = logging.getLogger(__name__)

ASSUMED_FRAME_RATE = Fraction(25)
"""Frames per second of frames that come without a presentation time."""

BackendOptions = OnnxRuntimeOptions | TensorRTOptions


@dataclass(frozen=True)
class _Arrival:
    """A frame on its way: which it is, when it is shown, when it came."""

    index: int
    time: Fraction
    came_at: float


@dataclass(frozen=True, eq=False)
class _Leaving:
    """Frames whose pictures are being made, in order."""

    arrivals: list[_Arrival]
    pending: Pending


class Stream:
    """One video stream through a bundle, the same on every backend.

    The first frames (8) are gathered until warm-up, which finishes them together. Every later frame leaves T − 1 ticks
    after it came; ``flush`` drains the last ones. A stream is used by one thread at a time.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._spec = pipeline.spec
        self._pipeline = pipeline
        self._next_index = 0
        self._source_size: tuple[int, int] | None = None
        self._gathered: list[_Arrival] = []
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
        options: BackendOptions | None = None,
    ) -> Stream:
        """Open a bundle and make it ready for the first frame.

        Args:
            bundle: the folder that ``live2diff-trt export`` wrote.
            prompt: what the video should look like.
            seed: of the stream's noise, 64 bits. Same seed, input, machine and threads: the same output, bit by bit.
            step_list: denoising steps other than the bundle's own; its length is T.
            options: of the backend, and so which one: ONNX Runtime on the CPU if not given.

        Raises:
            BundleError: if the bundle is missing, damaged or of another version.
            SpecError: if the step list is not valid.
            BackendError: if the backend is not installed, or can't work on this machine.
            PlanStoreError: if TensorRT's plans are missing, damaged, or not this machine's.
            DeviceMemoryError: if the GPU has too little free memory; nothing was allocated then.
        """
        # Plans carry the weights already: of the bundle they need the tokenizer alone.
        opened = Bundle.open(bundle, (TOKENIZER_FILE,) if isinstance(options, TensorRTOptions) else None)
        spec = opened.spec if step_list is None else opened.spec.with_step_list(step_list)
        stream = cls(_open_pipeline(opened, spec, options or OnnxRuntimeOptions(), seed))
        try:
            stream.set_prompt(prompt)
        except BaseException:
            stream.close()
            raise
        return stream

    @property
    def spec(self) -> StreamSpec:
        """The stream's size, steps and dtype."""
        return self._spec

    @property
    def full_ahead(self) -> int:
        """``run(ahead=…)`` of a source that never lets one wait, as a file: the backend is busy all the time."""
        return self._pipeline.full_ahead

    def empty_frame(self, height: int, width: int) -> Image:
        """Return memory for a frame that is to come: the fastest way in.

        On TensorRT it is page-locked, and the GPU reads a frame of it where it lies; of any other array the host makes
        a copy first, and so it does of a view of such a frame. Elsewhere it is an ordinary array.

        Returns:
            uint8 [height, width, 3] in which nothing was written. Once the stream took it, it must not be written to
            until that frame or a later one was delivered. Its memory is used again when the last reference to it, or to
            a view of it, is gone; it may outlive the stream.

        Raises:
            FrameError: if a side is less than 1.
            StreamClosedError: after ``close``.
        """
        self._check_open()
        if min(height, width) < 1:
            raise FrameError(f"there is no frame of {width}x{height} pixels", "Use sides of 1 or more")
        return self._pipeline.empty_frame(height, width)

    def set_prompt(self, prompt: str) -> None:
        """Change the prompt; it acts from the next tick on."""
        self._check_open()
        self._pipeline.set_prompt(prompt)

    def set_seed(self, seed: int) -> None:
        """Change the seed of the noise, 64 bits; it acts from the next tick on.

        Noise follows from seed, frame and denoising step alone, so a seed that is set back gives the frames from there
        on the noise that they would have had.
        """
        self._check_open()
        self._pipeline.set_seed(seed)

    def __call__(self, image: Image | Any, time_of_frame: Fraction | None = None) -> list[FinishedFrame]:
        """Take one frame and return those that it finished: none, one, or the first eight together.

        Args:
            image: uint8 RGB, [any height, any width, 3]. It is read before this returns, not kept and not changed.
                On a GPU two kinds are read later instead, and must not change before this frame or a later one was
                delivered: one of ``empty_frame``, and one that lies on the device (DLPack or
                ``__cuda_array_interface__``), where what its own stream still does to it is waited for.
            time_of_frame: its presentation time in seconds; counted at 25 frames a second if not given.

        Raises:
            FrameError: if the image is of another shape or dtype.
            StreamClosedError: after ``close``.
        """
        self._check_open()
        leaving = self._take(image, time_of_frame)
        return [] if leaving is None else self._deliver(leaving)

    def run(self, source: Iterable[SourceFrame | Image], *, ahead: int = 0) -> Iterator[FinishedFrame]:
        """Stream a whole source and flush. Yields every frame of it once, in order.

        Args:
            source: frames.
            ahead: how many frames are taken before the oldest result is waited for. 0 delivers each frame as early as
                possible; ``full_ahead`` keeps a GPU busy, and is for a source that has its next frame ready.
        """
        leaving: deque[_Leaving] = deque()
        for frame in source:
            self._check_open()
            taken = self._take(*_unpack(frame))
            if taken is not None:
                leaving.append(taken)
            while len(leaving) > ahead:
                yield from self._deliver(leaving.popleft())
        for remaining in leaving:
            yield from self._deliver(remaining)
        yield from self.flush()

    def flush(self) -> list[FinishedFrame]:
        """Finish every frame still on its way. The next frame begins a new clip with a warm-up of its own."""
        self._check_open()
        leaving = [self._warm_up()] if self._gathered else []
        finished = [frame for batch in leaving for frame in self._deliver(batch)]
        while self._pipeline.in_flight:
            taken = self._tick(None, None)
            finished += [] if taken is None else self._deliver(taken)
        self._pipeline.reset()
        self._next_index = 0
        return finished

    def close(self) -> None:
        """Let go of graphs, plans and caches. Frames still on their way are dropped; closing twice is harmless."""
        if not self._closed:
            self._closed = True
            self._pipeline.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, image: Any, time_of_frame: Fraction | None) -> _Leaving | None:
        index = self._next_index
        arrival = _Arrival(
            index, index / ASSUMED_FRAME_RATE if time_of_frame is None else time_of_frame, time.perf_counter()
        )
        if index < self._spec.sink:
            self._pipeline.gather(index, image)
            self._gathered.append(arrival)
            leaving = self._warm_up() if len(self._gathered) == self._spec.sink else None
        else:
            leaving = self._tick(arrival, image)
        self._next_index += 1
        self._note_size(image)
        return leaving

    def _warm_up(self) -> _Leaving:
        """Denoise the first frames together; of a short clip only real ones are delivered."""
        arrivals, self._gathered = self._gathered, []
        return _Leaving(arrivals, self._pipeline.warm_up(len(arrivals)))

    def _tick(self, arrival: _Arrival | None, image: Any) -> _Leaving | None:
        submitted = self._pipeline.tick(None if arrival is None else arrival.index, image)
        if arrival is not None:
            self._in_flight[arrival.index] = arrival
        if submitted.finished is None:
            return None
        return _Leaving([self._in_flight.pop(submitted.finished)], submitted.pending)

    def _deliver(self, leaving: _Leaving) -> list[FinishedFrame]:
        images = leaving.pending.wait()
        now = time.perf_counter()
        return [
            FinishedFrame(image, arrival.time, arrival.index, latency_ms=(now - arrival.came_at) * 1000)
            for arrival, image in zip(leaving.arrivals, images, strict=True)
        ]

    def _note_size(self, image: Any) -> None:
        height, width = image.shape[:2]
        if self._source_size is not None and self._source_size != (width, height):
            logger.warning(
                "the source changed from %dx%d to %dx%d; it is cropped and resized anew",
                *self._source_size,
                width,
                height,
            )
        self._source_size = width, height

    def _check_open(self) -> None:
        if self._closed:
            raise StreamClosedError("this stream was closed", "Open it again with Stream.open")


def _unpack(frame: SourceFrame | Image) -> tuple[Image, Fraction | None]:
    return (frame.image, frame.time) if isinstance(frame, SourceFrame) else (frame, None)


def _open_pipeline(bundle: Bundle, spec: StreamSpec, options: BackendOptions, seed: int) -> Pipeline:
    """Open the backend that the options are of; only that one's packages are imported."""
    if isinstance(options, TensorRTOptions):
        try:
            from live2diff_trt.runtime.cuda_session import open_cuda_pipeline
        except ImportError as error:
            raise BackendError(
                f"TensorRT's runtime needs a package that is not installed ({error})",
                "Install it with `pip install live2diff-trt[tensorrt-rtx]`",
            ) from error
        return open_cuda_pipeline(bundle, spec, options, seed)
    from live2diff_trt.runtime.host_pipeline import HostPipeline

    return HostPipeline(bundle, spec, options, seed)
