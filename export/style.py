"""Styles: the YAML files of the public Live2Diff project, read strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from live2diff_trt.bundle.manifest import PROMPT_PLACE
from live2diff_trt.export.errors import StyleError
from live2diff_trt.export.locate import is_hub_id

_BASE_KEYS = {
    "pretrained_model_path",
    "motion_module_path",
    "depth_model_path",
    "unet_additional_kwargs",
    "noise_scheduler_kwargs",
}
_STYLE_KEYS = {
    "base",
    "prompt_template",
    "prompt",
    "third_party_dict",
    "num_inference_steps",
    "t_index_list",
    "strength",
}
_THIRD_PARTY_KEYS = {"dreambooth", "lora_list", "clip_skip", "vae", "text_embedding_dict"}
_LORA_KEYS = {"lora", "lora_alpha"}
_DEFAULT_CLIP_SKIP = 1
_ORIGINAL_STEPS = 50
_SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
}


@dataclass(frozen=True)
class Style:
    """What a style asks for. Models are paths or hub ids, as the command line takes them.

    Attributes:
        base, motion, depth, dreambooth, vae: models; None where the style names none.
        loras: (model, scale), in the order of merging.
        textual_inversions: (model, token).
        clip_skip: layers left out at the end of the text encoder.
        prompt_template: ``{}`` is the prompt's place.
        step_list: denoising steps, indices into LCM's 50; None where the style names none.
        strength: instead of a step list, how much is repainted; None where the style does not say.
        unet_changes: what the network must be, in the reference's own keys.
    """

    base: str | None
    motion: str | None
    depth: str | None
    dreambooth: str | None
    vae: str | None
    loras: tuple[tuple[str, float], ...]
    textual_inversions: tuple[tuple[str, str], ...]
    clip_skip: int
    prompt_template: str | None
    step_list: tuple[int, ...] | None
    strength: float | None
    unet_changes: Mapping[str, Any]


def read_style(path: Path) -> Style:
    """Read a style and the YAML that it is based on; the style's own keys win.

    A relative path in a YAML is meant from that file's folder if something is there, else from the working directory.

    Raises:
        StyleError: if a file can't be read, naming every key that is unknown, or a value that can't be had.
    """
    values = _read_with_base(path, ())
    third_party = values.get("third_party_dict") or {}
    _refuse_unknown(path, values, _STYLE_KEYS | _BASE_KEYS, "")
    _refuse_unknown(path, third_party, _THIRD_PARTY_KEYS, "third_party_dict.")
    _refuse_what_can_not_be_had(path, values)
    return Style(
        base=values.get("pretrained_model_path"),
        motion=values.get("motion_module_path"),
        depth=values.get("depth_model_path"),
        dreambooth=third_party.get("dreambooth"),
        vae=third_party.get("vae"),
        loras=_read_loras(path, third_party.get("lora_list") or []),
        textual_inversions=_read_textual_inversions(path, third_party.get("text_embedding_dict") or {}),
        clip_skip=_read_clip_skip(path, third_party.get("clip_skip", _DEFAULT_CLIP_SKIP)),
        prompt_template=_read_template(path, values),
        step_list=_read_step_list(path, values.get("t_index_list")),
        strength=_read_strength(path, values.get("strength")),
        unet_changes=values.get("unet_additional_kwargs") or {},
    )


def _read_with_base(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise StyleError(f"{path} is based on itself", "Let base name another file, or none")
    values = _read_yaml(path)
    base = values.pop("base", None)
    values = _resolve_models(values, path.parent)
    if base is None:
        return values
    return {**_read_with_base(Path(_resolve(base, path.parent)), (*seen, path.resolve())), **values}


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise StyleError(f"the style {path} can't be read ({error})", "Mend the path or the YAML") from error
    if not isinstance(values, dict) or not isinstance(values.get("third_party_dict") or {}, dict):
        raise StyleError(f"the style {path} is no table of keys", "Write it as the public project's styles are")
    return values


def _resolve_models(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the values with every model's path resolved."""
    resolved = dict(values)
    for key in ("pretrained_model_path", "motion_module_path", "depth_model_path"):
        if key in values:
            resolved[key] = _resolve(values[key], folder)
    if third_party := values.get("third_party_dict"):
        resolved["third_party_dict"] = third_party = dict(third_party)
        for key in ("dreambooth", "vae"):
            if third_party.get(key) is not None:
                third_party[key] = _resolve(third_party[key], folder)
        if isinstance(third_party.get("lora_list"), list):
            third_party["lora_list"] = [
                {**entry, "lora": _resolve(entry["lora"], folder)}
                if isinstance(entry, dict) and "lora" in entry
                else entry
                for entry in third_party["lora_list"]
            ]
        if isinstance(third_party.get("text_embedding_dict"), dict):
            third_party["text_embedding_dict"] = {
                token: _resolve(model, folder) for token, model in third_party["text_embedding_dict"].items()
            }
    return resolved


