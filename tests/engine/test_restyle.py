"""What makes one bundle's weights another's, and what is refused because it fits no bundle, or another one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import load, numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor

from live2diff_trt.bundle.errors import BundleError, RestyleError
from live2diff_trt.bundle.manifest import Bundle, Manifest, write_manifest
from live2diff_trt.bundle.style_delta import StyleDelta, write_style_delta
from live2diff_trt.engine.initialisers import RESTYLED_GRAPHS, BundleInitialisers
from live2diff_trt.engine.restyle import compare_bundles, fit_style, read_style
from tests.restyled_bundle import TEMPLATE


@pytest.fixture(scope="module")
def base(tiny_bundle: Path) -> BundleInitialisers:
    return BundleInitialisers.open(tiny_bundle)


@pytest.fixture(scope="module")
def delta(base: BundleInitialisers, other_bundle: Path) -> StyleDelta:
    return compare_bundles(base, BundleInitialisers.open(other_bundle))


@pytest.mark.parametrize("name", RESTYLED_GRAPHS)
def test_the_bundles_own_values_are_found(tiny_bundle: Path, base: BundleInitialisers, name: str) -> None:
    weights = load(tiny_bundle / f"{name}.onnx", load_external_data=False).graph.initializer
    assert {tensor.name for tensor in weights} == base.of_graph[name]
    for tensor in weights:
        load_external_data_for_tensor(tensor, str(tiny_bundle))
        values = numpy_helper.to_array(tensor)
        assert values.dtype == base.read(tensor.name).dtype
        np.testing.assert_array_equal(values, base.read(tensor.name))


def test_only_what_differs_is_kept(base: BundleInitialisers, other_bundle: Path, delta: StyleDelta) -> None:
    other = BundleInitialisers.open(other_bundle)
    assert delta.prompt_template == TEMPLATE
    assert delta.sources["unet"] == {"source": "shuffled", "seed": 5}
    for name in base.places:
        differs = base.read(name).tobytes() != other.read(name).tobytes()
        assert differs == (name in delta.values)
        if differs:
            assert delta.values[name].tobytes() == other.read(name).tobytes()
    assert 0 < len(delta.values) <= len(base.places)


def test_a_bundle_is_no_style_of_its_own(base: BundleInitialisers, tiny_bundle: Path) -> None:
    assert fit_style(base, read_style(tiny_bundle)) is None


def test_another_step_list_is_no_obstacle(base: BundleInitialisers, other_bundle: Path, tmp_path: Path) -> None:
    folder = change_manifest(
        other_bundle, tmp_path, lambda old: replace(old, spec=old.spec.with_step_list((10, 20, 30)))
    )
    style = fit_style(base, read_style(folder))
    assert style is not None
    assert style.values


def test_another_autoencoder_is_told(
    base: BundleInitialisers, other_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(other_bundle, tmp_path / "copy"))
    content = bytearray((folder / "vae.data").read_bytes())
    content[0] ^= 1
    (folder / "vae.data").write_bytes(content)
    write_manifest(folder, Bundle.open(folder, files=()).manifest)
    assert fit_style(base, read_style(folder)) is not None
    assert "another autoencoder or depth network (vae.data)" in caplog.text


Change = Callable[[Manifest], Manifest]


def change_manifest(bundle: Path, scratch: Path, change: Change) -> Path:
    folder = Path(shutil.copytree(bundle, scratch / "changed"))
    write_manifest(folder, change(Bundle.open(folder).manifest))
    return folder


def test_another_network_is_refused(base: BundleInitialisers, other_bundle: Path, tmp_path: Path) -> None:
    folder = change_manifest(other_bundle, tmp_path, lambda old: replace(old, network={**old.network, "x": 1}))
    with pytest.raises(RestyleError, match=r"has another UNet than .* Export it with the same preset"):
        fit_style(base, read_style(folder))


def test_another_stream_is_refused(base: BundleInitialisers, other_bundle: Path, tmp_path: Path) -> None:
    folder = change_manifest(other_bundle, tmp_path, lambda old: replace(old, spec=replace(old.spec, width=128)))
    with pytest.raises(RestyleError, match="is for another stream"):
        fit_style(base, read_style(folder))


def test_another_tokenizer_is_refused(base: BundleInitialisers, other_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(other_bundle, tmp_path / "copy"))
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + "\n")
    write_manifest(folder, Bundle.open(folder, files=()).manifest)
    with pytest.raises(RestyleError, match="another tokenizer, or other textual inversions"):
        fit_style(base, read_style(folder))


def test_a_damaged_bundle_is_refused(base: BundleInitialisers, other_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(other_bundle, tmp_path / "copy"))
    content = bytearray((folder / "unet.data").read_bytes())
    content[5000] ^= 1
    (folder / "unet.data").write_bytes(content)
    with pytest.raises(BundleError, match=r"unet\.data does not have the hash"):
        fit_style(base, read_style(folder))


def write(path: Path, base: BundleInitialisers, values: dict[str, Any], digest: str | None = None) -> Path:
    write_style_delta(path, StyleDelta(values, digest or base.bundle.digest))
    return path


def test_all_names_that_do_not_fit_are_listed(base: BundleInitialisers, tmp_path: Path) -> None:
    name = "conv_in.bias"
    ours = np.array(base.read(name))
    values = {
        "no.such.weight": ours,
        name: ours[:-1],
        "conv_norm_out.bias": np.array(base.read("conv_norm_out.bias"), np.float16),
        "conv_in.weight": np.array(base.read("conv_in.weight")),
    }
    with pytest.raises(RestyleError) as caught:
        fit_style(base, read_style(write(tmp_path / "misfit.safetensors", base, values)))
    text = str(caught.value)
    assert "3 weights of" in text
    assert "unexpected no.such.weight" in text
    channels = len(ours)
    assert f"mis-shaped conv_in.bias: float32 [{channels - 1}], not float32 [{channels}]" in text
    assert f"mis-shaped conv_norm_out.bias: float16 [{channels}], not float32 [{channels}]" in text
    assert "live2diff-trt restyle" in text


def test_another_bundles_style_is_refused(base: BundleInitialisers, tmp_path: Path) -> None:
    with pytest.raises(RestyleError, match="was made for another bundle"):
        fit_style(base, read_style(write(tmp_path / "other.safetensors", base, {}, "f" * 64)))


def test_a_bundle_that_is_another_by_now_is_found(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match="is another bundle than it was"):
        BundleInitialisers.open(tiny_bundle, "f" * 64)
