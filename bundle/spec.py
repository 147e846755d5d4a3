"""StreamSpec: the one place where the shape of a stream is stated. Everything else derives from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from live2diff_trt.bundle.errors import SpecError
from live2diff_trt.bundle.schedule import ScheduleSpec, check_step_list

FloatName = Literal["float16", "float32"]
SIZE_MULTIPLE = 64
"""Pixels: the VAE shrinks by 8 and the UNet by another 8."""


@dataclass(frozen=True)
class KvCacheSpec:
    """One temporal attention's cache, at one place of the network.

    Attributes:
        name: its place, as in ``down_blocks.0.motion_modules.1.attention_blocks.0``.
        channels: width of a key (and of a value), all heads together.
        height, width: the latent grid there; a cache holds every position of it.
    """

    name: str
    channels: int
    height: int
    width: int

    @property
    def positions(self) -> int:
        """Spatial positions, each with a temporal attention of its own."""
        return self.height * self.width


@dataclass(frozen=True)
class HoistedSpec:
    """One resnet's time projection, or one cross-attention's keys or values: computed once, not per frame."""

    name: str
    channels: int


@dataclass(frozen=True)
class StreamSpec:
    """Everything a backend must know to allocate, bind and stream. Written into the manifest, read by everyone.

    Attributes:
        width, height: of the video, in pixels; multiples of 64.
        step_list: indices into LCM's 50 timesteps, noisiest first; its length is T, the rows of the stream batch.
        dtype: of latents, caches and every floating-point tensor that crosses a graph's border.
        heads: of every temporal attention.
        kv_caches: in the network's order: down blocks, then up blocks; motion modules; attention 0, then 1.
        time_projections: one per resnet.
        prompt_kvs: one per cross-attention; each has keys and values of this many channels.
        prompt_tokens: tokens a prompt is padded or cut to.
        text_channels: width of a text embedding.
        depth_channels: width of the embedded depth map, which is added to the UNet's first convolution.
        depth_size: side of the square picture that the depth model takes, in pixels.
        latent_channels, latent_scale: of the autoencoder; one latent covers latent_scale² pixels.
        window: frames a cache holds. sink: how many of them are warm-up frames, kept for ever.
    """

    width: int
    height: int
    step_list: tuple[int, ...]
    dtype: FloatName
    heads: int
    kv_caches: tuple[KvCacheSpec, ...]
    time_projections: tuple[HoistedSpec, ...]
    prompt_kvs: tuple[HoistedSpec, ...]
    prompt_tokens: int
    text_channels: int
    depth_channels: int
    depth_size: int
    latent_channels: int = 4
    latent_scale: int = 8
    window: int = 16
    sink: int = 8
    schedule: ScheduleSpec = field(default_factory=ScheduleSpec)

    def __post_init__(self) -> None:
        check_size(self.width, self.height)
        check_step_list(self.step_list, self.schedule)
        if self.dtype not in ("float16", "float32"):
            raise SpecError(f"dtype {self.dtype!r} is not supported", "Use float16 or float32")
        if not 0 < self.sink < self.window:
            raise SpecError(f"a sink of {self.sink} does not fit a window of {self.window}", "Keep 0 < sink < window")
        if self.heads < 1:
            raise SpecError(f"{self.heads} heads are no temporal attention", "Use 1 or more")
        for cache in self.kv_caches:
            if cache.channels % self.heads:
                raise SpecError(
                    f"{cache.name} has {cache.channels} channels for {self.heads} heads",
                    "Channels must divide evenly",
                )

    @property
    def steps(self) -> int:
        """T: denoising steps, and rows of the stream batch."""
        return len(self.step_list)

    @property
    def rolling(self) -> int:
        """Streamed frames a cache holds beside the sink."""
        return self.window - self.sink

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """One frame's latent: (channels, height, width)."""
        return self.latent_channels, self.height // self.latent_scale, self.width // self.latent_scale

    @property
    def depth_features_shape(self) -> tuple[int, int, int]:
        """One frame's embedded depth map: (channels, height, width)."""
        return self.depth_channels, *self.latent_shape[1:]

    @property
    def float_type(self) -> DTypeLike:
        """The numpy type of ``dtype``."""
        return np.dtype(self.dtype)

    @property
    def cache_bytes(self) -> int:
        """Bytes of all kv-caches of all rows, keys and values."""
        per_row = sum(2 * self.window * cache.positions * cache.channels for cache in self.kv_caches)
        return self.steps * per_row * np.dtype(self.dtype).itemsize

    def with_step_list(self, step_list: tuple[int, ...]) -> StreamSpec:
        """Return the same stream with other denoising steps; raise SpecError if the list is not valid."""
        return replace(self, step_list=step_list)

    def with_dtype(self, dtype: FloatName) -> StreamSpec:
        """Return the same stream in another floating-point type."""
        return replace(self, dtype=dtype)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; ``from_json`` reads them back to an equal spec."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> StreamSpec:
        """Read what ``to_json`` wrote; raise KeyError, TypeError or SpecError where it does not describe a stream."""
        return cls(
            **{
                **values,
                "step_list": tuple(values["step_list"]),
                "kv_caches": tuple(KvCacheSpec(**cache) for cache in values["kv_caches"]),
                "time_projections": tuple(HoistedSpec(**entry) for entry in values["time_projections"]),
                "prompt_kvs": tuple(HoistedSpec(**entry) for entry in values["prompt_kvs"]),
                "schedule": ScheduleSpec(**values["schedule"]),
            }
        )


def check_size(width: int, height: int) -> None:
    """Raise SpecError, naming the nearest valid size, unless both sides are positive multiples of 64 pixels."""
    if width > 0 and height > 0 and width % SIZE_MULTIPLE == 0 and height % SIZE_MULTIPLE == 0:
        return
    raise SpecError(
        f"{width}x{height} is not a size the network can work at: both sides must be multiples of {SIZE_MULTIPLE}",
        f"The nearest is {_nearest_side(width)}x{_nearest_side(height)}",
    )


def _nearest_side(pixels: int) -> int:
    return max(SIZE_MULTIPLE, round(pixels / SIZE_MULTIPLE) * SIZE_MULTIPLE)
