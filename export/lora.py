"""LoRAs (Hu et al., arXiv 2106.09685) merged into the weights: ``W += scale · alpha / rank · up · down``.

Reading, renaming (of kohya's layout) and merging are diffusers' and peft's; what they would pass over in silence is
checked here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from diffusers import UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.loaders.lora_base import fuse_text_encoder_lora
from diffusers.utils import convert_state_dict_to_diffusers, convert_state_dict_to_peft, convert_unet_state_dict_to_peft
from diffusers.utils.peft_utils import recurse_remove_peft_layers
from diffusers.utils.state_dict_utils import DIFFUSERS_OLD_TO_DIFFUSERS, StateDictType
from torch import Tensor, nn
from transformers import CLIPTextModel

from live2diff_trt.export.errors import CheckpointError

Component = Literal["unet", "text_encoder"]
_ADAPTER = "merged"
_MERGE_FIELDS = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "target_modules")
_TEXT_WRAPPER = "text_model."
_REMEDY = "Use a LoRA for Stable Diffusion 1.5, in diffusers' or kohya's layout"


@dataclass(frozen=True)
class Lora:
    """A LoRA's file as it was read.

    Attributes:
        origin: its file, for messages.
        weights: by diffusers' keys, ``unet.`` or ``text_encoder.`` first; alphas of kohya's layout multiplied in.
        metadata: peft's configuration where the file carries one, by keys with the same prefixes.
    """

    origin: str
    weights: Mapping[str, Tensor]
    metadata: Mapping[str, Any] | None

    def take(self, component: Component) -> dict[str, Tensor]:
        """Return the weights of one component, without its prefix."""
        return {
            key.removeprefix(f"{component}."): tensor
            for key, tensor in self.weights.items()
            if key.startswith(f"{component}.")
        }

    def take_metadata(self, component: Component) -> dict[str, Any] | None:
        """Return what of peft's configuration matters to a merge, by keys with the component's prefix.

        None where the file has none of it.
        """
        wanted = [f"{component}.{field}" for field in _MERGE_FIELDS]
        return {key: value for key, value in (self.metadata or {}).items() if key in wanted} or None


def read_lora(path: Path, *, apply_alpha: bool = True) -> Lora:
    """Read a LoRA in diffusers' or kohya's layout.

    Args:
        path: .safetensors, or a pickled file without code.
        apply_alpha: False takes alpha as the rank everywhere, so that the merge is ``W += scale · up · down``.

    Raises:
        CheckpointError: if it can't be read, is no LoRA, or has keys that belong to neither component.
    """
    try:
        weights, alphas, metadata = StableDiffusionLoraLoaderMixin.lora_state_dict(
            str(path.parent), weight_name=path.name, local_files_only=True, return_lora_metadata=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path} can't be read as a LoRA ({error})", _REMEDY) from error
    foreign = [key for key in weights if "lora" not in key or not key.startswith(("unet.", "text_encoder."))]
    foreign += [key for key in weights if "lora_magnitude_vector" in key or not key.endswith(".weight")]
    if foreign or not weights:
        raise CheckpointError(f"{path} is another kind of LoRA: " + (", ".join(foreign) or "it is empty"), _REMEDY)
    if alphas and apply_alpha:
        weights = _multiply_alphas(weights, alphas)
    return Lora(str(path), _rename_text_layers(weights), metadata if apply_alpha else None)


def _multiply_alphas(weights: Mapping[str, Tensor], alphas: Mapping[str, float]) -> dict[str, Tensor]:
    """Return the weights with alpha / rank multiplied into every ``up``.

    Where alphas differ, diffusers hands them to peft under names that peft does not find.
    """
    scaled = {key: tensor.float() for key, tensor in weights.items()}
    for key, down in weights.items():
        if not key.endswith(".down.weight"):
            continue
        alpha = alphas.get(f"{key}.alpha", alphas.get(f"{key.removesuffix('.lora.down.weight')}.alpha"))
        if alpha is not None:
            up = f"{key.removesuffix('.down.weight')}.up.weight"
            scaled[up] = scaled[up] * (alpha / down.shape[0])
    return scaled


def _rename_text_layers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with the text encoder's layers by the names that diffusers writes today.

    Left to itself, diffusers recognises the older names, which kohya's become, only by the output projection, and
    drops the others of a LoRA that has none.
    """
    text = {key: tensor for key, tensor in weights.items() if key.startswith("text_encoder.")}
    if any(old in key for key in text for old in DIFFUSERS_OLD_TO_DIFFUSERS):
        text = convert_state_dict_to_diffusers(text, original_type=StateDictType.DIFFUSERS_OLD)
    return {**{key: tensor for key, tensor in weights.items() if key.startswith("unet.")}, **text}


def merge_into_unet(unet: UNet2DConditionModel, lora: Lora, scale: float) -> None:
    """Add a LoRA to the weights, in place; raise CheckpointError, listing every key that does not fit."""
    weights = lora.take("unet")
    if not weights:
        return
    _check_fit(unet, convert_unet_state_dict_to_peft(dict(weights)), lora.origin)
    StableDiffusionLoraLoaderMixin.load_lora_into_unet(
        lora.weights, network_alphas=None, unet=unet, adapter_name=_ADAPTER, metadata=lora.take_metadata("unet")
    )
    unet.fuse_lora(lora_scale=scale)
    unet.unload_lora()


def merge_into_text_encoder(text_encoder: CLIPTextModel, lora: Lora, scale: float) -> None:
    """Add a LoRA to the weights, in place; raise CheckpointError, listing every key that does not fit."""
    weights = lora.take("text_encoder")
    if not weights:
        return
    renamed = convert_state_dict_to_peft(convert_state_dict_to_diffusers(dict(weights)))
    if not hasattr(text_encoder, "text_model"):
        renamed = {key.removeprefix(_TEXT_WRAPPER): tensor for key, tensor in renamed.items()}
    _check_fit(text_encoder, renamed, lora.origin)
    StableDiffusionLoraLoaderMixin.load_lora_into_text_encoder(
        lora.weights,
        network_alphas=None,
        text_encoder=text_encoder,
        adapter_name=_ADAPTER,
        metadata=lora.take_metadata("text_encoder"),
    )
    fuse_text_encoder_lora(text_encoder, lora_scale=scale)
    recurse_remove_peft_layers(text_encoder)
    del text_encoder.peft_config
    text_encoder._hf_peft_config_loaded = False  # noqa: SLF001 - transformers has no other way to forget an adapter


def _check_fit(model: nn.Module, weights: Mapping[str, Tensor], origin: str) -> None:
    """Compare a LoRA by peft's keys with the layers that it changes."""
    problems: list[str] = []
    for name in dict.fromkeys(key.partition(".lora_")[0] for key in weights):
        down, up = (weights.get(f"{name}.lora_{side}.weight") for side in ("A", "B"))
        layer = dict(model.named_modules()).get(name)
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            problems.append(f"unexpected {name}")
        elif down is None or up is None:
            problems.append(f"half of it missing: {name}")
        elif (up.shape[0], down.shape[1]) != layer.weight.shape[:2] or up.shape[1] != down.shape[0]:
            problems.append(
                f"mis-shaped {name}: {list(up.shape)} by {list(down.shape)}, not {list(layer.weight.shape)}"
            )
    if problems:
        raise CheckpointError(
            f"{len(problems)} layers of {origin} do not fit the network:\n  " + "\n  ".join(problems), _REMEDY
        )
