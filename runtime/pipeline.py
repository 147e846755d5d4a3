"""What a stream asks of a backend: pictures in, pictures out. Which frame is where is known without waiting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.runtime.frame import Image
from live2diff_trt.runtime.guidance import Guidance, GuidanceKind
from live2diff_trt.runtime.kv_ring import Array
from live2diff_trt.runtime.stream_rows import StreamRoom

if TYPE_CHECKING:
    from live2diff_trt.engine.restyle import StyledWeights


class Pending(Protocol):
    """Pictures that are being made."""

    def wait(self) -> Sequence[Any]:
        """Return them, uint8 RGB [height, width, 3] at the stream's size, once they are complete.

        Whoever asks again gets the same arrays.
        """


@dataclass(frozen=True, eq=False)
class Submitted:
    """A tick on its way.

    Attributes:
        finished: index of the frame that leaves with it, or None.
        pending: its picture, if there is one.
    """

    finished: int | None
    pending: Pending


class Pipeline(Protocol):
    """One stream of one backend.

    Frames are counted from 0. The first ``spec.sink`` ones are gathered, then warm up together; every later one is
    submitted with a tick. ``reset`` begins anew. The newest ``spec.sink`` frames are kept as the network takes them,
    clean latents and depth latents, so that other rows need not wait for new ones.

    Attributes:
        spec: the stream, with the denoising steps that are in effect.
        room: how many denoising steps, and which kinds of guidance, there is room for.
        guidance: in effect.
    """

    spec: StreamSpec
    room: StreamRoom
    guidance: Guidance

    @property
    def full_ahead(self) -> int:
        """How many frames to take before the oldest result is waited for, to be busy all the time."""

    @property
    def in_flight(self) -> int:
        """Frames that were submitted and have not left."""

    def empty_frame(self, height: int, width: int) -> Image:
        """Return memory for a frame, uint8 [height, width, 3], out of which it is taken without a copy on the host."""

    def encode_prompt(self, prompt: str) -> Array:
        """Return a prompt's text embeddings, [1, tokens, channels]. It may wait for what is on its way."""

    def set_text_embeddings(self, embeddings: Array) -> None:
        """Let the network draw what text embeddings say, [1, tokens, channels]; they act from the next tick on."""

    def set_seed(self, seed: int) -> None:
        """Draw other noise, from the next tick on; of the seed the lowest 64 bits count."""

    def prepare_rows(self, step_list: tuple[int, ...], kind: GuidanceKind) -> None:
        """Make ready what ``change_rows`` would take long for. Frames on their way go on, nothing of them changes.

        Args:
            step_list: a valid one that there is room for.
            kind: of guidance, alike.

        Raises:
            ControlError: if this pipeline can't change its rows.
        """

    def change_rows(self, step_list: tuple[int, ...], guidance: Guidance) -> None:
        """Go on with denoising steps and a kind of guidance that were prepared; only while no frame is in flight.

        Every row's sink is filled anew, by a warm-up of the frames that are kept; its noise is that of frames 0 to
        ``spec.sink`` − 1, and nothing of it is delivered. Before the first warm-up there is nothing to fill, and frames
        that were gathered stay.
        """

    def prepare_style(self, weights: StyledWeights, check: Callable[[], None]) -> Callable[[], None]:
        """Make other weights ready, in another thread than the stream's.

        Frames on their way go on, nothing of them changes.

        Args:
            weights: of the bundle, under a style.
            check: to be called every now and then where that takes long. What it raises ends it.

        Returns:
            What goes on with these weights; only while no frame is in flight. Nothing that was encoded or projected
            before holds then, so a prompt, and ``change_rows``, follow. If it raises, the old weights are in effect.

        Raises:
            ControlError: if this pipeline can't change its weights.
        """

    def set_guidance(self, guidance: Guidance) -> None:
        """Guide otherwise, from the next tick on; by the kind that is in effect."""

    def gather(self, frame: int, image: Any) -> None:
        """Take one of the first frames, uint8 [any height, any width, 3]; raise FrameError if it is something else."""

    def warm_up(self, frames: int) -> Pending:
        """Denoise the ``frames`` that were gathered, the last one repeated where there are fewer than the sink."""

    def tick(self, frame: int | None, image: Any) -> Submitted:
        """Take one frame, or none while draining, and move every frame one step on.

        Numbers of frames rise, and may leave some out.
        """

    def reset(self) -> None:
        """Forget every frame."""

    def close(self) -> None:
        """Let go of everything; closing twice is harmless."""
