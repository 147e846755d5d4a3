"""The manifest of a bundle, and the bundle as a folder that is checked when it is opened.

A bundle describes itself: graphs, spec, schedule, where every weight came from, and the hash of every file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from live2diff_trt.bundle.errors import BundleError, Live2DiffError
from live2diff_trt.bundle.shipped import locate_bundle
from live2diff_trt.bundle.signature import GraphSignature, bundle_signatures
from live2diff_trt.bundle.spec import StreamSpec

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.json"
WEIGHTS_FILE = "unet.data"
TEXT_WEIGHTS_FILE = "text.data"
PROMPT_PLACE = "{}"
_EXPORT_AGAIN = "Export the bundle again with `live2diff-trt export`"

Recipe = Literal["copy", "multiply_by_pe"]


@dataclass(frozen=True)
class Initialiser:
    """How one initialiser of the UNet's graphs is made from the network's weights.

    Attributes:
        recipe: ``copy`` takes the source as it is; ``multiply_by_pe`` is pe[:window] · Wᵀ of sources (W, pe).
        sources: keys of the reference's state dict.
    """

    recipe: Recipe
    sources: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.recipe not in get_args(Recipe):
            raise ValueError(f"recipe {self.recipe!r} is unknown")


@dataclass(frozen=True)
class FileRecord:
    """What a file of the bundle must look like."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What is known of a bundle.

    Attributes:
        spec: the stream it was exported for.
        network: the UNet's configuration, in the reference's own keys.
        weights: for each part (unet, vae, depth, text) where its weights came from.
        initialisers: for each initialiser of the UNet's graphs, what it was made from.
        files: for each file beside the manifest, its size and hash.
        generator: name and version of what wrote it.
    """

    spec: StreamSpec
    network: Mapping[str, Any]
    weights: Mapping[str, Mapping[str, Any]]
    initialisers: Mapping[str, Initialiser]
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    generator: str = ""

    @property
    def prompt_template(self) -> str:
        """What every prompt is put into, where ``PROMPT_PLACE`` stands: the style's, or the prompt alone."""
        return str(self.weights.get("text_encoder", {}).get("prompt_template", PROMPT_PLACE))

    @property
    def signatures(self) -> tuple[GraphSignature, ...]:
        """The borders of all graphs; they follow from the spec."""
        return bundle_signatures(self.spec)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, graph borders included."""
        return {
            "format": FORMAT_VERSION,
            "generator": self.generator,
            "spec": self.spec.to_json(),
            "network": dict(self.network),
            "weights": {part: dict(source) for part, source in self.weights.items()},
            "graphs": graphs_to_json(self.signatures),
            "files": {name: asdict(record) for name, record in self.files.items()},
            "initialisers": {name: asdict(entry) for name, entry in self.initialisers.items()},
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Manifest:
        """Read what ``to_json`` wrote; raise KeyError, TypeError or SpecError where it is something else."""
        return cls(
            spec=StreamSpec.from_json(values["spec"]),
            network=values["network"],
            weights=values["weights"],
            initialisers={
                name: Initialiser(entry["recipe"], tuple(entry["sources"]))
                for name, entry in values["initialisers"].items()
            },
            files={name: FileRecord(**record) for name, record in values["files"].items()},
            generator=values["generator"],
        )


def graphs_to_json(signatures: tuple[GraphSignature, ...]) -> dict[str, Any]:
    """Return every graph's inputs and outputs as JSON values: name, shape, dtype."""

    def tensors(specs: tuple[Any, ...]) -> list[dict[str, Any]]:
        return [{"name": one.name, "shape": list(one.shape), "dtype": one.dtype} for one in specs]

    return {
        graph.name: {"file": graph.file, "inputs": tensors(graph.inputs), "outputs": tensors(graph.outputs)}
        for graph in signatures
    }


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: a folder whose files were checked against its manifest.

    Attributes:
        folder: where it lies.
        manifest: what it holds.
        digest: sha256 of the manifest, and so of everything the manifest records.
    """

    folder: Path
    manifest: Manifest
    digest: str

    @classmethod
    def open(cls, folder: str | Path, files: Collection[str] | None = None) -> Bundle:
        """Read a bundle's manifest and verify size and hash of its files; raise BundleError where one is off.

        Args:
            folder: the bundle, or ``tiny`` for the package's own.
            files: names of those that will be read, where others need no verifying; None: all of them.
        """
        folder = locate_bundle(Path(folder))
        text = _read_manifest(folder)
        bundle = cls(folder, _parse_manifest(folder, text), hashlib.sha256(text).hexdigest())
        for name, record in bundle.manifest.files.items():
            if files is None or name in files:
                _verify_file(folder / name, record)
        return bundle

    @property
    def spec(self) -> StreamSpec:
        """The stream the bundle was exported for."""
        return self.manifest.spec

    def file(self, name: str) -> Path:
        """Return the path of a file the manifest lists; raise BundleError if it lists none of that name."""
        if name not in self.manifest.files:
            raise BundleError(f"the bundle {self.folder} holds no {name}", _EXPORT_AGAIN)
        return self.folder / name


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Record every file in ``folder`` and write the manifest beside them, last, so that a torn bundle has none."""
    files = {
        path.name: FileRecord(path.stat().st_size, hash_file(path))
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST_FILE
    }
    complete = Manifest(**{**vars(manifest), "files": files})
    text = json.dumps(complete.to_json(), indent=1)
    (folder / MANIFEST_FILE).write_text(text, encoding="utf-8", newline="\n")  # the digest is of these bytes


