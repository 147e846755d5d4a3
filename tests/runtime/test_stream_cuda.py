"""The same stream by ONNX Runtime's CUDA provider. Run with ``pytest -m gpu`` where onnxruntime-gpu is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from live2diff_trt import Stream
from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions, ProviderName
from live2diff_trt.runtime.frame import FinishedFrame

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        "CUDAExecutionProvider" not in onnxruntime.get_available_providers(), reason="needs onnxruntime-gpu"
    ),
]


def stream_noise(bundle: Path, provider: ProviderName) -> list[FinishedFrame]:
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (60, 80, 3), np.uint8) for _ in range(24)]
    with Stream.open(bundle, prompt="a red fox", options=OnnxRuntimeOptions(provider=provider)) as stream:
        return list(stream.run(pictures))


def test_cuda_and_cpu_give_the_same_video(tiny_bundle: Path) -> None:
    on_cpu, on_cuda = stream_noise(tiny_bundle, "cpu"), stream_noise(tiny_bundle, "cuda")
    assert [frame.index for frame in on_cuda] == list(range(24))
    differences = [np.abs(a.image.astype(int) - b.image.astype(int)) for a, b in zip(on_cpu, on_cuda, strict=True)]
    assert max(difference.max() for difference in differences) <= 4
    assert np.mean(differences) < 0.5


def test_cuda_repeats_itself_bit_by_bit(tiny_bundle: Path) -> None:
    first, again = stream_noise(tiny_bundle, "cuda"), stream_noise(tiny_bundle, "cuda")
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))
