"""The picture loss: nothing for equal pictures, and more for a blurred one than for one that is as far off in light."""

from __future__ import annotations

import pytest
import torch

from live2diff_trt.evaluation.picture_quality import find_ssim
from live2diff_trt.training.filters import blur
from live2diff_trt.training.picture_loss import find_picture_loss, find_structure
from tests.training.conftest import make_shot


def make_picture() -> torch.Tensor:
    return torch.from_numpy(make_shot(1, 1)).permute(0, 3, 1, 2).float() / 127.5 - 1


def test_equal_pictures_are_no_loss() -> None:
    assert find_picture_loss(make_picture(), make_picture()) == pytest.approx(0, abs=1e-5)


def test_lost_edges_cost_more_than_lost_light() -> None:
    wanted = make_picture()
    soft = blur(wanted, 2.0)
    darker = wanted - (soft - wanted).abs().mean()
    assert find_picture_loss(soft, wanted) > 1.5 * find_picture_loss(darker, wanted)


def test_structure_is_what_evaluation_calls_ssim() -> None:
    wanted = make_picture()
    soft = blur(wanted, 1.0)
    frames = [((picture / 2 + 0.5) * 255).round().byte()[0].permute(1, 2, 0).numpy() for picture in (soft, wanted)]
    assert float(find_structure(soft, wanted)) == pytest.approx(find_ssim(*frames), abs=0.05)
