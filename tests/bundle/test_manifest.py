"""A bundle that was damaged in any way is refused with its name and a remedy."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from live2diff_trt.bundle.errors import BundleError
from live2diff_trt.bundle.manifest import Bundle, Initialiser, Manifest, write_manifest
from live2diff_trt.bundle.signature import bundle_signatures
from live2diff_trt.bundle.spec import StreamSpec

FILES = (
    "depth.onnx",
    "depth_embed.onnx",
    "prompt_kv.onnx",
    "text_encoder.onnx",
    "time_embed.onnx",
    "tokenizer.json",
    "unet.data",
    "unet.onnx",
    "unet_warmup.onnx",
    "vae_decoder.onnx",
    "vae_encoder.onnx",
)
Values = dict[str, Any]


@pytest.fixture(scope="module")
def manifest(spec: StreamSpec) -> Manifest:
    return Manifest(
        spec=spec,
        network={"block_channels": [6, 10], "norm_eps": 1e-5},
        weights={"unet": {"source": "random", "seed": 1}, "vae": {"source": "vae.safetensors"}},
        initialisers={
            "conv_in.weight": Initialiser("copy", ("conv_in.weight",)),
            "pe_q": Initialiser("multiply_by_pe", ("to_q.weight", "pos_encoder.pe")),
        },
        generator="test 1.0",
    )


@pytest.fixture(scope="module")
def intact(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    for name in FILES:
        (folder / name).write_bytes(f"contents of {name}".encode())
    write_manifest(folder, manifest)
    return folder


@pytest.fixture
def folder(intact: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(intact, tmp_path / "bundle"))


def edit_manifest(folder: Path, edit: Callable[[Values], object]) -> None:
    path = folder / "manifest.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    edit(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def refuse(folder: Path, *named: str) -> BundleError:
    """Open a damaged bundle; check that the message names what is off and ends with the remedy."""
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder)
    message = str(caught.value)
    assert "live2diff-trt export" in caught.value.remedy
    assert message.endswith(f"{caught.value.remedy}.")
    for name in (str(folder), *named):
        assert name in message
    return caught.value


def test_the_files_of_this_test_are_those_a_bundle_needs(spec: StreamSpec) -> None:
    graphs = {graph.file for graph in bundle_signatures(spec)}
    assert graphs | {"tokenizer.json", "unet.data"} == set(FILES)


def test_what_was_written_is_what_is_read(intact: Path, manifest: Manifest) -> None:
    bundle = Bundle.open(intact)
    assert bundle.spec == manifest.spec
    assert bundle.manifest.network == manifest.network
    assert bundle.manifest.weights == manifest.weights
    assert bundle.manifest.initialisers == manifest.initialisers
    assert bundle.manifest.generator == "test 1.0"
    assert bundle.manifest.signatures == bundle_signatures(manifest.spec)
    assert Bundle.open(str(intact)) == bundle


def test_every_file_is_recorded_with_size_and_hash(intact: Path) -> None:
    records = Bundle.open(intact).manifest.files
    assert sorted(records) == sorted(FILES)
    for name, record in records.items():
        contents = f"contents of {name}".encode()
        assert record.bytes == len(contents)
        assert record.sha256 == hashlib.sha256(contents).hexdigest()


def test_the_digest_is_the_hash_of_the_manifest(intact: Path, folder: Path) -> None:
    assert Bundle.open(intact).digest == hashlib.sha256((intact / "manifest.json").read_bytes()).hexdigest()
    edit_manifest(folder, lambda values: values.update(generator="another"))
    assert Bundle.open(folder).digest != Bundle.open(intact).digest


def test_writing_a_manifest_again_does_not_record_the_old_one(folder: Path, manifest: Manifest) -> None:
    write_manifest(folder, manifest)
    assert sorted(Bundle.open(folder).manifest.files) == sorted(FILES)


def test_a_listed_file_is_found(intact: Path) -> None:
    assert Bundle.open(intact).file("tokenizer.json").read_bytes() == b"contents of tokenizer.json"


@pytest.mark.parametrize("name", ["notes.txt", "manifest.json", "../tokenizer.json"])
def test_a_file_that_is_not_listed_is_refused(intact: Path, name: str) -> None:
    with pytest.raises(BundleError, match="holds no") as caught:
        Bundle.open(intact).file(name)
    assert name in caught.value.problem


def test_a_missing_folder(tmp_path: Path) -> None:
    refuse(tmp_path / "nowhere")


def test_a_file_in_place_of_the_folder(folder: Path) -> None:
    refuse(folder / "unet.onnx")


def test_a_missing_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    refuse(folder, "manifest.json")


@pytest.mark.parametrize(
    "text", [b"", b"{", b"not json", b"\xff\xfe\x00", b"[]", b"[1]", b"3", b'"text"', b"null", b"true", b"{}"], ids=repr
)
def test_a_manifest_that_is_none(folder: Path, text: bytes) -> None:
    (folder / "manifest.json").write_bytes(text)
    refuse(folder, "manifest")


def test_a_truncated_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:-20])
    refuse(folder, "manifest")


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_version(folder: Path, version: object) -> None:
    edit_manifest(folder, lambda values: values.update(format=version))
    refuse(folder, f"format {version}")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refuse(folder, str(folder / name))


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1])
    error = refuse(folder, str(path))
    assert f"{path.stat().st_size} bytes" in error.problem


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0, -1])
def test_a_changed_byte(folder: Path, name: str, place: int) -> None:
    path = folder / name
    contents = bytearray(path.read_bytes())
    contents[place] ^= 1
    path.write_bytes(contents)
    refuse(folder, str(path), "hash")


@pytest.mark.parametrize("name", FILES)
def test_a_file_the_manifest_does_not_list(folder: Path, name: str) -> None:
    edit_manifest(folder, lambda values: values["files"].pop(name))
    refuse(folder, name)


@pytest.mark.parametrize(
    "edit",
    [
        lambda graphs: graphs["unet"]["inputs"][0]["shape"].__setitem__(1, 99),
        lambda graphs: graphs["unet"]["outputs"].pop(),
        lambda graphs: graphs["vae_encoder"]["inputs"][0].update(name="picture"),
        lambda graphs: graphs["depth"]["outputs"][0].update(dtype="float64"),
        lambda graphs: graphs["depth_embed"].update(file="other.onnx"),
        lambda graphs: graphs.pop("text_encoder"),
        lambda graphs: graphs.update(extra={}),
    ],
    ids=["shape", "output", "name", "dtype", "file", "graph", "extra"],
)
def test_a_changed_border(folder: Path, edit: Callable[[Values], object]) -> None:
    edit_manifest(folder, lambda values: edit(values["graphs"]))
    refuse(folder, "graphs")


@pytest.mark.parametrize(
    "key", ["format", "generator", "spec", "network", "weights", "graphs", "files", "initialisers"]
)
def test_a_missing_key(folder: Path, key: str) -> None:
    edit_manifest(folder, lambda values: values.pop(key))
    refuse(folder, "manifest", key)


@pytest.mark.parametrize("key", ["spec", "graphs", "files", "initialisers"])
@pytest.mark.parametrize("value", [None, 3, "text", ["list"]], ids=str)
def test_a_key_of_another_kind(folder: Path, key: str, value: object) -> None:
    edit_manifest(folder, lambda values: values.update({key: value}))
    refuse(folder)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"width": 100}, "100x64"),
        ({"step_list": [40, 30]}, "[40, 30]"),
        ({"dtype": "int8"}, "int8"),
        ({"sink": 13}, "13"),
        ({"width": "512"}, "manifest"),
        ({"step_list": None}, "manifest"),
        ({"colour": "red"}, "colour"),
    ],
    ids=str,
)
def test_a_spec_that_describes_no_stream(folder: Path, changes: Values, named: str) -> None:
    edit_manifest(folder, lambda values: values["spec"].update(changes))
    refuse(folder, "manifest", named)


def test_a_spec_that_describes_another_stream(folder: Path) -> None:
    edit_manifest(folder, lambda values: values["spec"].update(height=128))
    refuse(folder, "graphs")
