"""A bundle → the networks that its plans are built from, and that they are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto

from live2diff_trt.bundle.errors import BundleError
from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine.gelu import in_float32
from live2diff_trt.engine.group_norms import as_layer_norms_where_groups_are_small
from live2diff_trt.engine.plan_manifest import KEPT_PLANS, PlanKey
from live2diff_trt.engine.split import UNetSplit
from live2diff_trt.engine.split_graph import cut_unet
from live2diff_trt.engine.structure import hash_structure


@dataclass(frozen=True, eq=False)
class Network:
    """What one plan is built from.

    Attributes:
        name: of the plan.
        path: of the bundle's graph; weights lie beside it.
        model: the graph, where it is not the file's own.
        dimensions: values of its symbolic dimensions.
        styled: whether a style replaces its weights.
        channels_last: inputs and outputs that lie in memory as channels last.
    """

    name: str
    path: Path
    model: ModelProto | None = None
    dimensions: Mapping[str, int] = field(default_factory=dict)
    styled: bool = False
    channels_last: frozenset[str] = frozenset()

    def serialise(self) -> bytes:
        """Return the graph, without the weights that lie beside it; raise BundleError if its file is damaged."""
        return self._open().SerializeToString()

    def structure(self) -> str:
        """Return what other networks share that differ in weights alone; raise BundleError if its file is damaged."""
        return hash_structure(self._open(), self.dimensions, self.channels_last)

    def weights(self) -> frozenset[str]:
        """Return the initialisers that lie in a data file; raise BundleError if its file is damaged."""
        external = onnx.TensorProto.EXTERNAL
        return frozenset(tensor.name for tensor in self._open().graph.initializer if tensor.data_location == external)

    def _open(self) -> ModelProto:
        return _read(self.path) if self.model is None else self.model


def collect_networks(bundle: Bundle, key: PlanKey) -> tuple[UNetSplit | None, list[Network]]:
    """Return how the UNet is cut, in the split form, and all networks; raise BundleError if a graph is damaged."""

    def network(name: str, styled: bool = False, **dimensions: int) -> Network:
        return Network(name, bundle.file(f"{name}.onnx"), dimensions=dimensions, styled=styled)

    hoisted = [
        network("prompt_kv", styled=True, rows=1, tokens=bundle.spec.prompt_tokens),
        network("time_embed", styled=True, rows=1),
        network("depth_embed", styled=True, frames=1),
    ]
    # A recording of the UNet alone comes without what surrounds it.
    surrounding = {
        "text_encoder": {"rows": 1},
        "vae_encoder": {"frames": 1},
        "depth": {"frames": 1},
        "vae_decoder": {"frames": 1},
    }
    before = [
        *(
            network(name, styled=name not in KEPT_PLANS, **sizes)
            for name, sizes in surrounding.items()
            if f"{name}.onnx" in bundle.manifest.files
        ),
        *hoisted,
    ]
    if key.form == "whole":
        return None, [
            *before,
            _with_exact_operators(network("unet_warmup", styled=True)),
            _with_exact_operators(network("unet", styled=True, rows=key.rows)),
        ]
    path = bundle.file("unet.onnx")
    cut = cut_unet(path, bundle.spec, key.rows)
    channels_last = frozenset(tensor.name for tensor in cut.split.tensors if tensor.channels_last)
    segments = [
        Network(segment.name, path, model, styled=True, channels_last=channels_last)
        for segment, model in zip(cut.split.segments, cut.models, strict=True)
    ]
    return cut.split, [*before, *segments]


def find_plan_weights(bundle: Bundle, key: PlanKey) -> dict[str, frozenset[str]]:
    """Return for each plan whose weights a style replaces which initialisers it was built from.

    Raises:
        BundleError: if a graph is damaged.
    """
    _, networks = collect_networks(bundle, key)
    return {network.name: network.weights() for network in networks if network.styled}


def _with_exact_operators(network: Network) -> Network:
    """Return a whole UNet without the operators that TensorRT gets wrong. The split form has kernels for them."""
    model = _read(network.path)
    as_layer_norms_where_groups_are_small(model)
    in_float32(model)
    return replace(network, model=model)


def _read(path: Path) -> ModelProto:
    try:
        return onnx.load(path, load_external_data=False)
    except (DecodeError, OSError) as error:
        raise BundleError(
            f"{path} is not a readable ONNX graph ({error})", "Export the bundle again with `live2diff-trt export`"
        ) from error
