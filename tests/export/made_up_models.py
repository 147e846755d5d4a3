"""Small models with random weights, in the layouts that real ones are published in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import DIFFUSERS_TO_LDM_MAPPING
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, DPTConfig, DPTForDepthEstimation

from live2diff_trt.export.presets import TINY
from live2diff_trt.export.spatial_unet import build_spatial_unet
from live2diff_trt.export.text import build_text_encoder
from live2diff_trt.export.tokenizer import make_tokenizer
from live2diff_trt.model.weights import random_unet

LEVELS = 4
RESNET_NAMES = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
VAE_ATTENTION_NAMES = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


@dataclass(frozen=True)
class Models:
    """Where everything lies."""

    folder: Path

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def motion(self) -> Path:
        return self.folder / "live2diff.ckpt"

    @property
    def dreambooth(self) -> Path:
        return self.folder / "dreambooth.safetensors"

    @property
    def lora(self) -> Path:
        return self.folder / "lora" / "pytorch_lora_weights.safetensors"

    @property
    def kohya(self) -> Path:
        return self.folder / "kohya.safetensors"

    @property
    def lcm(self) -> Path:
        return self.folder / "lcm.safetensors"

    @property
    def depth(self) -> Path:
        return self.folder / "depth"


def write_models(folder: Path) -> Models:
    models = Models(folder)
    torch.manual_seed(0)
    write_base(models.base)
    write_motion(models.motion)
    unet, text_encoder, vae = make_spatial_unet(), make_text_encoder(), make_autoencoder()
    save_file(to_ldm(unet, text_encoder, vae), models.dreambooth)
    write_lora(models.lora.parent)
    save_file(make_kohya(rank=4, alpha=2.0, scale=0.1), models.kohya)
    save_file(make_kohya(rank=2, alpha=1.0, scale=0.05), models.lcm)
    write_depth(models.depth)
    return models


def make_spatial_unet() -> UNet2DConditionModel:
    return build_spatial_unet(TINY.unet).eval()


def make_text_encoder() -> CLIPTextModel:
    return build_text_encoder("tiny").eval()


def make_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * LEVELS,
        up_block_types=("UpDecoderBlock2D",) * LEVELS,
        block_out_channels=(8,) * 3 + (16,),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=TINY.unet.in_channels,
    ).eval()


def write_base(folder: Path) -> None:
    make_spatial_unet().save_pretrained(folder / "unet")
    make_text_encoder().save_pretrained(folder / "text_encoder")
    make_autoencoder().save_pretrained(folder / "vae")
    write_tokenizer(folder / "tokenizer")


def write_tokenizer(folder: Path) -> None:
    """Write vocab.json and merges.txt, as Stable Diffusion 1.5 has them."""
    folder.mkdir()
    model = json.loads(make_tokenizer("tiny").to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    lines = ["#version: 0.2", *(merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_motion() -> dict[str, Tensor]:
    spatial = make_spatial_unet().state_dict()
    return {key: tensor for key, tensor in random_unet(TINY.unet, seed=7).state_dict().items() if key not in spatial}


def write_motion(path: Path) -> None:
    weights = {f"module.{key}": tensor for key, tensor in make_motion().items()}
    weights["module.down_blocks.0.motion_modules.0.grid"] = torch.zeros(3)
    torch.save({"epoch": 3, "state_dict": weights}, path)


def write_depth(folder: Path) -> None:
    make_depth().save_pretrained(folder)


def make_depth() -> DPTForDepthEstimation:
    configuration = DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=384,
        patch_size=16,
        is_hybrid=False,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[4, 4, 8, 8],
        fusion_hidden_size=8,
    )
    return DPTForDepthEstimation(configuration)


def write_lora(folder: Path) -> None:
    """Let peft make a LoRA of both networks and diffusers save it, with alpha twice the rank in its metadata."""
    unet, text_encoder = make_spatial_unet(), make_text_encoder()
    configuration = LoraConfig(
        r=4, lora_alpha=8, target_modules=["to_q", "to_v", "conv1"], init_lora_weights="gaussian"
    )
    text_configuration = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "fc1"], init_lora_weights="gaussian")
    layers = {}
    for name, model, config in (("unet", unet, configuration), ("text_encoder", text_encoder, text_configuration)):
        model.add_adapter(config)
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                nn.init.normal_(parameter, std=0.1)
        layers[name] = convert_state_dict_to_diffusers(get_peft_model_state_dict(model, adapter_name="default"))
    StableDiffusionPipeline.save_lora_weights(
        folder,
        unet_lora_layers=layers["unet"],
        text_encoder_lora_layers=layers["text_encoder"],
        unet_lora_adapter_metadata=configuration.to_dict(),  # type: ignore[no-untyped-call]
        text_encoder_lora_adapter_metadata=text_configuration.to_dict(),  # type: ignore[no-untyped-call]
    )


KOHYA_LAYERS = {
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q": (64, 64),
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": (64, 32),
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj": (512, 64),
    "lora_unet_mid_block_attentions_0_proj_in": (64, 64, 1, 1),
    "lora_unet_down_blocks_1_resnets_0_conv2": (64, 64, 3, 3),
    "lora_te_text_model_encoder_layers_0_self_attn_q_proj": (32, 32),
    "lora_te_text_model_encoder_layers_0_self_attn_out_proj": (32, 32),
    "lora_te_text_model_encoder_layers_1_mlp_fc1": (64, 32),
}
KOHYA_TARGETS = {
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q": (
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    ),
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": (
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    ),
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj": (
        "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj.weight"
    ),
    "lora_unet_mid_block_attentions_0_proj_in": "mid_block.attentions.0.proj_in.weight",
    "lora_unet_down_blocks_1_resnets_0_conv2": "down_blocks.1.resnets.0.conv2.weight",
    "lora_te_text_model_encoder_layers_0_self_attn_q_proj": "encoder.layers.0.self_attn.q_proj.weight",
    "lora_te_text_model_encoder_layers_0_self_attn_out_proj": "encoder.layers.0.self_attn.out_proj.weight",
    "lora_te_text_model_encoder_layers_1_mlp_fc1": "encoder.layers.1.mlp.fc1.weight",
}


def make_kohya(
    rank: int, alpha: float, scale: float, layers: Mapping[str, tuple[int, ...]] = KOHYA_LAYERS
) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for name, (rows, columns, *kernel) in layers.items():
        weights[f"{name}.lora_down.weight"] = torch.randn(rank, columns, *kernel)
        weights[f"{name}.lora_up.weight"] = scale * torch.randn(rows, rank, *[1] * len(kernel))
        weights[f"{name}.alpha"] = torch.tensor(alpha)
    return weights


def to_ldm(unet: nn.Module, text_encoder: nn.Module, vae: nn.Module) -> dict[str, Tensor]:
    """Rename a whole model to the LDM layout, with what old files carry besides."""
    renamed = {f"model.diffusion_model.{unet_to_ldm(key)}": tensor for key, tensor in unet.state_dict().items()}
    renamed |= vae_to_ldm(vae.state_dict(), "first_stage_model.")
    text = {key.removeprefix("text_model."): tensor for key, tensor in text_encoder.state_dict().items()}
    text["embeddings.position_ids"] = torch.arange(77)[None]
    renamed |= {f"cond_stage_model.transformer.text_model.{key}": tensor for key, tensor in text.items()}
    renamed["betas"] = torch.zeros(1000)
    return {key: tensor.clone() for key, tensor in renamed.items()}


def unet_to_ldm(key: str) -> str:
    for ours, theirs in DIFFUSERS_TO_LDM_MAPPING["unet"]["layers"].items():
        if key == ours:
            return str(theirs)
    place = re.fullmatch(r"(\w+?)_blocks?(?:\.(\d))?\.(\w+)\.(\d)\.(.*)", key)
    assert place is not None, key
    side, block, kind, layer, rest = place[1], int(place[2] or 0), place[3], int(place[4]), place[5]
    per_block = TINY.unet.layers_per_block + 1
    if kind == "resnets":
        for ours, theirs in RESNET_NAMES.items():
            rest = re.sub(rf"^{ours}\.", f"{theirs}.", rest)
    if side == "mid":
        return f"middle_block.{2 * layer if kind == 'resnets' else 1}.{rest}"
    if kind == "downsamplers":
        return f"input_blocks.{(block + 1) * per_block}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        behind = 2 if TINY.unet.cross_attention[::-1][block] else 1
        return f"output_blocks.{(block + 1) * per_block - 1}.{behind}.{rest}"
    index = block * per_block + layer
    slot = 0 if kind == "resnets" else 1
    return f"input_blocks.{index + 1}.{slot}.{rest}" if side == "down" else f"output_blocks.{index}.{slot}.{rest}"


def vae_to_ldm(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    renamed = {}
    table = DIFFUSERS_TO_LDM_MAPPING["vae"]
    for key, tensor in weights.items():
        name = str(table.get(key, key)).replace("conv_shortcut", "nin_shortcut")
        name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
        name = re.sub(r"up_blocks\.(\d)\.resnets", lambda found: f"up.{LEVELS - 1 - int(found[1])}.block", name)
        name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(
            r"up_blocks\.(\d)\.upsamplers\.0", lambda found: f"up.{LEVELS - 1 - int(found[1])}.upsample", name
        )
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
        if "attentions" in name:
            for ours, theirs in VAE_ATTENTION_NAMES.items():
                name = name.replace(f"mid_block.attentions.0.{ours}.", f"mid.attn_1.{theirs}.")
        is_projection = "attentions" in key and tensor.ndim == 2  # of old, a convolution of one pixel
        renamed[prefix + name] = tensor[:, :, None, None] if is_projection else tensor
    return renamed