def _resolve(model: Any, folder: Path) -> str:
    name = str(model)
    return str(folder / name) if (folder / name).exists() or not _is_elsewhere(name) else name


def _is_elsewhere(name: str) -> bool:
    return Path(name).exists() or is_hub_id(name) or name in {"taesd", "kl", "midas", "depth-anything"}


def _refuse_unknown(path: Path, values: Mapping[str, Any], known: set[str], prefix: str) -> None:
    unknown = [f"{prefix}{key}" for key in values if key not in known]
    if unknown:
        raise StyleError(
            f"the style {path} has keys that are unknown here: {', '.join(unknown)}", "Mend or remove them"
        )


def _refuse_what_can_not_be_had(path: Path, values: Mapping[str, Any]) -> None:
    if values.get("num_inference_steps", _ORIGINAL_STEPS) != _ORIGINAL_STEPS:
        raise StyleError(
            f"the style {path} has num_inference_steps {values['num_inference_steps']}",
            f"Give t_index_list in LCM's {_ORIGINAL_STEPS} steps",
        )
    if values.get("t_index_list") is not None and values.get("strength") is not None:
        raise StyleError(f"the style {path} has a t_index_list and a strength", "Leave out the one or the other")
    schedule = values.get("noise_scheduler_kwargs") or {}
    other = [f"{key} {value!r}" for key, value in schedule.items() if key in _SCHEDULE and _SCHEDULE[key] != value]
    if other:
        raise StyleError(
            f"the style {path} has another noise schedule: {', '.join(other)}", "Remove noise_scheduler_kwargs"
        )
    _refuse_unknown(path, schedule, {*_SCHEDULE, "clip_sample"}, "noise_scheduler_kwargs.")


def _read_loras(path: Path, entries: Any) -> tuple[tuple[str, float], ...]:
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "lora" in entry for entry in entries):
        raise StyleError(f"lora_list of the style {path} is no list of tables with lora", "Write - lora: FILE")
    for entry in entries:
        _refuse_unknown(path, entry, _LORA_KEYS, "third_party_dict.lora_list.")
    try:
        return tuple((str(entry["lora"]), float(entry.get("lora_alpha", 1.0))) for entry in entries)
    except (TypeError, ValueError) as error:
        raise StyleError(f"lora_alpha of the style {path} is no number ({error})", "Write a number") from error


def _read_textual_inversions(path: Path, models: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(models, dict) or not all(isinstance(token, str) for token in models):
        raise StyleError(f"text_embedding_dict of the style {path} is no table of tokens", "Write TOKEN: FILE")
    return tuple((str(model), token) for token, model in models.items())


def _read_clip_skip(path: Path, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise StyleError(f"clip_skip of the style {path} is {value!r}", "Write a whole number, 0 for all layers")
    return value


def _read_template(path: Path, values: Mapping[str, Any]) -> str | None:
    template = values.get("prompt_template", values.get("prompt"))
    if template is not None and not isinstance(template, str):
        raise StyleError(f"prompt_template of the style {path} is no text", "Write one line with {} in it")
    if template is not None and PROMPT_PLACE not in template:
        raise StyleError(
            f"prompt_template of the style {path} has no place for a prompt", "Write {} where the prompt goes"
        )
    return template


def _read_step_list(path: Path, value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(index, int) for index in value):
        raise StyleError(f"t_index_list of the style {path} is {value!r}", "Write indices, as in [30, 40]")
    return tuple(value)


def _read_strength(path: Path, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise StyleError(f"strength of the style {path} is {value!r}", "Write a number from 0 to 1, as in 0.4")
    return float(value)
