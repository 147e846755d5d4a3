"""Adapts a bundle's graph to ONNX Runtime before it is opened; the bundle itself stays as it is.

ONNX Runtime has no kernel for GroupNormalization and runs the operator's definition instead: variance as the mean of
squares minus the square of the mean. That loses every digit where a group's mean is large beside its deviation, and
gives NaN where rounding makes it negative. Its InstanceNormalization kernel computes in two passes, and faster.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto

from live2diff_trt.bundle.errors import BundleError
from live2diff_trt.engine.group_norms import as_instance_norms


def read_adapted_graph(path: Path) -> ModelProto:
    """Read a graph and adapt it, its weights left in their data file; raise BundleError if it is no ONNX graph."""
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError) as error:
        raise BundleError(
            f"{path} is not a readable ONNX graph ({error})", "Export the bundle again with `live2diff-trt export`"
        ) from error
    adapt_graph(model)
    return model


def adapt_graph(model: ModelProto) -> None:
    """Replace every GroupNormalization, in place. Initialisers keep their names."""
    as_instance_norms(model)


def replaceable_weights(model: ModelProto) -> set[str]:
    """Return the names of the weights that lie in a data file."""
    return {tensor.name for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL}
