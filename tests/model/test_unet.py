"""The causal UNet: its keys, its size, its order, and rows that do not see each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from live2diff_trt.conformance.goldens import Goldens
from live2diff_trt.model.configuration import UNetConfiguration
from live2diff_trt.model.temporal_attention import StreamingAttend, WarmUpAttend
from live2diff_trt.model.unet import CausalUNet, Conditions
from live2diff_trt.model.weights import random_unet

pytestmark = pytest.mark.usefixtures("one_thread")

TOKENS, ROWS = 5, 2
TINY = UNetConfiguration(
    block_channels=(32, 64),
    layers_per_block=1,
    cross_attention=(True, False),
    attention_heads=(8, 8),
    cross_attention_channels=16,
    norm_groups=8,
    motion=(True, True),
)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def conditions_for(unet: CausalUNet, rows: int, attend: StreamingAttend | WarmUpAttend) -> Conditions:
    prompt = unet.embed_prompt(draw(rows, TOKENS, unet.configuration.cross_attention_channels, seed=1))
    return Conditions(unet.embed_time(torch.tensor([399, 199][:rows] * (rows // 2 or 1))), prompt, attend)


def make_attend(unet: CausalUNet, height: int, width: int) -> StreamingAttend:
    """A past of random frames, of which the first row sees eight and the second all but one."""
    past = {
        one.place: tuple(
            draw(2, ROWS, 16, (height >> level) * (width >> level), one.to_q.out_features, seed=index).unbind()
        )
        for index, (level, one) in enumerate(unet.temporal_attentions())
    }
    bias = torch.zeros(ROWS, 16)
    bias[0, 8:] = bias[1, 15] = -torch.inf
    position = torch.arange(16, dtype=torch.int32).expand(ROWS, -1)
    pairs = {place: (tensors[0], tensors[1]) for place, tensors in past.items()}
    return StreamingAttend(pairs, torch.tensor([8, 15]), position, bias, unet.configuration.motion_heads)


@torch.inference_mode()
def run(unet: CausalUNet, sample: Tensor, depth_latent: Tensor) -> tuple[Tensor, StreamingAttend]:
    attend = make_attend(unet, *sample.shape[2:])
    out = unet(sample, unet.embed_depth(depth_latent), conditions_for(unet, ROWS, attend))
    return out, attend


@pytest.fixture(scope="module")
def unet() -> CausalUNet:
    return random_unet(TINY, seed=0)


def test_the_state_dict_has_the_references_keys(goldens: Goldens) -> None:
    with torch.device("meta"):
        state = CausalUNet(goldens.configuration).state_dict()
    recorded = {key: tensor.shape for key, tensor in goldens.weights().items()}
    assert {key: tensor.shape for key, tensor in state.items()} == recorded


def test_stable_diffusions_size() -> None:
    with torch.device("meta"):
        unet = CausalUNet(UNetConfiguration())
    assert sum(parameter.numel() for parameter in unet.parameters()) == 1_277_745_188
    assert len(list(unet.resnets())) == 22
    assert len(list(unet.spatial_transformers())) == 16


def test_temporal_attentions_come_in_the_order_of_the_caches() -> None:
    with torch.device("meta"):
        found = list(CausalUNet(UNetConfiguration()).temporal_attentions())
    inside = "temporal_transformer.transformer_blocks.0.attention_blocks"
    wanted = [
        (
            level,
            f"{side}_blocks.{index}.motion_modules.{module}.{inside}.{attention}",
        )
        for side, modules, levels in (("down", 2, (0, 1, 2, 3)), ("up", 3, (3, 2, 1, 0)))
        for index, level in enumerate(levels)
        for module in range(modules)
        for attention in range(2)
    ]
    assert [(level, one.place) for level, one in found] == wanted
    assert [one.to_q.out_features for _, one in found] == [(320, 640, 1280, 1280)[level] for level, _ in wanted]


def test_places_are_keys_of_the_state_dict(unet: CausalUNet) -> None:
    modules = dict(unet.named_modules())
    for level, attention in unet.temporal_attentions():
        assert modules[attention.place] is attention
        assert level in {0, 1}
    for resnet in unet.resnets():
        assert modules[resnet.place] is resnet
    for transformer in unet.spatial_transformers():
        assert modules[transformer.place] is transformer


def test_the_new_slots_are_gathered_in_order(unet: CausalUNet) -> None:
    _, attend = run(unet, draw(ROWS, 4, 8, 8, seed=2), draw(ROWS, 4, 8, 8, seed=3))
    assert list(attend.new) == [attention.place for _, attention in unet.temporal_attentions()]
    for level, attention in unet.temporal_attentions():
        for tensor in attend.new[attention.place]:
            assert tensor.shape == (ROWS, (8 >> level) ** 2, TINY.block_channels[level])


@pytest.mark.parametrize("row", [0, 1])
def test_a_row_does_not_see_the_other_rows(unet: CausalUNet, row: int) -> None:
    sample, depth = draw(ROWS, 4, 8, 8, seed=2), draw(ROWS, 4, 8, 8, seed=3)
    out, attend = run(unet, sample, depth)
    sample[1 - row] += 1
    depth[1 - row] -= 1
    changed, changed_attend = run(unet, sample, depth)
    torch.testing.assert_close(changed[row], out[row], rtol=0, atol=1e-5)
    assert (changed[1 - row] - out[1 - row]).abs().max() > 1e-2
    for place, pair in attend.new.items():
        for tensor, changed_tensor in zip(pair, changed_attend.new[place], strict=True):
            torch.testing.assert_close(changed_tensor[row], tensor[row], rtol=0, atol=1e-4)


def test_depth_changes_the_output(unet: CausalUNet) -> None:
    sample = draw(ROWS, 4, 8, 8, seed=2)
    one, _ = run(unet, sample, draw(ROWS, 4, 8, 8, seed=3))
    other, _ = run(unet, sample, draw(ROWS, 4, 8, 8, seed=4))
    assert (one - other).abs().amax(dim=(1, 2, 3)).min() > 1e-3


def test_time_prompt_and_past_change_the_output(unet: CausalUNet) -> None:
    sample, depth = draw(ROWS, 4, 8, 8, seed=2), unet.embed_depth(draw(ROWS, 4, 8, 8, seed=3))
    usual = conditions_for(unet, ROWS, make_attend(unet, 8, 8))
    other_past = make_attend(unet, 8, 8)
    other_past._past = {place: (k + 1, v - 1) for place, (k, v) in other_past._past.items()}
    out = unet(sample, depth, usual)
    for changed in (
        replace(usual, time=unet.embed_time(torch.tensor([999, 19]))),
        replace(usual, prompt=unet.embed_prompt(draw(ROWS, TOKENS, 16, seed=9))),
        replace(usual, attend=other_past),
    ):
        assert (unet(sample, depth, changed) - out).abs().amax(dim=(1, 2, 3)).min() > 1e-4


@pytest.mark.parametrize(
    "configuration",
    [
        TINY,
        replace(TINY, layers_per_block=2),
        replace(TINY, block_channels=(64, 32)),
        replace(TINY, block_channels=(32, 96, 64), cross_attention=(False, True, True), attention_heads=(4, 4, 8),
                motion=(True, False, True)),
        replace(TINY, in_channels=5, out_channels=3, use_linear_projection=True, motion_attentions=1),
    ],
    ids=["tiny", "two layers", "narrowing", "three levels", "other channels"],
)  # fmt: skip
@pytest.mark.parametrize(("height", "width"), [(8, 16), (16, 8)])
def test_other_networks_run_at_other_sizes(configuration: UNetConfiguration, height: int, width: int) -> None:
    unet = random_unet(configuration, seed=1)
    shape = (ROWS, configuration.in_channels, height, width)
    out, attend = run(unet, draw(*shape, seed=2), draw(*shape, seed=3))
    assert out.shape == (ROWS, configuration.out_channels, height, width)
    assert torch.isfinite(out).all()
    assert out.std() > 1e-2
    for level, attention in unet.temporal_attentions():
        positions = (height >> level) * (width >> level)
        assert attend.new[attention.place][0].shape == (ROWS, positions, configuration.block_channels[level])


def test_warm_up_frames_see_each_other_in_both_directions(unet: CausalUNet) -> None:
    sample, depth = draw(8, 4, 8, 8, seed=2), unet.embed_depth(draw(8, 4, 8, 8, seed=3))

    def run_warm_up() -> Tensor:
        return unet(sample, depth, conditions_for(unet, 8, WarmUpAttend(TINY.motion_heads)))

    out = run_warm_up()
    for frame in (0, 7):
        sample[frame] += 1
        assert (run_warm_up() - out).abs().amax(dim=(1, 2, 3)).min() > 1e-5
        sample[frame] -= 1


def test_what_is_embedded_has_the_shapes_that_forward_takes(unet: CausalUNet) -> None:
    time = unet.embed_time(torch.tensor([999, 399, 19]))
    assert {place: tensor.shape for place, tensor in time.items()} == {
        resnet.place: (3, resnet.time_emb_proj.out_features) for resnet in unet.resnets()
    }
    prompt = unet.embed_prompt(draw(1, TOKENS, 16, seed=1))
    assert {place: [tensor.shape for tensor in pair] for place, pair in prompt.items()} == {
        one.place: [(1, TOKENS, one.channels)] * 2 for one in unet.spatial_transformers()
    }
    assert unet.embed_depth(draw(3, 4, 8, 16, seed=1)).shape == (3, 32, 8, 16)


def test_embedding_rows_together_or_apart_is_the_same(unet: CausalUNet) -> None:
    together = unet.embed_time(torch.tensor([399, 199]))
    apart = [unet.embed_time(torch.tensor([step])) for step in (399, 199)]
    for place, tensor in together.items():
        torch.testing.assert_close(tensor, torch.cat([one[place] for one in apart]), rtol=0, atol=1e-5)
