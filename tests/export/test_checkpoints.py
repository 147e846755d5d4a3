"""Trained weights: what is merged is what diffusers merges, and what does not fit is refused, all of it at once."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from live2diff_trt.export.base_model import LdmFile
from live2diff_trt.export.checkpoint_file import read_motion, read_tensors
from live2diff_trt.export.checkpoint_names import CheckpointNames, locate_checkpoints
from live2diff_trt.export.checkpoints import CheckpointWeights
from live2diff_trt.export.errors import CheckpointError
from live2diff_trt.export.lora import merge_into_text_encoder, merge_into_unet, read_lora
from live2diff_trt.export.presets import SD15, TINY
from live2diff_trt.export.spatial_unet import check_spatial_configuration
from live2diff_trt.export.text import TextEncoderGraph
from live2diff_trt.export.tokenizer import make_tokenizer
from live2diff_trt.model.errors import WeightsError
from tests.export.made_up_models import (
    KOHYA_TARGETS,
    Models,
    make_autoencoder,
    make_kohya,
    make_motion,
    make_spatial_unet,
    make_text_encoder,
    to_ldm,
    vae_to_ldm,
    write_models,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return write_models(tmp_path_factory.mktemp("models"))


def name(models: Models) -> CheckpointNames:
    return CheckpointNames(str(models.base), str(models.motion), depth=str(models.depth), offline=True)


def name_everything(models: Models) -> CheckpointNames:
    return replace(
        name(models),
        dreambooth=str(models.dreambooth),
        loras=((str(models.lora), 0.8), (str(models.kohya), 0.5)),
        lcm_lora=str(models.lcm),
    )


@pytest.fixture(scope="module")
def everything(models: Models) -> CheckpointWeights:
    return locate_checkpoints(name_everything(models), TINY)


@pytest.fixture(scope="module")
def pipeline(models: Models) -> StableDiffusionPipeline:
    """diffusers' own pipeline, from the same files, by its own loaders."""
    dreambooth = load_file(models.dreambooth)
    unet = UNet2DConditionModel.from_single_file(dreambooth, config=str(models.base / "unet"), local_files_only=True)
    text_encoder = CLIPTextModel.from_pretrained(models.base / "text_encoder", local_files_only=True)
    ldm_text = {
        key.removeprefix("cond_stage_model.transformer.text_model."): tensor
        for key, tensor in dreambooth.items()
        if key.startswith("cond_stage_model.") and not key.endswith("position_ids")
    }
    text_encoder.load_state_dict(ldm_text)
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL.from_single_file(dreambooth, config=str(models.base / "vae"), local_files_only=True),
        text_encoder=text_encoder,
        tokenizer=CLIPTokenizer.from_pretrained(models.base / "tokenizer", local_files_only=True),
        unet=unet,
        scheduler=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for file, scale in ((models.lora, 0.8), (models.kohya, 0.5), (models.lcm, 1.0)):
        pipe.load_lora_weights(str(file.parent), weight_name=file.name, local_files_only=True)
        pipe.fuse_lora(components=["unet", "text_encoder"], lora_scale=scale)
        pipe.unload_lora_weights()
    return pipe


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for key, tensor in expected.items():
        assert (found[key] - tensor).abs().max() <= 1e-6, key


def test_the_merged_unet_is_diffusers_own(
    models: Models, everything: CheckpointWeights, pipeline: StableDiffusionPipeline
) -> None:
    found = everything.unet(TINY, torch.float32).state_dict()
    assert_same(found, pipeline.unet.state_dict())
    assert_same(found, make_motion())
    dreambooth = LdmFile(models.dreambooth).unet_weights(TINY)
    assert sum(not torch.equal(found[key], tensor) for key, tensor in dreambooth.items()) > len(KOHYA_TARGETS)


