"""What is hoisted out of the tick, on the device: time projections per step list, cross-attention's k and v per prompt.

Plans take them per row, so each lies there once for every row of a chunk. A captured pass of warm-up reads its own from
the same place, whichever row it is for; so they are copied there before each pass, a block at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from cuda.core import Stream
from numpy.typing import NDArray

from live2diff_trt.bundle import signature
from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.plan import Plan
from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.runtime.copied import copied
from live2diff_trt.runtime.device import DeviceMemory, PinnedTurns, copy_on_device, dense_bytes
from live2diff_trt.runtime.device_layout import BlockLayout, TensorLayout
from live2diff_trt.runtime.stream_rows import StreamRoom, StreamRows

HOISTED = ("time_embed", "text_encoder", "prompt_kv")
"""What runs once per step list or prompt. Recordings bring encoded prompts: they have no text encoder."""
_TURNS = 5
"""Of text on its way up: as many as there are slots of frames with three lanes, so none is waited for."""
_WARM_UP_TIME, _WARM_UP_PROMPT = "time in warm-up", "prompt in warm-up"
"""What warm-up's next pass reads. Where there is no negative prompt, it reads the prompt where that lies."""
_PROMPT, _NEGATIVE_PROMPT = "prompt", "negative prompt"
Named = dict[str, DeviceTensor]


class DeviceConditions:
    """Owner of the hoisted tensors of one stream.

    Where there may be rows under a negative prompt, each row of a tick has keys and values of its own, so that chunks
    may mix both; else one chunk's are everyone's.

    Args:
        memory: where to allocate, and the stream on which the hoisted plans run.
        plans: holds ``time_embed``, ``text_encoder`` and ``prompt_kv``.
        spec: the stream.
        room: for how many rows.
        tick_rows, warm_up_rows: rows of a plan's chunk in a tick and in warm-up.
    """

    def __init__(
        self,
        memory: DeviceMemory,
        plans: Mapping[str, Plan],
        spec: StreamSpec,
        room: StreamRoom,
        tick_rows: int,
        warm_up_rows: int,
    ) -> None:
        self._memory = memory
        self._plans = plans
        self._warm_up_rows = warm_up_rows
        self._rows = StreamRows(spec.steps)
        layouts = condition_layouts(spec, room, tick_rows, warm_up_rows)
        self._bytes = {
            name: layout.bytes_at(memory.allocate("conditions", layout.nbytes), memory.device_id)
            for name, layout in layouts.items()
        }
        blocks = {name: layout.at(self._bytes[name].address, memory.device_id) for name, layout in layouts.items()}
        self._tick_time, self._warm_up_time = blocks["time in a tick"], blocks[_WARM_UP_TIME]
        self._step_time = [blocks[_time_at(step)] for step in range(room.max_steps)]
        self._prompt, self._single = blocks[_PROMPT], blocks["single"]
        self._negative_prompt: Named = blocks.get(_NEGATIVE_PROMPT, {})
        self._tick_prompt: Named = blocks.get("prompt in a tick", {})
        self._warm_up_prompt = blocks.get(_WARM_UP_PROMPT, self._prompt)
        self._staging = PinnedTurns(memory.device, _TURNS, dense_bytes(self._single["text_embeddings"]))
        self._bind_hoisted_plans(plans)

    def with_plans(self, plans: Mapping[str, Plan]) -> DeviceConditions:
        """Return these tensors, computed by other plans. Whoever closes the one closes the other."""
        self._bind_hoisted_plans(plans)
        return copied(self, _plans=plans)

    def set_rows(self, timesteps: NDArray[np.int32], rows: StreamRows) -> None:
        """Compute every resnet's time projection of the denoising steps, [T] int32, and give rows what is theirs.

        Waits for the device.
        """
        self._rows = rows
        for step, timestep in enumerate(timesteps):
            self._memory.upload(self._single["timesteps"], timestep[None])
            self._enqueue("time_embed")
            self._spread(self._tick_time, [row for row, at in enumerate(rows.step_of_row) if at == step])
            self._spread(self._step_time[step], range(self._warm_up_rows))
        self._give_prompt(self._prompt, range(rows.steps))
        self._give_prompt(self._negative_prompt, range(rows.steps, rows.count))
        self._memory.stream.sync()

    def encode(self, token_ids: NDArray[np.int32]) -> NDArray[np.floating]:
        """Return the text embeddings, [1, tokens, channels], of one prompt, [tokens] int32. Waits for the device."""
        self._memory.upload(self._single["token_ids"], token_ids)
        self._enqueue("text_encoder")
        return self._memory.download(self._single["text_embeddings"])

    def set_text_embeddings(self, embeddings: NDArray[np.floating]) -> None:
        """Take text embeddings, [1, tokens, channels], for T rows. In the stream's order, without waiting for it."""
        self._send("text_embeddings", embeddings)
        self._project(self._prompt)
        self._give_prompt(self._prompt, range(self._rows.steps))

    def set_negative_prompt(self, token_ids: NDArray[np.int32]) -> None:
        """Encode one prompt, [tokens] int32, for the rows under it. In the stream's order, without waiting for it."""
        self._send("token_ids", token_ids)
        self._enqueue("text_encoder")
        self._project(self._negative_prompt)
        self._give_prompt(self._negative_prompt, range(self._rows.steps, self._rows.count))

    def tick_inputs(self, chunk: int) -> dict[str, int]:
        """Return the addresses of what the rows of a chunk take in a tick, by input name."""
        own = {**self._tick_time, **self._tick_prompt}
        shared = {} if self._tick_prompt else self._prompt
        return {**{name: rows.chunk(chunk).address for name, rows in own.items()}, **_addresses(shared)}

    def aim_warm_up(self, stream: Stream, row: int) -> None:
        """Let warm-up's next pass be at a row's step and under its prompt, in the stream's order."""
        step = self._rows.step_of_row[row]
        copy_on_device(stream, self._bytes[_WARM_UP_TIME], self._bytes[_time_at(step)])
        if _WARM_UP_PROMPT in self._bytes:
            prompt = _PROMPT if row < self._rows.steps else _NEGATIVE_PROMPT
            copy_on_device(stream, self._bytes[_WARM_UP_PROMPT], self._bytes[prompt])

    def warm_up_inputs(self) -> dict[str, int]:
        """Return the addresses of what any chunk takes in a pass of warm-up."""
        return _addresses({**self._warm_up_time, **self._warm_up_prompt})

    def tick_rows(self, name: str) -> DeviceTensor:
        """Return an input of a tick's rows for kernels: a time projection, [rows, channels], or of the prompt.

        Keys or values are [rows, tokens, channels], or those of one chunk's rows: the same for every chunk.
        """
        if name in self._tick_time:
            return self._tick_time[name]
        return (self._tick_prompt or self._prompt)[name]

    def warm_up_rows(self, name: str) -> DeviceTensor:
        """Return the same for a pass of warm-up; a time projection is [1, channels]: for all frames."""
        if name in self._warm_up_prompt:
            return self._warm_up_prompt[name]
        one = self._warm_up_time[name].row(0)
        return one.reshape(1, *one.shape)

    def close(self) -> None:
        """Free the pinned memory; closing twice is harmless."""
        self._staging.close()

    def _send(self, name: str, values: NDArray[Any]) -> None:
        target = self._single[name]
        self._staging.send(self._memory.stream, target.address, values.astype(target.dtype))

    def _project(self, prompt: Named) -> None:
        """Compute cross-attention's keys and values of the text embeddings, and give every row its copy."""
        self._enqueue("prompt_kv")
        for name, rows in prompt.items():
            self._spread({name: rows}, range(rows.shape[0]))

    def _give_prompt(self, prompt: Named, rows: Iterable[int]) -> None:
        """Give rows of a tick a prompt's keys and values, where each has its own."""
        for row in rows:
            for name, own in self._tick_prompt.items():
                copy_on_device(self._memory.stream, own.row(row), prompt[name].row(0))

    def _spread(self, tensors: Named, rows: Iterable[int]) -> None:
        """Give rows what a hoisted plan computed just now."""
        for row in rows:
            for name, target in tensors.items():
                copy_on_device(self._memory.stream, target.row(row), self._single[name].row(0))

    def _bind_hoisted_plans(self, plans: Mapping[str, Plan]) -> None:
        for plan in (plans[graph] for graph in HOISTED if graph in plans):
            for name in plan.tensors:
                plan.bind(name, self._single[name].address)

    def _enqueue(self, plan: str) -> None:
        self._plans[plan].enqueue(int(self._memory.stream.handle))


