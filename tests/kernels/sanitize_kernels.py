"""Launch every kernel once, at tiny sizes, for a sanitizer to watch:

compute-sanitizer --tool memcheck python -m tests.kernels.sanitize_kernels
compute-sanitizer --tool racecheck python -m tests.kernels.sanitize_kernels
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from live2diff_trt.kernels.group_norm import group_norm_workspace
from live2diff_trt.kernels.library import ELEMENT_TYPES, HEAD_CHANNELS
from live2diff_trt.kernels.tick_parameters import MAXIMUM_STEPS, SINK, TICK_PARAMETERS, WINDOW
from live2diff_trt.kernels.window import NewSlots, slot_copies
from live2diff_trt.runtime.device import PinnedArray
from tests.kernels.device import Gpu, open_gpu

logger = logging.getLogger(__name__)

ROWS = 3
CHUNK_ROWS = 2


def make_parameters(gpu: Gpu) -> np.ndarray:
    """A picture of 7 x 5 pixels, and rows that see every other slot."""
    record = np.zeros((), TICK_PARAMETERS)
    record["source"] = gpu.upload(np.zeros((5, 21), np.uint8)).address
    record["source_row_bytes"], record["source_width"], record["source_height"] = 21, 7, 5
    record["crop_width"], record["crop_height"] = 7, 5
    for row in record["rows"]:
        row["active"], row["write_slot"] = 1, 9
        row["past_position"] = np.arange(WINDOW)
        row["visible"][::2] = 1
    return record


def launch_attention(gpu: Gpu, dtype: str, head_channels: int) -> None:
    """Both attentions, at 7 positions and 2 heads, warm-up in chunks."""
    channels = 2 * head_channels
    parameters = gpu.upload_bytes(make_parameters(gpu))
    rings = [gpu.upload(np.zeros((ROWS, WINDOW, 7, channels), dtype)) for _ in range(2)]
    past = [gpu.upload(np.array([ring.row(row).address for row in range(ROWS)], np.uint64)) for ring in rings]
    tables = tuple(gpu.upload(np.zeros((WINDOW, channels), dtype)) for _ in range(3))
    for rows in (ROWS, SINK):
        q, k, v, out = (gpu.upload(np.zeros((rows, 7, channels), dtype), CHUNK_ROWS) for _ in range(4))
        shared: dict[str, Any] = {"q": q, "k": k, "v": v, "out": out, "tables": tables, "heads": 2}
        shared |= {"past_k_rows": past[0], "past_v_rows": past[1]}
        if rows == ROWS:
            gpu.kernels.streaming_attention(gpu.stream, **shared, parameters=parameters)
        else:
            gpu.kernels.warm_up_attention(gpu.stream, **shared, row=1)


def launch_pictures(gpu: Gpu, dtype: str) -> None:
    """Pictures of 13 x 9 pixels, depth maps of 11 x 11."""
    image, depths = gpu.poisoned((3, 9, 13), dtype), gpu.poisoned((2, 11, 11), dtype)
    depth_range = gpu.poisoned((2,), "float32")
    gpu.kernels.preprocess(gpu.stream, parameters=gpu.upload_bytes(make_parameters(gpu)), image=image)
    gpu.kernels.postprocess(gpu.stream, image=image, pixels=gpu.poisoned((9, 13, 3), "uint8"))
    gpu.kernels.resize_bilinear(gpu.stream, image=image, resized=gpu.poisoned((3, 11, 11), dtype))
    gpu.kernels.depth_range(gpu.stream, depth_maps=depths, depth_range=depth_range)
    images = gpu.poisoned((2, 3, 9, 13), dtype)
    gpu.kernels.depth_to_image(gpu.stream, depth_maps=depths, depth_range=depth_range, images=images)


def launch_latents(gpu: Gpu, dtype: str) -> None:
    """Latents of 3 x 5 x 7 elements, which no block of four divides."""
    latent = (3, 5, 7)
    parameters = gpu.upload_bytes(make_parameters(gpu))
    step_table = gpu.upload(np.full((4, MAXIMUM_STEPS), 0.5, np.float32))
    shared = {"parameters": parameters, "step_table": step_table}
    finished = gpu.poisoned(latent, dtype)
    sample = gpu.upload(np.zeros((ROWS, *latent), dtype), CHUNK_ROWS)
    gpu.kernels.enter(gpu.stream, latent=finished, sample=sample, **shared)
    x0, origins = gpu.poisoned((ROWS, *latent), "float32"), gpu.poisoned((ROWS, *latent), dtype)
    for rows, led_back_to in ((ROWS, None), (ROWS, origins), (2 * ROWS, None), (ROWS + 1, origins)):
        output = gpu.upload(np.zeros((rows, *latent), dtype), CHUNK_ROWS)
        gpu.kernels.lcm_step(
            gpu.stream, sample=sample, model_output=output, x0=x0, finished=finished, origins=led_back_to, **shared
        )
    sample, output = (gpu.upload(np.zeros((SINK, *latent), dtype), CHUNK_ROWS) for _ in range(2))
    x0, finished = gpu.poisoned((SINK, *latent), "float32"), gpu.poisoned((SINK, *latent), dtype)
    for clean in (x0, finished):
        gpu.kernels.enter_warm_up(gpu.stream, clean=clean, sample=sample, row=1, **shared)
    for asked, led_back in ((False, False), (False, True), (True, False), (True, True)):
        gpu.kernels.lcm_step_warm_up(
            gpu.stream,
            sample=sample,
            model_output=output,
            x0=x0,
            finished=finished,
            row=1,
            negative_output=gpu.poisoned((SINK, *latent), dtype) if asked else None,
            origins=gpu.poisoned((SINK, *latent), dtype) if led_back else None,
            **shared,
        )


def launch_window(gpu: Gpu, dtype: str) -> None:
    """The whole form's kernels, over slots of 24 and of 480 bytes or twice that."""
    parameters = gpu.upload_bytes(make_parameters(gpu))
    gpu.kernels.window_inputs(
        gpu.stream,
        position=gpu.poisoned((ROWS,), "int32", CHUNK_ROWS),
        past_position=gpu.poisoned((ROWS, WINDOW), "int32", CHUNK_ROWS),
        past_bias=gpu.poisoned((ROWS, WINDOW), dtype, CHUNK_ROWS),
        parameters=parameters,
    )
    slots = []
    for positions, channels in ((1, 12), (3, 80)):
        ring = gpu.poisoned((ROWS, WINDOW, positions, channels), dtype)
        table = gpu.upload(np.array([ring.row(row).address for row in range(ROWS)], np.uint64))
        slots.append(NewSlots(gpu.poisoned((SINK, positions, channels), dtype, CHUNK_ROWS), table))
    copies = gpu.upload(slot_copies(slots).view(np.uint8).reshape(len(slots), -1))
    gpu.kernels.scatter_slots(gpu.stream, copies=copies, rows=ROWS, parameters=parameters)
    gpu.kernels.scatter_sink(gpu.stream, copies=copies, row=1)


