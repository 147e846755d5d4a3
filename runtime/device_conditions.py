"""What is hoisted out of the tick, on the device: time projections per step list, cross-attention's k and v per prompt.

Plans take them per row, so each lies there once for every row of a chunk.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from live2diff_trt.bundle import signature
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.plan import Plan
from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.runtime.copied import copied
from live2diff_trt.runtime.device import DeviceMemory, PinnedTurns, copy_on_device, dense_bytes
from live2diff_trt.runtime.device_layout import BlockLayout, TensorLayout

HOISTED = ("time_embed", "text_encoder", "prompt_kv")
"""What runs once per step list or prompt. Recordings bring encoded prompts: they have no text encoder."""
_TURNS = 5
"""Of text embeddings on their way up: as many as there are slots of frames with three lanes, so none is waited for."""


class DeviceConditions:
    """Owner of the hoisted tensors of one stream.

    Args:
        memory: where to allocate, and the stream on which the hoisted plans run.
        plans: holds ``time_embed``, ``text_encoder`` and ``prompt_kv``.
        spec: the stream.
        max_steps: the largest T that there is to be room for.
        tick_rows, warm_up_rows: rows of a plan's chunk in a tick and in warm-up.
    """

    def __init__(
        self,
        memory: DeviceMemory,
        plans: Mapping[str, Plan],
        spec: StreamSpec,
        max_steps: int,
        tick_rows: int,
        warm_up_rows: int,
    ) -> None:
        self._memory = memory
        self._plans = plans
        self._tick_rows, self._warm_up_rows = tick_rows, warm_up_rows
        layouts = condition_layouts(spec, max_steps, tick_rows, warm_up_rows)
        tick, warm_up, prompt, single = (
            layout.at(memory.allocate("conditions", layout.nbytes), memory.device_id) for layout in layouts
        )
        self._tick_time, self._warm_up_time, self._prompt, self._single = tick, warm_up, prompt, single
        self._staging = PinnedTurns(memory.device, _TURNS, dense_bytes(single["text_embeddings"]))
        self._bind_hoisted_plans(plans)

    def with_plans(self, plans: Mapping[str, Plan]) -> DeviceConditions:
        """Return these tensors, computed by other plans. Whoever closes the one closes the other."""
        self._bind_hoisted_plans(plans)
        return copied(self, _plans=plans)

    def set_steps(self, timesteps: NDArray[np.int32]) -> None:
        """Compute every resnet's time projection of the denoising steps, [T] int32. Waits for the device."""
        for step, timestep in enumerate(timesteps):
            self._memory.upload(self._single["timesteps"], timestep[None])
            self._enqueue("time_embed")
            for name, rows in self._tick_time.items():
                copy_on_device(self._memory.stream, rows.row(step), self._single[name].row(0))
            for name, rows in self._warm_up_time.items():
                for row in range(self._warm_up_rows):
                    target = rows.row(step * self._warm_up_rows + row)
                    copy_on_device(self._memory.stream, target, self._single[name].row(0))
        self._memory.stream.sync()

    def encode(self, token_ids: NDArray[np.int32]) -> NDArray[np.floating]:
        """Return the text embeddings, [1, tokens, channels], of one prompt, [tokens] int32. Waits for the device."""
        self._memory.upload(self._single["token_ids"], token_ids)
        self._enqueue("text_encoder")
        return self._memory.download(self._single["text_embeddings"])

    def set_text_embeddings(self, embeddings: NDArray[np.floating]) -> None:
        """Take text embeddings, [1, tokens, channels], for all rows. In the stream's order, without waiting for it."""
        target = self._single["text_embeddings"]
        self._staging.send(self._memory.stream, target.address, embeddings.astype(target.dtype))
        self._project_prompt()

    def _project_prompt(self) -> None:
        """Compute cross-attention's keys and values, and give every row its copy."""
        self._enqueue("prompt_kv")
        for name, rows in self._prompt.items():
            for row in range(rows.shape[0]):
                copy_on_device(self._memory.stream, rows.row(row), self._single[name].row(0))

    def tick_inputs(self, chunk: int) -> dict[str, int]:
        """Return the addresses of what the rows of a chunk take in a tick, by input name."""
        time = {name: rows.chunk(chunk).address for name, rows in self._tick_time.items()}
        return {**time, **self._prompt_addresses()}

    def warm_up_inputs(self, step: int) -> dict[str, int]:
        """Return the addresses of what the rows of any chunk take in warm-up's pass at a denoising step."""
        time = {name: rows.chunk(step).address for name, rows in self._warm_up_time.items()}
        return {**time, **self._prompt_addresses()}

    def tick_rows(self, name: str) -> DeviceTensor:
        """Return an input of a tick's rows for kernels: a time projection, [max_steps, channels], or of the prompt.

        Keys or values of the prompt are [rows of a chunk, tokens, channels]: the same for every chunk.
        """
        return self._tick_time[name] if name in self._tick_time else self._prompt[name]

    def warm_up_rows(self, name: str, step: int) -> DeviceTensor:
        """Return the same for the warm-up's pass at a denoising step; a time projection is [1, channels]: for all."""
        if name in self._prompt:
            return self._prompt[name]
        one = self._warm_up_time[name].chunk(step).row(0)
        return one.reshape(1, *one.shape)

    def close(self) -> None:
        """Free the pinned memory; closing twice is harmless."""
        self._staging.close()

    def _prompt_addresses(self) -> dict[str, int]:
        return {name: rows.address for name, rows in self._prompt.items()}

    def _bind_hoisted_plans(self, plans: Mapping[str, Plan]) -> None:
        for plan in (plans[graph] for graph in HOISTED if graph in plans):
            for name in plan.tensors:
                plan.bind(name, self._single[name].address)

    def _enqueue(self, plan: str) -> None:
        self._plans[plan].enqueue(int(self._memory.stream.handle))


