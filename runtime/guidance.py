"""Guidance: how far the noise prediction is pushed away from what is not wanted. What is computed: guided_noise.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from live2diff_trt.runtime.errors import ControlError
from live2diff_trt.runtime.prompt_blend import is_number

GuidanceKind = Literal["none", "full", "self", "initialize"]
"""Where the negative noise comes from: nowhere; the UNet, in every step; the frame that came in; the UNet, once."""


@dataclass(frozen=True)
class Guidance:
    """How a stream is guided. Another kind is other rows, warmed up anew; all else acts on the next tick.

    Attributes:
        kind: where the negative noise comes from.
        scale: s, how far to go from the negative noise to the prompt's: 1 is the prompt's alone, more goes beyond it.
            With the kind none it has no effect.
        negative_prompt: what should not be seen. It is told to the UNet as it is, without the style's template.
        delta: how much of the negative noise is believed, where it is a virtual one: kinds self and initialize.

    Raises:
        ControlError: if one of them is something else, or is given to a kind that does not use it.
    """

    kind: GuidanceKind = "none"
    scale: float = 1.2
    negative_prompt: str = ""
    delta: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(GuidanceKind):
            raise ControlError(f"there is no guidance {self.kind!r}", f"Use {' or '.join(get_args(GuidanceKind))}")
        for name, value in (("scale", self.scale), ("delta", self.delta)):
            if not is_number(value) or value < 0:
                raise ControlError(f"the {name} of guidance is {value!r}", "Use a finite number, 0 or more")
        if not isinstance(self.negative_prompt, str):
            raise ControlError(f"a negative prompt is {self.negative_prompt!r}", "Pass a text")
        if self.negative_prompt and not self.asks_the_unet:
            raise ControlError(
                f"guidance of the kind {self.kind} has no negative prompt", "Leave it out, or use full or initialize"
            )
        if self.delta != 1 and not self.has_origins:
            raise ControlError(
                f"guidance of the kind {self.kind} has no delta", "Leave it out, or use self or initialize"
            )

    @property
    def asks_the_unet(self) -> bool:
        """Whether the UNet has rows under the negative prompt."""
        return self.kind in ("full", "initialize")

    @property
    def has_origins(self) -> bool:
        """Whether every frame carries the latent that its virtual noise leads back to."""
        return self.kind in ("self", "initialize")

    def negative_steps(self, steps: int) -> tuple[int, ...]:
        """Return the denoising steps of the UNet's rows under the negative prompt, beside one row for each step."""
        if self.kind == "full":
            return tuple(range(steps))
        return (0,) if self.kind == "initialize" else ()


NO_GUIDANCE = Guidance()


def check_guidance(guidance: object) -> Guidance:
    """Return what a stream may be guided by; raise ControlError if it is no guidance."""
    if not isinstance(guidance, Guidance):
        raise ControlError(f"guidance is {guidance!r}", "Pass one, as in Guidance('self', scale=1.4)")
    return guidance
