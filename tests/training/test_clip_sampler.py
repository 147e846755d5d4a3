"""Clips to train from: the same seed draws the same, cameras stay in their source, things move."""

from __future__ import annotations

from random import Random

import pytest
import torch

from live2diff_trt.training.camera import CameraPath, View, draw_path, film
from live2diff_trt.training.clip_sampler import ClipSampler
from live2diff_trt.training.errors import TrainingError
from live2diff_trt.training.scenes import add_things, make_gradient
from tests.training.conftest import make_shot

CPU = torch.device("cpu")


def make_sampler(seed: int) -> ClipSampler:
    return ClipSampler({"shot": make_shot(1), "still": make_shot(2, 1)}, 64, 64, seed, CPU)


def test_one_seed_one_batch() -> None:
    clips = make_sampler(3).draw(4, 10)
    assert clips.shape == (4, 10, 3, 64, 64)
    assert clips.min() >= 0
    assert clips.max() <= 1
    torch.testing.assert_close(clips, make_sampler(3).draw(4, 10), rtol=0, atol=0)
    assert not torch.equal(clips, make_sampler(4).draw(4, 10))


def test_clips_move_smoothly() -> None:
    clips = make_sampler(0).draw(12, 10)
    steps = clips.diff(dim=1).abs().mean(dim=(1, 2, 3, 4))
    across = (clips[:, 0].roll(1, 0) - clips[:, 0]).abs().mean()
    assert steps.max() < 0.5 * across
    assert (steps > 1e-4).sum() >= 10


def test_without_footage_nothing_is_drawn() -> None:
    with pytest.raises(TrainingError, match="there is no footage"):
        ClipSampler({}, 64, 64, 0, CPU)


def test_a_camera_that_stands_still_sees_its_source() -> None:
    source = torch.rand(3, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    whole = View(1, 0, 0, 0)
    torch.testing.assert_close(film(source, CameraPath(whole, whole, mirrored=False), 48, 32), source)
    mirrored = film(source, CameraPath(whole, whole, mirrored=True), 48, 32)
    torch.testing.assert_close(mirrored, source.flip(3))


def test_a_path_is_walked_from_its_start_to_its_end() -> None:
    path = CameraPath(View(1, 0, 0, 0), View(0.5, 1, -1, 0.2), mirrored=False)
    assert path.view_at(0) == path.start
    assert path.view_at(1) == path.end
    assert draw_path(Random(1), 0.5, 0.0).view_at(1) == draw_path(Random(1), 0.5, 0.0).start


def test_things_move_before_a_background_that_does_not() -> None:
    random = Random(2)
    background = make_gradient(8, 64, 48, random, CPU)
    scene = add_things(background, random, most=3)
    assert scene.shape == (8, 3, 48, 64)
    assert (background[1:] == background[:-1]).all()
    assert scene.diff(dim=0).abs().amax() > 0.05