def condition_layouts(spec: StreamSpec, max_steps: int, tick_rows: int, warm_up_rows: int) -> tuple[BlockLayout, ...]:
    """Return the layouts of: time projections in a tick, in warm-up; prompt; the hoisted plans' own inputs and outputs.

    All of a block's tensors are dense, or in chunks of the rows a plan takes.
    """
    time = {tensor.name: _fixed(tensor, 1) for tensor in signature.time_embed(spec).outputs}
    prompt = {tensor.name: _fixed(tensor, spec.prompt_tokens) for tensor in signature.prompt_kv(spec).outputs}
    text = {tensor.name: _fixed(tensor, spec.prompt_tokens) for tensor in _text_tensors(spec)}
    return (
        BlockLayout({name: _rows_of(layout, max_steps, tick_rows) for name, layout in time.items()}),
        BlockLayout({name: _rows_of(layout, max_steps * warm_up_rows, warm_up_rows) for name, layout in time.items()}),
        BlockLayout({name: _rows_of(layout, max(tick_rows, warm_up_rows), 0) for name, layout in prompt.items()}),
        BlockLayout({"timesteps": TensorLayout((1,), "int32"), **time, **text, **prompt}),
    )


def _text_tensors(spec: StreamSpec) -> tuple[signature.TensorSpec, ...]:
    encoder = signature.text_encoder(spec)
    return *encoder.inputs, *encoder.outputs


def _fixed(tensor: signature.TensorSpec, tokens: int) -> TensorLayout:
    sizes = {"rows": 1, "tokens": tokens}
    shape = tuple(sizes[size] if isinstance(size, str) else size for size in tensor.shape)
    return TensorLayout(shape, tensor.dtype)


def _rows_of(single: TensorLayout, rows: int, chunk_rows: int) -> TensorLayout:
    return TensorLayout((rows, *single.shape[1:]), single.dtype, chunk_rows)
