"""What the GPU can do at most, measured by PyTorch: the rates that other figures are set against."""

from __future__ import annotations

from collections.abc import Callable

import torch

from live2diff_trt.benchmarks.results_file import ResultsFile
from live2diff_trt.benchmarks.timing import clock_for, percentiles, time_gpu

_BACKEND = "torch"


def add_gpu_limits(
    results: ResultsFile,
    device: torch.device,
    *,
    copy_bytes: int = 4 << 30,
    matrix_side: int = 8192,
    samples: int = 50,
) -> None:
    """Measure copying and multiplying on ``device`` and add ``kernel/copy`` and ``kernel/matmul``.

    Allocates twice ``copy_bytes``, then three matrices; gives them back to PyTorch.
    """
    samples_ms = _time(prepare_copy(device, copy_bytes), device, samples)
    results.add_samples(
        "kernel/copy",
        _BACKEND,
        None,
        None,
        samples_ms,
        bytes_read_and_written=2 * copy_bytes,
        tb_per_s=_rate(2 * copy_bytes, samples_ms),
    )
    samples_ms = _time(prepare_matmul(device, matrix_side), device, samples)
    results.add_samples(
        "kernel/matmul",
        _BACKEND,
        None,
        None,
        samples_ms,
        shape=[matrix_side] * 3,
        dtype="float16",
        tflop_per_s=_rate(2 * matrix_side**3, samples_ms),
    )


def prepare_copy(device: torch.device, byte_count: int) -> Callable[[], object]:
    """Return a call that copies ``byte_count`` bytes on the device. It reads as many as it writes."""
    source = torch.empty(byte_count, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def prepare_matmul(device: torch.device, side: int) -> Callable[[], object]:
    """Return a call that multiplies two float16 matrices, [side, side].

    Their values are random: a GPU multiplies zeros faster, because it draws less power.
    """
    left, right, product = (torch.randn(side, side, device=device).half() for _ in range(3))
    return lambda: torch.mm(left, right, out=product)


def _time(launch: Callable[[], object], device: torch.device, samples: int) -> list[float]:
    return time_gpu(launch, clock_for(device), samples=samples, warm_up=10)


def _rate(amount: float, samples_ms: list[float]) -> float:
    """Return 10¹² units a second at the median."""
    return round(amount / percentiles(samples_ms).p50_ms / 1e9, 3)
