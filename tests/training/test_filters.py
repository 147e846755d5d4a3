"""Filters: in range, different from each other, and as steady as their input."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from live2diff_trt.training.filters import blur, find_edges, find_luma, smooth_edges
from live2diff_trt.training.styles import STYLES, Style
from tests.training.conftest import make_shot

CHANGED = [style for style in STYLES if style.name != "photo"]


def make_pictures(frames: int = 3) -> Tensor:
    return torch.from_numpy(make_shot(7, frames)).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_targets_are_pictures_made_frame_by_frame(style: Style) -> None:
    pictures = make_pictures()
    found = style.apply(pictures)
    assert found.shape == pictures.shape
    assert found.min() >= 0
    assert found.max() <= 1
    torch.testing.assert_close(found[1:2], style.apply(pictures[1:2]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("style", CHANGED, ids=lambda style: style.name)
def test_what_moves_in_the_input_moves_in_the_target_and_does_nothing_else(style: Style) -> None:
    picture = make_pictures(1)
    moved = style.apply(torch.roll(picture, (3, 5), dims=(2, 3)))
    target = torch.roll(style.apply(picture), (3, 5), dims=(2, 3))
    inside = (..., slice(24, -24), slice(24, -24))
    torch.testing.assert_close(moved[inside], target[inside], rtol=0, atol=1e-4)


@pytest.mark.parametrize("style", CHANGED, ids=lambda style: style.name)
def test_a_little_noise_in_the_input_stays_little(style: Style) -> None:
    picture = make_pictures(1)
    noise = 0.002 * torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    change = (style.apply((picture + noise).clamp(0, 1)) - style.apply(picture)).abs()
    assert change.mean() < 0.02


def test_styles_differ() -> None:
    pictures = make_pictures()
    for one, other in combinations(STYLES, 2):
        assert (one.apply(pictures) - other.apply(pictures)).abs().mean() > 0.02, (one.name, other.name)


def test_a_sketch_is_pale_and_nearly_grey_and_neon_is_dark() -> None:
    by_name = {style.name: style.apply(make_pictures()) for style in STYLES}
    assert by_name["sketch"].mean() > 0.6 > by_name["neon"].mean()
    assert (by_name["sketch"].amax(dim=1) - by_name["sketch"].amin(dim=1)).max() < 0.06


def test_smoothing_keeps_edges() -> None:
    picture = torch.full((1, 3, 32, 32), 0.1)
    picture[..., 16:] = 0.9
    noisy = picture + 0.02 * torch.randn(picture.shape, generator=torch.Generator().manual_seed(1))
    smooth = smooth_edges(noisy, 4, 0.005)
    assert (smooth - picture).abs().mean() < 0.5 * (noisy - picture).abs().mean()
    assert smooth[..., 16].mean() - smooth[..., 15].mean() > 0.7


def test_edges_are_where_the_step_is() -> None:
    picture = torch.zeros(1, 3, 8, 8)
    picture[..., 4:] = 1
    edges = find_edges(picture)
    assert edges[..., 3:5].min() == pytest.approx(0.5, abs=1e-3)
    assert edges[..., :2].max() < 2e-3


def test_blur_keeps_what_is_flat() -> None:
    flat = torch.full((2, 3, 9, 11), 0.3)
    torch.testing.assert_close(blur(flat, 2.0), flat)
    torch.testing.assert_close(find_luma(flat), flat[:, :1])
