"""Where a stream finds weights in the place of its bundle's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.runtime.errors import ControlError

if TYPE_CHECKING:
    from live2diff_trt.engine.initialisers import BundleInitialisers
    from live2diff_trt.engine.restyle import StyledWeights

LONGEST_NAME = 60
"""Characters."""


class Styles(Protocol):
    """The styles that a stream may have."""

    def find(self, style: object) -> StyledWeights:
        """Return the weights that a style means; None means the bundle's own.

        Raises:
            ControlError: if it is none of them.
            RestyleError, BundleError: if its file is damaged, or does not fit.
        """


class StyleFiles:
    """Whatever style lies on this machine: each is read when it is wanted.

    Args:
        bundle: in the place of whose weights.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._base: BundleInitialisers | None = None

    def find(self, style: object) -> StyledWeights:
        """Read a delta's file or a bundle's folder, and verify that it fits."""
        if not isinstance(style, str | Path | None):
            raise ControlError(
                f"a style is {style!r}", "Name a file that `live2diff-trt restyle` wrote, a bundle's folder, or None"
            )
        from live2diff_trt.engine.restyle import StyledWeights, fit_style, read_style  # needs onnx

        # Either takes as long as hashing gigabytes does, and lets go of the interpreter meanwhile.
        with ThreadPoolExecutor(1) as beside:
            opening = beside.submit(self._open_base)
            found = None if style is None else read_style(style)
            base = opening.result()
        return StyledWeights(base, None if found is None else fit_style(base, found))

    def _open_base(self) -> BundleInitialisers:
        if self._base is None:
            from live2diff_trt.engine.initialisers import BundleInitialisers  # needs onnx

            self._base = BundleInitialisers.open(self._bundle.folder, self._bundle.digest)
        return self._base


class NamedStyles:
    """Styles that were chosen beforehand, read and verified: they are found by their names, and no others are.

    Args:
        bundle: in the place of whose weights.
        files: name → a delta's file, or a bundle's folder.

    Attributes:
        names: in the order in which they were given.

    Raises:
        ControlError: if a name is none.
        RestyleError, BundleError: if a style is damaged, or does not fit.
    """

    def __init__(self, bundle: Bundle, files: Mapping[str, str | Path]) -> None:
        for name in files:
            if not re.fullmatch(rf"\S(.{{0,{LONGEST_NAME - 2}}}\S)?", name) or not name.isprintable():
                raise ControlError(
                    f"a style can't be named {name!r}", f"Use 1 to {LONGEST_NAME} characters, as in ink=ink.safetensors"
                )
        self.names = tuple(files)
        read = StyleFiles(bundle)
        self._weights = {name: read.find(file) for name, file in files.items()}
        self._own = read.find(None) if files else None

    @property
    def weights(self) -> tuple[StyledWeights, ...]:
        """Those of each style."""
        return tuple(self._weights.values())

    def find(self, style: object) -> StyledWeights:
        """Return the weights of a name."""
        if style is None and self._own is not None:
            return self._own
        if not isinstance(style, str) or style not in self._weights:
            known = ", ".join(self.names)
            raise ControlError(
                f"there is no style {style!r}",
                f"Choose from {known}" if known else "Name styles when the streams' engine is opened",
            )
        return self._weights[style]