def test_the_merged_text_encoder_is_diffusers_own(
    everything: CheckpointWeights, pipeline: StableDiffusionPipeline
) -> None:
    model = everything.text_encoder(TINY, torch.float32)
    assert_same(model.state_dict(), pipeline.text_encoder.state_dict())
    assert set(model.state_dict()) == set(pipeline.text_encoder.state_dict())
    token_ids = torch.arange(77, dtype=torch.int32)[None]
    hidden = pipeline.text_encoder(token_ids.long(), output_hidden_states=True).hidden_states[-2]
    (found,) = TextEncoderGraph(model, clip_skip=1)((token_ids,))
    torch.testing.assert_close(found, pipeline.text_encoder.final_layer_norm(hidden), rtol=1e-5, atol=1e-5)


def test_the_autoencoder_is_the_dreambooths(
    models: Models, everything: CheckpointWeights, pipeline: StableDiffusionPipeline
) -> None:
    assert_same(everything.autoencoder(TINY, torch.float32).state_dict(), pipeline.vae.state_dict())
    own = locate_checkpoints(replace(name_everything(models), vae=str(models.base / "vae")), TINY)
    expected = AutoencoderKL.from_pretrained(models.base / "vae", local_files_only=True).state_dict()
    assert_same(own.autoencoder(TINY, torch.float32).state_dict(), expected)


def test_the_tokenizer_is_the_bases(everything: CheckpointWeights, pipeline: StableDiffusionPipeline) -> None:
    tokenizer = everything.tokenizer(TINY)
    for text in ("a watercolour fox", "It's 1987!!! (masterpiece:1.2)", "Ça déjà vu"):
        assert tokenizer.encode(text).ids == pipeline.tokenizer(text).input_ids


def test_weights_are_rounded_to_the_dtype_asked_for(everything: CheckpointWeights) -> None:
    half, single = everything.unet(TINY, torch.float16), everything.unet(TINY, torch.float32)
    assert all(torch.equal(half.state_dict()[key], tensor.half()) for key, tensor in single.state_dict().items())


def test_every_file_is_recorded_with_its_hash_in_the_order_of_merging(
    models: Models, everything: CheckpointWeights
) -> None:
    files = everything.describe("unet")["files"]
    assert [(record["role"], record["file"]) for record in files] == [
        ("base", "config.json"),
        ("base", "diffusion_pytorch_model.safetensors"),
        ("motion", "live2diff.ckpt"),
        ("dreambooth", "dreambooth.safetensors"),
        ("lora", "pytorch_lora_weights.safetensors"),
        ("lora", "kohya.safetensors"),
        ("lora", "lcm.safetensors"),
    ]
    assert [record["scale"] for record in files if record["role"] == "lora"] == [0.8, 0.5, 1.0]
    assert files[2]["source"] == str(models.motion)
    assert files[2]["sha256"] == hashlib.sha256(models.motion.read_bytes()).hexdigest()
    assert [record["role"] for record in everything.describe("depth")["files"]] == ["depth", "depth"]


def merge_by_hand(
    weights: Mapping[str, Tensor], lora: Mapping[str, Tensor], targets: Mapping[str, str], factor: Mapping[str, float]
) -> dict[str, Tensor]:
    merged = dict(weights)
    for layer, one_factor in factor.items():
        target = targets[layer]
        if target in merged:
            up, down = lora[f"{layer}.lora_up.weight"], lora[f"{layer}.lora_down.weight"]
            product = (up.flatten(1) @ down.flatten(1)).reshape(merged[target].shape)
            merged[target] = merged[target] + one_factor * product
    return merged


def test_a_lora_of_every_layer_is_merged_whole(tmp_path: Path) -> None:
    """The LCM-LoRA is one: it also changes convolutions, samplers and the time embedding."""
    torch.manual_seed(4)
    unet = make_spatial_unet()
    before = {key: tensor.clone() for key, tensor in unet.state_dict().items()}
    targets = {
        f"lora_unet_{key.removesuffix('.weight').replace('.', '_')}": key
        for key, tensor in before.items()
        if key.endswith(".weight") and tensor.ndim > 1
    }
    lora = make_kohya(2, 1.0, 0.1, {layer: tuple(before[key].shape) for layer, key in targets.items()})
    save_file(lora, tmp_path / "lcm.safetensors")
    merge_into_unet(unet, read_lora(tmp_path / "lcm.safetensors"), 1.0)
    expected = merge_by_hand(before, lora, targets, dict.fromkeys(targets, 0.5))
    assert all(not torch.equal(before[key], unet.state_dict()[key]) for key in targets.values())
    assert_same(unet.state_dict(), expected)


