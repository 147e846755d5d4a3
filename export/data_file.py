"""Graphs to files: each group of graphs shares one data file, in which every weight stands once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx_ir

from live2diff_trt.export.errors import ExportError

# Large weights begin at a page, so that a backend may map them instead of reading them; small ones do not waste it.
_PAGE_BYTES, _LINE_BYTES, _LARGE_BYTES = 4096, 64, 1 << 18


def write_graphs(folder: Path, models: Sequence[onnx_ir.Model], data_file: str) -> None:
    """Write each model to ``<graph name>.onnx`` and all their initialisers to ``data_file``.

    Initialisers of the same name must be the same weight in every model. The models keep pointing into the file
    afterwards: their initialisers are replaced in place.

    Raises:
        ExportError: if two models have different weights of one name.
    """
    placed: dict[str, onnx_ir.ExternalTensor] = {}
    written: dict[str, onnx_ir.TensorProtocol] = {}
    with (folder / data_file).open("wb") as stream:
        for model in models:
            for name, value in model.graph.initializers.items():
                if value.const_value is None:
                    raise ExportError(
                        f"{model.graph.name} has no weights for {name}", "Export from a module with weights"
                    )
                if name not in placed:
                    placed[name] = _append(stream, folder / data_file, name, value.const_value)
                    written[name] = value.const_value
                elif not _same(written[name], value.const_value):
                    raise ExportError(f"two graphs have different weights called {name}", "Give them different names")
                value.const_value = placed[name]
    for model in models:
        onnx_ir.save(model, folder / f"{model.graph.name}.onnx")


def _append(stream: BinaryIO, path: Path, name: str, tensor: onnx_ir.TensorProtocol) -> onnx_ir.ExternalTensor:
    alignment = _PAGE_BYTES if tensor.nbytes >= _LARGE_BYTES else _LINE_BYTES
    stream.write(b"\0" * (-stream.tell() % alignment))
    offset = stream.tell()
    stream.write(np.ascontiguousarray(tensor.numpy()).data)
    return onnx_ir.ExternalTensor(
        location=path.name,
        offset=offset,
        length=tensor.nbytes,
        dtype=tensor.dtype,
        shape=onnx_ir.Shape(tensor.numpy().shape),
        name=name,
        base_dir=path.parent,
    )


def _same(one: onnx_ir.TensorProtocol, other: onnx_ir.TensorProtocol) -> bool:
    """Whether two tensors are equal: at once where both are the same memory, as weights of one module are."""
    first, second = one.numpy(), other.numpy()
    if one.dtype != other.dtype or first.shape != second.shape:
        return False
    same_memory = first.strides == second.strides and first.ctypes.data == second.ctypes.data
    return same_memory or np.array_equal(first, second, equal_nan=True)
