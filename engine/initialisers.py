"""The weights of a bundle that a style may replace: which there are, and what the bundle's own data files hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper
from onnx.external_data_helper import ExternalDataInfo

from live2diff_trt.bundle.errors import BundleError
from live2diff_trt.bundle.manifest import TEXT_WEIGHTS_FILE, TOKENIZER_FILE, WEIGHTS_FILE, Bundle
from live2diff_trt.engine.structure import hash_structure

RESTYLED_GRAPHS = ("text_encoder", "prompt_kv", "time_embed", "depth_embed", "unet_warmup", "unet")
"""Whose weights a style replaces. Autoencoder and depth network stay the bundle's."""
_FILES = (TOKENIZER_FILE, WEIGHTS_FILE, TEXT_WEIGHTS_FILE, *(f"{graph}.onnx" for graph in RESTYLED_GRAPHS))
_EXPORT_AGAIN = "Export the bundle again with `live2diff-trt export`"


@dataclass(frozen=True)
class Place:
    """Where an initialiser's values lie."""

    file: Path
    offset: int
    shape: tuple[int, ...]
    dtype: str


class BundleInitialisers:
    """The initialisers of a bundle's restyled graphs. Files were verified when this was opened.

    Attributes:
        bundle: whose they are.
        places: every initialiser, by name.
        of_graph: graph → names of its initialisers.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.places: dict[str, Place] = {}
        self.of_graph: dict[str, frozenset[str]] = {}
        for graph in RESTYLED_GRAPHS:
            external = TensorProto.EXTERNAL
            weights = [one for one in self._load(graph).graph.initializer if one.data_location == external]
            self.places.update({tensor.name: _place(tensor, bundle.folder) for tensor in weights})
            self.of_graph[graph] = frozenset(tensor.name for tensor in weights)

    @classmethod
    def open(cls, folder: Path, digest: str | None = None) -> BundleInitialisers:
        """Open a bundle of which this much is verified.

        Args:
            folder: the bundle's.
            digest: ``Bundle.digest`` that it must have; None: any.

        Raises:
            BundleError: if it is missing, damaged, or another by now.
        """
        bundle = Bundle.open(folder, _FILES)
        if digest not in (None, bundle.digest):
            raise BundleError(f"{folder} is another bundle than it was", "Open the stream again")
        return cls(bundle)

    def read(self, name: str) -> NDArray[Any]:
        """Return an initialiser's values, mapped from the data file; they must not be written."""
        place = self.places[name]
        return np.memmap(place.file, place.dtype, "r", place.offset, place.shape)

    def structure(self, graph: str) -> str:
        """Return what a graph shares with others that differ in weights alone."""
        return hash_structure(self._load(graph), {}, ())

    def _load(self, graph: str) -> ModelProto:
        path = self.bundle.file(f"{graph}.onnx")
        try:
            return onnx.load(path, load_external_data=False)
        except (DecodeError, OSError) as error:
            raise BundleError(f"{path} is not a readable ONNX graph ({error})", _EXPORT_AGAIN) from error


def _place(tensor: TensorProto, folder: Path) -> Place:
    data = ExternalDataInfo(tensor)
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return Place(folder / data.location, data.offset or 0, tuple(tensor.dims), str(dtype))
