"""Plans on a GPU: loaded once, with an execution context for each stream that runs them. All memory is ours."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

from live2diff_trt.bundle.closed_at_end import ClosedAtEnd
from live2diff_trt.engine.errors import PlanError
from live2diff_trt.engine.flavour import Flavour, LogMessages, make_logger
from live2diff_trt.engine.refit import PlanRefitter

logger = logging.getLogger(__name__)

_BUILD_AGAIN = "Build the plans again with `live2diff-trt build BUNDLE --overwrite`"


@dataclass(frozen=True)
class PlanTensor:
    """One input or output of a plan, of fixed shape."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    is_input: bool


class Plan:
    """One execution context of a plan: what one stream runs.

    Addresses are bound by name and stay bound. The scratch memory is the caller's: several plans that run one after
    the other on one stream may share it. Other contexts of the same plan may run at the same time, on other streams.

    Attributes:
        name: as in the plan store.
        tensors: inputs and outputs, by name.
        scratch_bytes: device memory the plan needs while it runs.
        scratch: address and size of the scratch memory that it was given.
    """

    def __init__(self, name: str, tensors: Mapping[str, PlanTensor], scratch_bytes: int, context: Any) -> None:
        self.name = name
        self.tensors = tensors
        self.scratch = (0, 0)
        self._addresses: dict[str, int] = {}
        self.hold(context, scratch_bytes)

    def hold(self, context: Any, scratch_bytes: int) -> None:
        """Run another context, of the same inputs and outputs, from here on, once it is given scratch memory.

        What was bound stays bound.
        """
        self.scratch_bytes = scratch_bytes
        self._context = context
        for tensor, address in self._addresses.items():
            self.bind(tensor, address)

    def bind(self, tensor: str, address: int) -> None:
        """Tell the plan where a tensor lies. What was enqueued before keeps the address it had.

        Raises:
            PlanError: if the plan has no such tensor, or refuses the address.
        """
        if tensor not in self.tensors or not self._context.set_tensor_address(tensor, address):
            raise PlanError(f"the plan {self.name} does not take {tensor} at {address:#x}", _BUILD_AGAIN)
        self._addresses[tensor] = address

    def bind_like(self, other: Plan) -> None:
        """Bind what another context of the same plan has bound, to where that has it."""
        for tensor, address in dict(other._addresses).items():
            self.bind(tensor, address)

    @property
    def is_bound(self) -> bool:
        """Whether every tensor has an address."""
        return self._addresses.keys() == self.tensors.keys()

    def use_scratch(self, address: int, size: int) -> None:
        """Give the plan its scratch memory; raise PlanError if that is too small."""
        if size < self.scratch_bytes:
            raise PlanError(
                f"the plan {self.name} needs {self.scratch_bytes} bytes of scratch memory, not {size}",
                "Delete the files measured-*.cache beside the plans, so that they are measured again",
            )
        self._context.set_device_memory(address, size)
        self.scratch = address, size

    def enqueue(self, stream: int) -> None:
        """Run once on a CUDA stream (its handle), which may be capturing; raise PlanError if TensorRT refuses."""
        if not self._context.execute_async_v3(stream):
            raise PlanError(
                f"TensorRT could not run the plan {self.name}", "The log above says why; run with --verbose"
            )

    def close(self) -> None:
        """Let go of the context; closing twice is harmless."""
        self._context = None


class LoadedPlan:
    """One plan, deserialised: its weights, which all of its execution contexts share.

    Args:
        name: as in the plan store.
        engine: TensorRT's.
        flavour: what built it.
        log: a logger of TensorRT, and what it keeps.
        configure: returns how execution contexts are to be made.

    Attributes:
        tensors: inputs and outputs, by name.
        scratch_bytes: device memory that each context needs while it runs.
        weight_bytes: device memory its weights hold.
        refitter: exchanges its weights, if it was built for that: for every context.
    """

    def __init__(
        self,
        name: str,
        engine: Any,
        flavour: Flavour,
        log: tuple[Any, LogMessages],
        configure: Callable[[Any], Any],
    ) -> None:
        self.name = name
        self.tensors = {tensor.name: tensor for tensor in _describe_tensors(engine, flavour)}
        self._flavour = flavour
        self._log = log
        self._configure = configure
        self.hold(engine)

    def hold(self, engine: Any) -> None:
        """Be another engine of the same graph from here on. Contexts of the one before are to be closed by then."""
        self.scratch_bytes = int(engine.device_memory_size_v2)
        self.weight_bytes = int(engine.get_engine_stat(self._flavour.module.EngineStat.TOTAL_WEIGHTS_SIZE))
        self.refitter = PlanRefitter(self.name, engine, self._flavour, self._log)
        self._engine = engine

    def open(self) -> Plan:
        """Make an execution context. One at a time of the same plan; whoever opens it closes it before the plan.

        Raises:
            PlanError: if TensorRT refuses, with its words.
        """
        return Plan(self.name, self.tensors, self.scratch_bytes, self._make_context())

    def reopen(self, opened: Plan) -> None:
        """Let a context of what this held before go on with what it holds now. One at a time, as with ``open``.

        Raises:
            PlanError: if TensorRT refuses, with its words. The context is closed then.
        """
        opened.close()
        opened.hold(self._make_context(), self.scratch_bytes)

    def close(self) -> None:
        """Let go of the weights; closing twice is harmless."""
        self._engine = None
        self.refitter.close()

    def _make_context(self) -> Any:
        engine = self._engine
        messages = self._log[1]
        messages.clear()
        context = engine.create_execution_context(self._configure(engine))
        if context is None:
            raise PlanError(
                f"TensorRT can't make an execution context of the plan {self.name}: {messages.last()}",
                _BUILD_AGAIN,
            )
        return context


