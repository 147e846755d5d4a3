"""Stream: frames in, finished frames out, each once and in order. See docs/frame-path.md for a frame's whole way."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from operator import index
from pathlib import Path
from typing import Any

from live2diff_trt.bundle.closed_at_end import ClosedAtEnd
from live2diff_trt.bundle.schedule import check_max_steps
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions
from live2diff_trt.runtime.backend import BackendOptions, open_bundle, open_pipeline
from live2diff_trt.runtime.clip import Clip
from live2diff_trt.runtime.delivery import Arrival, DeliveryQueue
from live2diff_trt.runtime.errors import ControlError, FrameError, StreamClosedError
from live2diff_trt.runtime.frame import FinishedFrame, Image, SourceFrame, check_image, is_on_device
from live2diff_trt.runtime.frame_watch import FrameWatch
from live2diff_trt.runtime.guidance import NO_GUIDANCE, Guidance, GuidanceKind, check_guidance
from live2diff_trt.runtime.pipeline import Pipeline
from live2diff_trt.runtime.prompt_blend import PromptBlend, Transition
from live2diff_trt.runtime.prompt_control import PromptControl
from live2diff_trt.runtime.row_control import RowControl
from live2diff_trt.runtime.scene_cut import SceneCut
from live2diff_trt.runtime.similar_image_filter import SimilarImageFilter
from live2diff_trt.runtime.stream_rows import StreamRoom
from live2diff_trt.runtime.style_control import StyleControl
from live2diff_trt.runtime.styles import StyleFiles, Styles

logger = logging.getLogger(__name__)

ASSUMED_FRAME_RATE = Fraction(25)
"""Frames per second of frames that come without a presentation time."""


class Stream(ClosedAtEnd):
    """One video stream through a bundle, the same on every backend.

    The first frames (8) are gathered until warm-up, which finishes them together. Every later frame leaves T − 1 ticks
    after it came; ``flush`` drains the last ones. Controls act from the next frame on; one that is not valid raises
    ControlError and changes nothing. A stream is used by one thread at a time.

    Args:
        pipeline: ready for its first frame but for the prompt; closed with the stream.
        seed: that the pipeline draws its noise with.
        styles: that it may have; None: its weights can't be changed.
    """

    def __init__(self, pipeline: Pipeline, *, seed: int = 0, styles: Styles | None = None) -> None:
        self._pipeline = pipeline
        self._seed = seed
        self._queue = DeliveryQueue()
        self._prompt = PromptControl(pipeline)
        self._rows = RowControl(pipeline)
        self._style = StyleControl(pipeline, styles)
        self._clip = Clip(pipeline, self._prompt, self._queue)
        self._watch = FrameWatch()
        self._next_index = 0
        self._last_time: Fraction | None = None
        self._source_size: tuple[int, int] | None = None
        self._paused = False
        self._wants_rewarm = False
        self._closed = False

    @classmethod
    def open(
        cls,
        bundle: str | Path,
        *,
        prompt: str | PromptBlend = "",
        seed: int = 0,
        step_list: tuple[int, ...] | None = None,
        max_steps: int | None = None,
        similar_image_filter: SimilarImageFilter | None = None,
        rewarm_on_cut: SceneCut | None = None,
        style: str | Path | None = None,
        guidance: Guidance = NO_GUIDANCE,
        guidance_kinds: tuple[GuidanceKind, ...] = (),
        options: BackendOptions | None = None,
    ) -> Stream:
        """Open a bundle and make it ready for the first frame.

        Args:
            bundle: the folder that ``live2diff-trt export`` wrote.
            prompt: what the video should look like.
            seed: of the stream's noise, 64 bits. Same seed, input, machine and threads: the same output, bit by bit.
            step_list: denoising steps other than the bundle's own; its length is T.
            max_steps: the largest T that ``set_step_list`` may ask for, up to 8: a GPU's memory for it is taken here.
                None: the T that the stream is opened with.
            similar_image_filter: skip frames that are like the last one; None: compute every frame.
            rewarm_on_cut: begin anew where the source cuts to another scene; None: don't look for cuts.
            style: weights in the place of the bundle's, as ``set_style`` takes them; None: the bundle's own.
            guidance: how far to go beyond the prompt, and from what.
            guidance_kinds: that ``set_guidance`` may ask for beside that one and none: a GPU's memory for the one that
                takes the most rows is taken here.
            options: of the backend, and so which one: ONNX Runtime on the CPU if not given.

        Raises:
            BundleError: if the bundle is missing, damaged or of another version.
            SpecError: if the step list is not valid, or ``max_steps`` less than its length or more than 8.
            ControlError: if the prompt, the guidance or a kind of guidance is none.
            RestyleError: if the style is damaged, or does not fit the bundle.
            BackendError: if the backend is not installed, or can't work on this machine.
            PlanStoreError: if TensorRT's plans are missing, damaged, or not this machine's.
            DeviceMemoryError: if the GPU has too little free memory; nothing was allocated then.
        """
        options = options or OnnxRuntimeOptions()
        opened = open_bundle(bundle, options)
        spec = opened.spec if step_list is None else opened.spec.with_step_list(step_list)
        max_steps = spec.steps if max_steps is None else max_steps
        check_max_steps(max_steps, spec.steps)
        guidance = check_guidance(guidance)
        room = StreamRoom.of(max_steps, (guidance.kind, *guidance_kinds))
        pipeline = open_pipeline(opened, spec, options, seed, guidance, room=room)
        return cls.begin(
            pipeline,
            prompt,
            seed,
            StyleFiles(opened),
            style=style,
            similar_image_filter=similar_image_filter,
            rewarm_on_cut=rewarm_on_cut,
        )

    @classmethod
    def begin(
        cls,
        pipeline: Pipeline,
        prompt: str | PromptBlend,
        seed: int,
        styles: Styles | None = None,
        *,
        style: str | Path | None = None,
        similar_image_filter: SimilarImageFilter | None = None,
        rewarm_on_cut: SceneCut | None = None,
    ) -> Stream:
        """Make a stream of a pipeline, as ``Stream`` does, with its controls set.

        Raises:
            ControlError, RestyleError, BundleError: if one of them can't be set; the pipeline is closed then.
        """
        stream = cls(pipeline, seed=seed, styles=styles)
        try:
            stream.set_style(style)
            stream._change_if_due()
            stream.set_prompt(prompt)
            stream.set_similar_image_filter(similar_image_filter)
            stream.set_rewarm_on_cut(rewarm_on_cut)
        except BaseException:
            stream.close()
            raise
        return stream

    @property
    def spec(self) -> StreamSpec:
        """The stream's size, dtype, and the steps in effect: those of the last frame that was taken."""
        return self._pipeline.spec

    @property
    def style(self) -> object:
        """The style in effect, as it was set; None: the bundle's own weights."""
        return self._style.style

    @property
    def guidance(self) -> Guidance:
        """The guidance in effect; of another kind than was set last while no frame came since that was computed."""
        return self._pipeline.guidance

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

    def set_prompt(self, prompt: str | PromptBlend, transition: Transition | None = None) -> None:
        """Change the prompt; it acts from the next tick on. It is encoded here, once: no tick waits for that.

        Args:
            prompt: a text, or a blend of several.
            transition: how long it takes to replace the prompt in effect, which may be on its way to another itself;
                None: at once. Frames that come in a pause don't count.

        Raises:
            ControlError: if one of them is something else.
        """
        self._check_open()
        self._prompt.set(prompt, transition)

    def set_seed(self, seed: int) -> None:
        """Change the seed of the noise, 64 bits; it acts from the next tick on.

        Noise follows from seed, frame and denoising step alone, so a seed that is set back gives the frames from there
        on the noise that they would have had.

        Raises:
            ControlError: if it is no integer.
        """
        self._check_open()
        try:
            self._seed = index(seed)
        except TypeError as error:
            raise ControlError(f"a seed is {seed!r}", "Use an integer") from error
        self._pipeline.set_seed(self._seed)

    def set_step_list(self, step_list: Sequence[int]) -> None:
        """Change the denoising steps, and T with their number, from the next frame on that is computed.

        When it comes, frames on their way are finished under the old steps. Then the newest 8 frames that were computed
        become the sink, under the new steps and the present prompt and seed, so that no new ones have to be gathered
        and nothing is delivered twice. If fewer than 8 came so far, the change simply takes effect. What takes long is
        prepared here. Steps that are in effect already change nothing.

        Args:
            step_list: rising indices into LCM's timesteps, noisiest first, as (20, 30, 40); its length is T.

        Raises:
            ControlError: if it is not valid, has more steps than the stream was opened for (``max_steps``), or the
                backend can't change its rows.
        """
        self._check_open()
        self._rows.set_step_list(step_list)

    def set_strength(self, strength: float) -> None:
        """Change how much of each frame is repainted, as ``set_step_list`` does: T steps, evenly spread.

        T is that of the last step list that was set. ``bundle.schedule.spread_steps`` is the definition.

        Args:
            strength: above 0, where nothing would be repainted, to 1.

        Raises:
            ControlError: if it is none, or leaves fewer timesteps than T.
        """
        self._check_open()
        self._rows.set_strength(strength)

    def set_style(self, style: str | Path | None, *, wait: bool = True) -> None:
        """Change the weights of the UNet and of the text encoder, from the next frame on that is computed.

        It is verified, and prepared beside the frames on their way, before anything takes effect. When the next frame
        comes, those are finished under the old style; then the prompt is encoded anew, put into the style's template,
        and the newest 8 frames become the sink, as with ``set_step_list``. A prompt's transition is at its end then.
        Styles that are set back before a frame came change nothing.

        Plans of TensorRT that can't be refitted are built with the style's weights, once, which may take minutes; the
        log says so.

        Args:
            style: a file that ``live2diff-trt restyle`` wrote for this bundle, or the folder of a bundle that differs
                from it in weights alone; None: the bundle's own weights, bit by bit. A stream of a shared engine takes
                the names of the engine's styles instead, and nothing else.
            wait: return once it is ready, so that the next frame is the first one under it. False: return at once; it
                is prepared in another thread, and the first frame that comes when it is ready is the first one under
                it. What then goes wrong is raised when that frame is given, which is not taken, and said once.

        Raises:
            ControlError: if it is something else, or the backend can't change its weights.
            RestyleError: if it is damaged, or does not fit the bundle; names and shapes that don't are all listed.
            BundleError: if one of the bundles is missing or damaged.
            PlanBuildError, PlanStoreError, PlanError: if TensorRT's plans can't be built, kept or opened for it.
        """
        self._check_open()
        self._style.set(style, wait=wait)

    def set_guidance(self, guidance: Guidance) -> None:
        """Change scale, delta and negative prompt of the guidance, which act from the next tick on, or its kind.

        Another kind has other rows, so it takes effect as other denoising steps do (``set_step_list``): at the next
        frame that is computed, behind those on their way, which stay under the guidance before.

        Raises:
            ControlError: if it is something else, the stream was not opened for its kind (``guidance_kinds``), or the
                backend can't change its rows.
        """
        self._check_open()
        self._rows.set_guidance(guidance)

    def set_guidance_scale(self, scale: float) -> None:
        """Change the scale alone of the guidance that was set last, as ``set_guidance``. With none it has no effect.

        Raises:
            ControlError: if it is no finite number of 0 or more.
        """
        self._check_open()
        self.set_guidance(replace(self._rows.guidance, scale=scale))

    def set_similar_image_filter(self, settings: SimilarImageFilter | None) -> None:
        """Skip frames that are like the last one that was computed, or no more. Frames must lie on the host then.

        A frame that is skipped shows the picture of the frame before it once more, in its turn. Warm-up skips none.

        Raises:
            ControlError: if it is something else.
        """
        self._check_open()
        self._watch.set_filter(settings)

    def set_rewarm_on_cut(self, settings: SceneCut | None) -> None:
        """Do what ``rewarm`` does at every cut, or no more. Frames must lie on the host then.

        Raises:
            ControlError: if it is something else.
        """
        self._check_open()
        self._watch.set_cut(settings)

    def rewarm(self) -> None:
        """Let the next 8 frames become the sink: they come out together, as those of a new clip would.

        Frames on their way are finished first, when the next one comes. Only indices and the prompt's transition go on.
        """
        self._check_open()
        self._wants_rewarm = True

    def pause(self) -> None:
        """Freeze: a frame that comes from here on shows the picture of the frame before it once more.

        Nothing is computed, but that frames on their way are finished when the next one comes.

        Raises:
            ControlError: if no frame was taken yet, so that there is nothing to show.
        """
        self._check_open()
        if not self._queue.can_repeat:
            raise ControlError("there is no picture yet that a pause could show", "Pause after the first frame")
        self._paused = True

    def resume(self) -> None:
        """Go on where the stream was: frames that come from here on are what they had been without the pause."""
        self._check_open()
        self._paused = False

    def __call__(self, image: Image | Any, time_of_frame: Fraction | None = None) -> list[FinishedFrame]:
        """Take one frame and return those that it finished: none, one, or several together, as the first eight.

        Args:
            image: uint8 RGB, [any height, any width, 3]. It is read before this returns, not kept and not changed.
                On a GPU two kinds are read later instead, and must not change before this frame or a later one was
                delivered: one of ``empty_frame``, and one that lies on the device (DLPack or
                ``__cuda_array_interface__``), where what its own stream still does to it is waited for.
            time_of_frame: its presentation time in seconds; counted at 25 frames a second if not given.

        Raises:
            FrameError: if the image is of another shape or dtype, or lies on the device while frames are compared.
            StreamClosedError: after ``close``.
        """
        self._check_open()
        self._take(image, time_of_frame)
        return list(self._deliver())

    def run(self, source: Iterable[SourceFrame | Image], *, ahead: int = 0) -> Iterator[FinishedFrame]:
        """Stream a whole source and flush. Yields every frame of it once, in order.

        Args:
            source: frames.
            ahead: how many frames are taken before the oldest result is waited for. 0 delivers each frame as early as
                possible; ``full_ahead`` keeps a GPU busy, and is for a source that has its next frame ready.
        """
        for frame in source:
            self._check_open()
            self._take(*_unpack(frame))
            yield from self._deliver(ahead)
        yield from self._deliver()
        yield from self.flush()

    def flush(self) -> list[FinishedFrame]:
        """Finish every frame still on its way. The next frame begins a new clip with a warm-up of its own."""
        self._check_open()
        self._begin_clip()
        self._prompt.finish()
        self._watch.forget()
        self._next_index = 0
        self._last_time = None
        return list(self._deliver())

    def close(self) -> None:
        """Let go of graphs, plans and caches. Frames still on their way are dropped; closing twice is harmless."""
        if not self._closed:
            self._closed = True
            self._style.close()
            self._pipeline.close()

    def _take(self, image: Any, time_of_frame: Fraction | None) -> None:
        if time_of_frame is None:
            time_of_frame = self._next_index / ASSUMED_FRAME_RATE
        arrival = Arrival(self._next_index, time_of_frame, time.perf_counter())
        if self._paused:
            self._repeat(arrival, image)
        else:
            self._stream_on(arrival, image)
            self._note_size(image)
        self._next_index += 1
        self._last_time = time_of_frame

    def _repeat(self, arrival: Arrival, image: Any) -> None:
        """Answer a frame in a pause. Whoever waits for the frames on their way gets them now, and not after it."""
        if not is_on_device(image):
            check_image(image)
        self._clip.drain()
        self._queue.repeat(arrival)

    def _stream_on(self, arrival: Arrival, image: Any) -> None:
        """Compute a frame, or skip it. One that is refused was not taken: what it would have changed is as it was."""
        sample = self._watch.look(image)
        if self._watch.is_cut(sample):
            logger.info("frame %d begins another scene", arrival.index)
            self._wants_rewarm = True
        if self._wants_rewarm:
            self._begin_clip()
        self._change_if_due()
        prompt = self._prompt.look_ahead(Fraction(0) if self._last_time is None else arrival.time - self._last_time)
        skipped = self._clip.is_warm and self._watch.skips(sample, self._seed, self._clip.next_frame)
        if skipped:
            self._clip.skip(arrival, prompt)
        else:
            self._clip.take(arrival, image, prompt)
        self._prompt.go_on(prompt)
        self._watch.note(sample, skipped=skipped)

    def _change_if_due(self) -> None:
        """Go on with the weights and the rows that were set last."""
        started = time.perf_counter()
        restyled = self._style.is_due
        if restyled:
            self._clip.change_style(self._style.take)
        if restyled or self._rows.are_due:
            self._clip.change_rows(self._rows.step_list, self._rows.guidance)
        if restyled:
            logger.info("another style is in effect; the stream paused %.0f ms", 1e3 * (time.perf_counter() - started))

    def _begin_clip(self) -> None:
        """Finish every frame that came; the next one is the first of a new clip."""
        self._clip.finish()
        self._wants_rewarm = False

    def _deliver(self, ahead: int = 0) -> Iterator[FinishedFrame]:
        """Wait for what is leaving, but for so much of it."""
        while len(self._queue) > ahead:
            yield from self._queue.pop().deliver()

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
