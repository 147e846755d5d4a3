"""Weights into the network: the reference's state dict by its own keys, or random ones from a seed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from live2diff_trt.model.configuration import UNetConfiguration
from live2diff_trt.model.errors import WeightsError
from live2diff_trt.model.temporal_attention import PositionEncoding
from live2diff_trt.model.unet import CausalUNet


def load_unet(
    configuration: UNetConfiguration, state_dict: Mapping[str, Tensor], dtype: torch.dtype = torch.float32
) -> CausalUNet:
    """Build a UNet in evaluation mode from the reference's state dict; weights are cast to ``dtype``.

    Raises:
        WeightsError: listing every unexpected, missing and mis-shaped key.
    """
    with torch.device("meta"):
        unet = CausalUNet(configuration)
    check_keys(unet, state_dict)
    unet.load_state_dict({key: tensor.to(dtype) for key, tensor in state_dict.items()}, assign=True)
    return unet.eval().requires_grad_(False)


def random_unet(configuration: UNetConfiguration, seed: int, dtype: torch.dtype = torch.float32) -> CausalUNet:
    """Build a UNet in evaluation mode with random weights that depend on the seed and each key alone."""
    with torch.device("meta"):
        unet = CausalUNet(configuration)
    unet.load_state_dict(random_state_dict(unet, seed, dtype), assign=True)
    return unet.eval().requires_grad_(False)


def check_keys(module: nn.Module, state_dict: Mapping[str, Tensor], origin: str = "the weights") -> None:
    """Raise WeightsError, listing all of them, if keys or shapes of ``state_dict`` are not those of ``module``.

    ``origin`` names the files in the message.
    """
    wanted = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in state_dict.items()}
    problems = [
        *(f"unexpected {key} {list(shape)}" for key, shape in found.items() if key not in wanted),
        *(f"missing {key} {list(shape)}" for key, shape in wanted.items() if key not in found),
        *(
            f"mis-shaped {key}: {list(found[key])}, not {list(shape)}"
            for key, shape in wanted.items()
            if key in found and found[key] != shape
        ),
    ]
    if problems:
        raise WeightsError(
            f"{len(problems)} keys of {origin} do not fit the network:\n  " + "\n  ".join(problems),
            "Use the weights and the configuration of the same network",
        )


def random_state_dict(module: nn.Module, seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return weights for every key of ``module`` (which may be on the meta device).

    Norms are the identity, biases 0, position tables sinusoidal; the rest is normal with variance 1 / fan-in, which
    keeps activations near unit size in a network of any width.
    """
    norms = {name for name, part in module.named_modules() if isinstance(part, nn.GroupNorm | nn.LayerNorm)}
    tables = {name for name, part in module.named_modules() if isinstance(part, PositionEncoding)}
    state = module.state_dict()

    def make(key: str) -> Tensor:
        owner = key.rpartition(".")[0]
        return _random_tensor(key, state[key], seed, owner in norms, owner in tables).to(dtype)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # each tensor has its own generator, which needs no interpreter
        return dict(zip(state, pool.map(make, state), strict=True))


def _random_tensor(key: str, like: Tensor, seed: int, is_norm: bool, is_table: bool) -> Tensor:
    if is_table:
        table: Tensor = PositionEncoding(like.shape[1], like.shape[2]).pe
        return table
    if like.ndim == 1:
        return torch.full(like.shape, 1.0 if is_norm and key.endswith(".weight") else 0.0)
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    return torch.randn(like.shape, generator=generator).div_(like[0].numel() ** 0.5)
