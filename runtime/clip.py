"""A clip: frames from one warm-up to the next. Numbers them, and asks the pipeline for what each of them needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from live2diff_trt.runtime.delivery import Arrival, DeliveryQueue
from live2diff_trt.runtime.guidance import Guidance
from live2diff_trt.runtime.pipeline import Pipeline
from live2diff_trt.runtime.prompt_control import PromptControl
from live2diff_trt.runtime.prompt_state import PromptState


class Clip:
    """The clip that a stream is in.

    Args:
        pipeline: that computes.
        prompt: that it is told before it does.
        queue: of the frames; who leaves is told to it.

    Attributes:
        next_frame: number of the frame that is to come, from 0. Its noise follows from seed and number.
    """

    def __init__(self, pipeline: Pipeline, prompt: PromptControl, queue: DeliveryQueue) -> None:
        self._pipeline = pipeline
        self._prompt = prompt
        self._queue = queue
        self.next_frame = 0

    @property
    def is_warm(self) -> bool:
        """Whether there is a sink: the first frames were denoised together."""
        return self.next_frame >= self._pipeline.spec.sink

    def take(self, arrival: Arrival, image: Any, prompt: PromptState | None) -> None:
        """Gather a frame, or submit it, under a prompt; raise FrameError, and take nothing, if it is none."""
        if self.is_warm:
            self._tick(arrival, image, prompt)
        else:
            self._pipeline.gather(self.next_frame, image)
            self._queue.wait(arrival)
            if self.next_frame + 1 == self._pipeline.spec.sink:
                self._warm_up(self.next_frame + 1, prompt)
        self.next_frame += 1

    def skip(self, arrival: Arrival, prompt: PromptState | None) -> None:
        """Let a frame repeat the picture before it. The others move on, so that none leaves later for it."""
        if self._pipeline.in_flight:
            self._tick(prompt=prompt)
        self._queue.repeat(arrival)
        self.next_frame += 1

    def change_rows(self, step_list: tuple[int, ...], guidance: Guidance) -> None:
        """Finish the frames that were submitted, and go on with other rows. Numbers go on, too."""
        self.drain()
        self._prompt.project()
        self._pipeline.change_rows(step_list, guidance)

    def change_style(self, take: Callable[[], None]) -> None:
        """Finish the frames that were submitted, and take other weights; ``change_rows`` must follow.

        ``take`` lets the pipeline go on with them. If it raises, nothing has changed.
        """
        self.drain()
        take()
        self._prompt.encode_again()

    def drain(self) -> None:
        """Finish the frames that were submitted. It changes no frame that follows."""
        while self._pipeline.in_flight:
            self._tick()

    def finish(self) -> None:
        """Finish every frame, those that were gathered included; the next one begins a new clip."""
        if self.next_frame and not self.is_warm:
            self._warm_up(self.next_frame)
        self.drain()
        self._pipeline.reset()
        self.next_frame = 0

    def _warm_up(self, frames: int, prompt: PromptState | None = None) -> None:
        """Denoise the first frames together; of a short clip only real ones leave."""
        self._prompt.project(prompt)
        self._queue.leave(self._pipeline.warm_up(frames), frames)

    def _tick(self, arrival: Arrival | None = None, image: Any = None, prompt: PromptState | None = None) -> None:
        self._prompt.project(prompt)
        submitted = self._pipeline.tick(None if arrival is None else self.next_frame, image)
        if arrival is not None:
            self._queue.wait(arrival)
        if submitted.finished is not None:
            self._queue.leave(submitted.pending)