@pytest.mark.parametrize("with_out_proj", [True, False])
@pytest.mark.parametrize("apply_alpha", [True, False])
def test_alphas_that_differ_are_applied_layer_by_layer_or_ignored(
    tmp_path: Path, apply_alpha: bool, with_out_proj: bool
) -> None:
    torch.manual_seed(3)
    lora = make_kohya(rank=4, alpha=4.0, scale=0.1)
    alphas = dict(zip(KOHYA_TARGETS, (1.0, 2.0, 4.0, 8.0, 4.0, 2.0, 0.5, 16.0), strict=True))
    if not with_out_proj:
        out_proj = next(layer for layer in alphas if "out_proj" in layer)
        del alphas[out_proj]
        lora = {key: tensor for key, tensor in lora.items() if not key.startswith(out_proj)}
    lora |= {f"{layer}.alpha": torch.tensor(alpha) for layer, alpha in alphas.items()}
    save_file(lora, tmp_path / "lora.safetensors")
    factor = {layer: 0.7 * (alpha / 4 if apply_alpha else 1.0) for layer, alpha in alphas.items()}
    read = read_lora(tmp_path / "lora.safetensors", apply_alpha=apply_alpha)
    unet, text_encoder = make_spatial_unet(), make_text_encoder()
    for model, merge in ((unet, merge_into_unet), (text_encoder, merge_into_text_encoder)):
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        merge(model, read, 0.7)
        expected = merge_by_hand(before, lora, KOHYA_TARGETS, factor)
        assert set(model.state_dict()) == set(expected)
        assert_same(model.state_dict(), expected)
        assert any(not torch.equal(before[key], expected[key]) for key in before)


def test_an_alpha_in_peft_metadata_can_be_ignored_too(models: Models) -> None:
    applied, ignored, plain = make_spatial_unet(), make_spatial_unet(), make_spatial_unet()
    for unet in (applied, ignored):
        unet.load_state_dict(plain.state_dict())
    merge_into_unet(applied, read_lora(models.lora), 1.0)
    merge_into_unet(ignored, read_lora(models.lora, apply_alpha=False), 2.0)  # its alpha is twice its rank
    assert_same(applied.state_dict(), ignored.state_dict())
    key = "down_blocks.0.resnets.0.conv1.weight"
    assert not torch.allclose(applied.state_dict()[key], plain.state_dict()[key])


def test_layers_of_a_lora_that_do_not_fit_are_all_listed(tmp_path: Path) -> None:
    lora = make_kohya(rank=2, alpha=2.0, scale=1.0)
    first, second, *_ = KOHYA_TARGETS
    lora[f"{first}.lora_up.weight"] = torch.zeros(9, 2)
    lora[f"{second.replace('blocks_0', 'blocks_3')}.lora_down.weight"] = lora.pop(f"{second}.lora_down.weight")
    lora[f"{second.replace('blocks_0', 'blocks_3')}.lora_up.weight"] = lora.pop(f"{second}.lora_up.weight")
    del lora[f"{second}.alpha"]
    save_file(lora, tmp_path / "lora.safetensors")
    with pytest.raises(CheckpointError, match="2 layers") as caught:
        merge_into_unet(make_spatial_unet(), read_lora(tmp_path / "lora.safetensors"), 1.0)
    assert "mis-shaped down_blocks.0" in caught.value.problem
    assert "unexpected down_blocks.3" in caught.value.problem


