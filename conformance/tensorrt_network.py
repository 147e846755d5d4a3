"""The network of the runtime's protocol, run by TensorRT's plans and our kernels; the ring is the device's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch
from cuda.core import Device
from numpy.typing import NDArray

from live2diff_trt.bundle.manifest import Bundle, FileRecord, Manifest
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.build import BuildOptions, build_plans
from live2diff_trt.engine.flavour import choose_flavour
from live2diff_trt.engine.store import PlanStore, StoredPlans
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.export.unet_graphs import write_unet_graphs
from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.kernels.tick_parameters import TICK_PARAMETERS
from live2diff_trt.model.unet import CausalUNet
from live2diff_trt.runtime.cuda_session import require_gpu
from live2diff_trt.runtime.device_stages import run_stage
from live2diff_trt.runtime.kv_ring import Array, KeyValues, KvRing
from live2diff_trt.runtime.opened_plans import know_plans, load_plans
from live2diff_trt.runtime.stream_rows import StreamRoom, StreamRows
from live2diff_trt.runtime.tick_record import TickRecord
from live2diff_trt.runtime.unet_session import UNetSession, open_unet


class TensorRTNetwork:
    """The causal UNet on a GPU, given host arrays one pass at a time: for comparison, not for speed.

    New slots stay on the device, so what it returns of them is empty, and of the ring it is given only the count of
    frames is used.
    """

    def __init__(self, session: UNetSession) -> None:
        self._session = session
        self._parameters = TickRecord(np.zeros(TICK_PARAMETERS.itemsize, np.uint8))

    def set_steps(self, timesteps: NDArray[np.int32]) -> None:
        """Compute every resnet's time projection for the denoising steps, [rows] int32, and forget every frame."""
        self._session.conditions.set_rows(timesteps, StreamRows(len(timesteps)))
        self._session.ring.reset(self._session.memory)

    def set_prompt(self, text_embeddings: Array) -> None:
        """Compute keys and values of every cross-attention for one prompt, [1, tokens, channels]."""
        self._session.conditions.set_text_embeddings(text_embeddings)

    def embed_depth(self, depth_latents: Array) -> Array:
        """Map depth latents, [frames, channels, height, width], to depth features."""
        return np.stack([self._embed_one(latent) for latent in depth_latents])

    def tick(self, sample: Array, depth_features: Array, ring: KvRing) -> tuple[Array, KeyValues]:
        """Run all rows over the past on the device. Every row writes a slot, which stays hidden until it counts."""
        memory, unet = self._session.memory, self._session.unet
        self._parameters.write_rows(list(range(len(sample))), ring.view())
        memory.upload(self._session.constants.parameters, self._parameters.memory)
        self._upload_rows(unet.tick_rows.sample, sample)
        self._upload_rows(unet.tick_rows.depth_features, depth_features)
        unet.tick(memory.stream)
        return memory.download(unet.tick_rows.model_output), {}

    def warm_up(self, row: int, sample: Array, depth_features: Array) -> tuple[Array, KeyValues]:
        """Run the warm-up frames as rows, all at denoising step ``row``; the device's sink is filled."""
        memory, unet = self._session.memory, self._session.unet
        self._upload_rows(unet.warm_up_rows.sample, sample)
        self._upload_rows(unet.warm_up_rows.depth_features, depth_features)
        unet.aim_warm_up(memory.stream, row)
        unet.warm_up(memory.stream)
        return memory.download(unet.warm_up_rows.model_output), {}

    def _embed_one(self, latent: Array) -> Array:
        """Embed one depth latent, in the memory of the rows, which hold nothing between two passes."""
        memory, rows = self._session.memory, self._session.unet.warm_up_rows
        given, features = rows.sample.row(0), rows.depth_features.row(0)
        memory.upload(given, latent)
        run_stage(memory.stream, self._session.plans["depth_embed"], given, features)
        return memory.download(features)

    def _upload_rows(self, target: DeviceTensor, values: Array) -> None:
        for row, value in enumerate(values):
            self._session.memory.upload(target.row(row), value)


def build_recorded_plans(folder: Path, unet: CausalUNet, spec: StreamSpec, options: TensorRTOptions) -> StoredPlans:
    """Export a network and build its plans for the GPU of this machine, all inside ``folder``.

    Args:
        folder: exists; what is written to it is of no use but for ``open_tensorrt_network``.
        unet: with weights in float32; it is rounded to the spec's dtype in place.
        spec: the stream. Its step list only says how many rows the plans have, unless the options do.
        options: form, rows, flavour and device.
    """
    gpu = require_gpu(options.device)
    flavour, _ = choose_flavour(options.flavour, gpu.compute_capability)
    build = BuildOptions(gpu.compute_capability, gpu.compute_capability, options.form, options.rows)
    return build_plans(write_unet_bundle(folder / "bundle", unet, spec), flavour, PlanStore(folder / "plans"), build)


@contextmanager
def open_tensorrt_network(stored: StoredPlans, spec: StreamSpec, options: TensorRTOptions) -> Iterator[TensorRTNetwork]:
    """Open the plans of a network for any step list, and close them at the end."""
    gpu = require_gpu(options.device)
    flavour, _ = choose_flavour(options.flavour, gpu.compute_capability)
    Device(options.device).set_current()
    facts = stored.facts(gpu)
    measured = know_plans(stored, flavour, facts, options.device)
    rows, room = StreamRows(spec.steps), StreamRoom(spec.steps)
    with load_plans(stored, flavour, facts, measured, options.device, spec.dtype) as opened:
        session = open_unet(spec, opened, rows=rows, room=room, overlap=False)
    try:
        yield TensorRTNetwork(session)
    finally:
        session.close()


def write_unet_bundle(folder: Path, unet: CausalUNet, spec: StreamSpec) -> Bundle:
    """Write the UNet's graphs alone and return them as a bundle. Nobody else opens it, so nothing is hashed."""
    folder.mkdir()
    initialisers = write_unet_graphs(folder, unet.to(getattr(torch, spec.dtype)), spec)
    files = {path.name: FileRecord(path.stat().st_size, "") for path in folder.iterdir()}
    return Bundle(folder, Manifest(spec, unet.configuration.to_json(), {}, initialisers, files), digest=uuid4().hex)
