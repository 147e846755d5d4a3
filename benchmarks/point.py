"""What is measured: a point of the suite. One base point, and one axis at a time away from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

from live2diff_trt.benchmarks.timing import MeasurementError
from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.bundle.spec import FloatName

if TYPE_CHECKING:
    from live2diff_trt.export.autoencoder import AutoencoderKind
    from live2diff_trt.export.depth import DepthKind
    from live2diff_trt.export.presets import Preset, PresetName

STEP_LISTS: dict[int, tuple[int, ...]] = {1: (30,), 2: (30, 40), 3: (20, 30, 40), 4: (0, 16, 32, 45)}
"""Denoising steps by T: what they are does not change how long a tick takes."""
AXES = ("base", "steps", "sizes", "autoencoder", "depth")


@dataclass(frozen=True)
class Point:
    """A stream and its networks, whose weights are random.

    Attributes:
        preset: the UNet's and the text encoder's sizes.
        step_list: indices into LCM's 50 timesteps; its length is T.
        width, height: in pixels.
        autoencoder, depth: kinds of those networks, as ``export/`` names them.
        dtype: of weights, latents and caches.
        seed: of the random weights.
    """

    preset: PresetName
    step_list: tuple[int, ...]
    width: int
    height: int
    autoencoder: AutoencoderKind
    depth: DepthKind
    dtype: FloatName
    seed: int = 0

    @property
    def steps(self) -> int:
        """T."""
        return len(self.step_list)

    @property
    def bundle_name(self) -> str:
        """Name of a folder for its bundle, which points that differ in T share."""
        networks = f"{self.autoencoder}-{self.depth}-{self.dtype}-seed{self.seed}"
        return f"{self.preset}-{self.width}x{self.height}-{networks}"

    @property
    def name(self) -> str:
        """A name that no other point has."""
        return f"t{self.steps}-{self.bundle_name}"

    def as_preset(self) -> Preset:
        """Return what ``export`` is given; needs PyTorch."""
        from live2diff_trt.export.presets import PRESETS

        return replace(
            PRESETS[self.preset].with_autoencoder(self.autoencoder),
            depth=self.depth,
            dtype=self.dtype,
            width=self.width,
            height=self.height,
            step_list=self.step_list,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "step_list": list(self.step_list)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Point:
        """Read what ``to_json`` wrote."""
        return cls(**{**values, "step_list": tuple(values["step_list"])})


BASES: dict[PresetName, Point] = {
    "sd15": Point("sd15", STEP_LISTS[2], 512, 512, "taesd", "dpt-hybrid", "float16"),
    "tiny": Point("tiny", STEP_LISTS[2], 64, 64, "tiny", "tiny", "float32"),
}
_SIZES: dict[PresetName, tuple[tuple[int, int], ...]] = {
    "sd15": ((768, 512), (1024, 576)),
    "tiny": ((128, 64), (128, 128)),
}
_AUTOENCODERS: dict[PresetName, AutoencoderKind] = {"sd15": "kl", "tiny": "taesd"}
_DEPTHS: dict[PresetName, DepthKind] = {"sd15": "depth-anything-small", "tiny": "depth-anything-small"}


def choose_points(base: Point, axes: tuple[str, ...]) -> list[Point]:
    """Return the points of the axes that are named, in the order of AXES; raise MeasurementError for another name."""
    unknown = [axis for axis in axes if axis not in AXES]
    if unknown or not axes:
        raise MeasurementError(f"there is no axis {', '.join(unknown)}", f"Name some of {','.join(AXES)}")
    points = {
        "base": [base],
        "steps": [replace(base, step_list=steps) for steps in STEP_LISTS.values() if len(steps) != base.steps],
        "sizes": [replace(base, width=width, height=height) for width, height in _SIZES[base.preset]],
        "autoencoder": [replace(base, autoencoder=_AUTOENCODERS[base.preset])],
        "depth": [replace(base, depth=_DEPTHS[base.preset])],
    }
    return [point for axis in AXES if axis in axes for point in points[axis]]


def read_point(bundle: Bundle, autoencoder: str | None = None) -> Point:
    """Return the point that a bundle of random weights is.

    Args:
        bundle: opened.
        autoencoder: its kind, which its manifest does not name; None: the preset's own.

    Raises:
        MeasurementError: PyTorch's rows can't have its weights, or its networks are of no preset.
    """
    from live2diff_trt.export.autoencoder import AutoencoderKind
    from live2diff_trt.export.depth import DepthKind, depth_size
    from live2diff_trt.export.presets import PRESETS

    manifest, spec = bundle.manifest, bundle.spec
    seeds = {source.get("seed") for source in manifest.weights.values()}
    if len(seeds) != 1 or None in seeds:
        raise MeasurementError(
            f"the weights of {bundle.folder} are not random ones of one seed, so PyTorch's rows can't have them",
            "Export one with `live2diff-trt export --random-weights`",
        )
    kinds = [kind for kind in get_args(AutoencoderKind) if kind == autoencoder]
    if autoencoder is not None and not kinds:
        raise MeasurementError(
            f"there is no autoencoder {autoencoder}", f"Name one of {','.join(get_args(AutoencoderKind))}"
        )
    presets = [name for name, preset in PRESETS.items() if preset.unet.to_json() == dict(manifest.network)]
    depths = [kind for kind in get_args(DepthKind) if depth_size(kind) == spec.depth_size]
    if not presets or not depths:
        raise MeasurementError(f"the networks of {bundle.folder} are those of no preset", "Export it from a preset")
    return Point(
        presets[0],
        spec.step_list,
        spec.width,
        spec.height,
        kinds[0] if kinds else PRESETS[presets[0]].autoencoder,
        depths[0],
        spec.dtype,
        int(seeds.pop() or 0),
    )
