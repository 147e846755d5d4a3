"""The prompt of a stream at a frame: what the network is to draw, and where that is on its way to another prompt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from live2diff_trt.runtime.embedding_blend import interpolate
from live2diff_trt.runtime.kv_ring import Array
from live2diff_trt.runtime.prompt_blend import Transition


@dataclass(frozen=True, eq=False)
class PromptState:
    """Text embeddings in effect; while a transition lasts, those between its two ends.

    Attributes:
        embeddings: what the network is told, float32 [1, tokens, channels].
        start, end: the transition's ends, the same shape.
        transition: what is under way; None: nothing.
        frames, seconds: how many frames came since it began, and how much presentation time passed.
    """

    embeddings: Array
    start: Array
    end: Array
    transition: Transition | None = None
    frames: int = 0
    seconds: Fraction = Fraction(0)

    @classmethod
    def steady(cls, embeddings: Array) -> PromptState:
        """Return the state in which nothing changes."""
        return cls(embeddings, embeddings, embeddings)

    def turn_to(self, end: Array, transition: Transition) -> PromptState:
        """Return the state in which a transition begins, from wherever this one is."""
        return PromptState(self.embeddings, self.embeddings, end, transition)

    def finish(self) -> PromptState:
        """Return the state at the transition's end."""
        return PromptState.steady(self.end)

    def after(self, elapsed: Fraction) -> PromptState:
        """Return the state at the next frame, which is shown ``elapsed`` seconds after the one before."""
        if self.transition is None:
            return self
        moved = replace(self, frames=self.frames + 1, seconds=self.seconds + max(elapsed, Fraction(0)))
        fraction = self.transition.fraction(moved.frames, moved.seconds)
        if fraction >= 1:
            return self.finish()
        between = interpolate(self.start, self.end, fraction, self.transition.interpolation)
        return replace(moved, embeddings=between)
