"""The autoencoders: diffusers' classes by kind, and their two halves as graph modules.

The KL autoencoder is Stable Diffusion's (Rombach et al., arXiv 2112.10752); TAESD is its distilled form
(madebyollin/taesd).
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor, nn

from live2diff_trt.export.tensors import Tensors
from live2diff_trt.model.weights import random_state_dict

AutoencoderKind = Literal["tiny", "taesd", "kl"]
Autoencoder: TypeAlias = AutoencoderTiny | AutoencoderKL

_KL: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}
_TINY: dict[str, Any] = {
    "encoder_block_out_channels": (32,) * 4,
    "decoder_block_out_channels": (32,) * 4,
    "num_encoder_blocks": (0, 1, 2, 2),
    "num_decoder_blocks": (3, 2, 2, 1),
    "latent_channels": 16,
    # At strength 0.4 a latent of deviation 1 drowns: one of 24x16 has none of the redundancy that one of 64x64 has
    # (Chen, "On the importance of noise scheduling for diffusion models", arXiv 2301.10972: scale the input instead).
    "scaling_factor": 2.0,
}


def build_autoencoder(kind: AutoencoderKind) -> Autoencoder:
    """Build an autoencoder with the configuration of its kind, on torch's default device.

    ``taesd`` and ``kl`` are the published networks, ``tiny`` a TAESD of 32 channels. All take pictures to
    latents of an eighth of the side.
    """
    if kind == "kl":
        return AutoencoderKL(**_KL)
    return AutoencoderTiny(**(_TINY if kind == "tiny" else {}))


def latent_channels(kind: AutoencoderKind) -> int:
    """Return how many channels the latents of a kind have: the published networks' 4, or those of ``tiny``."""
    return int(_TINY["latent_channels"]) if kind == "tiny" else 4


def random_autoencoder(kind: AutoencoderKind, seed: int, dtype: torch.dtype) -> Autoencoder:
    """Build an autoencoder in evaluation mode with random weights that depend on the seed alone.

    The last layer of each half is scaled after one probe picture, so that latents and pictures are of sane size.
    """
    with torch.device("meta"):
        autoencoder = build_autoencoder(kind)
    autoencoder.load_state_dict(random_state_dict(autoencoder, seed, torch.float32), assign=True)
    _spread_outputs(autoencoder.eval().requires_grad_(False))
    autoencoder.load_state_dict(
        {key: tensor.to(dtype) for key, tensor in autoencoder.state_dict().items()}, assign=True
    )
    return autoencoder


def _spread_outputs(autoencoder: Autoencoder) -> None:
    """Adjust the last layer of both halves in place, so that latents have a deviation near 1 and pictures a contrast.

    Random weights alone give nearly constant latents, far from 0, and pictures of one colour.
    """
    if isinstance(autoencoder, AutoencoderKL):
        last_layers, grey, contrast = (autoencoder.quant_conv, autoencoder.decoder.conv_out), 0.0, 0.5
    else:  # its decoder ends in [0, 1]
        last_layers, grey, contrast = (autoencoder.encoder.layers[-1], autoencoder.decoder.layers[-1]), 0.5, 0.25
    encoder, decoder = VaeEncoderGraph(autoencoder), VaeDecoderGraph(autoencoder)
    _spread_output(last_layers[0], encoder, _probe_picture(), 0.0, 1 / autoencoder.config.scaling_factor)
    _spread_output(last_layers[1], decoder, encoder((_probe_picture(),))[0], grey, contrast)


def _spread_output(layer: nn.Conv2d, graph: nn.Module, probe: Tensor, mean: float, deviation: float) -> None:
    """Scale and shift ``layer`` in place to that mean and deviation of each channel, as seen with one probe.

    Data-dependent initialisation (Mishkin and Matas, arXiv 1511.06422). Steps are coarse, so that another machine's
    rounding gives the same weights.
    """
    outputs: list[Tensor] = []
    with layer.register_forward_hook(lambda _layer, _inputs, output: outputs.append(output)):
        graph((probe,))
    found_deviation, found_mean = torch.std_mean(outputs[0], dim=(0, 2, 3))
    gain = (deviation / found_deviation).log2().round().exp2()
    layer.weight.mul_(gain.view(-1, 1, 1, 1))
    shift = mean - (8 * gain * found_mean).round() / 8
    layer.bias = nn.Parameter(shift, requires_grad=False)


def _probe_picture() -> Tensor:
    """Return waves of several lengths and colours, [1, 3, 64, 64] in [−1, 1]."""
    x = torch.linspace(0, 1, 64)
    waves = [(frequency * (x + slope * x[:, None])).sin() for frequency, slope in ((9, 0.5), (23, -1), (47, 2))]
    return torch.stack(waves)[None]


class VaeEncoderGraph(nn.Module):
    """A picture → its latent: ``bundle.signature.vae_encoder``."""

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, tensors: Tensors) -> Tensors:
        """Map (image [frames, 3, height, width] in [−1, 1],) to (latent [frames, 4, height/8, width/8],).

        The latent has the scale that the UNet expects; of a KL posterior it is the mean.
        """
        return (self._encode(tensors[0]) * self.autoencoder.config.scaling_factor,)

    def _encode(self, image: Tensor) -> Tensor:
        encoded = self.autoencoder.encode(image)
        latent: Tensor = encoded.latents if "latents" in encoded else encoded.latent_dist.mode()
        return latent


class VaeDecoderGraph(nn.Module):
    """A latent → its picture: ``bundle.signature.vae_decoder``."""

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, tensors: Tensors) -> Tensors:
        """Map (latent [frames, 4, height/8, width/8],) to (image [frames, 3, height, width], roughly [−1, 1],)."""
        return (self.autoencoder.decode(tensors[0] / self.autoencoder.config.scaling_factor).sample,)
