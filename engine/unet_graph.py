"""Indices over a UNet's graph: who makes a value, who reads it, what shape it has, and what is the same memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from live2diff_trt.bundle.errors import BundleError
from live2diff_trt.bundle.spec import FloatName

ROWS = "rows"


class UNetGraph:
    """A UNet's graph, which is only read.

    Attributes:
        path: of its file, for messages. model: all of it, weights left where they are.
        nodes: in an order in which they may run.
        initialisers, inputs: by name. types: of every value whose type is known.
        producers: value → index of the node that makes it. readers: value → indices of the nodes that read it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = _read_model(path)
        graph = self.model.graph
        self.nodes: Sequence[NodeProto] = graph.node
        self.initialisers = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs = {value.name: value for value in graph.input}
        self.types = {value.name: value for value in [*graph.value_info, *graph.input, *graph.output]}
        self.producers = {name: index for index, node in enumerate(self.nodes) for name in node.output if name}
        self.readers: dict[str, list[int]] = defaultdict(list)
        for index, node in enumerate(self.nodes):
            for name in node.input:
                self.readers[name].append(index)
        self.constants = self._find_constants()
        self._check_order()

    def producer(self, name: str) -> NodeProto | None:
        """Return the node that makes a value; None for inputs and weights."""
        index = self.producers.get(name)
        return None if index is None else self.nodes[index]

    def made_by(self, name: str, *op_types: str) -> NodeProto | None:
        """Return the node that makes a value, if it is of one of these types and has no other reader than one."""
        node = self.producer(name)
        return node if node is not None and node.op_type in op_types and len(self.readers[name]) == 1 else None

    def only_reader(self, name: str, op_type: str) -> NodeProto | None:
        """Return the one node that reads a value, if it is of that type."""
        readers = self.readers[name]
        node = self.nodes[readers[0]] if len(readers) == 1 else None
        return node if node is not None and node.op_type == op_type else None

    def constant_value(self, name: str) -> NDArray[Any] | None:
        """Return what a Constant node holds."""
        node = self.producer(name)
        if node is None or node.op_type != "Constant" or len(node.attribute) != 1:
            return None
        value = helper.get_attribute_value(node.attribute[0])
        return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else None

    def memory_root(self, name: str) -> str:
        """Return the value whose memory this one is, channels last: a picture may be seen as tokens, and back."""
        source = self._seen_from(name)
        return name if source is None else self.memory_root(source)

    def row_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one row; raise BundleError where the graph does not say it."""
        shape = self.find_row_shape(name)
        if shape is None:
            raise self.refusal(f"does not say the shape of {name}, which must be [{ROWS}, …]")
        return shape

    def find_row_shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of one row, or None where the graph does not say it."""
        value = self.types.get(name)
        dimensions = value.type.tensor_type.shape.dim if value is not None else []
        shape = tuple(dimension.dim_value for dimension in dimensions[1:])
        return shape if dimensions and dimensions[0].dim_param == ROWS and 0 not in shape else None

    def dtype(self, name: str) -> FloatName:
        """Return a value's type; raise BundleError if it is none that a stream has."""
        dtype = str(helper.tensor_dtype_to_np_dtype(self.types[name].type.tensor_type.elem_type))
        if dtype == "float16":
            return "float16"
        if dtype == "float32":
            return "float32"
        raise self.refusal(f"has {name} as {dtype}, not as float16 or float32")

    def refusal(self, problem: str) -> BundleError:
        """Return the error of a graph that can't be cut."""
        return refusal(self.path, problem)

    def _seen_from(self, name: str) -> str | None:
        """Return the picture that tokens are a view of, or the tokens that a picture is."""
        last = self.producer(name)
        if last is None or last.op_type not in ("Reshape", "Transpose"):
            return None
        first = self.producer(last.input[0])
        if first is None or {first.op_type, last.op_type} != {"Reshape", "Transpose"}:
            return None
        transpose = last if last.op_type == "Transpose" else first
        before, after = self.find_row_shape(first.input[0]), self.find_row_shape(name)
        if before is None or after is None or list(attribute(transpose, "perm")) != [0, 2, 1]:
            return None
        picture, tokens = (before, after) if last is transpose else (after, before)
        if len(picture) != 3 or len(tokens) != 2:
            return None
        channels, height, width = picture
        return first.input[0] if tokens == (height * width, channels) else None

    def _find_constants(self) -> set[str]:
        """Return what follows from weights alone."""
        constants = set(self.initialisers)
        for node in self.nodes:
            if constants.issuperset(name for name in node.input if name):
                constants.update(node.output)
        return constants

    def _check_order(self) -> None:
        made = {*self.initialisers, *self.inputs, ""}
        for node in self.nodes:
            unknown = [name for name in node.input if name not in made]
            if unknown:
                raise self.refusal(f"reads {unknown[0]} in {node.name} before it is made")
            made.update(node.output)


def attribute(node: NodeProto, name: str) -> Any:
    """Return an attribute's value, or None where the node has none of that name."""
    return next((helper.get_attribute_value(one) for one in node.attribute if one.name == name), None)


def refusal(path: Path, problem: str) -> BundleError:
    """Return the error of a graph, or of the data beside it, that is not what an export writes."""
    return BundleError(f"{path} {problem}", "Export the bundle again with `live2diff-trt export`")


def _read_model(path: Path) -> ModelProto:
    try:
        return onnx.load(path, load_external_data=False)
    except (DecodeError, OSError) as error:
        raise refusal(path, f"is not a readable ONNX graph ({error})") from error
