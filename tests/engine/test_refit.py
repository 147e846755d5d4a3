"""Weights are exchanged by a TensorRT that is made up: every refusal of it is an error that names plan and weight."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from live2diff_trt.engine.errors import PlanError
from live2diff_trt.engine.flavour import Flavour, LogMessages
from live2diff_trt.engine.refit import PlanRefitter

ONES = np.ones((2, 3), np.float16)
STREAM = 7


class MadeUpRefitter:
    """TensorRT's ``Refitter`` over an engine, which holds its weights and what it merged."""

    def __init__(self, engine: Any, logger: Any) -> None:
        self._engine = engine
        self._logger = logger
        self._given: dict[str, Any] = {}

    def get_all_weights(self) -> list[str]:
        return list(self._engine.weights)

    def set_named_weights(self, name: str, weights: Any) -> bool:
        if self._engine.weights.get(name, weights).shape != weights.shape:
            self._logger.note(f"{name} has another count")
            return False
        self._given[name] = weights
        return name in self._engine.weights

    def get_missing_weights(self) -> list[str]:
        merged = self._engine.merged if self._given.keys() & set(self._engine.merged) else ()
        return [name for name in merged if name not in self._given]

    def refit_cuda_engine_async(self, stream: int) -> bool:
        assert stream == STREAM
        if self._engine.broken:
            self._logger.note("out of memory")
            return False
        self._engine.weights |= self._given
        return True


def make(**changes: Any) -> tuple[PlanRefitter, Any]:
    """Return a refitter of a plan, and its engine."""
    weights = {"a.weight": 0 * ONES, "a.bias": np.zeros(3, np.float16), "b.weight": 0 * ONES}
    engine = SimpleNamespace(**{"weights": weights, "merged": (), "broken": False, "refittable": True, **changes})
    messages = LogMessages()
    module = SimpleNamespace(Refitter=MadeUpRefitter, Weights=lambda array: array)
    return PlanRefitter("segment_003", engine, Flavour("tensorrt-rtx", "1", module), (messages, messages)), engine


def read_nothing(name: str) -> None:
    raise AssertionError(f"{name} is not asked for")


def test_what_is_given_is_exchanged_and_nothing_else() -> None:
    refitter, engine = make()
    kept = refitter.refit({"a.weight": ONES}, read_nothing, STREAM)
    assert {name: float(values.sum()) for name, values in engine.weights.items()} == {
        "a.weight": 6,
        "a.bias": 0,
        "b.weight": 0,
    }
    assert kept.values["a.weight"] is not None


def test_what_was_merged_is_given_too() -> None:
    refitter, engine = make(merged=("a.weight", "b.weight"))
    refitter.refit({"a.weight": ONES}, {"b.weight": 2 * ONES}.get, STREAM)
    assert engine.weights["b.weight"].sum() == 12


def test_what_was_merged_and_is_no_weight_of_the_bundle_is_refused() -> None:
    refitter, _ = make(merged=("a.weight", "b.weight"))
    with pytest.raises(PlanError, match=r"merged b\.weight, which is no weight of the bundle.*segment_003"):
        refitter.refit({"a.weight": ONES}, lambda _: None, STREAM)


def test_all_weights_that_have_no_place_are_listed() -> None:
    refitter, _ = make()
    with pytest.raises(PlanError, match=r"segment_003 has no place for 2 weights: c\.bias, c\.weight"):
        refitter.refit({"a.weight": ONES, "c.weight": ONES, "c.bias": ONES}, read_nothing, STREAM)


@pytest.mark.parametrize(
    ("changes", "weight", "obstacle"),
    [
        ({}, "a.weight", None),
        ({}, "c.weight", "the plan segment_003 has no place for 1 weights: c.weight"),
        ({"refittable": False}, "a.weight", "the plan segment_003 was not built refittable"),
        (
            {"merged": ("a.weight", "d.weight")},
            "a.weight",
            "TensorRT merged d.weight, which is no weight of the bundle",
        ),
        (
            {"weights": {"a.weight": ONES[:1]}},
            "a.weight",
            "does not take a.weight, float16 [2, 3]: a.weight has another",
        ),
    ],
)
def test_what_would_be_refused_is_found_without_changing_anything(
    changes: dict[str, Any], weight: str, obstacle: str | None
) -> None:
    refitter, engine = make(**changes)
    before = {name: values.copy() for name, values in engine.weights.items()}
    found = refitter.find_obstacle({weight: ONES}, lambda _: None)
    assert (found is None) == (obstacle is None)
    assert (obstacle or "") in (found or "")
    assert all(np.array_equal(before[name], values) for name, values in engine.weights.items())


def test_a_plan_that_is_closed_can_not_be_refitted() -> None:
    refitter, _ = make()
    refitter.close()
    assert refitter.find_obstacle({"a.weight": ONES}, read_nothing) == "the plan segment_003 is closed"


def test_a_weight_that_is_refused_is_named_with_tensorrts_words() -> None:
    refitter, _ = make()
    with pytest.raises(
        PlanError, match=r"segment_003 does not take a\.weight, float16 \[2, 2\]: a\.weight has another"
    ):
        refitter.refit({"a.weight": ONES[:, :2]}, read_nothing, STREAM)


def test_a_refit_that_fails_says_why() -> None:
    refitter, engine = make(broken=True)
    with pytest.raises(PlanError, match="can't exchange the weights of the plan segment_003: out of memory"):
        refitter.refit({"a.weight": ONES}, read_nothing, STREAM)
    assert engine.weights["a.weight"].sum() == 0


def test_a_plan_that_was_not_built_for_it_is_refused() -> None:
    refitter, _ = make(refittable=False)
    with pytest.raises(PlanError, match=r"segment_003 was not built refittable\. .*--refittable --overwrite"):
        refitter.refit({"a.weight": ONES}, read_nothing, STREAM)


def test_what_is_on_its_way_lies_in_one_piece() -> None:
    refitter, engine = make()
    values = np.arange(6, dtype=np.float16).reshape(3, 2).T
    refitter.refit({"a.weight": values}, read_nothing, STREAM)
    assert engine.weights["a.weight"].flags.c_contiguous
    np.testing.assert_array_equal(engine.weights["a.weight"], values)
