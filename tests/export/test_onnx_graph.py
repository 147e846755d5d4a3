"""One module, one graph: what the exporter must keep, and what it must refuse."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from live2diff_trt.bundle.signature import GraphSignature, TensorSpec
from live2diff_trt.export.errors import ExportError
from live2diff_trt.export.onnx_graph import cut_out, export_graph

Tensors = tuple[Tensor, ...]


def border(name: str, inputs: list[str], outputs: list[str], dtype: str = "float32") -> GraphSignature:
    shape = ("rows", 4, 8)
    return GraphSignature(
        name,
        tuple(TensorSpec(tensor, shape, "float32") for tensor in inputs),
        tuple(TensorSpec(tensor, shape, dtype) for tensor in outputs),
    )


class TwoParts(nn.Module):
    """Two computations that share nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8, bias=False)

    def forward(self, tensors: Tensors) -> Tensors:
        a, b = tensors
        return self.first(a), self.second(b)


class MaskedAttention(nn.Module):
    """Attention with a mask of the given kind."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, tensors: Tensors) -> Tensors:
        (x,) = tensors
        heads = x.unsqueeze(1)
        return (scaled_dot_product_attention(heads, heads, heads, attn_mask=self.mask)[:, 0],)


def test_weights_keep_their_names_and_their_orientation() -> None:
    module = TwoParts()
    model = export_graph(module, border("both", ["a", "b"], ["x", "y"]))
    assert set(model.graph.initializers) == {"first.weight", "first.bias", "second.weight"}
    weight = model.graph.initializers["second.weight"].const_value
    assert weight is not None
    assert torch.equal(torch.from_numpy(weight.numpy()), module.second.weight.detach())


def test_a_part_that_is_cut_out_has_its_own_border_and_weights() -> None:
    model = export_graph(TwoParts(), border("both", ["a", "b"], ["x", "y"]))
    part = cut_out(model, border("second", ["b"], ["y"]))
    assert part.graph.name == "second"
    assert [value.name for value in part.graph.inputs] == ["b"]
    assert [value.name for value in part.graph.outputs] == ["y"]
    assert set(part.graph.initializers) == {"second.weight"}


def test_a_part_that_is_cut_out_has_its_weights_in_the_whole_graphs_order() -> None:
    class Layers(nn.Module):
        """Layers one after the other, whose weights a set would mix."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*(nn.Linear(8, 8) for _ in range(16)))

        def forward(self, tensors: Tensors) -> Tensors:
            return (self.layers(tensors[0]),)

    model = export_graph(Layers(), border("whole", ["a"], ["x"]))
    part = cut_out(model, border("part", ["a"], ["x"]))
    assert list(part.graph.initializers) == list(model.graph.initializers)


def test_a_border_that_is_not_the_graphs_is_refused() -> None:
    with pytest.raises(ExportError, match="x of type float32 where x of type float16 was promised"):
        export_graph(TwoParts(), border("both", ["a", "b"], ["x", "y"], dtype="float16"))


def test_attention_becomes_plain_matrix_products() -> None:
    mask = torch.zeros(4, 4).masked_fill(torch.ones(4, 4).triu(1) > 0, -torch.inf)
    model = export_graph(MaskedAttention(mask), border("attention", ["a"], ["x"]))
    operators = [node.op_type for node in model.graph]
    assert operators.count("MatMul") == 2
    assert operators.count("Softmax") == 1
    assert "Attention" not in operators


def test_a_boolean_mask_is_refused() -> None:
    with pytest.raises(ExportError, match="attention can't be written in ONNX"):
        export_graph(MaskedAttention(torch.ones(4, 4, dtype=torch.bool)), border("attention", ["a"], ["x"]))
