"""Other weights into a plan that was built refittable. Only weights are exchanged: what is computed stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live2diff_trt.engine.errors import PlanError
from live2diff_trt.engine.flavour import Flavour, LogMessages

Array = NDArray[Any]
_BUILD_AGAIN = "Build the plans again with `live2diff-trt build BUNDLE --refittable --overwrite`"


@dataclass(frozen=True, eq=False)
class Refitting:
    """Weights on their way into a plan. They are read where they lie until the stream that they were given came by.

    Attributes:
        refitter: TensorRT's.
        values: by name.
    """

    refitter: Any
    values: Mapping[str, Array]


class PlanRefitter:
    """Exchanges the weights of one plan.

    Args:
        name: of the plan, for messages.
        engine: of TensorRT.
        flavour: what built it.
        log: a logger of TensorRT, and what it keeps.
    """

    def __init__(self, name: str, engine: Any, flavour: Flavour, log: tuple[Any, LogMessages]) -> None:
        self._name = name
        self._engine = engine
        self._trt = flavour.module
        self._logger, self._messages = log

    def find_obstacle(self, values: Mapping[str, Array], read: Callable[[str], Array | None]) -> str | None:
        """Return why this plan can't take weights, as ``refit`` would be given them, or None. Nothing is changed."""
        try:
            self._hand_over(values, read)
        except PlanError as refusal:
            return refusal.problem
        return None

    def refit(self, values: Mapping[str, Array], read: Callable[[str], Array | None], stream: int) -> Refitting:
        """Exchange weights in a stream's order, between what was enqueued before and what will be.

        A CUDA graph that was captured before must not be launched any more.

        Args:
            values: initialiser → what it is to be.
            read: returns what any other initialiser is and stays, or None: TensorRT asks for those that it merged
                with one that changes.
            stream: its handle. What is returned must be kept until the stream came by.

        Raises:
            PlanError: if TensorRT refuses. What the plan then holds is not known.
        """
        refitting = self._hand_over(values, read)
        refitter = refitting.refitter
        if not refitter.refit_cuda_engine_async(stream):
            raise PlanError(
                f"TensorRT can't exchange the weights of the plan {self._name}: {self._messages.last()}", _BUILD_AGAIN
            )
        return refitting

    def close(self) -> None:
        """Let go of the engine, and so of its weights; closing twice is harmless."""
        self._engine = None

    def _hand_over(self, values: Mapping[str, Array], read: Callable[[str], Array | None]) -> Refitting:
        """Give a refitter all that it needs, which changes nothing yet; raise PlanError for what it does not take."""
        refitter = self._open()
        missing = sorted(set(values).difference(refitter.get_all_weights()))
        if missing:
            raise PlanError(
                f"the plan {self._name} has no place for {len(missing)} weights: {', '.join(missing)}", _BUILD_AGAIN
            )
        given = {name: self._give(refitter, name, array) for name, array in values.items()}
        for name in refitter.get_missing_weights():
            kept = read(name)
            if kept is None:
                raise PlanError(
                    f"TensorRT merged {name}, which is no weight of the bundle, with others in the plan {self._name}",
                    _BUILD_AGAIN,
                )
            given[name] = self._give(refitter, name, kept)
        still = refitter.get_missing_weights()
        if still:
            raise PlanError(f"the plan {self._name} also wants {', '.join(still)}", _BUILD_AGAIN)
        return Refitting(refitter, given)

    def _open(self) -> Any:
        self._messages.clear()
        engine, trt = self._engine, self._trt
        if engine is None:
            raise PlanError(f"the plan {self._name} is closed", "Open it again")
        if not engine.refittable:
            raise PlanError(f"the plan {self._name} was not built refittable", _BUILD_AGAIN)
        return trt.Refitter(engine, self._logger)

    def _give(self, refitter: Any, name: str, values: Array) -> Array:
        """Hand one weight over; return the array that must be kept."""
        array = np.ascontiguousarray(values)
        if not refitter.set_named_weights(name, self._trt.Weights(array)):
            raise PlanError(
                f"the plan {self._name} does not take {name}, {array.dtype} {list(array.shape)}: "
                f"{self._messages.last()}",
                _BUILD_AGAIN,
            )
        return array
