"""The recorded network and its recordings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from live2diff_trt.conformance.goldens import Goldens


@pytest.fixture(scope="session")
def goldens() -> Goldens:
    return Goldens.open(Path(__file__).parents[1] / "goldens" / "tiny_a")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So small a network runs fastest, and the same everywhere, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
