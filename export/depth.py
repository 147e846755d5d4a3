"""The depth networks: by kind, with random weights, and as a graph module.

DPT-Hybrid (Ranftl et al., arXiv 2103.13413) trained as MiDaS (arXiv 1907.01341) is what Live2Diff uses; Depth Anything
(Yang et al., arXiv 2401.10891) is smaller. Both are transformers' own classes.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AttentionInterface,
    BitConfig,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTConfig,
    DPTForDepthEstimation,
    PreTrainedModel,
)
from transformers.models.bit.modeling_bit import WeightStandardizedConv2d

from live2diff_trt.export.tensors import Tensors
from live2diff_trt.model.weights import random_state_dict

DepthKind = Literal["tiny", "dpt-hybrid", "depth-anything-small"]

_SIZES: dict[DepthKind, int] = {"tiny": 128, "dpt-hybrid": 384, "depth-anything-small": 518}
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


def depth_size(kind: DepthKind) -> int:
    """Return the side, in pixels, of the square picture that a depth network takes."""
    return _SIZES[kind]


class TinyDepth(nn.Module):
    """A stand-in for tests: of a depth network it has the form, not the knowledge.

    Its map is the picture's smoothed brightness plus a few learned features, so that it follows the picture even with
    random weights.
    """

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.conv_middle = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_out = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Map a picture [frames, 3, side, side] in [−1, 1] to a map [frames, side, side], nowhere negative."""
        features = functional.gelu(self.conv_in(image))
        features = functional.gelu(self.conv_middle(features))
        detail = functional.interpolate(self.conv_out(features), scale_factor=2.0, mode="bilinear")
        brightness = functional.avg_pool2d(image.mean(dim=1, keepdim=True), 5, stride=1, padding=2)
        return functional.relu(1 + brightness + 0.25 * detail).squeeze(1)


def build_depth(kind: DepthKind) -> nn.Module:
    """Build a depth network with the configuration of its kind, on torch's default device.

    ``dpt-hybrid`` is Intel/dpt-hybrid-midas, ``depth-anything-small`` is LiheYoung/depth-anything-small-hf.
    """
    if kind == "dpt-hybrid":
        return DPTForDepthEstimation(_configure_dpt_hybrid())
    if kind == "depth-anything-small":
        return DepthAnythingForDepthEstimation(_configure_depth_anything_small())
    return TinyDepth()


def _configure_dpt_hybrid() -> DPTConfig:
    backbone = BitConfig(
        layer_type="bottleneck",
        depths=[3, 4, 9],
        out_features=["stage1", "stage2", "stage3"],
        global_padding="same",
        embedding_dynamic_padding=True,
    )
    return DPTConfig(
        is_hybrid=True,
        backbone_config=backbone,
        backbone_featmap_shape=[1, 1024, 24, 24],
        image_size=384,
        neck_hidden_sizes=[256, 512, 768, 768],
        neck_ignore_stages=[0, 1],
        reassemble_factors=[1, 1, 1, 0.5],
        readout_type="project",
    )


def _configure_depth_anything_small() -> DepthAnythingConfig:
    backbone = Dinov2Config(
        image_size=518,
        hidden_size=384,
        num_attention_heads=6,
        out_indices=[9, 10, 11, 12],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    return DepthAnythingConfig(backbone_config=backbone)


def random_depth(kind: DepthKind, seed: int, dtype: torch.dtype) -> nn.Module:
    """Build a depth network in evaluation mode with random weights that depend on the seed and each key alone."""
    with torch.device("meta"):
        network = build_depth(kind)
    weights = random_state_dict(network, seed, dtype)
    network.load_state_dict({key: _adjust(key, weight) for key, weight in weights.items()}, assign=True)
    return network.eval().requires_grad_(False)


def _adjust(key: str, weight: Tensor) -> Tensor:
    if key.endswith(".lambda1"):  # a layer's scale: 0 would leave the layer out
        return torch.ones_like(weight)
    if weight.ndim == 4 and weight.shape[0] == 1:  # the last convolution: the ReLU after it would cut a random one to 0
        return weight.abs()
    return weight


class DepthGraph(nn.Module):
    """A picture → its inverse depth: ``bundle.signature.depth``.

    Folds the weight standardisation of ``network`` and sets its attention, in place.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        fold_weight_standardisation(network)
        if isinstance(network, PreTrainedModel):
            network.set_attn_implementation(_UNMASKED)
        wants_imagenet = isinstance(network, DepthAnythingForDepthEstimation)
        dtype = next(network.parameters()).dtype
        self.normalise = _ImageNetNormalisation(dtype) if wants_imagenet else nn.Identity()
        self.network = network

    def forward(self, tensors: Tensors) -> Tensors:
        """Map (picture [frames, 3, side, side] in [−1, 1],) to (inverse depth [frames, side, side],)."""
        found = self.network(self.normalise(tensors[0]))
        return (found if isinstance(found, Tensor) else found.predicted_depth,)


class _ImageNetNormalisation(nn.Module):
    """From [−1, 1] to ImageNet's mean and deviation; MiDaS takes [−1, 1] as it is."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        mean, deviation = torch.tensor((_IMAGENET_MEAN, _IMAGENET_DEVIATION))[:, :, None, None]
        self.scale = nn.Buffer((0.5 / deviation).to(dtype), persistent=False)
        self.offset = nn.Buffer(((0.5 - mean) / deviation).to(dtype), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return image * self.scale + self.offset


def _attend_unmasked(
    _module: nn.Module, query: Tensor, key: Tensor, value: Tensor, _mask: None, scaling: float, **_switches: Any
) -> tuple[Tensor, None]:
    """Attend from all to all: [frames, heads, patches, channels] each, to [frames, patches, heads, channels]."""
    found = functional.scaled_dot_product_attention(query, key, value, scale=scaling)
    return found.transpose(1, 2), None


# While it is traced, transformers' own attention adds a mask of ones, as large as all scores of a layer.
_UNMASKED = "live2diff_unmasked"
AttentionInterface.register(_UNMASKED, _attend_unmasked)


def fold_weight_standardisation(module: nn.Module) -> None:
    """Replace, in place, every weight-standardised convolution inside ``module`` by a plain one of the same outputs.

    BiT standardises its filters at every call (Qiao et al., arXiv 1903.10520); with fixed weights once is enough.
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, WeightStandardizedConv2d):
                setattr(parent, name, _PlainConv2d(child))


class _PlainConv2d(nn.Conv2d):
    """A convolution with the standardised filters, and the padding, of a weight-standardised one."""

    def __init__(self, source: WeightStandardizedConv2d) -> None:
        super().__init__(
            source.in_channels,
            source.out_channels,
            source.kernel_size,
            source.stride,
            source.padding,
            source.dilation,
            source.groups,
            bias=False,
            device="meta",
        )
        self.pad = source.pad or nn.Identity()
        weight = source.weight.float()
        # A filter's own mean and deviation, in float32: the sums are long.
        standardised = functional.layer_norm(weight, weight.shape[1:], eps=source.eps).to(source.weight.dtype)
        self.weight = nn.Parameter(standardised, requires_grad=False)
        self.bias = source.bias

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(self.pad(features))
