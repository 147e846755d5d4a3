"""What is written beside a set of plans: what they were built from and for, and the hash of every file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from live2diff_trt.bundle.manifest import FileRecord
from live2diff_trt.engine.flavour import ComputeCapability, FlavourName

FORMAT_VERSION = 3
MANIFEST_FILE = "plans.json"
CONSTANTS_FILE = "kernel_constants.npz"
KEPT_PLANS = frozenset({"vae_encoder", "vae_decoder", "depth"})
"""Plans whose weights no style replaces."""

Form = Literal["split", "whole"]


@dataclass(frozen=True)
class PlanKey:
    """What decides whether plans fit.

    Attributes:
        bundle_digest: ``Bundle.digest``.
        flavour, version: of TensorRT.
        target: compute capability of the GPUs that run them.
        form: the UNet as segments with kernels of ours between them, or whole.
        rows: R, how many rows the UNet's plans take at once.
        refittable: whether the weights of UNet and text encoder can be replaced.
        style: ``StyledWeights.identity`` of the style that such plans of a bundle were built anew for, which could not
            be refitted; empty: they are the bundle's own, and all that it needs.
    """

    bundle_digest: str
    flavour: FlavourName
    version: str
    target: ComputeCapability
    form: Form
    rows: int
    refittable: bool = False
    style: str = ""

    @property
    def folder_name(self) -> str:
        """Name of the plans' folder inside the bundle's."""
        options = json.dumps([FORMAT_VERSION, self.form, self.rows, self.refittable])
        major, minor = self.target
        digest = hashlib.sha256(options.encode()).hexdigest()[:8]
        style = f"-style-{self.style[:16]}" if self.style else ""
        return f"{self.flavour}-{self.version}-sm{major}{minor}-{digest}{style}"

    @property
    def build_command(self) -> str:
        """The command that builds such plans."""
        words = ["live2diff-trt build BUNDLE --flavour", self.flavour, "--form", self.form, "--rows", str(self.rows)]
        words += ["--target-cc", ".".join(map(str, self.target))]
        if self.refittable:
            words.append("--refittable")
        return " ".join(words)

    def describe(self) -> str:
        """Return what distinguishes these plans from others of their bundle."""
        major, minor = self.target
        refittable = ", refittable" if self.refittable else ""
        style = f", of the style {self.style[:16]}" if self.style else ""
        return f"{self.flavour} {self.version} for sm{major}{minor}, {self.form}, {self.rows} rows{refittable}{style}"


@dataclass(frozen=True)
class PlanManifest:
    """What is known of a set of plans.

    Attributes:
        key: what they fit.
        compiled_for: the compute capability TensorRT compiled them for; not always ``key.target``.
        plans: each plan's name, and its file.
        structures: each plan's name, and what it shares with plans that differ in weights alone.
        files: for each file, plan or not, its size and hash.
        split: of the split form, ``UNetSplit.to_json()``.
        arena: of the split form, ``Arena.to_json()``: where tensors lie that cross the cuts.
        build_seconds: how long it took.
        generator: name and version of what built them.
    """

    key: PlanKey
    compiled_for: ComputeCapability
    plans: Mapping[str, str]
    structures: Mapping[str, str]
    files: Mapping[str, FileRecord]
    split: Mapping[str, Any] | None
    arena: Mapping[str, Any] | None
    build_seconds: float
    generator: str

    def to_text(self) -> str:
        """Return JSON that carries its own hash."""
        body = _canonical({"format": FORMAT_VERSION, **asdict(self)})
        return json.dumps({"sha256": _hash(body), "manifest": body}, indent=1)

    @classmethod
    def from_text(cls, text: str) -> PlanManifest:
        """Read what ``to_text`` wrote; raise KeyError, TypeError or ValueError where it is something else."""
        values = json.loads(text)
        body = values["manifest"]
        if body["format"] != FORMAT_VERSION:
            raise ValueError(f"its format is {body['format']}, this version reads {FORMAT_VERSION}")
        if values["sha256"] != _hash(body):
            raise ValueError("it was changed after it was written")
        outside = [name for name in body["files"] if Path(name).name != name]
        if outside or not set(body["plans"].values()) <= set(body["files"]):
            raise ValueError("its plans and its files do not agree")
        if body["plans"].keys() != body["structures"].keys():
            raise ValueError("its plans and their structures do not agree")
        return cls(
            key=PlanKey(**{**body["key"], "target": tuple(body["key"]["target"])}),
            compiled_for=tuple(body["compiled_for"]),
            plans=body["plans"],
            structures=body["structures"],
            files={name: FileRecord(**record) for name, record in body["files"].items()},
            split=body["split"],
            arena=body["arena"],
            build_seconds=body["build_seconds"],
            generator=body["generator"],
        )


def _canonical(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values as JSON gives them back: tuples become lists."""
    return json.loads(json.dumps(values))


def _hash(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
