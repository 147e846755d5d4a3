"""Runs every plan of a set once on the GPU, and compares it with its graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine.errors import PlanStoreError
from live2diff_trt.engine.flavour import Flavour
from live2diff_trt.engine.gpu import Gpu
from live2diff_trt.engine.networks import Network, collect_networks
from live2diff_trt.engine.plan import Plan, PlanRuntime, PlanTensor
from live2diff_trt.engine.store import StoredPlans
from live2diff_trt.engine.verify import OnPlan, PlanCheck, check_networks
from live2diff_trt.runtime.device import DeviceMemory
from live2diff_trt.runtime.device_layout import BlockLayout, TensorLayout
from live2diff_trt.runtime.plan_source import keep_runtime_caches

Array = NDArray[Any]
_PURPOSE = "verification"
_SCRATCH = "scratch memory"
"""Beside the plan's tensors, by a name that none of them has."""


def verify_plans(
    bundle: Bundle,
    stored: StoredPlans,
    flavour: Flavour,
    gpu: Gpu,
    device_id: int = 0,
    on_plan: OnPlan = lambda *_: None,
    plans: Collection[str] | None = None,
) -> list[PlanCheck]:
    """Run plans on random inputs and compare them with ONNX Runtime's results on the CPU; one at a time is open.

    Args:
        bundle: what the plans were built from.
        stored: the plans.
        flavour: what they were built with.
        gpu: the GPU of that number.
        device_id: number of the CUDA device.
        on_plan: told what comes next.
        plans: names of those to compare; None: all of them.

    Returns:
        One check per plan, passed or not, in the order of the build: see ``engine.verify.refuse_failed``.

    Raises:
        PlanStoreError: if the set holds no plan of a name in ``plans``.
        PlanError: if TensorRT can't load a plan, or not run it.
        BackendError: if CUDA fails; if ONNX Runtime is not installed, or fails.
        BundleError: if a graph is damaged.
    """
    networks = _choose_networks(collect_networks(bundle, stored.manifest.key)[1], plans)
    facts = stored.facts(gpu)
    with DeviceMemory(device_id) as memory, PlanRuntime(flavour, facts.load_runtime_caches()) as runtime:

        def run_plan(network: Network, inputs: Mapping[str, Array]) -> dict[str, Array]:
            loaded = stored.load_plan(network.name, runtime)
            plan = loaded.open()
            outputs = _run_once(memory, plan, network.channels_last, inputs)
            plan.close()
            loaded.close()
            return outputs

        checks = list(check_networks(bundle.folder, networks, run_plan, on_plan))
        keep_runtime_caches(runtime, facts)
    return checks


def _choose_networks(networks: Sequence[Network], names: Collection[str] | None) -> list[Network]:
    if names is None:
        return list(networks)
    known = [network.name for network in networks]
    unknown = sorted(set(names).difference(known))
    if unknown:
        raise PlanStoreError(f"there is no plan {unknown[0]} to compare", f"Choose from {', '.join(known)}")
    return [network for network in networks if network.name in names]


def _run_once(
    memory: DeviceMemory, plan: Plan, channels_last: frozenset[str], inputs: Mapping[str, Array]
) -> dict[str, Array]:
    """Run a plan in memory of its own, which is free again afterwards. Arrays have the shapes that the graph knows."""
    # Scratch memory comes first: an allocation begins where TensorRT wants it, the tensors inside need less.
    layout = BlockLayout(
        {_SCRATCH: TensorLayout((max(plan.scratch_bytes, 1),), "uint8")}
        | {name: _lay_out(tensor, name in channels_last) for name, tensor in plan.tensors.items()}
    )
    block = memory.allocate(_PURPOSE, layout.nbytes)
    tensors = layout.at(block, memory.device_id)
    plan.use_scratch(tensors[_SCRATCH].address, layout.tensors[_SCRATCH].nbytes)
    for name in plan.tensors:
        plan.bind(name, tensors[name].address)
    for name, values in inputs.items():
        memory.upload(tensors[name], np.moveaxis(values, 1, -1) if name in channels_last else values)
    plan.enqueue(int(memory.stream.handle))
    outputs = {name: memory.download(tensors[name]) for name, tensor in plan.tensors.items() if not tensor.is_input}
    memory.release(_PURPOSE, block)
    return {name: np.moveaxis(values, -1, 1) if name in channels_last else values for name, values in outputs.items()}


def _lay_out(tensor: PlanTensor, channels_last: bool) -> TensorLayout:
    """Return how a tensor lies in memory: [rows, channels, height, width] maybe as [rows, height, width, channels]."""
    if not channels_last:
        return TensorLayout(tensor.shape, tensor.dtype)
    rows, channels, height, width = tensor.shape
    return TensorLayout((rows, height, width, channels), tensor.dtype)
