"""What ``export`` and ``restyle`` are told of trained weights, and the style that fills in what that leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from live2diff_trt.bundle.errors import Live2DiffError

if TYPE_CHECKING:
    from live2diff_trt.export.autoencoder import AutoencoderKind
    from live2diff_trt.export.checkpoint_names import CheckpointNames
    from live2diff_trt.export.depth import DepthKind
    from live2diff_trt.export.style import Style


RANDOM_VAES: dict[str, AutoencoderKind] = {"taesd": "taesd", "kl": "kl"}
RANDOM_DEPTHS: dict[str, DepthKind] = {"midas": "dpt-hybrid", "depth-anything": "depth-anything-small"}
"""The networks that can be had with random weights, as the command line names them."""


class OptionsError(Live2DiffError):
    """Options that do not go together, or lack another."""


class LoraAlpha(str, Enum):
    """What a LoRA's alpha does."""

    apply = "apply"
    ignore = "ignore"


@dataclass(frozen=True)
class CheckpointOptions:
    """What the command line says of trained weights; None where it says nothing.

    The fields are named as the options of ``cli/weight_options.py``. ``vae`` and ``depth`` are of ``export`` alone.
    """

    base: str | None
    motion: str | None
    dreambooth: str | None
    lora: Sequence[str] | None
    lcm_lora: str | None
    textual_inversion: Sequence[str] | None
    lora_alpha: LoraAlpha
    style: Path | None
    tokenizer: str | None
    offline: bool
    vae: str | None = None
    depth: str | None = None

    @property
    def any_named(self) -> bool:
        """Whether trained weights are wanted at all."""
        models = (self.base, self.motion, self.dreambooth, self.lora, self.lcm_lora, self.tokenizer)
        return any((*models, self.textual_inversion, self.style))

    def refuse_contradictions(self, random_weights: bool) -> None:
        """Raise OptionsError where options exclude each other, or lack one that no style could fill in."""
        if self.any_named and random_weights:
            raise OptionsError(
                "--random-weights and trained weights exclude each other", "Leave out the one or the other"
            )
        if self.any_named and self.style is None:
            _need_both(self.base, self.motion)
        named = ((self.vae, RANDOM_VAES), (self.depth, RANDOM_DEPTHS))
        untrained = [name for name, known in named if name is not None and name not in known]
        if untrained and not self.any_named:
            raise OptionsError(
                f"{', '.join(untrained)} can't be had without a base model",
                "Name it with --base and --motion, or use taesd or kl, midas or depth-anything",
            )

    def name_checkpoints(self, style: Style | None) -> CheckpointNames:
        """Put options before the style's; raise OptionsError if base or motion checkpoint are then missing."""
        from live2diff_trt.export.checkpoint_names import CheckpointNames

        base = self.base or (style.base if style else None)
        motion = self.motion or (style.motion if style else None)
        base, motion = _need_both(base, motion)
        return CheckpointNames(
            base=base,
            motion=motion,
            vae=self.vae or (style.vae if style else None),
            depth=self.depth or (style.depth if style else None),
            dreambooth=self.dreambooth or (style.dreambooth if style else None),
            loras=tuple(map(read_scaled, self.lora or ())) or (style.loras if style else ()),
            lcm_lora=self.lcm_lora,
            textual_inversions=tuple(map(read_token, self.textual_inversion or ()))
            or (style.textual_inversions if style else ()),
            tokenizer=self.tokenizer,
            apply_lora_alpha=self.lora_alpha is LoraAlpha.apply,
            offline=self.offline,
            prompt_template=style.prompt_template if style else None,
        )


def _need_both(base: str | None, motion: str | None) -> tuple[str, str]:
    if base is None or motion is None:
        raise OptionsError(
            f"trained weights need a base model and Live2Diff's checkpoint, and --{'motion' if base else 'base'} "
            "is missing",
            "Name both with --base and --motion, or in the style",
        )
    return base, motion


def read_scaled(text: str) -> tuple[str, float]:
    """Read MODEL or MODEL:SCALE; the scale is 1 where it is left out."""
    model, _, scale = text.rpartition(":")
    try:
        return (model, float(scale)) if model else (text, 1.0)
    except ValueError:  # a colon of the path itself
        return text, 1.0


def read_token(text: str) -> tuple[str, str | None]:
    """Read MODEL or MODEL:TOKEN; the token is None where it is left out. A token has no slash in it."""
    model, _, token = text.rpartition(":")
    is_part_of_path = not model or "/" in token or "\\" in token
    return (text, None) if is_part_of_path else (model, token)
