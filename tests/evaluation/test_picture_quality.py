"""PSNR and SSIM are those of their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from live2diff_trt.evaluation.picture_quality import find_psnr_db, find_ssim
from live2diff_trt.runtime.frame import Image


def picture(seed: int = 0, side: int = 24) -> Image:
    return np.random.default_rng(seed).integers(40, 200, (side, side, 3), np.uint8)


def test_psnr_is_that_of_the_definition() -> None:
    one = picture()
    assert find_psnr_db(one, one) == math.inf
    assert find_psnr_db(one + np.uint8(5), one) == pytest.approx(10 * math.log10(255**2 / 25))


def test_ssim_of_equal_pictures_is_1_and_falls_with_noise() -> None:
    one = picture()
    noise = np.random.default_rng(1).integers(-20, 20, one.shape)
    little = (one + noise // 10).astype(np.uint8)
    much = (one + noise).astype(np.uint8)
    assert find_ssim(one, one) == pytest.approx(1)
    assert 1 > find_ssim(little, one) > find_ssim(much, one) > find_ssim(picture(2), one)
    assert find_ssim(much, one) == pytest.approx(find_ssim(one, much))


def test_ssim_of_flat_pictures_is_that_of_their_means() -> None:
    dark, light = (np.full((16, 16, 3), value, np.uint8) for value in (100, 120))
    stabiliser = (0.01 * 255) ** 2
    assert find_ssim(dark, light) == pytest.approx((2 * 100 * 120 + stabiliser) / (100**2 + 120**2 + stabiliser))


def test_ssim_of_one_window_is_that_of_the_definition() -> None:
    one, other = picture(3, 11), picture(4, 11)
    luma = np.array([0.299, 0.587, 0.114])
    x, y = one @ luma, other @ luma
    offsets = np.arange(11) - 5
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
    var_x, var_y = (weights * (x - mean_x) ** 2).sum(), (weights * (y - mean_y) ** 2).sum()
    covariance = (weights * (x - mean_x) * (y - mean_y)).sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    wanted = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    wanted /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    assert find_ssim(one, other) == pytest.approx(wanted)
