"""Of a repository on the hub, what is needed is fetched, and nothing else."""

from __future__ import annotations

import pytest

from live2diff_trt.export.errors import CheckpointError
from live2diff_trt.export.model_files import ChooseFiles, choose_base, choose_network, choose_single
from live2diff_trt.export.text_files import choose_tokenizer
from live2diff_trt.export.weights_files import DIFFUSERS, TRANSFORMERS

STABLE_DIFFUSION = [
    "README.md",
    "v1-5-pruned-emaonly.safetensors",
    "model_index.json",
    *(f"safety_checker/{name}" for name in ("config.json", "model.safetensors")),
    *(
        f"{part}/diffusion_pytorch_model{variant}.{suffix}"
        for part in ("unet", "vae")
        for variant in ("", ".fp16", ".non_ema")
        for suffix in ("safetensors", "bin")
    ),
    *(f"{part}/config.json" for part in ("unet", "vae", "text_encoder")),
    *(f"text_encoder/{name}" for name in ("model.safetensors", "model.fp16.safetensors", "pytorch_model.bin")),
    *(f"tokenizer/{name}" for name in ("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")),
]
UNET_FILES = ["unet/config.json", "unet/diffusion_pytorch_model.safetensors"]
TEXT_FILES = ["text_encoder/config.json", "text_encoder/model.safetensors"]
VAE_FILES = ["vae/config.json", "vae/diffusion_pytorch_model.safetensors"]
STEM = "diffusion_pytorch_model"
TAESD = ["config.json", f"{STEM}.safetensors", f"{STEM}.bin", "taesd_encoder.safetensors"]
SHARDS = [f"{STEM}.fp16-{index:05d}-of-00002.safetensors" for index in (1, 2)]
FP16_INDEX = f"{STEM}.safetensors.index.fp16.json"


@pytest.mark.parametrize(
    ("choose", "names", "expected"),
    [
        (
            choose_base(("unet", "text_encoder", "vae"), tokenizer=True),
            STABLE_DIFFUSION,
            [*UNET_FILES, *TEXT_FILES, *VAE_FILES, "tokenizer/vocab.json", "tokenizer/merges.txt"],
        ),
        (choose_base(("unet", "text_encoder"), tokenizer=False), STABLE_DIFFUSION, [*UNET_FILES, *TEXT_FILES]),
        (choose_network(DIFFUSERS), TAESD, TAESD[:2]),
        (choose_network(DIFFUSERS), [*SHARDS, FP16_INDEX], ["config.json", FP16_INDEX, *SHARDS]),
        (choose_network(TRANSFORMERS), ["config.json", "pytorch_model.bin"], ["config.json", "pytorch_model.bin"]),
        (choose_tokenizer, ["tokenizer.json", "vocab.json", "merges.txt", "model.safetensors"], ["tokenizer.json"]),
        (choose_single, ["learned_embeds.bin", "learned_embeds.safetensors"], ["learned_embeds.safetensors"]),
        (choose_single, ["README.md", "lora.safetensors", "image.png", "old/lora.bin"], ["lora.safetensors"]),
    ],
)
def test_what_is_needed_is_chosen(choose: ChooseFiles, names: list[str], expected: list[str]) -> None:
    assert list(choose(names, "owner/name")) == expected


@pytest.mark.parametrize(
    ("choose", "names", "message"),
    [
        (choose_base(("unet",), tokenizer=False), ["vae/config.json"], "owner/name/unet has neither"),
        (choose_base((), tokenizer=True), ["vocab.json"], "owner/name/tokenizer has no tokenizer"),
        (choose_single, ["a.bin", "b.safetensors"], r"owner/name should hold one .* holds a\.bin, b\.safetensors"),
        (choose_single, ["README.md"], "holds none"),
    ],
)
def test_what_is_needed_and_not_there_is_named(choose: ChooseFiles, names: list[str], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        choose(names, "owner/name")
