"""The weights that ship with the project, for the preset ``tiny``: trained by ``live2diff_trt.training``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import CLIPTextModel

import live2diff_trt.training
from live2diff_trt.bundle.manifest import hash_file
from live2diff_trt.export.autoencoder import build_autoencoder
from live2diff_trt.export.checkpoint_file import read_tensors
from live2diff_trt.export.depth import build_depth
from live2diff_trt.export.errors import CheckpointError
from live2diff_trt.export.presets import Preset
from live2diff_trt.export.text import build_text_encoder
from live2diff_trt.export.text_files import build_from_weights
from live2diff_trt.export.tokenizer import make_tokenizer
from live2diff_trt.export.weights_source import PARTS, Part
from live2diff_trt.model.unet import CausalUNet
from live2diff_trt.model.weights import check_keys, load_unet

SHIPPED = Path(live2diff_trt.training.__file__).parent / "weights"
"""Where they lie in the installed package."""


@dataclass(frozen=True)
class TrainedWeights:
    """Weights of the preset ``tiny`` in a folder: one safetensors file for each part, stored in float16."""

    folder: Path = SHIPPED

    def check(self, parts: Collection[Part] = PARTS) -> None:
        """Raise CheckpointError unless there is a file for each of the parts."""
        missing = [self.file(part).name for part in parts if not self.file(part).is_file()]
        if missing:
            raise CheckpointError(
                f"{self.folder} lacks {', '.join(missing)}: the trained weights are not installed",
                "Export with --random-weights, or train them: see docs/training.md",
            )

    def file(self, part: Part) -> Path:
        """Return the file of a part."""
        return self.folder / f"{part}.safetensors"

    def save(self, part: Part, module: nn.Module) -> None:
        """Write a part, rounded to float16; what it holds is Apache-2.0, as the project is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        weights = {key: tensor.detach().half().cpu().contiguous() for key, tensor in module.state_dict().items()}
        # One entry only: several would be written in any order.
        save_file(weights, self.file(part), metadata={"licence": "Apache-2.0"})

    def describe(self, part: Part) -> dict[str, Any]:
        """Return what the manifest says of where the weights of a part came from."""
        file = self.file(part)
        return {"source": "trained by live2diff-trt", "file": file.name, "sha256": hash_file(file)}

    def tokenizer(self, preset: Preset) -> Tokenizer:
        """The tokenizer that the text encoder was trained with."""
        return make_tokenizer(preset.text)

    def unet(self, preset: Preset, dtype: torch.dtype) -> CausalUNet:
        """Load the causal UNet; raises CheckpointError if its file can't be read, WeightsError if it does not fit."""
        return load_unet(preset.unet, self._read("unet"), dtype)

    def autoencoder(self, preset: Preset, dtype: torch.dtype) -> AutoencoderTiny:
        """Load the autoencoder; raises as ``unet`` does."""
        return _fill(build_autoencoder(preset.autoencoder), self._read("autoencoder"), dtype)

    def depth(self, preset: Preset, dtype: torch.dtype) -> nn.Module:
        """Load what stands in for the depth network; raises as ``unet`` does."""
        return _fill(build_depth(preset.depth), self._read("depth"), dtype)

    def text_encoder(self, preset: Preset, dtype: torch.dtype) -> CLIPTextModel:
        """Load the text encoder; raises as ``unet`` does."""
        configuration = build_text_encoder(preset.text).config
        return build_from_weights(configuration, self._read("text_encoder"), "the text encoder").to(dtype)

    def _read(self, part: Part) -> dict[str, Tensor]:
        self.check((part,))
        return {key: tensor.float() for key, tensor in read_tensors(self.file(part)).items()}


def _fill(module: Any, weights: Mapping[str, Tensor], dtype: torch.dtype) -> Any:
    check_keys(module, weights)
    module.load_state_dict({key: tensor.to(dtype) for key, tensor in weights.items()}, assign=True)
    return module.eval().requires_grad_(False)
