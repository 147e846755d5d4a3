"""``unet_tick``: the UNet alone, every backend side by side in one process, on the same inputs, in turns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch

from live2diff_trt.benchmarks.count_work import count_work
from live2diff_trt.benchmarks.point import Point
from live2diff_trt.benchmarks.results_file import ResultsFile
from live2diff_trt.benchmarks.rows import Label
from live2diff_trt.benchmarks.timing import Case, interleave
from live2diff_trt.benchmarks.torch_networks import TorchNetworks
from live2diff_trt.benchmarks.torch_tick import TorchTick
from live2diff_trt.benchmarks.unet_cases import TickInputs, UNetCase, draw_inputs, load_torch
from live2diff_trt.engine.deviation import relative_error
from live2diff_trt.runtime.kv_ring import Array

MOST_ERROR = 0.05
"""What computes something else is not timed. Float16 is off by 2e-3 to 6e-3."""


def time_unet(
    results: ResultsFile, point: Point, networks: TorchNetworks, cases: Mapping[Label, UNetCase], *, samples: int
) -> None:
    """Check each backend's tick against the network in float32, then time all in turns.

    Args:
        results: gets an entry ``unet_tick`` per case; what computes something else is named in ``not_run``.
        point: what is streamed.
        networks: with the weights of all cases.
        cases: label → the UNet of a backend.
        samples: ticks of each that count.
    """
    inputs, wanted = compute_wanted(point, networks)
    notes = count_work(point)["denoise"].as_notes()
    errors: dict[Label, float] = {}
    with ExitStack() as stack:
        timed: dict[Label, Case] = {}
        for label, case in cases.items():
            case.load(inputs)
            prepared = case.prepare(stack)
            case.load(inputs)  # preparing may have run a tick, which writes a slot
            errors[label] = _worst_row(case.run(), wanted)
            if errors[label] <= MOST_ERROR:
                timed[label] = prepared
            else:
                name = f"unet_tick of {' '.join(filter(None, label))} at {point.name}"
                results.not_run[name] = f"it is off by {errors[label]:.1e} of what float32 gives"
        del inputs
        for label, samples_ms in interleave(timed, samples=samples).items():
            results.add_samples("unet_tick", *label, point, samples_ms, errors[label], **notes)


def compute_wanted(point: Point, networks: TorchNetworks) -> tuple[TickInputs, Array]:
    """Draw a tick's inputs, and compute in float32, from the same weights, what the tick gives.

    Returns:
        The inputs in the point's dtype, and the output, [rows, channels, height, width] float32.
    """
    spec = point.as_preset().spec()
    inputs = draw_inputs(spec, TorchTick(networks.unet, spec))
    exact = TorchTick(networks.in_float32().unet, spec.with_dtype("float32"))
    with in_full_float32():
        load_torch(exact, spec, inputs)
        exact.step()
    wanted = exact.model_output.cpu().numpy()
    del exact
    release_memory()
    return inputs, wanted


def release_memory() -> None:
    """Give back what PyTorch keeps of the GPU's memory and does not use: TensorRT allocates beside it."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def in_full_float32() -> Iterator[None]:
    """Compute convolutions in float32 without rounding to TF32 meanwhile; PyTorch's products never do it."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _worst_row(found: Array, wanted: Array) -> float:
    return max(relative_error(one, other) for one, other in zip(found, wanted, strict=True))
