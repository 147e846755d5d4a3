"""Errors survive the way from one process to another, whatever they take to be made."""

from __future__ import annotations

import pickle

import pytest

from live2diff_trt.bundle.errors import BundleError, Live2DiffError, OutputExistsError


@pytest.mark.parametrize(
    "error",
    [BundleError("it is torn", "Export it again"), OutputExistsError("a/b")],
    ids=lambda one: type(one).__name__,
)
def test_an_error_is_the_same_after_pickling(error: Live2DiffError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.problem, again.remedy) == (str(error), error.problem, error.remedy)
