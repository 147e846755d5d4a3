"""Plans are opened in several threads at once, by a TensorRT that is made up."""

from __future__ import annotations

import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
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


class MadeUpContext:
    """An execution context.

    Attributes:
        addresses: of tensors, as far as they were set.
        scratch: what it was given.
    """

    def __init__(self) -> None:
        self.addresses: dict[str, int] = {}
        self.scratch: tuple[int, int] | None = None

    def set_tensor_address(self, tensor: str, address: int) -> bool:
        """Take an address."""
        self.addresses[tensor] = address
        return True

    def set_device_memory(self, address: int, size: int) -> None:
        """Take scratch memory."""
        self.scratch = address, size


class RtxWithTensors(MadeUpRtx):
    """One whose plans have two tensors, and more scratch memory the longer they are.

    Attributes:
        contexts: that were made.
    """

    DataType = SimpleNamespace(HALF=1)
    TensorIOMode = SimpleNamespace(INPUT=0)

    def __init__(self) -> None:
        super().__init__()
        self.contexts: list[MadeUpContext] = []

    def nptype(self, dtype: int) -> type:
        """Return numpy's type."""
        return np.float16

    def Runtime(self, logger: Any) -> Any:  # noqa: N802 # TensorRT's own name
        """Return a runtime."""
        load = super().Runtime(logger).deserialize_cuda_engine

        def load_with_tensors(plan: bytes) -> Any:
            engine = load(plan)
            if engine is not None:
                vars(engine).update(
                    num_io_tensors=2,
                    device_memory_size_v2=len(plan),
                    get_tensor_name=("x", "y").__getitem__,
                    get_tensor_shape=lambda _: (2, 4),
                    get_tensor_dtype=lambda _: self.DataType.HALF,
                    get_tensor_mode=("x", "y").index,
                    create_execution_context=lambda _: self._make_context(),
                )
            return engine

        return SimpleNamespace(deserialize_cuda_engine=load_with_tensors)

    def _make_context(self) -> MadeUpContext:
        self.contexts.append(context := MadeUpContext())
        return context


def test_contexts_of_a_plan_that_is_reloaded_keep_their_addresses_and_wait_for_scratch_memory() -> None:
    rtx = RtxWithTensors()
    with PlanRuntime(Flavour("tensorrt-rtx", "1.6", rtx), {}) as runtime:
        loaded = runtime.load("segment_000", b"a plan", "a structure")
        plan = loaded.open()
        bound = []
        for tensor, address in (("x", 512), ("y", 1024)):
            plan.bind(tensor, address)
            bound.append(plan.is_bound)
        assert bound == [False, True]
        plan.use_scratch(4096, 8)
        engine, refitter = weakref.ref(loaded._engine), loaded.refitter
        runtime.reload(loaded, b"another plan", [plan])
        assert engine() is None
        assert loaded.refitter is not refitter
        assert (plan.scratch, plan.scratch_bytes) == ((4096, 8), 12)
        with pytest.raises(PlanError, match="needs 12 bytes of scratch memory, not 8"):
            plan.use_scratch(*plan.scratch)
        plan.use_scratch(8192, 12)
        other = loaded.open()
        assert (other.scratch_bytes, other.is_bound) == (12, False)
        other.bind_like(plan)
        assert other.is_bound
    assert [context.addresses for context in rtx.contexts] == [{"x": 512, "y": 1024}] * 3
    assert [context.scratch for context in rtx.contexts] == [(4096, 8), (8192, 12), None]
    assert len(rtx.caches) == 1


def test_a_plan_that_cant_be_reloaded_is_closed_and_may_be_reloaded_again() -> None:
    with PlanRuntime(Flavour("tensorrt-rtx", "1.6", rtx := RtxWithTensors()), {}) as runtime:
        loaded = runtime.load("segment_000", b"a plan", "a structure")
        plan = loaded.open()
        plan.bind("x", 512)
        with pytest.raises(PlanError, match="can't load the plan segment_000"):
            runtime.reload(loaded, DAMAGED, [plan])
        assert loaded.refitter.find_obstacle({}, lambda _: None) == "the plan segment_000 is closed"
        runtime.reload(loaded, b"a plan", [plan])
        assert loaded._engine is not None
        assert rtx.contexts[-1].addresses == {"x": 512}


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
