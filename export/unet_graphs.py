"""The UNet's five graphs, and the table that says which weights each of their initialisers was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import onnx_ir

from live2diff_trt.bundle import signature
from live2diff_trt.bundle.manifest import WEIGHTS_FILE, Initialiser
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.export.data_file import write_graphs
from live2diff_trt.export.onnx_graph import add_function, cut_out, export_graph
from live2diff_trt.export.row_axis import export_rows
from live2diff_trt.export.temporal_op import temporal_attention_function
from live2diff_trt.export.warm_up_graph import make_warm_up_graph
from live2diff_trt.export.wrappers import HoistedGraph, UNetGraph
from live2diff_trt.model.unet import CausalUNet

_PREFIX = "unet."
OnStep = Callable[[str], None]


def write_unet_graphs(
    folder: Path, unet: CausalUNet, spec: StreamSpec, on_step: OnStep = lambda _: None
) -> dict[str, Initialiser]:
    """Write the tick's graph, the warm-up graph and the three that are hoisted out, with one shared data file.

    Args:
        folder: an existing folder; ``WEIGHTS_FILE`` and five ``.onnx`` files are written to it.
        unet: with weights in the spec's dtype.
        spec: the stream.
        on_step: told what is done next, for a progress display.

    Returns:
        For each initialiser of the graphs, what it was made from.
    """
    on_step("tracing the UNet")
    tick = export_rows(UNetGraph(unet, spec), signature.unet(spec))
    add_function(tick, temporal_attention_function())
    on_step("deriving its warm-up graph")
    warm_up = make_warm_up_graph(tick, signature.unet_warmup(spec))
    on_step("tracing what is hoisted out of the tick")
    models = [tick, warm_up, *_export_hoisted(unet, spec)]
    for model in models:
        _name_by_state_dict(model)
    on_step("writing the UNet's graphs and weights")
    write_graphs(folder, models, WEIGHTS_FILE)
    return trace_initialisers(name for model in models for name in model.graph.initializers)


def _export_hoisted(unet: CausalUNet, spec: StreamSpec) -> list[onnx_ir.Model]:
    """Trace the three small graphs at once, since a trace costs seconds whatever its size, and cut them apart."""
    borders = [signature.time_embed(spec), signature.prompt_kv(spec), signature.depth_embed(spec)]
    whole = signature.GraphSignature(
        "hoisted",
        tuple(tensor for border in borders for tensor in border.inputs),
        tuple(tensor for border in borders for tensor in border.outputs),
    )
    model = export_graph(HoistedGraph(unet, spec), whole)
    return [cut_out(model, border) for border in borders]


def _name_by_state_dict(model: onnx_ir.Model) -> None:
    """Take the wrapper's prefix off the initialisers, so that they have the reference's own keys. In place."""
    graph = model.graph
    for value in list(graph.initializers.values()):
        if value.name is not None and value.name.startswith(_PREFIX):
            graph.initializers.pop(value.name)
            value.name = value.name.removeprefix(_PREFIX)
            graph.initializers[value.name] = value


def trace_initialisers(names: Iterable[str]) -> dict[str, Initialiser]:
    """Say for each initialiser which keys of the state dict it was made from, and how."""
    return {name: _trace_initialiser(name) for name in names}


def _trace_initialiser(name: str) -> Initialiser:
    attention, _, tensor = name.rpartition(".")
    if tensor in ("pe_q", "pe_k", "pe_v"):
        return Initialiser("multiply_by_pe", (f"{attention}.to_{tensor[-1]}.weight", f"{attention}.pos_encoder.pe"))
    return Initialiser("copy", (name,))
