"""Trained weights: base model, then Live2Diff's checkpoint, then DreamBooth, then LoRAs, each over the one before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import CLIPTextModel

from live2diff_trt.bundle.manifest import hash_file
from live2diff_trt.export.autoencoder import Autoencoder
from live2diff_trt.export.autoencoder_files import autoencoder_files, load_autoencoder, load_autoencoder_weights
from live2diff_trt.export.base_model import DiffusersFolder, LdmFile, open_base_model
from live2diff_trt.export.checkpoint_file import read_motion
from live2diff_trt.export.depth_files import depth_files, load_depth, read_depth_kind
from live2diff_trt.export.errors import CheckpointError
from live2diff_trt.export.locate import Located
from live2diff_trt.export.lora import Lora, merge_into_text_encoder, merge_into_unet, read_lora
from live2diff_trt.export.model_files import BaseNetwork
from live2diff_trt.export.presets import Preset
from live2diff_trt.export.spatial_unet import build_spatial_unet
from live2diff_trt.export.text_files import build_from_weights, read_tokenizer, replace_text_weights, tokenizer_files
from live2diff_trt.export.textual_inversion import (
    TextualInversion,
    read_textual_inversion,
    teach_text_encoder,
    teach_tokenizer,
)
from live2diff_trt.export.weights_source import Part
from live2diff_trt.model.unet import CausalUNet
from live2diff_trt.model.weights import check_keys, load_unet

_BASE_NETWORKS: dict[Part, BaseNetwork] = {"unet": "unet", "autoencoder": "vae", "text_encoder": "text_encoder"}


@dataclass(frozen=True)
class ScaledLora:
    """A LoRA's file, how strongly it is merged, and whether its alpha counts."""

    file: Located
    scale: float = 1.0
    apply_alpha: bool = True

    def read(self) -> Lora:
        """Read the file."""
        return read_lora(self.file.path, apply_alpha=self.apply_alpha)


@dataclass(frozen=True)
class NamedInversion:
    """A textual inversion's file, and its token where the file's own is not meant."""

    file: Located
    token: str | None = None

    def read(self) -> TextualInversion:
        """Read the file."""
        return read_textual_inversion(self.file.path, self.token)


