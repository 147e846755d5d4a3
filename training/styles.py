"""Styles: the filter that shows what is wanted, and how people ask for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from random import Random

import torch
from torch import Tensor

from live2diff_trt.training.filters import draw_cartoon, draw_sketch, keep_photo, light_neon, paint_watercolour


@dataclass(frozen=True)
class Style:
    """What a prompt may ask for.

    Attributes:
        name: for tables and files.
        prompt: its first wording, which judges it.
        phrases: that name it; a prompt holds one of them.
        apply: from pictures, float [frames, 3, height, width] in [0, 1], to the same in this style.
    """

    name: str
    phrases: tuple[str, ...]
    apply: Callable[[Tensor], Tensor]

    @property
    def prompt(self) -> str:
        """The first of its wordings."""
        return self.phrases[0]


STYLES = (
    Style(
        "sketch",
        (
            "a pencil sketch", "a pencil drawing", "a sketch", "pencil art", "a black and white drawing",
            "a detailed pencil sketch", "a graphite drawing", "sketched in pencil", "a drawing on paper",
        ),
        draw_sketch,
    ),
    Style(
        "watercolour",
        (
            "a watercolour painting", "a watercolor painting", "watercolour", "a watercolor",
            "a painting in watercolour", "a soft watercolour", "an aquarelle", "watercolor art",
            "painted in watercolour",
        ),
        paint_watercolour,
    ),
    Style(
        "neon",
        (
            "a neon city", "neon lights", "neon", "a neon picture", "a cyberpunk city", "cyberpunk",
            "glowing neon lights", "neon light at night", "a neon sign",
        ),
        light_neon,
    ),
    Style(
        "cartoon",
        (
            "a cartoon", "a cartoon picture", "cartoon", "cartoon style", "a comic", "a comic drawing",
            "a cartoon film", "comic art", "a colourful cartoon",
        ),
        draw_cartoon,
    ),
    Style("photo", ("a photo", "a photograph", "a realistic photo", "photo", "a film", "unchanged"), keep_photo),
)  # fmt: skip
_SUBJECTS = (
    "a fox", "a cat", "a dog", "a bird", "a man", "a woman", "people", "a face", "a child", "a street", "a city",
    "a forest", "a garden", "a house", "a room", "a car", "a bicycle", "a river", "the sea", "mountains", "flowers",
    "a tree", "a robot", "a rabbit", "a horse", "a castle",
)  # fmt: skip
_ADDITIONS = ("beautiful", "detailed", "best quality", "high quality", "masterpiece", "elegant", "old", "cute")


def draw_prompt(style: Style, random: Random) -> str:
    """Word a style as people do: alone, of something, or with praise that changes nothing."""
    prompt = random.choice(style.phrases)
    kind = random.random()
    if kind < 0.25:
        prompt = f"{prompt} of {random.choice(_SUBJECTS)}"
    elif kind < 0.4:
        prompt = f"{random.choice(_SUBJECTS)}, {prompt}"
    if random.random() < 0.25:
        prompt = f"{prompt}, {random.choice(_ADDITIONS)}"
    return prompt


def apply_styles(clips: Tensor, styles: Sequence[Style]) -> Tensor:
    """Return each clip in its style; both [clips, frames, 3, height, width] in [0, 1].

    Equal styles that are beside each other go through their filter together.
    """
    counts = [(style, len([*some])) for style, some in groupby(styles)]
    parts = clips.split([count for _, count in counts])
    return torch.cat(
        [
            style.apply(part.flatten(0, 1)).unflatten(0, part.shape[:2])
            for (style, _), part in zip(counts, parts, strict=True)
        ]
    )
