"""What takes the place of a bundle's weights: a style delta, or the difference of two bundles."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live2diff_trt.bundle.errors import RestyleError
from live2diff_trt.bundle.manifest import TOKENIZER_FILE, Bundle
from live2diff_trt.bundle.style_delta import StyleDelta, Values, read_style_delta
from live2diff_trt.engine.initialisers import RESTYLED_GRAPHS, BundleInitialisers

logger = logging.getLogger(__name__)

_THREADS = 8
_KEPT = ("vae_encoder.onnx", "vae_decoder.onnx", "vae.data", "depth.onnx", "depth.data")
_EXPORT_ALIKE = "Export it with the same preset, size, dtype, clip skip and textual inversions as the bundle"


@dataclass(frozen=True, eq=False)
class StyledWeights:
    """The weights of a bundle under a style.

    Attributes:
        base: the bundle's own.
        delta: what takes their place; None: nothing does.
    """

    base: BundleInitialisers
    delta: StyleDelta | None = None

    @property
    def changed(self) -> Values:
        """What differs from the bundle's own, by initialiser."""
        return {} if self.delta is None else self.delta.values

    @property
    def prompt_template(self) -> str:
        """What every prompt is put into."""
        return self.base.bundle.manifest.prompt_template if self.delta is None else self.delta.prompt_template

    @property
    def identity(self) -> str:
        """What no other weights of this bundle have."""
        return "" if self.delta is None else self.delta.identity

    def without_style(self) -> StyledWeights:
        """Return the bundle's own weights."""
        return StyledWeights(self.base)

    def describe(self) -> str:
        """Return the style's name, for messages."""
        return "the bundle's own weights" if self.delta is None else f"the style {self.delta.origin}"

    def read(self, name: str) -> NDArray[Any]:
        """Return an initialiser's values, which must not be written."""
        changed = self.changed
        return changed[name] if name in changed else self.base.read(name)

    def find(self, name: str) -> NDArray[Any] | None:
        """Return what ``read`` does, or None if it is no initialiser of the bundle."""
        return self.read(name) if name in self.base.places else None


def read_style(path: str | Path) -> StyleDelta | BundleInitialisers:
    """Read and verify what a style is: a delta's file, or the folder of a bundle that differs in weights alone.

    Raises:
        RestyleError: if it is a delta that is damaged.
        BundleError: if it is a bundle that is damaged.
    """
    path = Path(path)
    return BundleInitialisers.open(path) if path.is_dir() else read_style_delta(path)


def fit_style(initialisers: BundleInitialisers, style: StyleDelta | BundleInitialisers) -> StyleDelta | None:
    """Verify that what ``read_style`` gave fits a bundle.

    Args:
        initialisers: of the bundle.
        style: what was read.

    Returns:
        What differs; None if the style is the bundle itself.

    Raises:
        RestyleError: if it does not fit; names and shapes that don't are all listed.
    """
    if isinstance(style, BundleInitialisers):
        return None if style.bundle.digest == initialisers.bundle.digest else compare_bundles(initialisers, style)
    _refuse_another_bundle(style, initialisers.bundle)
    refuse_misfits(style.values, initialisers, style.origin)
    return style


def compare_bundles(base: BundleInitialisers, other: BundleInitialisers) -> StyleDelta:
    """Return what makes one bundle's weights another's; raise RestyleError if they differ in more than weights."""
    _refuse_another_network(base, other)
    kept = [name for name in _KEPT if base.bundle.manifest.files.get(name) != other.bundle.manifest.files.get(name)]
    if kept:
        logger.warning(
            "%s has another autoencoder or depth network (%s): those of the bundle %s stay",
            other.bundle.folder,
            ", ".join(kept),
            base.bundle.folder,
        )
    manifest = other.bundle.manifest
    return StyleDelta(
        find_differences(base, other.read),
        base.bundle.digest,
        manifest.prompt_template,
        {part: manifest.weights.get(part, {}) for part in ("unet", "text_encoder")},
        identity=other.bundle.digest,
        origin=str(other.bundle.folder),
    )


def find_differences(base: BundleInitialisers, read: Callable[[str], NDArray[Any]]) -> Values:
    """Return what ``read`` gives for those of a bundle's initialisers that are not the same, bit by bit."""

    def compare(name: str) -> NDArray[Any] | None:
        values = read(name)
        return None if np.array_equal(_bits(values), _bits(base.read(name))) else values

    with ThreadPoolExecutor(_THREADS) as pool:
        found = dict(zip(base.places, pool.map(compare, base.places), strict=True))
    return {name: values for name, values in found.items() if values is not None}


def refuse_misfits(values: Mapping[str, NDArray[Any]], base: BundleInitialisers, origin: str) -> None:
    """Raise RestyleError, listing all of them, if there are values that are none of the bundle's initialisers."""
    problems = []
    for name, array in values.items():
        place = base.places.get(name)
        found = f"{array.dtype} {list(array.shape)}"
        if place is None:
            problems.append(f"unexpected {name}: {found}")
        elif (place.dtype, place.shape) != (str(array.dtype), array.shape):
            problems.append(f"mis-shaped {name}: {found}, not {place.dtype} {list(place.shape)}")
    if problems:
        raise RestyleError(
            f"{len(problems)} weights of {origin} do not fit the bundle {base.bundle.folder}:\n  "
            + "\n  ".join(problems),
            "Make the style for this bundle with `live2diff-trt restyle`",
        )


def _refuse_another_bundle(delta: StyleDelta, bundle: Bundle) -> None:
    if delta.bundle_digest != bundle.digest:
        raise RestyleError(
            f"{delta.origin} was made for another bundle ({delta.bundle_digest[:16]}) than {bundle.folder} "
            f"({bundle.digest[:16]})",
            "Make it for this one with `live2diff-trt restyle`",
        )


def _refuse_another_network(base: BundleInitialisers, other: BundleInitialisers) -> None:
    ours, theirs = base.bundle.manifest, other.bundle.manifest
    what = None
    if ours.spec != theirs.spec.with_step_list(ours.spec.step_list):
        what = "is for another stream"
    elif ours.network != theirs.network:
        what = "has another UNet"
    elif ours.files[TOKENIZER_FILE].sha256 != theirs.files[TOKENIZER_FILE].sha256:
        what = "has another tokenizer, or other textual inversions"
    else:
        changed = [graph for graph in RESTYLED_GRAPHS if base.structure(graph) != other.structure(graph)]
        if changed:
            what = f"computes something else in {', '.join(changed)}"
    if what is not None:
        raise RestyleError(f"{other.bundle.folder} {what} than {base.bundle.folder}", _EXPORT_ALIKE)
    missing = sorted(base.places.keys() - other.places.keys())
    if missing:
        raise RestyleError(f"{other.bundle.folder} lacks {', '.join(missing)}", _EXPORT_ALIKE)
    refuse_misfits({name: other.read(name) for name in other.places}, base, str(other.bundle.folder))


def _bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
