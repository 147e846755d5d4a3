"""A whole bundle: every graph, its weights, the tokenizer, and the manifest last."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import nn

from live2diff_trt import __version__
from live2diff_trt.bundle import signature
from live2diff_trt.bundle.errors import NotWritableError, OutputExistsError
from live2diff_trt.bundle.manifest import TEXT_WEIGHTS_FILE, TOKENIZER_FILE, Manifest, write_manifest
from live2diff_trt.bundle.replaced import move_aside, name_beside, rename_folder
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.export.autoencoder import VaeDecoderGraph, VaeEncoderGraph
from live2diff_trt.export.check import GraphCheck, check_graph, check_unet
from live2diff_trt.export.data_file import write_graphs
from live2diff_trt.export.depth import DepthGraph
from live2diff_trt.export.errors import ExportError
from live2diff_trt.export.onnx_graph import export_graph
from live2diff_trt.export.presets import Preset
from live2diff_trt.export.text import TextEncoderGraph
from live2diff_trt.export.unet_graphs import OnStep, write_unet_graphs
from live2diff_trt.export.weights_source import PARTS, WeightsSource

logger = logging.getLogger(__name__)


def export_bundle(
    preset: Preset,
    weights: WeightsSource,
    out: Path,
    *,
    clip_skip: int = 0,
    overwrite: bool = False,
    check: bool = False,
    on_step: OnStep = lambda _: None,
) -> list[GraphCheck]:
    """Write a bundle. It appears at ``out`` complete or not at all.

    The UNet is exported in this process, the smaller networks in another, which imports the caller's main module again:
    a script calls this behind ``if __name__ == "__main__"``. What that process raises is raised here, after the UNet.

    Args:
        preset: which networks, and for which stream.
        weights: where their weights come from.
        out: the bundle's folder; its parent must exist or be creatable.
        clip_skip: layers left out at the end of the text encoder.
        overwrite: replace what is at ``out``.
        check: run every graph by ONNX Runtime against PyTorch.
        on_step: told what is done next, for a progress display.

    Returns:
        What ``check`` found, per graph and tensor; nothing without it.

    Raises:
        OutputExistsError: if something is at ``out`` and ``overwrite`` is not given.
        NotWritableError: if it can't be put there; on Windows, as long as a bundle that is there is in use, too.
        SpecError: if the preset's size, step list or dtype can't be had.
        ExportError: if a graph is not what its signature promises, or the check fails.
    """
    spec = preset.spec()
    dtype = getattr(torch, spec.dtype)
    checks: list[GraphCheck] = []
    with _complete_or_absent(out, overwrite) as folder, _open_helper() as helper:
        on_step("making the UNet")
        unet = weights.unet(preset, dtype)
        on_step("tracing the smaller networks in another process")
        others = helper.submit(_write_other_graphs, folder, preset, weights, spec, clip_skip, check)
        initialisers = write_unet_graphs(folder, unet, spec, on_step)
        if check:
            on_step("checking the UNet's graphs against PyTorch")
            checks += check_unet(folder, unet, spec)
        on_step("waiting for the other process")
        checks += _wait_for(others)
        weights.tokenizer(preset).save(str(folder / TOKENIZER_FILE))
        on_step("writing the manifest")
        manifest = Manifest(
            spec=spec,
            network=preset.unet.to_json(),
            weights={part: weights.describe(part) for part in PARTS},
            initialisers=initialisers,
            generator=f"live2diff-trt {__version__}",
        )
        write_manifest(folder, manifest)
        _refuse_failed(checks)
    return checks


def _open_helper() -> ProcessPoolExecutor:
    """Return a process beside this one: to trace is Python's work, which threads would not share.

    It is not forked, because PyTorch has threads.
    """
    return ProcessPoolExecutor(1, get_context("spawn"))


def _wait_for(others: Future[list[GraphCheck]]) -> list[GraphCheck]:
    """Return what the helper found; raise what it raised."""
    try:
        return others.result()
    except BrokenProcessPool as error:
        raise ExportError(
            "the process that exports the smaller networks was killed", "Free memory if that ran out, and export again"
        ) from error


def _write_other_graphs(
    folder: Path, preset: Preset, weights: WeightsSource, spec: StreamSpec, clip_skip: int, check: bool
) -> list[GraphCheck]:
    """Write all graphs but the UNet's, one network after the other."""
    dtype = getattr(torch, spec.dtype)
    autoencoder = weights.autoencoder(preset, dtype)
    encoder, decoder = VaeEncoderGraph(autoencoder), VaeDecoderGraph(autoencoder)
    pairs = [(signature.vae_encoder(spec), encoder), (signature.vae_decoder(spec), decoder)]
    checks = _write_part(folder, "vae.data", pairs, check)
    depth = DepthGraph(weights.depth(preset, dtype))
    checks += _write_part(folder, "depth.data", [(signature.depth(spec), depth)], check)
    text_encoder = TextEncoderGraph(weights.text_encoder(preset, dtype), clip_skip)
    return checks + _write_part(folder, TEXT_WEIGHTS_FILE, [(signature.text_encoder(spec), text_encoder)], check)


def _write_part(
    folder: Path, data_file: str, graphs: Sequence[tuple[signature.GraphSignature, nn.Module]], check: bool
) -> list[GraphCheck]:
    write_graphs(folder, [export_graph(module, border) for border, module in graphs], data_file)
    if not check:
        return []
    return [found for border, module in graphs for found in check_graph(folder, module, border)]


@contextmanager
def _complete_or_absent(out: Path, overwrite: bool) -> Iterator[Path]:
    """Give a folder beside ``out`` that takes its place when the block ends well, and vanishes when it does not."""
    if out.exists() and not overwrite:
        raise OutputExistsError(out)
    if overwrite and out.exists() and not (out / "manifest.json").is_file():
        raise ExportError(
            f"{out} is not a bundle, so it is not replaced", "Remove it yourself, or choose another place"
        )
    scratch = name_beside(out, "partial")
    try:
        scratch.mkdir(parents=True)
    except OSError as error:
        raise NotWritableError(out, error) from error
    try:
        yield scratch
        _put_in_place(scratch, out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _put_in_place(scratch: Path, out: Path) -> None:
    """Rename a folder to ``out``. A bundle that is there gives way as a whole; if it can't, as one in use, it stays."""
    aside = None
    try:
        aside = move_aside(out)
        rename_folder(scratch, out)
    except OSError as error:
        if aside is not None:
            rename_folder(aside, out)
        raise NotWritableError(out, error) from error
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)


def _refuse_failed(checks: Sequence[GraphCheck]) -> None:
    failed = [check for check in checks if not check.passed]
    if failed:
        found = "; ".join(f"{check.graph}.{check.tensor} is off by {check.error:.2e}" for check in failed)
        raise ExportError(
            f"ONNX Runtime and PyTorch disagree: {found}", "Report this with the versions of torch and onnx"
        )
