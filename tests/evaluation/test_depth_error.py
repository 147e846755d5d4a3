"""Structure is compared by the depth that the stream sees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from live2diff_trt.bundle.errors import BundleError
from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions
from live2diff_trt.evaluation.depth_error import DepthComparison
from live2diff_trt.kernels import reference
from live2diff_trt.runtime.kv_ring import Array
from tests.evaluation.made_clips import texture

OPTIONS = OnnxRuntimeOptions(threads=1)


@dataclass
class RedIsDepth:
    """Stands in for a depth network."""

    def estimate(self, picture: Array) -> Array:
        return picture[0]


@pytest.fixture(scope="module")
def depth(tiny_bundle: Path) -> DepthComparison:
    return DepthComparison.open(tiny_bundle, OPTIONS)


@pytest.fixture
def red(depth: DepthComparison, monkeypatch: pytest.MonkeyPatch) -> DepthComparison:
    monkeypatch.setattr(depth, "_network", cast(Any, RedIsDepth()))
    return depth


def test_a_picture_has_its_own_structure(depth: DepthComparison) -> None:
    assert depth.find_error(texture(64, 64), texture(64, 64)) == 0


def test_another_picture_has_another_and_either_may_come_first(depth: DepthComparison) -> None:
    one, other = texture(64, 64, seed=1), texture(64, 64, seed=2)
    error = depth.find_error(one, other)
    assert 0 < error < 4
    assert depth.find_error(other, one) == error


def test_depth_maps_are_scaled_each_by_itself(red: DepthComparison) -> None:
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None], (64, 64, 3))
    assert red.find_error(ramp * 3 + 20, ramp) == pytest.approx(0, abs=1e-9)


def test_reversed_depth_is_four_times_its_square(red: DepthComparison) -> None:
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None], (64, 64, 3))
    expected = 4 * np.square(np.linspace(-1, 1, 64)).mean()
    assert red.find_error(ramp, ramp[:, ::-1]) == pytest.approx(expected, rel=1e-5)


def test_a_flat_picture_has_no_depth(red: DepthComparison) -> None:
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None], (64, 64, 3))
    flat = np.full((64, 64, 3), 80, np.uint8)
    assert red.find_error(flat, ramp) == pytest.approx(np.square(np.linspace(-1, 1, 64)).mean(), rel=1e-5)


def test_it_is_the_depth_that_the_stream_sees(depth: DepthComparison) -> None:
    one, other = texture(80, 120, seed=1), texture(80, 120, seed=2)
    maps = [
        reference.depth_normalise(depth._network.estimate(reference.preprocess(image, 64, 64)))
        for image in (one, other)
    ]
    assert maps[0].min() == -1
    assert maps[0].max() == 1
    assert depth.find_error(one, other) == pytest.approx(float(np.square(maps[0] - maps[1]).mean()), rel=1e-6)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a bundle: it has no manifest"):
        DepthComparison.open(tmp_path, OPTIONS)