@dataclass(frozen=True)
class CheckpointWeights:
    """Weights from files, all of them on this machine. Everything is merged in float32 and rounded once, at the end.

    Attributes:
        base: Stable Diffusion 1.5: a diffusers folder, or one file in the LDM layout.
        motion: Live2Diff's checkpoint: motion modules, depth path, and whatever spatial weights it has.
        depth_model: a depth network's folder; None: there is none, and it can't be asked for.
        tokenizer_folder: a folder.
        autoencoder_model: folder or file; None takes the base's, or DreamBooth's where that has one.
        dreambooth: one file in the LDM layout; it replaces those parts that it has.
        loras: merged in this order.
        lcm_lora: merged last, at 1.0.
        textual_inversions: what tokenizer and text encoder learn besides, in this order.
        prompt_template: recorded beside the text encoder; ``{}`` is the prompt's place.
    """

    base: Located
    motion: Located
    depth_model: Located | None
    tokenizer_folder: Located
    autoencoder_model: Located | None = None
    dreambooth: Located | None = None
    loras: tuple[ScaledLora, ...] = ()
    lcm_lora: Located | None = None
    textual_inversions: tuple[NamedInversion, ...] = ()
    prompt_template: str | None = None

    def fit(self, preset: Preset) -> Preset:
        """Return the preset with the depth network's input size; raise CheckpointError if its kind is unknown."""
        return replace(preset, depth=read_depth_kind(self._named_depth().path))

    def unet(self, preset: Preset, dtype: torch.dtype) -> CausalUNet:
        """Merge the causal UNet.

        Raises:
            CheckpointError: if a file can't be read or is of another network.
            WeightsError: listing every unexpected, missing and mis-shaped key.
        """
        weights = {**self._base_model().unet_weights(preset), **read_motion(self.motion.path)}
        with torch.device("meta"):
            causal, spatial = CausalUNet(preset.unet), build_spatial_unet(preset.unet)
        check_keys(causal, weights, f"{self.base.source} and {self.motion.source}, put together,")
        style = weights
        if self.dreambooth is not None:
            style = LdmFile(self.dreambooth.path).unet_weights(preset)
            check_keys(spatial, style, self.dreambooth.source)
        # Copied: fusing works in place, and a file may be mapped into memory.
        merged = {key: style[key].to(torch.float32, copy=True) for key in spatial.state_dict()}
        spatial.load_state_dict(merged, assign=True)
        for lora in self._all_loras():
            merge_into_unet(spatial, lora.read(), lora.scale)
        return load_unet(preset.unet, {**weights, **spatial.state_dict()}, dtype)

    def text_encoder(self, preset: Preset, dtype: torch.dtype) -> CLIPTextModel:
        """Merge the text encoder; raises as ``unet`` does."""
        base = self._base_model()
        model = build_from_weights(base.text_configuration(preset), base.text_weights(), self.base.source)
        if self.dreambooth is not None and (style := LdmFile(self.dreambooth.path).text_weights()):
            replace_text_weights(model, style, self.dreambooth.source)
        for lora in self._all_loras():
            merge_into_text_encoder(model, lora.read(), lora.scale)
        tokenizer = self.tokenizer(preset)
        for inversion in self.textual_inversions:
            teach_text_encoder(model, tokenizer, inversion.read())
        return model.to(dtype).eval().requires_grad_(False)

    def autoencoder(self, preset: Preset, dtype: torch.dtype) -> Autoencoder:
        """Load the autoencoder; raises as ``unet`` does."""
        if self.autoencoder_model is not None:
            autoencoder = load_autoencoder(self.autoencoder_model.path)
        else:
            autoencoder = self._base_model().autoencoder()
            self._replace_autoencoder(autoencoder)
        weights = {key: tensor.to(dtype) for key, tensor in autoencoder.state_dict().items()}
        autoencoder.load_state_dict(weights, assign=True)
        return autoencoder.eval().requires_grad_(False)

    def depth(self, preset: Preset, dtype: torch.dtype) -> nn.Module:
        """Load the depth network; raises CheckpointError."""
        return load_depth(self._named_depth().path).to(dtype).eval().requires_grad_(False)

    def tokenizer(self, preset: Preset) -> Tokenizer:
        """Read the tokenizer and teach it; raises CheckpointError, also if the base does not know all of its tokens."""
        tokenizer = read_tokenizer(self.tokenizer_folder.path)
        known, tokens = self._base_model().text_configuration(preset).vocab_size, tokenizer.get_vocab_size()
        if tokens > known:
            raise CheckpointError(
                f"the tokenizer {self.tokenizer_folder.source} has {tokens} tokens, the text encoder knows {known}",
                "Name the tokenizer of the base model",
            )
        for inversion in self.textual_inversions:
            teach_tokenizer(tokenizer, inversion.read())
        return tokenizer

    def describe(self, part: Part) -> dict[str, Any]:
        """Return every file that the part was made from, in the order of merging, with its hash."""
        described: dict[str, Any] = {"source": "checkpoints", "files": list(self._describe_files(part))}
        if part == "text_encoder" and self.prompt_template is not None:
            described["prompt_template"] = self.prompt_template
        return described

    def _named_depth(self) -> Located:
        if self.depth_model is None:
            raise CheckpointError("these weights have no depth network", "Name one with --depth")
        return self.depth_model

    def _base_model(self) -> DiffusersFolder | LdmFile:
        return open_base_model(self.base.path)

    def _all_loras(self) -> tuple[ScaledLora, ...]:
        last = () if self.lcm_lora is None else (ScaledLora(self.lcm_lora),)
        return *self.loras, *last

    def _replace_autoencoder(self, autoencoder: Autoencoder) -> None:
        if self.dreambooth is None:
            return
        style = LdmFile(self.dreambooth.path).autoencoder_weights(autoencoder.config)
        if style:
            load_autoencoder_weights(autoencoder, style, self.dreambooth.source)

    def _describe_files(self, part: Part) -> Iterator[dict[str, Any]]:
        if part == "depth":
            yield from _record("depth", self._named_depth(), depth_files(self._named_depth().path))
        elif part == "autoencoder" and self.autoencoder_model is not None:
            yield from _record("autoencoder", self.autoencoder_model, autoencoder_files(self.autoencoder_model.path))
        else:
            yield from self._describe_merged(part)

    def _describe_merged(self, part: Part) -> Iterator[dict[str, Any]]:
        yield from _record("base", self.base, self._base_model().files(_BASE_NETWORKS[part]))
        if part == "unet":
            yield from _record("motion", self.motion, (self.motion.path,))
        if self.dreambooth is not None:
            yield from _record("dreambooth", self.dreambooth, (self.dreambooth.path,))
        if part in {"unet", "text_encoder"}:
            for lora in self._all_loras():
                for record in _record("lora", lora.file, (lora.file.path,)):
                    yield {**record, "scale": lora.scale, "alpha": "applied" if lora.apply_alpha else "ignored"}
        if part == "text_encoder":
            folder = self.tokenizer_folder
            yield from _record("tokenizer", folder, tokenizer_files(folder.path))
            for inversion in self.textual_inversions:
                for record in _record("textual_inversion", inversion.file, (inversion.file.path,)):
                    yield {**record, "tokens": list(inversion.read().tokens)}


def _record(role: str, model: Located, files: tuple[Path, ...]) -> Iterator[dict[str, Any]]:
    for file in files:
        yield {
            "role": role,
            "source": model.source,
            "file": file.name,
            "sha256": _hash_once(file, file.stat().st_mtime_ns),
        }


@cache
def _hash_once(path: Path, _changed_at_ns: int) -> str:
    """Hash a file, again only if it changed: several parts come from the same one."""
    return hash_file(path)