def condition_layouts(spec: StreamSpec, room: StreamRoom, tick_rows: int, warm_up_rows: int) -> dict[str, BlockLayout]:
    """Return the layout of each block: time projections, prompts, and the hoisted plans' own inputs and outputs.

    All of a block's tensors are dense, or in chunks of the rows a plan takes.
    """
    time = {tensor.name: _fixed(tensor, 1) for tensor in signature.time_embed(spec).outputs}
    prompt = {tensor.name: _fixed(tensor, spec.prompt_tokens) for tensor in signature.prompt_kv(spec).outputs}
    text = {tensor.name: _fixed(tensor, spec.prompt_tokens) for tensor in _text_tensors(spec)}
    blocks = {
        "time in a tick": _block(time, room.unet_rows, tick_rows),
        **{name: _block(time, warm_up_rows) for name in (_WARM_UP_TIME, *map(_time_at, range(room.max_steps)))},
        _PROMPT: _block(prompt, max(tick_rows, warm_up_rows)),
        "single": BlockLayout({"timesteps": TensorLayout((1,), "int32"), **time, **text, **prompt}),
    }
    if room.asks_the_unet:
        # Then no tick reads the prompt where it lies; and what is copied to one place is of one layout.
        blocks |= dict.fromkeys((_PROMPT, _NEGATIVE_PROMPT, _WARM_UP_PROMPT), _block(prompt, warm_up_rows))
        blocks["prompt in a tick"] = _block(prompt, room.unet_rows, tick_rows)
    return blocks


def _time_at(step: int) -> str:
    return f"time at step {step}"


def _addresses(tensors: Named) -> dict[str, int]:
    return {name: tensor.address for name, tensor in tensors.items()}


def _text_tensors(spec: StreamSpec) -> tuple[signature.TensorSpec, ...]:
    encoder = signature.text_encoder(spec)
    return *encoder.inputs, *encoder.outputs


def _fixed(tensor: signature.TensorSpec, tokens: int) -> TensorLayout:
    sizes = {"rows": 1, "tokens": tokens}
    shape = tuple(sizes[size] if isinstance(size, str) else size for size in tensor.shape)
    return TensorLayout(shape, tensor.dtype)


def _block(single: Mapping[str, TensorLayout], rows: int, chunk_rows: int = 0) -> BlockLayout:
    return BlockLayout(
        {name: TensorLayout((rows, *one.shape[1:]), one.dtype, chunk_rows) for name, one in single.items()}
    )
