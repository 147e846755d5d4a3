"""The mathematics of guidance, on host arrays: the definition that every backend equals."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating[Any]]


def guided_noise(positive: Float, negative: Float, scale: float, delta: float = 1.0) -> Float:
    """Return the noise that a frame is denoised with, δ·ε⁻ + s·(ε⁺ − δ·ε⁻), in the inputs' dtype and shape.

    That is classifier-free guidance, ε⁻ + s·(ε⁺ − ε⁻) (arXiv 2207.12598, eq. 6, with s = 1 + w), and residual
    classifier-free guidance (StreamDiffusion, arXiv 2312.12491, section "Residual Classifier-Free Guidance"), which
    differ in where ε⁻ comes from. With x the noised latent at a denoising step, and ā that step's:

    - ``none``: there is no ε⁻, and the noise is ε⁺.
    - ``full``: ε⁻ is the UNet's prediction at x under the negative prompt, in each step; δ = 1.
    - ``self``: ε⁻ = (x − √ā·x0) / √(1 − ā), ``virtual_noise``, where x0 is the latent of the frame that came in.
    - ``initialize``: the same with x0 = (x₁ − √(1 − ā₁)·ε₁⁻) / √ā₁, ``implied_latent``, where ε₁⁻ is the UNet's
      prediction under the negative prompt, once, at the frame's first step, and x₁, ā₁ are that step's. So there
      ε⁻ = ε₁⁻.

    Args:
        positive: ε⁺, the UNet's prediction at x under the prompt; any shape.
        negative: ε⁻, alike.
        scale: s; 1 gives ε⁺, 0 gives δ·ε⁻.
        delta: δ, how much of a virtual ε⁻ is believed.
    """
    believed = _like(delta, negative) * negative
    return believed + _like(scale, positive) * (positive - believed)


def virtual_noise(sample: Float, origin: Float, sqrt_alpha: Float, sqrt_one_minus_alpha: Float) -> Float:
    """Return the noise that would lead each row back to its origin: (x − √ā·x0) / √(1 − ā), of the sample's shape.

    Args:
        sample: x, [rows, channels, height, width].
        origin: x0, alike.
        sqrt_alpha: √ā, [rows].
        sqrt_one_minus_alpha: √(1 − ā), [rows].
    """
    return (sample - _per_row(sqrt_alpha) * origin) / _per_row(sqrt_one_minus_alpha)


def implied_latent(sample: Float, noise: Float, sqrt_alpha: Float, sqrt_one_minus_alpha: Float) -> Float:
    """Return the clean latent that each row's noise implies: (x − √(1 − ā)·ε) / √ā (DDPM, arXiv 2006.11239, eq. 4).

    ``virtual_noise`` with that latent as the origin gives the noise back.

    Args:
        sample: x, [rows, channels, height, width].
        noise: ε, alike.
        sqrt_alpha: √ā, [rows].
        sqrt_one_minus_alpha: √(1 − ā), [rows].
    """
    return (sample - _per_row(sqrt_one_minus_alpha) * noise) / _per_row(sqrt_alpha)


def _per_row(values: Float) -> Float:
    return values[:, None, None, None]


def _like(value: float, array: Float) -> Any:
    return array.dtype.type(value)
