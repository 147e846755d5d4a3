"""Plans that are graphs, run on emulated memory: they stand for those of ``engine.plan``."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from live2diff_trt.engine.errors import PlanError
from live2diff_trt.engine.plan import PlanTensor
from tests.runtime.emulated_device import ALIGNMENT, SCRATCH_ALIGNMENT, Array, EmulatedBuffer, EmulatedGpu
from tests.runtime.emulated_graphs import GraphCache, OpenedGraph, read_emulated_plan
from tests.runtime.emulated_streams import EmulationError


class EmulatedLoadedPlan:
    """A plan as ``engine.plan.LoadedPlan`` is one.

    Attributes:
        plan: what was built.
        weights: initialisers of its graph.
        contexts: that were opened and not closed.
        opened: its graph, with the weights that it holds now.
    """

    def __init__(self, name: str, plan: bytes, gpu: EmulatedGpu, graphs: GraphCache) -> None:
        self.name = name
        self.weight_bytes = 1000
        self.contexts: set[EmulatedPlan] = set()
        self._gpu = gpu
        self._graphs = graphs
        self.refitter = EmulatedRefitter(self, gpu, graphs)
        self.hold(plan)
        self.tensors = self.opened.tensors
        self.weights = self.opened.weights

    def hold(self, plan: bytes) -> None:
        """Be another build of the same graph."""
        self.plan = plan
        self.opened = self._graphs.open(plan)
        self.scratch_bytes = 1024 * (1 + len(self.name) % 5)
        self.is_closed = False
        self._memory = EmulatedBuffer(self._gpu.memory, self.weight_bytes)

    def open(self) -> EmulatedPlan:
        """Make a context, in a thread in which the device is current."""
        context = EmulatedPlan(self, self._gpu)
        self.reopen(context)
        return context

    def reopen(self, context: EmulatedPlan) -> None:
        """Let a context run what this holds now."""
        if not self._gpu.is_current or self.is_closed:
            raise EmulationError(f"a context of {self.name} is made without a device, or after the plan was closed")
        context.hold(self.scratch_bytes)
        self.contexts.add(context)

    def reload(self, plan: bytes, contexts: Iterable[EmulatedPlan]) -> None:
        """Be another build of the same graph, and let all contexts be of that one."""
        contexts = tuple(contexts)
        if self.contexts.difference(contexts):
            raise EmulationError(f"a context of {self.name} goes on with a plan that is freed")
        for context in contexts:
            context.close()
        self.close()
        self.refitter = self.refitter.of_another_build()
        self.hold(plan)
        for context in contexts:
            self.reopen(context)

    def exchange(self, opened: OpenedGraph) -> None:
        """Hold other weights from here on."""
        if any(context.is_running for context in self.contexts):
            raise EmulationError(f"the plan {self.name} is refitted while it runs")
        self.opened = opened

    def close(self) -> None:
        """Let go of the weights, once no context is there."""
        if self.contexts:
            raise EmulationError(f"the plan {self.name} is closed before its contexts are")
        self.is_closed = True
        self._memory.close()


class EmulatedPlan:
    """A context as ``engine.plan.Plan`` is one. What it does to its scratch memory is the worst it may do."""

    def __init__(self, loaded: EmulatedLoadedPlan, gpu: EmulatedGpu) -> None:
        self.name = loaded.name
        self.tensors = loaded.tensors
        self.scratch = (0, 0)
        self._loaded = loaded
        self._gpu = gpu
        self._addresses: dict[str, int] = {}
        self._mark: bytes | None = None  # what its scratch memory holds while it runs
        self._marks = 0

    def hold(self, scratch_bytes: int) -> None:
        """Run another build from here on, once it is given scratch memory."""
        self.scratch_bytes = scratch_bytes
        self._is_open, self._has_scratch, self._has_run = True, False, False

    @property
    def is_running(self) -> bool:
        """Whether a run began that has not ended."""
        return self._mark is not None

    def bind(self, tensor: str, address: int) -> None:
        """Take an address, as aligned as TensorRT wants it."""
        if tensor not in self.tensors or address % ALIGNMENT:
            raise PlanError(f"the plan {self.name} does not take {tensor} at {address:#x}", "Mend the runtime")
        self._addresses[tensor] = address

    def bind_like(self, other: EmulatedPlan) -> None:
        """Bind what another context has bound."""
        self._addresses |= other._addresses

    @property
    def is_bound(self) -> bool:
        """Whether every tensor has an address."""
        return self._addresses.keys() == self.tensors.keys()

    def use_scratch(self, address: int, size: int) -> None:
        """Take scratch memory."""
        if size < self.scratch_bytes or address % SCRATCH_ALIGNMENT:
            raise PlanError(f"the plan {self.name} does not take {size} bytes at {address:#x}", "Mend the runtime")
        self.scratch = address, size
        self._has_scratch = True

    def enqueue(self, stream: int) -> None:
        """Enqueue a run over the addresses that are bound now."""
        if not self._is_open:
            raise PlanError(f"the plan {self.name} is closed", "Mend the runtime")
        if not self.is_bound or not self._has_scratch:
            missing = sorted(set(self.tensors) - set(self._addresses))
            raise PlanError(f"the plan {self.name} has no address for {missing or 'scratch'}", "Mend the runtime")
        addresses = dict(self._addresses)
        refits = self._loaded.refitter.enqueued
        if self._gpu.streams[stream].recorded is None:
            self._has_run = True
        elif not self._has_run:
            raise EmulationError(f"the plan {self.name} is captured before it ever ran")
        self._gpu.streams[stream].submit(f"plan {self.name}", lambda: self._begin(refits), lambda: self._run(addresses))

    def close(self) -> None:
        """Run no more, until another build is held; closing twice is harmless."""
        if self.is_running:
            raise EmulationError(f"the plan {self.name} is closed while it runs")
        self._is_open = False
        self._loaded.contexts.discard(self)

    def _begin(self, refits: int) -> None:
        if self._loaded.refitter.done != refits:
            raise EmulationError(
                f"the plan {self.name} was captured before it was refitted, or runs before that is done"
            )
        if self._mark is not None:
            raise EmulationError(f"the plan {self.name} runs twice at the same time")
        self._marks += 1
        self._mark = f"{self.name} {self._marks}".encode().ljust(self.scratch_bytes, b"\xff")
        self._view_scratch()[:] = np.frombuffer(self._mark, np.uint8)

    def _run(self, addresses: Mapping[str, int]) -> None:
        if self._view_scratch().tobytes() != self._mark:
            raise EmulationError(f"something wrote into the scratch memory of the plan {self.name} while it ran")
        self._mark = None
        inputs = {
            tensor.name: np.ascontiguousarray(self._view(tensor, addresses[tensor.name]))
            for tensor in self.tensors.values()
            if tensor.is_input
        }
        outputs = self._loaded.opened.graph.run(inputs)
        for name, values in outputs.items():
            self._view(self.tensors[name], addresses[name])[:] = values

    def _view_scratch(self) -> Array:
        return self._gpu.memory.view(self.scratch[0], [self.scratch_bytes], "uint8")

    def _view(self, tensor: PlanTensor, address: int) -> Array:
        """Return a tensor as the graph knows it, wherever its channels lie in memory."""
        if tensor.name not in self._loaded.opened.channels_last:
            return self._gpu.memory.view(address, tensor.shape, tensor.dtype)
        rows, channels, height, width = tensor.shape
        return self._gpu.memory.view(address, (rows, height, width, channels), tensor.dtype).transpose(0, 3, 1, 2)


class EmulatedRefitter:
    """Exchanges a plan's weights as ``engine.refit.PlanRefitter`` does.

    Attributes:
        enqueued, done: how often.
        lacks: weights that TensorRT does not list.
        refuses: weights that it does not take, as it turns out late.
    """

    lacks: tuple[str, ...] = ()
    refuses: tuple[str, ...] = ()

    def __init__(self, plan: EmulatedLoadedPlan, gpu: EmulatedGpu, graphs: GraphCache) -> None:
        self.enqueued = self.done = 0
        self._plan = plan
        self._gpu = gpu
        self._graphs = graphs
        self._weights: dict[str, Array] = {}

    def of_another_build(self) -> EmulatedRefitter:
        """Return the refitter of a plan that was opened in the place of this one's, which is no longer captured."""
        other = EmulatedRefitter(self._plan, self._gpu, self._graphs)
        other.enqueued = other.done = self.enqueued + 1
        return other

    def find_obstacle(self, values: Mapping[str, Array], read: Callable[[str], Array | None]) -> str | None:
        """Return what the graph does not have, and the plan was not built for."""
        told, _, _ = read_emulated_plan(self._plan.plan)
        if not told["refittable"]:
            return f"the plan {self._plan.name} was not built refittable"
        missing = values.keys() - (self._plan.weights - set(self.lacks))
        return f"the plan {self._plan.name} has no place for {missing}" if missing else None

    def refit(self, values: Mapping[str, Array], read: Callable[[str], Array | None], stream: int) -> object:
        """Exchange weights in a stream's order; values are read then, not before."""
        obstacle = self.find_obstacle(values, read)
        if obstacle is not None:
            raise PlanError(obstacle, "Mend the runtime")
        self.enqueued += 1
        kept = weakref.ref(keep := _Kept(dict(values)))
        self._gpu.streams[stream].submit("refit", lambda: self._exchange(kept))
        for name in self.refuses:
            if name in values:
                raise PlanError(f"the plan {self._plan.name} does not take {name}", "Mend the runtime")
        return keep

    def _exchange(self, kept: weakref.ref[_Kept]) -> None:
        values = kept()
        if values is None:
            raise EmulationError(f"the weights of the plan {self._plan.name} are gone before they were read")
        self._weights |= {name: np.array(value) for name, value in values.values.items()}
        self._plan.exchange(self._graphs.open(self._plan.plan, self._weights))
        self.done += 1


