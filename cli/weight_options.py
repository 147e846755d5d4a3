"""Options that name trained or random weights, as ``export`` and ``restyle`` have them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from live2diff_trt.cli.checkpoint_options import LoraAlpha

MODEL = "a path or a hub id"

BaseOption = Annotated[str | None, typer.Option(help=f"Stable Diffusion 1.5: {MODEL}.")]
MotionOption = Annotated[str | None, typer.Option(help="Live2Diff's checkpoint.")]
DreamboothOption = Annotated[str | None, typer.Option(help="A style's single file, in the LDM layout.")]
LorasOption = Annotated[list[str] | None, typer.Option(help="A style's LoRA, FILE or FILE:SCALE; may be repeated.")]
LcmLoraOption = Annotated[str | None, typer.Option(help="The LCM-LoRA, merged last, at 1.0.")]
TextualInversionsOption = Annotated[
    list[str] | None, typer.Option(help="An embedding for prompts, FILE or FILE:TOKEN; may be repeated.")
]
LoraAlphaOption = Annotated[
    LoraAlpha, typer.Option(help="Whether alpha / rank scales a style's LoRA, or W += scale * up * down.")
]
ClipSkipOption = Annotated[
    int | None, typer.Option(min=0, help="Last layers of the text encoder to leave out; 0, or the style's.")
]
StyleOption = Annotated[Path | None, typer.Option(help="YAML of the public project; options win over it.")]
TokenizerOption = Annotated[str | None, typer.Option(help="Another tokenizer than the base's.")]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Contact nobody.")]
RandomWeightsOption = Annotated[
    bool, typer.Option("--random-weights", help="Fill the networks from --seed: noise, but in time.")
]
SeedOption = Annotated[int, typer.Option(help="Seed of random weights.")]
