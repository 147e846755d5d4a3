"""Plans are opened in several threads at once, by a TensorRT that is made up."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from live2diff_trt.engine.errors import PlanError
from live2diff_trt.engine.flavour import Flavour
from live2diff_trt.engine.plan import PlanRuntime

DAMAGED = b"damaged"
PLANS = {f"segment_{number:03}": DAMAGED if number % 3 == 0 else b"a plan" for number in range(24)}


class MadeUpRtx:
    """The package ``tensorrt_rtx``, as far as opening a plan needs it.

    Attributes:
        caches: runtime caches that were made.
        used: the cache of each context.
    """

    class ILogger:
        """Base of loggers, and the severities."""

        INTERNAL_ERROR, ERROR, WARNING = range(3)

    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED=2)
    EngineStat = SimpleNamespace(TOTAL_WEIGHTS_SIZE=0)

    def __init__(self) -> None:
        self.caches: list[object] = []
        self.used: list[object] = []

    def Runtime(self, logger: Any) -> Any:  # noqa: N802 # TensorRT's own name
        """Return a runtime."""

        def load(plan: bytes) -> Any:
            time.sleep(0.001)  # another thread goes on meanwhile
            if not plan.startswith(DAMAGED):
                return self._make_engine()
            refusal = f"{plan!r} has no magic tag"
            logger.log(self.ILogger.ERROR, refusal)
            time.sleep(0.001)
            return None

        return SimpleNamespace(deserialize_cuda_engine=load)

    def _make_engine(self) -> Any:
        def make_cache() -> object:
            time.sleep(0.01)
            self.caches.append(cache := object())
            return cache

        config = SimpleNamespace(
            create_runtime_cache=make_cache,
            set_runtime_cache=self.used.append,
            set_execution_context_allocation_strategy=lambda _: None,
        )
        return SimpleNamespace(
            create_runtime_config=lambda: config,
            create_execution_context=lambda _: object(),
            get_engine_stat=lambda _: 7,
            device_memory_size_v2=11,
            num_io_tensors=0,
        )


def test_plans_opened_at_once_share_one_cache_and_keep_their_errors_apart() -> None:
    rtx = MadeUpRtx()

    def open_one(name: str) -> str:
        try:
            plan = runtime.open(name, PLANS[name] + name.encode())
        except PlanError as error:
            return error.problem
        return f"{plan.name}: {plan.scratch_bytes}, {plan.weight_bytes}"

    with PlanRuntime(Flavour("tensorrt-rtx", "1.6", rtx)) as runtime, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(open_one, PLANS))
    expected = [
        f"TensorRT can't load the plan {name}: b'damaged{name}' has no magic tag"
        if plan == DAMAGED
        else f"{name}: 11, 7"
        for name, plan in PLANS.items()
    ]
    assert found == expected
    assert len(rtx.caches) == 1
    assert rtx.used == rtx.caches * sum(plan != DAMAGED for plan in PLANS.values())


def test_a_plan_that_was_opened_after_anothers_error_is_closed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = PlanRuntime(Flavour("tensorrt-rtx", "1.6", MadeUpRtx()))
    with ThreadPoolExecutor(2) as pool:
        good, bad = pool.submit(runtime.open, "good", b"a plan"), pool.submit(runtime.open, "bad", DAMAGED)
        assert isinstance(bad.exception(), PlanError)
    plan = good.result()
    closed: list[str] = []
    monkeypatch.setattr(plan, "close", lambda: closed.append(plan.name))
    runtime.close()
    runtime.close()
    assert closed == ["good"]
