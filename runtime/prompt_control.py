"""The prompt of a stream: encoded when it is set, mixed frame by frame, projected when the network is to see it."""

from __future__ import annotations

from fractions import Fraction

from live2diff_trt.runtime.embedding_blend import blend_embeddings
from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.kv_ring import Array
from live2diff_trt.runtime.pipeline import Pipeline
from live2diff_trt.runtime.prompt_blend import PromptBlend, Transition
from live2diff_trt.runtime.prompt_state import PromptState


class PromptControl:
    """What a pipeline draws, from frame to frame."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._encoded: dict[str, Array] = {}
        self._wanted: PromptBlend | None = None
        self._state: PromptState | None = None
        self._projected: Array | None = None

    def set(self, prompt: object, transition: Transition | None) -> None:
        """Encode what is new; the next frame is the first of the transition, or without one sees all of the prompt.

        Raises:
            ControlError: if one of them is something else, or there is no prompt yet that a transition could leave.
        """
        blend = _as_blend(prompt)
        if not isinstance(transition, Transition | None):
            raise ControlError(f"a transition is {transition!r}", "Pass one, as in Transition(seconds), or None")
        if transition is not None and self._state is None:
            raise ControlError("there is no prompt that a transition could leave", "Set the first without a transition")
        embeddings = self._blend(blend)
        self._wanted = blend
        if transition is None or self._state is None:
            self._state = PromptState.steady(embeddings)
        else:
            self._state = self._state.turn_to(embeddings, transition)
        self.project()

    def encode_again(self) -> None:
        """Encode the prompt that was set last by what is another text encoder now. A transition is at its end then."""
        self._encoded.clear()
        self._projected = None
        if self._wanted is not None:
            self._state = PromptState.steady(self._blend(self._wanted))

    def look_ahead(self, elapsed: Fraction) -> PromptState | None:
        """Return the state at a frame that is shown ``elapsed`` seconds after the one before; nothing is changed."""
        return None if self._state is None else self._state.after(elapsed)

    def go_on(self, state: PromptState | None) -> None:
        """Take over a state that ``look_ahead`` gave: its frame was taken."""
        self._state = state

    def finish(self) -> None:
        """Be where a transition that is under way would end."""
        self._state = None if self._state is None else self._state.finish()

    def project(self, state: PromptState | None = None) -> None:
        """Let the pipeline see a state, the present one if not given, from its next computation on."""
        state = state or self._state
        if state is not None and state.embeddings is not self._projected:
            self._pipeline.set_text_embeddings(state.embeddings)
            self._projected = state.embeddings

    def _blend(self, blend: PromptBlend) -> Array:
        """Blend prompts. Of those that the last blend had, nothing is encoded again, so weights may change at will."""
        shares = blend.shares
        self._encoded = {
            prompt: self._encoded[prompt] if prompt in self._encoded else self._pipeline.encode_prompt(prompt)
            for prompt in shares
        }
        return blend_embeddings(
            ((self._encoded[prompt], share) for prompt, share in shares.items()), blend.interpolation
        )


def _as_blend(prompt: object) -> PromptBlend:
    if isinstance(prompt, PromptBlend):
        return prompt
    if not isinstance(prompt, str):
        raise ControlError(f"a prompt is {prompt!r}", "Pass a text, or several with weights as a PromptBlend")
    return PromptBlend({prompt: 1.0})
