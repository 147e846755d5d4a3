"""What a device can do at most, measured by PyTorch: the rates that other figures are set against."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from live2diff_trt.benchmarks.results_file import ResultsFile
from live2diff_trt.benchmarks.timing import clock_for, percentiles, time_gpu

_BACKEND = "torch"
_SAMPLES = 50


class LimitSizes(NamedTuple):
    """How much is copied and multiplied: far more than the device caches."""

    copy_bytes: int
    matrix_side: int


ON_GPU = LimitSizes(4 << 30, 8192)
ON_CPU = LimitSizes(256 << 20, 1024)


def add_limits(results: ResultsFile, device: torch.device, dtype: str, sizes: LimitSizes | None = None) -> None:
    """Measure copying and multiplying on ``device`` and add ``kernel/copy`` and ``kernel/matmul``.

    Allocates twice the bytes that are copied, then three matrices; gives them back.

    Args:
        results: gets the entries.
        device: where.
        dtype: of the matrices; products in float32 are not rounded to TF32.
        sizes: other than the usual ones of a GPU, or of a CPU.
    """
    copied, side = sizes or (ON_GPU if device.type == "cuda" else ON_CPU)
    samples_ms = _time(prepare_copy(device, copied), device)
    results.add_samples(
        "kernel/copy",
        _BACKEND,
        None,
        None,
        samples_ms,
        bytes_read_and_written=2 * copied,
        tb_per_s=_rate(2 * copied, samples_ms),
    )
    samples_ms = _time(prepare_matmul(device, side, getattr(torch, dtype)), device)
    results.add_samples(
        "kernel/matmul",
        _BACKEND,
        None,
        None,
        samples_ms,
        shape=[side] * 3,
        dtype=dtype,
        tflop_per_s=_rate(2 * side**3, samples_ms),
    )
    if device.type == "cuda":
        torch.cuda.empty_cache()


def prepare_copy(device: torch.device, byte_count: int) -> Callable[[], object]:
    """Return a call that copies ``byte_count`` bytes on the device. It reads as many as it writes."""
    source = torch.empty(byte_count, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def prepare_matmul(device: torch.device, side: int, dtype: torch.dtype) -> Callable[[], object]:
    """Return a call that multiplies two matrices, [side, side].

    Their values are random: a GPU multiplies zeros faster, because it draws less power.
    """
    left, right, product = (torch.randn(side, side, device=device).to(dtype) for _ in range(3))
    return lambda: torch.mm(left, right, out=product)


def _time(launch: Callable[[], object], device: torch.device) -> list[float]:
    return time_gpu(launch, clock_for(device), samples=_SAMPLES, warm_up=10)


def _rate(amount: float, samples_ms: list[float]) -> float:
    """Return 10¹² units a second at the median."""
    return float(f"{amount / percentiles(samples_ms).p50_ms / 1e9:.4g}")
