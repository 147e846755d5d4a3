"""Live2Diff as a streaming engine: bundle → plans → frames.

The folders follow the data: ``export`` writes a bundle, ``engine`` makes it executable, ``runtime`` streams frames
through it. ``Stream`` is the way in for programs; ``live2diff-trt`` is the way in for people.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from live2diff_trt.runtime.guidance import Guidance
    from live2diff_trt.runtime.prompt_blend import PromptBlend, Transition
    from live2diff_trt.runtime.scene_cut import SceneCut
    from live2diff_trt.runtime.similar_image_filter import SimilarImageFilter
    from live2diff_trt.runtime.stream import Stream

__version__ = "0.1.0"
__all__ = ["Guidance", "PromptBlend", "SceneCut", "SimilarImageFilter", "Stream", "Transition", "__version__"]

_MODULES = {
    "Guidance": "guidance",
    "PromptBlend": "prompt_blend",
    "SceneCut": "scene_cut",
    "SimilarImageFilter": "similar_image_filter",
    "Stream": "stream",
    "Transition": "prompt_blend",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is first asked for, so that ``live2diff_trt.bundle`` alone stays light."""
    if name in _MODULES:
        return getattr(import_module(f"live2diff_trt.runtime.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