@dataclass(eq=False)
class _Kept:
    """What the caller must keep."""

    values: Mapping[str, Array]


class EmulatedPlanRuntime:
    """Loads plans as ``engine.plan.PlanRuntime`` does.

    Attributes:
        compiles: whether what was saved is not what this compiles.
    """

    def __init__(self, gpu: EmulatedGpu, graphs: GraphCache, runtime_caches: Mapping[str, bytes]) -> None:
        self._gpu = gpu
        self._graphs = graphs
        self._loaded: list[EmulatedLoadedPlan] = []
        self.compiles = runtime_caches != self.serialise_caches()

    def load(self, name: str, plan: bytes, structure: str) -> EmulatedLoadedPlan:
        """Load a plan, in a thread in which the device is current."""
        if not self._gpu.is_current:
            raise EmulationError(f"the plan {name} is loaded in a thread that has no device")
        loaded = EmulatedLoadedPlan(name, plan, self._gpu, self._graphs)
        self._loaded.append(loaded)
        return loaded

    def reload(self, loaded: EmulatedLoadedPlan, plan: bytes, contexts: Iterable[EmulatedPlan]) -> None:
        """Let a plan be another build, in a thread in which the device is current."""
        loaded.reload(plan, contexts)

    def serialise_caches(self) -> dict[str, bytes]:
        """Return what a later process need not compile."""
        return {"all": b"compiled"}

    def close(self) -> None:
        """Close every plan; closing twice is harmless."""
        for loaded in self._loaded:
            loaded.close()
        self._loaded.clear()

    def __enter__(self) -> EmulatedPlanRuntime:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()
