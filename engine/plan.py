"""Plans on a GPU: deserialised, with one execution context each. TensorRT runs them on a stream; we own all memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
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
    """One plan with its execution context.

    Addresses are bound by name and stay bound. The scratch memory is the caller's: several plans that run one after
    the other on one stream may share it.

    Attributes:
        name: as in the plan store.
        tensors: inputs and outputs, by name.
        scratch_bytes: device memory the plan needs while it runs.
        weight_bytes: device memory its weights hold.
        scratch: address and size of the scratch memory that it was given.
        refitter: exchanges its weights, if it was built for that.
    """

    def __init__(self, name: str, engine: Any, context: Any, flavour: Flavour, log: tuple[Any, LogMessages]) -> None:
        self.name = name
        self.scratch = (0, 0)
        self._flavour = flavour
        self._log = log
        self._addresses: dict[str, int] = {}
        self.hold(engine, context)

    def hold(self, engine: Any, context: Any) -> None:
        """Run another engine of the same inputs and outputs from here on, once it is given scratch memory.

        What was bound stays bound.
        """
        self.scratch_bytes = int(engine.device_memory_size_v2)
        self.weight_bytes = int(engine.get_engine_stat(self._flavour.module.EngineStat.TOTAL_WEIGHTS_SIZE))
        self.tensors = {tensor.name: tensor for tensor in _describe_tensors(engine, self._flavour)}
        self.refitter = PlanRefitter(self.name, engine, self._flavour, self._log)
        self._engine = engine
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
        """Let go of context and weights; closing twice is harmless."""
        self._context = None
        self._engine = None
        self.refitter.close()


class PlanRuntime(ClosedAtEnd):
    """Opens plans on the current device. RTX compiles a plan's kernels when it is opened, or finds them in a cache.

    Plans share a cache only with others of their structure. In one cache for all, TensorRT-RTX 1.6.1 finds kernels for
    a plan that were compiled for another, and the plan computes something else (see docs/tensorrt.md).

    Several threads may open plans at once; nobody may close the runtime meanwhile.

    Args:
        flavour: what the plans were built with.
        runtime_caches: what ``serialise_caches`` gave in an earlier process.

    Attributes:
        compiles: whether RTX had to compile for some plan: nothing was saved of its structure, or something that it
            does not take. Then it is worth saving what ``serialise_caches`` gives.
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
        self._plans: list[Plan] = []

    def open(self, name: str, plan: bytes, structure: str) -> Plan:
        """Deserialise a plan and make its execution context.

        Args:
            name: of the plan.
            plan: what TensorRT built.
            structure: ``PlanManifest.structures`` of it.

        Raises:
            PlanError: if TensorRT refuses, with its words.
        """
        engine, context = self._load(name, plan, structure)
        opened = Plan(name, engine, context, self._flavour, (self._logger, self._messages))
        self._plans.append(opened)
        return opened

    def reopen(self, opened: Plan, plan: bytes, structure: str) -> None:
        """Let a plan run another build of the same graph, once it is given scratch memory. What was bound stays bound.

        What it ran before is freed first, and must not be in use; no graph that it was captured in may be launched any
        more.

        Raises:
            PlanError: if TensorRT refuses, with its words. The plan is closed then.
        """
        opened.close()
        opened.hold(*self._load(opened.name, plan, structure))

    def serialise_caches(self) -> dict[str, bytes]:
        """Return compiled kernels by structure, for the next process; those of plans that were not opened among them.

        Only RTX compiles late.
        """
        compiled = {structure: bytes(cache.serialize()) for structure, cache in self._caches.items()}
        return {**self._saved_caches, **compiled}

    def close(self) -> None:
        """Close every plan; closing twice is harmless."""
        for plan in self._plans:
            plan.close()
        self._plans.clear()
        self._caches.clear()
        self._runtime = None

    def _load(self, name: str, plan: bytes, structure: str) -> tuple[Any, Any]:
        """Return an engine and its execution context."""
        self._messages.clear()
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise PlanError(f"TensorRT can't load the plan {name}: {self._messages.last()}", _BUILD_AGAIN)
        context = engine.create_execution_context(self._configure(engine, structure))
        if context is None:
            raise PlanError(
                f"TensorRT can't make an execution context of the plan {name}: {self._messages.last()}", _BUILD_AGAIN
            )
        return engine, context

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
