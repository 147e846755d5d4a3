"""The reference's configuration is read, or refused with everything that is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from live2diff_trt.model.configuration import UNetConfiguration
from live2diff_trt.model.errors import ConfigurationError

pytestmark = pytest.mark.usefixtures("one_thread")

Values = dict[str, Any]
GOLDENS = Path(__file__).parents[1] / "goldens" / "tiny_a"

UNET: Values = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
OTHER_SWITCHES: Values = {
    "center_input_sample": True,
    "downsample_padding": 0,
    "mid_block_scale_factor": 2,
    "act_fn": "gelu",
    "only_cross_attention": True,
    "dual_cross_attention": True,
    "upcast_attention": True,
    "class_embed_type": "timestep",
    "num_class_embeds": 10,
    "resnet_time_scale_shift": "scale_shift",
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
}
OTHER_ADDITIONAL: Values = {
    "cond_mapping": False,
    "use_inflated_groupnorm": False,
    "use_motion_module": False,
    "motion_module_mid_block": True,
    "motion_module_decoder_only": True,
    "motion_module_type": "Vanilla",
    "unet_use_cross_frame_attention": True,
    "unet_use_temporal_attention": True,
}
OTHER_MOTION: Values = {
    "num_transformer_block": 2,
    "temporal_position_encoding": False,
    "temporal_attention_dim_div": 2,
    "attention_class_name": "versatile",
    "attention_block_types": ["Temporal_Self", "Temporal_Cross"],
}


def test_the_recorded_configuration_is_read() -> None:
    values = json.loads((GOLDENS / "config.json").read_text(encoding="utf-8"))
    assert UNetConfiguration.from_reference(values["unet"], values["unet_additional_kwargs"]) == UNetConfiguration(
        block_channels=(32, 64, 64, 64), layers_per_block=1, cross_attention_channels=32, norm_groups=8
    )


def test_the_defaults_are_stable_diffusion() -> None:
    assert UNetConfiguration.from_reference(UNET, {}) == UNetConfiguration()


def test_every_key_reaches_its_field() -> None:
    unet = {**UNET, "in_channels": 5, "out_channels": 6, "block_out_channels": [64, 64, 128, 192], "norm_eps": 1e-3}
    unet |= {"norm_num_groups": 16, "use_linear_projection": True, "flip_sin_to_cos": False, "freq_shift": 1}
    motion = {"num_attention_heads": 4, "attention_block_types": ["Temporal_Self"] * 3}
    motion |= {"temporal_position_encoding_max_len": 32, "attention_kwargs": {"window_size": 20, "sink_size": 6}}
    assert UNetConfiguration.from_reference(unet, {"motion_module_kwargs": motion}) == UNetConfiguration(
        in_channels=5,
        out_channels=6,
        block_channels=(64, 64, 128, 192),
        use_linear_projection=True,
        norm_groups=16,
        norm_eps=1e-3,
        flip_sin_to_cos=False,
        frequency_shift=1,
        motion_heads=4,
        motion_attentions=3,
        position_rows=32,
        window=20,
        sink=6,
    )


@pytest.mark.parametrize("key", OTHER_SWITCHES)
def test_an_unsupported_switch_is_refused(key: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{key} is {OTHER_SWITCHES[key]!r}"):
        UNetConfiguration.from_reference({**UNET, key: OTHER_SWITCHES[key]}, {})


@pytest.mark.parametrize("key", OTHER_ADDITIONAL)
def test_an_unsupported_additional_switch_is_refused(key: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{key} is {OTHER_ADDITIONAL[key]!r}"):
        UNetConfiguration.from_reference(UNET, {key: OTHER_ADDITIONAL[key]})


@pytest.mark.parametrize("key", OTHER_MOTION)
def test_an_unsupported_motion_switch_is_refused(key: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{key} is"):
        UNetConfiguration.from_reference(UNET, {"motion_module_kwargs": {key: OTHER_MOTION[key]}})


def test_all_unsupported_switches_are_listed_at_once() -> None:
    additional = {**OTHER_ADDITIONAL, "motion_module_kwargs": OTHER_MOTION}
    with pytest.raises(ConfigurationError) as caught:
        UNetConfiguration.from_reference({**UNET, **OTHER_SWITCHES}, additional)
    for key in (*OTHER_SWITCHES, *OTHER_ADDITIONAL, *OTHER_MOTION):
        assert f"{key} is" in caught.value.problem


@pytest.mark.parametrize("kind", ["UNetMidBlock2DCrossAttn", "UNetMidBlock3DCrossAttn"])
def test_both_names_of_the_mid_block_are_known(kind: str) -> None:
    assert UNetConfiguration.from_reference({**UNET, "mid_block_type": kind}, {}) == UNetConfiguration()


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"norm_groups": 48}, "320 channels do not divide into 48 norm groups"),
        ({"attention_heads": (8, 8, 7, 8)}, "1280 channels do not divide into 7 attention heads"),
        ({"motion_heads": 7}, "640 channels do not divide into 7 heads of a temporal attention"),
        (
            {"block_channels": (48, 64, 64, 64), "norm_groups": 8},
            "48 channels do not divide into 32 groups of a motion module's norm",
        ),
        ({"position_rows": 15}, "15 position rows are fewer than the window of 16"),
    ],
)
def test_channels_that_do_not_divide_are_refused(fields: Values, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        UNetConfiguration(**fields)


def test_what_a_level_does_not_have_need_not_divide() -> None:
    configuration = UNetConfiguration(
        block_channels=(24, 64),
        norm_groups=8,
        cross_attention=(False, True),
        attention_heads=(7, 8),
        motion=(False, True),
    )
    assert configuration.time_channels == 96


@pytest.mark.parametrize(
    ("resolutions", "motion"),
    [([1, 4], (True, False, True, False)), ([8], (False, False, False, True)), ([], (False,) * 4)],
)
def test_motion_modules_may_be_at_some_resolutions(resolutions: list[int], motion: tuple[bool, ...]) -> None:
    read = UNetConfiguration.from_reference(UNET, {"motion_module_resolutions": resolutions})
    assert read.motion == motion


def test_heads_may_differ_by_level() -> None:
    read = UNetConfiguration.from_reference({**UNET, "attention_head_dim": [5, 10, 20, 20]}, {})
    assert read.attention_heads == (5, 10, 20, 20)


@pytest.mark.parametrize(
    "types",
    [
        {"up_block_types": ["UpBlock2D"] * 4},
        {"up_block_types": UNET["up_block_types"][:3]},
        {"down_block_types": UNET["down_block_types"][:3], "up_block_types": UNET["up_block_types"][:3]},
        {"down_block_types": [*UNET["down_block_types"][:3], "AttnDownBlock2D"]},
    ],
    ids=["no mirror", "too few", "fewer than channels", "unknown"],
)
def test_blocks_that_make_no_unet_are_refused(types: Values) -> None:
    with pytest.raises(ConfigurationError):
        UNetConfiguration.from_reference({**UNET, **types}, {})


def test_json_keeps_every_field() -> None:
    values = json.loads(json.dumps(UNetConfiguration(block_channels=(64, 64, 64, 64)).to_json()))
    fields: Values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    assert UNetConfiguration(**fields) == UNetConfiguration(block_channels=(64, 64, 64, 64))