def hash_file(path: Path) -> str:
    """Return the sha256 of a file as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 22), b""):
            digest.update(block)
    return digest.hexdigest()


def _read_manifest(folder: Path) -> bytes:
    if not folder.is_dir():
        raise BundleError(f"there is no bundle at {folder}", "Write one with `live2diff-trt export`, or mend the path")
    try:
        return (folder / MANIFEST_FILE).read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST_FILE}", _EXPORT_AGAIN) from error
    except OSError as error:
        raise BundleError(
            f"{folder / MANIFEST_FILE} can't be read ({error})", "Mend its permissions or its disk"
        ) from error


def _parse_manifest(folder: Path, text: bytes) -> Manifest:
    try:
        values = json.loads(text)
        version = values["format"]
        if version != FORMAT_VERSION:
            raise BundleError(
                f"the bundle {folder} has format {version}, this version reads format {FORMAT_VERSION}",
                _EXPORT_AGAIN,
            )
        manifest = Manifest.from_json(values)
        graphs = values["graphs"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(f"the manifest of {folder} can't be read ({error!r})", _EXPORT_AGAIN) from error
    except BundleError:
        raise
    except Live2DiffError as error:
        raise BundleError(f"the manifest of {folder} is not valid: {error.problem}", _EXPORT_AGAIN) from error
    if graphs != graphs_to_json(manifest.signatures):
        raise BundleError(f"the graphs of {folder} have other inputs or outputs than this version", _EXPORT_AGAIN)
    outside = [name for name in manifest.files if Path(name).name != name]
    if outside:
        raise BundleError(f"the manifest of {folder} lists files outside it: {', '.join(outside)}", _EXPORT_AGAIN)
    missing = {graph.file for graph in manifest.signatures} | {TOKENIZER_FILE, WEIGHTS_FILE}
    missing -= set(manifest.files)
    if missing:
        raise BundleError(f"the manifest of {folder} lists no {', '.join(sorted(missing))}", _EXPORT_AGAIN)
    return manifest


def _verify_file(path: Path, record: FileRecord) -> None:
    if not path.is_file():
        raise BundleError(f"the bundle lacks {path}", _EXPORT_AGAIN)
    try:
        _compare_file(path, record)
    except OSError as error:
        raise BundleError(
            f"{path} can't be read ({error})", "Close what locks it, or mend its rights or disk"
        ) from error


def _compare_file(path: Path, record: FileRecord) -> None:
    size = path.stat().st_size
    if size != record.bytes:
        raise BundleError(
            f"{path} has {size} bytes, its manifest says {record.bytes}: it is truncated or foreign",
            _EXPORT_AGAIN,
        )
    if hash_file(path) != record.sha256:
        raise BundleError(f"{path} does not have the hash its manifest records: it was changed", _EXPORT_AGAIN)
