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


def read_adapted_graph(path: Path) -> bytes:
    """Read a graph and return it as ``adapt_graph`` does; raise BundleError if the file is not an ONNX graph."""
    try:
        return adapt_graph(onnx.load(path, load_external_data=False))
    except (DecodeError, OSError) as error:
        raise BundleError(
            f"{path} is not a readable ONNX graph ({error})", "Export the bundle again with `live2diff-trt export`"
        ) from error


def adapt_graph(model: ModelProto) -> bytes:
    """Replace every GroupNormalization, in place, and return the graph; its weights stay in their data file."""
    as_instance_norms(model)
    return model.SerializeToString()
