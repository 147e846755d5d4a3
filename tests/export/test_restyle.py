"""A style of checkpoints: applied to a bundle it gives, bit for bit, the weights of a bundle exported from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from live2diff_trt.bundle.errors import RestyleError
from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.bundle.style_delta import StyleDelta
from live2diff_trt.engine.initialisers import BundleInitialisers
from live2diff_trt.export.bundle import export_bundle
from live2diff_trt.export.checkpoint_names import CheckpointNames, locate_checkpoints, locate_style
from live2diff_trt.export.checkpoints import CheckpointWeights
from live2diff_trt.export.presets import TINY
from live2diff_trt.export.restyle import find_preset, make_style_delta
from live2diff_trt.export.weights_source import RandomWeights
from tests.export.made_up_models import Models, write_models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return write_models(tmp_path_factory.mktemp("models"))


def assert_gives(base: BundleInitialisers, delta: StyleDelta, wanted: Path) -> None:
    """Compare a bundle's weights under a style with another bundle's, bit by bit."""
    other = BundleInitialisers.open(wanted)
    assert base.places.keys() == other.places.keys()
    for name in base.places:
        found = delta.values.get(name, base.read(name))
        assert found.tobytes() == other.read(name).tobytes(), name
    assert delta.prompt_template == other.bundle.manifest.prompt_template
    assert delta.sources == {part: other.bundle.manifest.weights[part] for part in ("unet", "text_encoder")}


def test_a_style_gives_what_an_export_gives(tiny_bundle: Path, tmp_path: Path) -> None:
    """Of other random weights, tables of positions among them."""
    weights = RandomWeights(seed=4)
    base = BundleInitialisers.open(tiny_bundle)
    delta = make_style_delta(base, weights)
    export_bundle(replace(TINY, width=64, height=64), weights, tmp_path / "whole")
    assert_gives(base, delta, tmp_path / "whole")
    tables = [name for name in base.places if name.rpartition(".")[2] in ("pe_q", "pe_k", "pe_v")]
    assert len(tables) == 3 * len(base.bundle.spec.kv_caches)
    assert all(name in delta.values for name in tables)


def named(models: Models, **others: object) -> CheckpointNames:
    names = CheckpointNames(str(models.base), str(models.motion), depth=str(models.depth), vae="kl", offline=True)
    return replace(names, **others)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def plain(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the base model, in half precision."""
    return export(named(models), tmp_path_factory.mktemp("bundles") / "plain")


def export(names: CheckpointNames, folder: Path, clip_skip: int = 0) -> Path:
    weights = locate_checkpoints(names, TINY)
    preset = replace(weights.fit(TINY), width=64, height=64, dtype="float16")
    export_bundle(preset, weights, folder, clip_skip=clip_skip)
    return folder


def test_dreambooth_and_loras_are_merged_as_an_export_merges_them(models: Models, plain: Path, tmp_path: Path) -> None:
    """Written by peft's own saver and in kohya's layout, rounded once at the end."""
    names = named(
        models,
        dreambooth=str(models.dreambooth),
        loras=((str(models.lora), 0.8), (str(models.kohya), 1.0)),
        lcm_lora=str(models.lcm),
        prompt_template="{}, ink",
    )
    base = BundleInitialisers.open(plain)
    delta = make_style_delta(base, locate_style(names), clip_skip=0)
    assert {values.dtype for values in delta.values.values()} == {np.dtype("float16")}
    assert_gives(base, delta, export(names, tmp_path / "whole"))


def test_a_lora_of_the_unet_alone_changes_nothing_of_the_text_encoder(models: Models, plain: Path) -> None:
    base = BundleInitialisers.open(plain)
    delta = make_style_delta(base, locate_style(named(models, lcm_lora=str(models.lcm))))
    changed = delta.values.keys()
    assert changed
    assert not changed >= base.of_graph["unet"]
    # The tables W·pe belong to motion modules, which no LoRA of the UNet touches.
    assert not any(".pe_" in name for name in changed)


def test_weights_of_the_bundle_itself_differ_in_nothing(tiny_bundle: Path) -> None:
    assert make_style_delta(BundleInitialisers.open(tiny_bundle), RandomWeights(seed=3)).values == {}


def test_a_textual_inversion_is_refused_unless_the_bundle_has_it(models: Models, plain: Path, tmp_path: Path) -> None:
    """It would give prompts other tokens."""
    torch.save({"emb_params": torch.ones(2, 32)}, models.folder / "fox.pt")
    names = named(models, textual_inversions=((str(models.folder / "fox.pt"), "<fox>"),))
    with pytest.raises(RestyleError, match=r"other textual inversions.*export a bundle for this style"):
        make_style_delta(BundleInitialisers.open(plain), locate_style(names))
    taught = BundleInitialisers.open(export(names, tmp_path / "taught"))
    assert make_style_delta(taught, locate_style(names)).values == {}
    assert make_style_delta(taught, locate_style(replace(names, loras=((str(models.lora), 0.5),)))).values


def test_another_clip_skip_is_refused(models: Models, plain: Path) -> None:
    with pytest.raises(
        RestyleError, match=r"leaves out 1 layers of the text encoder, the bundle 0\. Pass --clip-skip 0"
    ):
        make_style_delta(BundleInitialisers.open(plain), locate_style(named(models)), clip_skip=1)


def test_a_style_needs_neither_autoencoder_nor_depth_network(models: Models) -> None:
    weights = locate_style(CheckpointNames(str(models.base), str(models.motion), offline=True))
    assert isinstance(weights, CheckpointWeights)
    assert (weights.autoencoder_model, weights.depth_model) == (None, None)


def test_the_preset_is_found_by_the_network(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    preset = find_preset(bundle)
    assert (preset.unet, preset.dtype, preset.width) == (TINY.unet, "float32", 64)
    strange = replace(bundle, manifest=replace(bundle.manifest, network={}))
    with pytest.raises(RestyleError, match="is no preset's"):
        find_preset(strange)
