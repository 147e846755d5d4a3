"""Weights that do not fit are refused key by key; random ones follow from their seed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from live2diff_trt.conformance.goldens import Goldens
from live2diff_trt.model.configuration import UNetConfiguration
from live2diff_trt.model.errors import WeightsError
from live2diff_trt.model.weights import load_unet, random_unet

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = UNetConfiguration(
    block_channels=(32, 64),
    layers_per_block=1,
    cross_attention=(True, False),
    attention_heads=(8, 8),
    cross_attention_channels=16,
    norm_groups=8,
    motion=(True, True),
)


def same(one: nn.Module, other: nn.Module) -> dict[str, bool]:
    return {key: torch.equal(tensor, other.state_dict()[key]) for key, tensor in one.state_dict().items()}


def test_the_recorded_weights_are_loaded_in_float32(goldens: Goldens) -> None:
    weights = goldens.weights()
    assert torch.float16 in {tensor.dtype for tensor in weights.values()}
    unet = load_unet(goldens.configuration, weights)
    assert not unet.training
    assert not any(parameter.requires_grad for parameter in unet.parameters())
    for key, tensor in unet.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, weights[key].float())
    assert {table.dtype for _, one in unet.temporal_attentions() for table in (one.pe_q, one.pe_k, one.pe_v)} == {
        torch.float32
    }


def test_every_key_that_does_not_fit_is_listed(goldens: Goldens) -> None:
    weights = goldens.weights()
    missing = ["conv_in.bias", "mid_block.resnets.0.norm1.weight"]
    for key in missing:
        del weights[key]
    weights["grid"], weights["module.conv_in.weight"] = torch.zeros(2), torch.zeros(3, 1)
    weights["conv_out.bias"], weights["conv_norm_out.weight"] = torch.zeros(5), torch.zeros(1, 32)
    with pytest.raises(WeightsError) as caught:
        load_unet(goldens.configuration, weights)
    lines = caught.value.problem.splitlines()
    assert lines[0].startswith("6 keys")
    assert sorted(line.strip() for line in lines[1:]) == [
        "mis-shaped conv_norm_out.weight: [1, 32], not [32]",
        "mis-shaped conv_out.bias: [5], not [4]",
        "missing conv_in.bias [32]",
        "missing mid_block.resnets.0.norm1.weight [64]",
        "unexpected grid [2]",
        "unexpected module.conv_in.weight [3, 1]",
    ]


def test_random_weights_follow_from_the_seed() -> None:
    one, again, other = random_unet(TINY, 1), random_unet(TINY, 1), random_unet(TINY, 2)
    assert all(same(one, again).values())
    differ = {key for key, equal in same(one, other).items() if not equal}
    assert differ == {key for key, tensor in one.state_dict().items() if tensor.ndim > 1 and not key.endswith(".pe")}


def test_random_weights_neither_use_nor_change_torchs_own_generator() -> None:
    torch.manual_seed(5)
    one, state = random_unet(TINY, 1), torch.get_rng_state()
    torch.manual_seed(5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert all(same(one, random_unet(TINY, 1)).values())


def test_random_weights_of_a_key_do_not_depend_on_the_rest_of_the_network() -> None:
    wider = UNetConfiguration(
        block_channels=(32, 64, 64),
        layers_per_block=1,
        cross_attention=(True, False, False),
        attention_heads=(8, 8, 8),
        cross_attention_channels=16,
        norm_groups=8,
        motion=(True, True, True),
    )
    key = "down_blocks.0.resnets.0.conv1.weight"
    assert torch.equal(random_unet(TINY, 1).state_dict()[key], random_unet(wider, 1).state_dict()[key])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_random_weights_have_the_dtype_asked_for(dtype: torch.dtype) -> None:
    unet = random_unet(TINY, 1, dtype)
    assert {tensor.dtype for tensor in unet.state_dict().values()} == {dtype}
    assert {one.pe_q.dtype for _, one in unet.temporal_attentions()} == {dtype}


def test_random_norms_are_the_identity_and_biases_zero() -> None:
    for name, module in random_unet(TINY, 1).named_modules():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            assert torch.all(module.weight == 1), name
        bias = getattr(module, "bias", None)
        if isinstance(bias, torch.Tensor):
            assert not bias.any(), name
