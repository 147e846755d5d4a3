"""The LCM schedule (Luo et al., arXiv 2310.04378) as pure functions: which timesteps, and the constants of each.

Live2Diff walks a *step list*: indices into LCM's 50 timesteps 999, 979, …, 19. Betas are linear (not scaled linear).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from live2diff_trt.bundle.errors import SpecError

Float32Array = NDArray[np.float32]
MOST_STEPS = 8
"""The longest step list."""


@dataclass(frozen=True)
class ScheduleSpec:
    """The constants a diffusion schedule is made from; they travel in the bundle's manifest."""

    train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    original_steps: int = 50
    timestep_scaling: float = 10.0
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise SpecError(
                f"betas run from {self.beta_start} to {self.beta_end}",
                "They must rise and lie between 0 and 1",
            )
        if self.original_steps < 1 or self.train_timesteps % self.original_steps:
            raise SpecError(
                f"{self.train_timesteps} training timesteps do not divide into {self.original_steps} steps",
                "Use a divisor, as LCM does (1000 and 50)",
            )


@dataclass(frozen=True)
class StepTable:
    """What each denoising step needs. Arrays are [steps] float32; row i of the stream batch uses entry i.

    Attributes:
        timesteps: [steps] int32, descending: the noise level of each row.
        sqrt_alpha: sqrt(ā) at that timestep.
        sqrt_one_minus_alpha: sqrt(1 − ā).
        c_skip, c_out: LCM's boundary scalings.
    """

    timesteps: NDArray[np.int32]
    sqrt_alpha: Float32Array
    sqrt_one_minus_alpha: Float32Array
    c_skip: Float32Array
    c_out: Float32Array


def alphas_cumprod(schedule: ScheduleSpec) -> NDArray[np.float64]:
    """Return ā for every training timestep, [train_timesteps] float64 (DDPM, arXiv 2006.11239, eq. 4)."""
    betas: NDArray[np.float64] = np.linspace(schedule.beta_start, schedule.beta_end, schedule.train_timesteps)
    return np.cumprod(1.0 - betas, dtype=np.float64)


def lcm_timesteps(schedule: ScheduleSpec) -> NDArray[np.int32]:
    """Return LCM's timesteps, noisiest first, [original_steps] int32: 999, 979, …, 19."""
    stride = schedule.train_timesteps // schedule.original_steps
    return np.arange(schedule.train_timesteps - 1, 0, -stride, dtype=np.int32)


def check_step_list(step_list: Sequence[int], schedule: ScheduleSpec) -> None:
    """Raise SpecError unless ``step_list`` names 1 to 8 rising indices into LCM's timesteps."""
    if not 1 <= len(step_list) <= MOST_STEPS:
        raise SpecError(f"the step list {list(step_list)} has {len(step_list)} steps", "Name 1 to 8 steps, as in 30,40")
    if any(not 0 <= index < schedule.original_steps for index in step_list):
        raise SpecError(
            f"the step list {list(step_list)} leaves the range 0 to {schedule.original_steps - 1}",
            "Each step is an index into LCM's timesteps, 0 the noisiest",
        )
    if any(later <= earlier for earlier, later in pairwise(step_list)):
        raise SpecError(
            f"the step list {list(step_list)} does not rise",
            "Order the steps from noisy to clean, as in 30,40",
        )


def check_max_steps(max_steps: int, steps: int) -> None:
    """Raise SpecError unless a stream of T = ``steps`` may be given room for ``max_steps``: T to 8."""
    if not steps <= max_steps <= MOST_STEPS:
        raise SpecError(
            f"there can't be room for {max_steps} steps in a stream of {steps}",
            f"Use {steps} to {MOST_STEPS}, the most steps that the stream is ever to have",
        )


def check_strength(strength: float) -> None:
    """Raise SpecError unless a strength lies above 0 and is at most 1."""
    if not 0 < strength <= 1:
        raise SpecError(
            f"the strength {strength} leaves the range 0 to 1",
            "Use 1 to repaint every frame, or less to keep more of it, as in 0.4",
        )


def spread_steps(strength: float, steps: int, schedule: ScheduleSpec) -> tuple[int, ...]:
    """Return the step list of a strength: as many indices as ``steps``, evenly spread over the last timesteps.

    Of N of LCM's timesteps the first is round(N · (1 − strength)), with halves to the even number, and the index i is
    first + ⌊i · (N − first) / steps⌋: strength 0.4 is (30, 40) at two steps, strength 1 begins at 0.

    Args:
        strength: above 0, where nothing would be repainted, to 1, where frames begin as the noisiest there are.
        steps: T, 1 to 8.
        schedule: of the stream.

    Raises:
        SpecError: if ``strength`` or ``steps`` leave their range, or fewer timesteps are left than ``steps``.
    """
    check_strength(strength)
    first = round(schedule.original_steps * (1 - strength))
    left = schedule.original_steps - first
    if left < steps:
        raise SpecError(
            f"the strength {strength} leaves {left} of LCM's {schedule.original_steps} timesteps for {steps} steps",
            f"Use {steps / schedule.original_steps:g} or more, or fewer steps",
        )
    step_list = tuple(first + index * left // steps for index in range(steps))
    check_step_list(step_list, schedule)
    return step_list


def make_step_table(step_list: Sequence[int], schedule: ScheduleSpec) -> StepTable:
    """Compute the constants of every denoising step in ``step_list``; raise SpecError if it is not a valid one."""
    check_step_list(step_list, schedule)
    timesteps = lcm_timesteps(schedule)[list(step_list)]
    alpha = alphas_cumprod(schedule)[timesteps]
    scaled = timesteps.astype(np.float64) * schedule.timestep_scaling
    variance = schedule.sigma_data**2
    c_skip = variance / (scaled**2 + variance)
    c_out = scaled / np.sqrt(scaled**2 + variance)
    return StepTable(
        timesteps=timesteps,
        sqrt_alpha=np.sqrt(alpha).astype(np.float32),
        sqrt_one_minus_alpha=np.sqrt(1.0 - alpha).astype(np.float32),
        c_skip=c_skip.astype(np.float32),
        c_out=c_out.astype(np.float32),
    )
