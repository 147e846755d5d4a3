"""Styles: the public project's YAML, its base and paths, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from live2diff_trt.export.checkpoint_names import check_unet_changes
from live2diff_trt.export.errors import StyleError
from live2diff_trt.export.presets import SD15
from live2diff_trt.export.style import Style, read_style
from live2diff_trt.model.errors import ConfigurationError

UNET_CHANGES = {
    "cond_mapping": True,
    "use_inflated_groupnorm": True,
    "use_motion_module": True,
    "motion_module_resolutions": [1, 2, 4, 8],
    "motion_module_type": "Streaming",
    "motion_module_kwargs": {
        "num_attention_heads": 8,
        "num_transformer_block": 1,
        "attention_block_types": ["Temporal_Self", "Temporal_Self"],
        "temporal_position_encoding": True,
        "temporal_position_encoding_max_len": 24,
        "attention_class_name": "stream",
        "attention_kwargs": {"window_size": 16, "sink_size": 8},
    },
}
BASE = {
    "pretrained_model_path": "runwayml/stable-diffusion-v1-5",
    "motion_module_path": "models/live2diff.ckpt",
    "depth_model_path": "midas",
    "unet_additional_kwargs": UNET_CHANGES,
    "noise_scheduler_kwargs": {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "linear",
        "steps_offset": 1,
        "clip_sample": False,
    },
}
STYLE = {
    "base": "base.yaml",
    "motion_module_path": "models/other.ckpt",
    "prompt_template": "{}, flat colours",
    "num_inference_steps": 50,
    "t_index_list": [30, 36, 42],
    "third_party_dict": {
        "dreambooth": "models/style.safetensors",
        "lora_list": [{"lora": "models/lines.safetensors", "lora_alpha": 0.6}, {"lora": "models/more.safetensors"}],
        "clip_skip": 2,
        "vae": "taesd",
        "text_embedding_dict": {"<ink>": "models/ink.pt", "<paper>": "someone/paper"},
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    for name in ("style.safetensors", "lines.safetensors", "ink.pt"):
        (tmp_path / "models" / name).touch()
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE))
    return tmp_path


def write(folder: Path, changes: dict[str, object]) -> Path:
    path = folder / "style.yaml"
    path.write_text(yaml.safe_dump({**STYLE, **changes}))
    return path


def test_a_style_is_read_over_its_base(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = folder / "elsewhere"
    (elsewhere / "models").mkdir(parents=True)
    (elsewhere / "models" / "more.safetensors").touch()
    monkeypatch.chdir(elsewhere)
    assert read_style(write(folder, {})) == Style(
        base="runwayml/stable-diffusion-v1-5",
        motion=str(folder / "models" / "other.ckpt"),
        depth="midas",
        dreambooth=str(folder / "models" / "style.safetensors"),
        vae="taesd",
        loras=((str(folder / "models" / "lines.safetensors"), 0.6), ("models/more.safetensors", 1.0)),
        textual_inversions=((str(folder / "models" / "ink.pt"), "<ink>"), ("someone/paper", "<paper>")),
        clip_skip=2,
        prompt_template="{}, flat colours",
        step_list=(30, 36, 42),
        strength=None,
        unet_changes=UNET_CHANGES,
    )


def test_what_a_style_leaves_out_has_the_public_projects_defaults(tmp_path: Path) -> None:
    (tmp_path / "style.yaml").write_text("prompt: '{}, ink'\n")
    style = read_style(tmp_path / "style.yaml")
    assert (style.clip_skip, style.prompt_template, style.step_list) == (1, "{}, ink", None)
    assert (style.loras, style.textual_inversions) == ((), ())


def test_unknown_keys_are_all_named(folder: Path) -> None:
    third_party = {**STYLE["third_party_dict"], "controlnet": "x"}  # type: ignore[dict-item]
    with pytest.raises(StyleError, match="guidance_scale, seed"):
        read_style(write(folder, {"guidance_scale": 7, "seed": 2}))
    with pytest.raises(StyleError, match=r"third_party_dict\.controlnet"):
        read_style(write(folder, {"third_party_dict": third_party}))
    with pytest.raises(StyleError, match=r"lora_list\.weight"):
        read_style(write(folder, {"third_party_dict": {"lora_list": [{"lora": "a", "weight": 1}]}}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_inference_steps": 20}, "num_inference_steps 20"),
        ({"noise_scheduler_kwargs": {"beta_schedule": "scaled_linear"}}, "scaled_linear"),
        ({"third_party_dict": {"text_embedding_dict": ["x.pt"]}}, "text_embedding_dict .* no table of tokens"),
        ({"third_party_dict": {"text_embedding_dict": {3: "x.pt"}}}, "text_embedding_dict .* no table of tokens"),
        ({"third_party_dict": {"clip_skip": "two"}}, "clip_skip"),
        ({"third_party_dict": {"lora_list": [{"lora": "a", "lora_alpha": "much"}]}}, "is no number"),
        ({"third_party_dict": [1]}, "no table of keys"),
        ({"prompt_template": 3}, "is no text"),
        ({"prompt_template": "flat colours"}, "no place for a prompt"),
        ({"t_index_list": "30,40"}, "t_index_list"),
        ({"t_index_list": None, "strength": "much"}, "strength of the style .* is 'much'"),
        ({"t_index_list": None, "strength": True}, "strength of the style .* is True"),
        ({"strength": 0.5}, "has a t_index_list and a strength"),
        ({"base": "style.yaml"}, "based on itself"),
        ({"base": "missing.yaml"}, r"missing\.yaml can't be read"),
    ],
)
def test_what_can_not_be_had_is_refused(folder: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(StyleError, match=message):
        read_style(write(folder, changes))


@pytest.mark.parametrize("strength", [0.4, 1])
def test_a_strength_may_stand_for_the_step_list(folder: Path, strength: float) -> None:
    style = read_style(write(folder, {"t_index_list": None, "strength": strength}))
    assert (style.step_list, style.strength) == (None, strength)


def test_a_style_must_be_for_the_presets_network() -> None:
    check_unet_changes(SD15, UNET_CHANGES)
    check_unet_changes(SD15, {})
    with pytest.raises(StyleError, match="another network"):
        check_unet_changes(SD15, {**UNET_CHANGES, "motion_module_resolutions": [1, 2]})
    with pytest.raises(ConfigurationError, match="cond_mapping"):
        check_unet_changes(SD15, {**UNET_CHANGES, "cond_mapping": False})