class PlanRuntime(ClosedAtEnd):
    """Loads plans on the current device. RTX compiles a plan's kernels for its first context, or finds them in a cache.

    Plans share a cache only with others of their structure. In one cache for all, TensorRT-RTX 1.6.1 finds kernels for
    a plan that were compiled for another, and the plan computes something else (see docs/tensorrt.md).

    Several threads may load and open plans at once; nobody may close the runtime meanwhile.

    Args:
        flavour: what the plans were built with.
        runtime_caches: what ``serialise_caches`` gave in an earlier process.

    Attributes:
        compiles: whether RTX had to compile for some plan: nothing was saved of its structure, or something that it
            does not take. Then it is worth saving what ``serialise_caches`` gives; who does so sets it back.
    """

    def __init__(self, flavour: Flavour, runtime_caches: Mapping[str, bytes]) -> None:
        self._flavour = flavour
        self._logger, self._messages = make_logger(flavour)
        self._runtime = flavour.module.Runtime(self._logger)
        self._saved_caches = runtime_caches
        self._is_refusal_told = False
        self.compiles = False
        self._caches: dict[str, Any] = {}
        self._making_cache = Lock()
        self._loaded: list[LoadedPlan] = []

    def load(self, name: str, plan: bytes, structure: str) -> LoadedPlan:
        """Deserialise a plan.

        Args:
            name: of the plan.
            plan: what TensorRT built.
            structure: ``PlanManifest.structures`` of it.

        Raises:
            PlanError: if TensorRT refuses, with its words.
        """
        engine = self._deserialise(name, plan)
        log = self._logger, self._messages
        loaded = LoadedPlan(name, engine, self._flavour, log, lambda engine: self._configure(engine, structure))
        self._loaded.append(loaded)
        return loaded

    def reload(self, loaded: LoadedPlan, plan: bytes, contexts: Iterable[Plan]) -> None:
        """Let a plan be another build of the same graph. What its contexts were bound to stays bound.

        What it was before is freed first, and must not be in use; no graph that it was captured in may be launched any
        more.

        Args:
            loaded: the plan.
            plan: what TensorRT built.
            contexts: all of it that are open. They want scratch memory anew.

        Raises:
            PlanError: if TensorRT refuses, with its words. The plan is closed then, or its contexts are.
        """
        contexts = tuple(contexts)
        for opened in contexts:
            opened.close()
        loaded.close()
        loaded.hold(self._deserialise(loaded.name, plan))
        for opened in contexts:
            loaded.reopen(opened)

    def serialise_caches(self) -> dict[str, bytes]:
        """Return compiled kernels by structure, for the next process; those of plans that were not opened among them.

        Only RTX compiles late. Nobody may open a plan meanwhile.
        """
        compiled = {structure: bytes(cache.serialize()) for structure, cache in self._caches.items()}
        return {**self._saved_caches, **compiled}

    def close(self) -> None:
        """Close every plan, none of whose contexts is open; closing twice is harmless."""
        for loaded in self._loaded:
            loaded.close()
        self._loaded.clear()
        self._caches.clear()
        self._runtime = None

    def _deserialise(self, name: str, plan: bytes) -> Any:
        self._messages.clear()
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise PlanError(f"TensorRT can't load the plan {name}: {self._messages.last()}", _BUILD_AGAIN)
        return engine

    def _configure(self, engine: Any, structure: str) -> Any:
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(
            self._flavour.module.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        if self._flavour.is_rtx:
            with self._making_cache:
                if structure not in self._caches:
                    self._caches[structure] = self._make_cache(config, self._saved_caches.get(structure))
            config.set_runtime_cache(self._caches[structure])
        return config

    def _make_cache(self, config: Any, saved: bytes | None) -> Any:
        cache = config.create_runtime_cache()
        if saved is None:
            self.compiles = True
        elif not cache.deserialize(saved):
            self._tell_of_refusal()
            self.compiles = True
        return cache

    def _tell_of_refusal(self) -> None:
        """Say it once: where one is refused, all are."""
        if not self._is_refusal_told:
            logger.warning("saved kernels are another GPU's, or another TensorRT's: they are compiled anew and kept")
        self._is_refusal_told = True


def _describe_tensors(engine: Any, flavour: Flavour) -> list[PlanTensor]:
    trt = flavour.module
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return [
        PlanTensor(
            name,
            tuple(engine.get_tensor_shape(name)),
            str(trt.nptype(engine.get_tensor_dtype(name)).__name__),
            engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
        )
        for name in names
    ]