def launch_spatial_attention(gpu: Gpu, dtype: str, head_channels: int) -> None:
    """Among 130 positions, which no tile divides, and of them to a prompt of 77 tokens and to one of 1."""
    channels = 2 * head_channels
    q, out = gpu.upload(np.ones((ROWS, 130, channels), dtype), CHUNK_ROWS), gpu.poisoned((ROWS, 130, channels), dtype)
    gpu.kernels.spatial_attention(gpu.stream, q=q, k=q, v=q, out=out, heads=2)
    for tokens in (77, 1):
        keys = gpu.upload(np.ones((2, tokens, channels), dtype))
        gpu.kernels.spatial_attention(gpu.stream, q=q, k=keys, v=keys, out=out, heads=2)


def launch_group_norm(gpu: Gpu, dtype: str) -> None:
    """In one launch, with vectors of every size, and in two, with groups that straddle vectors and with tiny ones."""
    for positions, channels, groups in (
        (37, 96, 8), (1, 32, 8), (37, 80, 8), (37, 40, 10), (2000, 480, 8), (37, 96, 32), (37, 40, 40),
    ):  # fmt: skip
        weights = {name: gpu.upload(np.ones(channels, dtype)) for name in ("scale", "bias")}
        x = gpu.upload(np.ones((ROWS, positions, channels), dtype), CHUNK_ROWS)
        for row_bias in (None, gpu.upload(np.ones((2, channels), dtype))):
            gpu.kernels.group_norm(
                gpu.stream, x=x, out=x, **weights, row_bias=row_bias, groups=groups, epsilon=1e-5, silu=True,
                statistics=gpu.poisoned(group_norm_workspace(ROWS, groups), "float32"),
            )  # fmt: skip


def launch_gated_gelu(gpu: Gpu, dtype: str) -> None:
    """37 positions of 2 * 24 channels."""
    x, out = gpu.upload(np.ones((ROWS, 37, 48), dtype), CHUNK_ROWS), gpu.poisoned((ROWS, 37, 24), dtype)
    gpu.kernels.gated_gelu(gpu.stream, x=x, out=out)


def launch_copies(gpu: Gpu) -> None:
    """A tick's record and a picture of 105 bytes, which no vector divides, in from the host and out to it."""
    record, pixels = PinnedArray(TICK_PARAMETERS.itemsize), PinnedArray(105)
    parameters, picture = gpu.poisoned((TICK_PARAMETERS.itemsize,), "uint8"), gpu.poisoned((105,), "uint8")
    gpu.kernels.fetch(
        gpu.stream, record=record.address, parameters=parameters.address,
        pixels=pixels.address, picture=picture.address, size=105,
    )  # fmt: skip
    gpu.kernels.deliver(gpu.stream, picture=picture.address, pixels=pixels.address, size=105)
    gpu.stream.sync()
    record.close()
    pixels.close()


def main() -> None:
    """Launch everything and wait."""
    logging.basicConfig(level=logging.INFO)
    for dtype in ELEMENT_TYPES:
        with open_gpu() as gpu:
            for head_channels in HEAD_CHANNELS:
                launch_attention(gpu, dtype, head_channels)
                launch_spatial_attention(gpu, dtype, head_channels)
            launch_group_norm(gpu, dtype)
            launch_gated_gelu(gpu, dtype)
            launch_pictures(gpu, dtype)
            launch_latents(gpu, dtype)
            launch_window(gpu, dtype)
            gpu.stream.sync()
        logger.info("every kernel of %s was launched", dtype)
    with open_gpu() as gpu:
        launch_copies(gpu)


if __name__ == "__main__":
    main()