@pytest.mark.parametrize("key", ["lora_unet_conv_in.hada_w1_a", "unet.conv_in.lora_B.bias", "text_encoder_2.lora.x"])
def test_another_kind_of_lora_is_refused(tmp_path: Path, key: str) -> None:
    save_file({key: torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=re.escape(key)):
        read_lora(tmp_path / "other.safetensors")


def test_a_motion_checkpoint_is_unwrapped(models: Models) -> None:
    found, expected = read_motion(models.motion), make_motion()
    assert set(found) == set(expected)
    assert_same(found, expected)


def test_keys_of_a_motion_checkpoint_that_do_not_fit_are_all_listed(models: Models, tmp_path: Path) -> None:
    weights = make_motion()
    missing = "flow_conv_in.conv_out.bias"
    del weights[missing]
    weights["down_blocks.0.motion_modules.0.extra"] = torch.zeros(2)
    weights["flow_conv_in.conv_in.bias"] = torch.zeros(5)
    save_file(weights, tmp_path / "motion.safetensors")
    broken = locate_checkpoints(replace(name(models), motion=str(tmp_path / "motion.safetensors")), TINY)
    with pytest.raises(WeightsError, match=r"3 keys of .*motion\.safetensors") as caught:
        broken.unet(TINY, torch.float32)
    lines = {line.strip() for line in caught.value.problem.splitlines()[1:]}
    assert lines == {
        f"missing {missing} [64]",
        "unexpected down_blocks.0.motion_modules.0.extra [2]",
        "mis-shaped flow_conv_in.conv_in.bias: [5], not [16]",
    }


class Trap:
    """What runs when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize(
    "save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))]
)
def test_code_in_a_checkpoint_is_refused_and_not_run(save: object, tmp_path: Path) -> None:
    assert callable(save)
    save({"state_dict": {"a": Trap(tmp_path / "ran")}}, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match="holds code"):
        read_tensors(tmp_path / "evil.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", ["a.ckpt", "a.safetensors"])
def test_a_damaged_file_is_refused(file: str, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(b"\x00" * 100)
    with pytest.raises(CheckpointError, match=file):
        read_tensors(tmp_path / file)


def test_a_single_file_is_a_base_too(models: Models, tmp_path: Path) -> None:
    torch.manual_seed(5)
    unet, text_encoder, vae = make_spatial_unet(), make_text_encoder(), make_autoencoder()
    weights = {
        key: tensor.half() if tensor.is_floating_point() else tensor
        for key, tensor in to_ldm(unet, text_encoder, vae).items()
    }
    torch.save({"state_dict": weights, "global_step": 4}, tmp_path / "base.ckpt")
    single = locate_checkpoints(
        replace(name(models), base=str(tmp_path / "base.ckpt"), tokenizer=str(models.base / "tokenizer")), TINY
    )
    rounded = {key: tensor.half().float() for key, tensor in unet.state_dict().items()}
    assert_same(single.unet(TINY, torch.float32).state_dict(), rounded)
    rounded = {key: tensor.half().float() for key, tensor in text_encoder.state_dict().items()}
    assert_same(single.text_encoder(TINY, torch.float32).state_dict(), rounded)
    with pytest.raises(WeightsError, match=r"base\.ckpt"):  # its autoencoder is not the published size
        single.autoencoder(TINY, torch.float32)


def test_an_autoencoder_in_a_single_file_has_the_published_size(models: Models, tmp_path: Path) -> None:
    with torch.device("meta"):
        from live2diff_trt.export.autoencoder import build_autoencoder

        shapes = build_autoencoder("kl").state_dict()
    weights = {key: torch.full(tensor.shape, 0.5, dtype=torch.float16) for key, tensor in shapes.items()}
    save_file(
        {key: tensor.contiguous() for key, tensor in vae_to_ldm(weights, "").items()}, tmp_path / "vae.safetensors"
    )
    named = locate_checkpoints(replace(name(models), vae=str(tmp_path / "vae.safetensors")), TINY)
    found = named.autoencoder(TINY, torch.float16).state_dict()
    assert {key: tensor.shape for key, tensor in found.items()} == {key: tensor.shape for key, tensor in shapes.items()}
    assert all(bool((tensor == 0.5).all()) for tensor in found.values())


def test_the_published_unet_configuration_is_the_presets() -> None:
    published = {
        "_class_name": "UNet2DConditionModel",
        "_diffusers_version": "0.6.0",
        "act_fn": "silu",
        "attention_head_dim": 8,
        "block_out_channels": [320, 640, 1280, 1280],
        "center_input_sample": False,
        "cross_attention_dim": 768,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": 2,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "norm_num_groups": 32,
        "out_channels": 4,
        "sample_size": 64,
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    }
    check_spatial_configuration(published, SD15.unet, "config.json")
    with pytest.raises(CheckpointError, match=r"cross_attention_channels is 1024, not 768"):
        check_spatial_configuration({**published, "cross_attention_dim": 1024}, SD15.unet, "config.json")


def test_a_base_of_another_size_is_refused(models: Models) -> None:
    weights = locate_checkpoints(name(models), TINY)
    wider = replace(TINY, unet=replace(TINY.unet, norm_groups=16))
    with pytest.raises(CheckpointError, match="norm_groups is 8, not 16"):
        weights.unet(wider, torch.float32)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("base", "nowhere/at/all", "there is no base model at"),
        ("motion", "missing.safetensors", "there is no motion checkpoint at"),
        ("lcm_lora", "someone/not-fetched-before", "Leave out --offline once"),
        ("vae", "taesd", "Leave out --offline once"),
        ("depth", None, "--depth midas"),
    ],
)
def test_what_is_not_there_is_refused_without_asking_the_hub(
    models: Models, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, field: str, value: Any, message: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    with pytest.raises(CheckpointError, match=message):
        locate_checkpoints(replace(name(models), **{field: value}), TINY)


@pytest.fixture
def hub(models: Models, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """A hub that has the base and the depth network; returns what it was asked, in order."""
    asked: list[tuple[str, object]] = []

    def find(repository: str) -> Path:
        return models.base if repository.startswith("runwayml") else models.depth

    def list_files(repository: str) -> list[str]:
        asked.append((repository, "list"))
        folder = find(repository)
        return [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]

    def fetch(repository: str, *, allow_patterns: object = None, local_files_only: bool = False) -> str:
        asked.append((repository, "offline" if local_files_only else allow_patterns))
        return str(find(repository))

    monkeypatch.setattr("live2diff_trt.export.locate.list_repo_files", list_files)
    monkeypatch.setattr("live2diff_trt.export.locate.snapshot_download", fetch)
    return asked


BASE_ID, DEPTH_ID = "runwayml/stable-diffusion-v1-5", "Intel/dpt-hybrid-midas"


def test_what_is_needed_of_a_hub_id_is_fetched_and_a_path_never(models: Models, hub: list[tuple[str, object]]) -> None:
    names = replace(name(models), base=BASE_ID, depth="midas", vae=str(models.base / "vae"), offline=False)
    found = locate_checkpoints(names, TINY)
    needed = ["unet/config.json", "unet/diffusion_pytorch_model.safetensors"]
    needed += ["text_encoder/config.json", "text_encoder/model.safetensors"]
    needed += ["tokenizer/vocab.json", "tokenizer/merges.txt"]
    assert hub == [
        (BASE_ID, "list"),
        (BASE_ID, needed),
        (DEPTH_ID, "list"),
        (DEPTH_ID, ["config.json", "model.safetensors"]),
    ]
    assert found.describe("unet")["files"][0]["source"] == BASE_ID
    assert found.tokenizer_folder.path == models.base / "tokenizer"


def test_offline_no_list_is_asked_for(models: Models, hub: list[tuple[str, object]]) -> None:
    locate_checkpoints(replace(name(models), base=BASE_ID, depth="midas"), TINY)
    assert hub == [(BASE_ID, "offline"), (DEPTH_ID, "offline")]


def test_a_hub_that_does_not_answer_is_named(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> list[str]:
        raise httpx.ConnectError("no route")

    monkeypatch.setattr("live2diff_trt.export.locate.list_repo_files", fail)
    with pytest.raises(CheckpointError, match=rf"{BASE_ID} can't be had from the hub \(no route\).*--offline"):
        locate_checkpoints(replace(name(models), base=BASE_ID, offline=False), TINY)


def test_a_tokenizer_of_another_model_is_refused(models: Models, tmp_path: Path) -> None:
    make_tokenizer("clip-vit-l").save(str(tmp_path / "tokenizer.json"))
    weights = locate_checkpoints(replace(name(models), tokenizer=str(tmp_path)), TINY)
    with pytest.raises(CheckpointError, match="has 49408 tokens"):
        weights.tokenizer(TINY)
