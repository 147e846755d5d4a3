"""Plans are opened in several threads at once, by a TensorRT that is made up."""

from __future__ import annotations

import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from live2diff_trt.engine.errors import PlanError
from live2diff_trt.engine.flavour import Flavour
from live2diff_trt.engine.plan import PlanRuntime

DAMAGED = b"damaged"
OF_ANOTHER_CARD = b"compiled on another card"
PLANS = {f"segment_{number:03}": DAMAGED if number % 3 == 0 else b"a plan" for number in range(24)}


class MadeUpCache:
    """A runtime cache.

    Attributes:
        loaded: what it was made from.
    """

    def __init__(self) -> None:
        self.loaded: bytes | None = None
        self._users = 0

    def use(self) -> None:
        """Note a context."""
        self._users += 1

    def deserialize(self, saved: bytes) -> bool:
        """Take what was saved."""
        if saved == OF_ANOTHER_CARD:
            return False
        self.loaded = saved
        return True

    def serialize(self) -> bytes:
        """Return what a context each left here."""
        return f"compiled for {self._users} plans".encode()


class MadeUpEngine(SimpleNamespace):
    """A deserialised plan; it may be referred to weakly."""


class MadeUpRtx:
    """The package ``tensorrt_rtx``, as far as opening a plan needs it.

    Attributes:
        caches: runtime caches that were made.
    """

    class ILogger:
        """Base of loggers, and the severities."""

        INTERNAL_ERROR, ERROR, WARNING = range(3)

    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED=2)
    EngineStat = SimpleNamespace(TOTAL_WEIGHTS_SIZE=0)

    def __init__(self) -> None:
        self.caches: list[MadeUpCache] = []

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
        def make_cache() -> MadeUpCache:
            time.sleep(0.01)
            self.caches.append(cache := MadeUpCache())
            return cache

        config = SimpleNamespace(
            create_runtime_cache=make_cache,
            set_runtime_cache=MadeUpCache.use,
            set_execution_context_allocation_strategy=lambda _: None,
        )
        return MadeUpEngine(
            create_runtime_config=lambda: config,
            create_execution_context=lambda _: object(),
            get_engine_stat=lambda _: 7,
            device_memory_size_v2=11,
            num_io_tensors=0,
        )


def test_plans_opened_at_once_share_caches_by_structure_and_keep_their_errors_apart() -> None:
    rtx = MadeUpRtx()
    structures = {name: f"structure {number % 2}" for number, name in enumerate(PLANS)}

    def open_one(name: str) -> str:
        try:
            plan = runtime.load(name, PLANS[name] + name.encode(), structures[name])
            plan.open()
        except PlanError as error:
            return error.problem
        return f"{plan.name}: {plan.scratch_bytes}, {plan.weight_bytes}"

    with PlanRuntime(Flavour("tensorrt-rtx", "1.6", rtx), {}) as runtime, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(open_one, PLANS))
        compiled = runtime.serialise_caches()
    expected = [
        f"TensorRT can't load the plan {name}: b'damaged{name}' has no magic tag"
        if plan == DAMAGED
        else f"{name}: 11, 7"
        for name, plan in PLANS.items()
    ]
    assert found == expected
    assert len(rtx.caches) == len(set(structures.values()))
    good = [structures[name] for name, plan in PLANS.items() if plan != DAMAGED]
    used = {structure: f"compiled for {good.count(structure)} plans".encode() for structure in set(structures.values())}
    assert compiled == used


def test_what_was_compiled_is_found_again_by_the_structure() -> None:
    saved = {"one": b"of one", "another": b"of another", "gone": b"of none"}
    rtx = MadeUpRtx()
    with PlanRuntime(Flavour("tensorrt-rtx", "1.6", rtx), saved) as runtime:
        for structure in ("another", "one", "new"):
            runtime.load(structure, b"a plan", structure).open()
        compiled = runtime.serialise_caches()
    assert compiled == {
        **dict.fromkeys(("one", "another", "new"), b"compiled for 1 plans"),
        "gone": b"of none",  # of a plan that was not opened
    }
    assert [cache.loaded for cache in rtx.caches] == [b"of another", b"of one", None]


@pytest.mark.parametrize(
    ("saved", "compiles"),
    [({"one": b"of one", "other": b"of another"}, False), ({"one": b"of one"}, True), ({}, True)],
)
def test_it_is_known_whether_something_was_compiled(saved: dict[str, bytes], compiles: bool) -> None:
    with PlanRuntime(Flavour("tensorrt-rtx", "1.6", MadeUpRtx()), saved) as runtime:
        assert not runtime.compiles
        for structure in ("one", "other"):
            runtime.load(structure, b"a plan", structure).open()
        assert runtime.compiles is compiles


def test_what_another_card_compiled_is_compiled_anew_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    saved = dict.fromkeys(("one", "other"), OF_ANOTHER_CARD)
    with PlanRuntime(Flavour("tensorrt-rtx", "1.6", MadeUpRtx()), saved) as runtime:
        for structure in saved:
            runtime.load(structure, b"a plan", structure).open()
        assert runtime.compiles
        assert runtime.serialise_caches() == dict.fromkeys(saved, b"compiled for 1 plans")
    assert [record.message for record in caplog.records] == [
        "saved kernels are another GPU's, or another TensorRT's: they are compiled anew and kept"
    ]


def test_a_plan_that_was_opened_after_anothers_error_is_closed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = PlanRuntime(Flavour("tensorrt-rtx", "1.6", MadeUpRtx()), {})
    with ThreadPoolExecutor(2) as pool:
        good, bad = (
            pool.submit(runtime.load, name, plan, "a structure")
            for name, plan in (("good", b"a plan"), ("bad", DAMAGED))
        )
        assert isinstance(bad.exception(), PlanError)
    plan = good.result()
    closed: list[str] = []
    monkeypatch.setattr(plan, "close", lambda: closed.append(plan.name))
    runtime.close()
    runtime.close()
    assert closed == ["good"]


def test_a_plan_that_was_closed_lets_go_of_its_weights_and_may_be_closed_again() -> None:
    """As one that was measured is: by whoever opened it, then with the runtime."""
    with PlanRuntime(Flavour("tensorrt-rtx", "1.6", MadeUpRtx()), {}) as runtime:
        plan = runtime.load("segment_000", b"a plan", "a structure")
        engine = weakref.ref(plan._engine)
        plan.close()
        assert engine() is None


def test_contexts_of_a_plan_are_several_over_the_same_weights() -> None:
    with PlanRuntime(Flavour("tensorrt-rtx", "1.6", MadeUpRtx()), {}) as runtime:
        loaded = runtime.load("segment_000", b"a plan", "a structure")
        one, other = loaded.open(), loaded.open()
        assert one._context is not other._context
        one.close()
        one.close()
        assert other._context is not None
        engine = weakref.ref(loaded._engine)
        other.close()
        assert engine() is not None  # the weights stay until the plan is closed
    assert engine() is None


def test_a_context_that_is_refused_is_told_in_its_words() -> None:
    rtx = MadeUpRtx()
    with PlanRuntime(Flavour("tensorrt-rtx", "1.6", rtx), {}) as runtime:
        loaded = runtime.load("segment_000", b"a plan", "a structure")
        loaded._engine.create_execution_context = lambda _: None
        with pytest.raises(PlanError, match="can't make an execution context of the plan segment_000"):
            loaded.open()
