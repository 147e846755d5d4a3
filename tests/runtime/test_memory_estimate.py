"""A session's memory is known before it is taken: sums by hand of a stream small enough to count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from live2diff_trt.bundle.manifest import FileRecord
from live2diff_trt.bundle.spec import HoistedSpec, KvCacheSpec, StreamSpec
from live2diff_trt.engine.arena import Arena
from live2diff_trt.engine.plan_manifest import CONSTANTS_FILE, PlanKey, PlanManifest
from live2diff_trt.engine.split import Segment, TemporalAttentionCut, UNetSplit
from live2diff_trt.engine.store import StoredPlans
from live2diff_trt.runtime.errors import DeviceMemoryError
from live2diff_trt.runtime.memory_estimate import MemoryEstimate, estimate_session
from live2diff_trt.runtime.stream_rows import StreamRoom

SPEC = StreamSpec(
    width=64,
    height=128,
    step_list=(20, 30, 40),
    dtype="float16",
    heads=2,
    kv_caches=(KvCacheSpec("here", 8, 2, 4), KvCacheSpec("there", 16, 1, 2)),
    time_projections=(HoistedSpec("here", 6), HoistedSpec("there", 200)),
    prompt_kvs=(HoistedSpec("here", 10),),
    prompt_tokens=20,
    text_channels=14,
    depth_channels=5,
    depth_size=28,
)
MEASURED = {
    "scratch_bytes": {"depth": 5000, "vae_encoder": 3000, "vae_decoder": 70, "segment_00": 2000, "segment_01": 9000},
    "weight_bytes": {"depth": 100, "segment_00": 20, "segment_01": 3},
}
ARENA_BYTES = 12_800
LATENT = 1024  # bytes of [4, 16, 8] in half precision
FEATURES = 1280  # of [5, 16, 8]


def stored_plans(folder: Path, *, rows: int, split: bool) -> StoredPlans:
    """Return plans as a store would open them; their arena and tables are all that is looked at."""
    key = PlanKey("digest", "tensorrt-rtx", "1.6", (8, 9), "split" if split else "whole", rows)
    manifest = PlanManifest(key, key.target, {}, {}, {}, None, None, 1.0, "")
    if split:
        tables = ("pe_q", "pe_k", "pe_v")
        np.savez(folder / CONSTANTS_FILE, **dict.fromkeys(tables, np.zeros((16, 10), np.float16)))  # type: ignore[arg-type]
        segments = tuple(Segment(f"segment_0{index}", (), ()) for index in range(2))
        cuts = UNetSplit(segments, (TemporalAttentionCut("here", "q", "k", "v", "out", tables),), ())
        manifest = replace(
            manifest,
            files={CONSTANTS_FILE: FileRecord(0, "")},
            split=cuts.to_json(),
            arena=Arena({}, ARENA_BYTES).to_json(),
        )
    return StoredPlans(folder, manifest)


def common_parts(ring_rows: int) -> dict[str, int]:
    """Return what does not depend on the form."""
    return {
        "weights": 123,
        "scratch": 9000,  # shared by all plans, so the greediest decides
        # 16 frames of 8 x 8 and of 2 x 16 values, both keys and values; tables of addresses.
        "kv-cache ring": ring_rows * 16 * (2 * 64 * 2 + 2 * 32 * 2) + table_bytes(ring_rows),
        "pictures": sum(
            [
                3 * 3 * 128 * 64 * 2,  # image, depth_picture, decoded
                4864,  # depth_image, 3 x 28 x 28 x 2 = 4704
                1792,  # depth_map, 28 x 28 x 2 = 1568
                12_544,  # depth_maps
                256,  # depth_range
                LATENT,  # depth_latent
                FEATURES,  # depth_features
                8 * LATENT * 2,  # clean, finished
                8 * LATENT * 2,  # x0, float32
                128 * 64 * 3,  # output
            ]
        ),
        "newest frames": 2 * 16 * LATENT + 2 * 256 + 256,  # with a table of one row for each, and two records
        "constants": 2 * 2560 + 256,  # parameters of 2368 bytes, pending and taken; step table of 128
        "source picture": 1920 * 1080 * 3,
    }


def table_bytes(ring_rows: int) -> int:
    """Four tables of addresses: of all rows, of each row alone, and of the one that warm-up is aimed at."""
    return (1 + ring_rows + 1) * 4 * 256


def prompt_bytes(rows: int) -> int:
    """Keys and values of the only cross-attention, 20 tokens of 10 channels; dense, each rounded up."""
    return 2 * -(-rows * 400 // 256) * 256


SINGLE = 256 + (256 + 512) + (256 + 768) + 2 * 512
"""Timesteps; a time projection of 12 bytes and one of 400; ids of 80 bytes and embeddings of 560; one prompt."""


def test_the_split_form_by_hand(tmp_path: Path) -> None:
    """T = 3 in chunks of 2 rows: two chunks in a tick, four in warm-up."""
    estimate = estimate_session(
        SPEC, stored_plans(tmp_path, rows=2, split=True), MEASURED, room=StreamRoom(3), overlap=False
    )
    tick_time = 2 * (256 + 1024)  # chunks of 2 rows of 12 bytes and of 400
    warm_up_time = (3 + 1) * (256 + 1024)  # a chunk for each step, and what a pass reads
    assert estimate.parts == {
        **common_parts(ring_rows=4),
        "conditions": tick_time + warm_up_time + prompt_bytes(2) + SINGLE,
        "arena": ARENA_BYTES,
        "rows": 4 * (2 * LATENT + 2 * FEATURES),
        "kernel constants": 3 * 512,  # tables of 16 x 10 x 2 = 320 bytes each
        "group norm statistics": 4352,  # of 8 rows: 129 float32 of one group
    }
    assert set(estimate.shared) == {"weights", "kernel constants"}
    assert estimate.overhead == 0
    assert estimate.allocated == estimate.total == sum(estimate.parts.values())


def test_the_whole_form_by_hand(tmp_path: Path) -> None:
    """T = 3 in one chunk of 4 rows; warm-up has all 8 frames in one, on the same memory."""
    estimate = estimate_session(
        SPEC, stored_plans(tmp_path, rows=4, split=False), MEASURED, room=StreamRoom(3), overlap=False
    )
    tick_time = 256 + 1792  # 4 rows of 12 bytes and of 400
    warm_up_time = (3 + 1) * (256 + 3328)
    slots = 2 * (8 * 128 + 8 * 64)  # 8 frames' new keys and values: 64 and 32 values in half precision
    warm_up = 8 * (2 * LATENT + FEATURES) + slots  # sample and model output, depth features
    window = 256 + 256 + 256  # 4 positions, 4 x 16 of them, 4 x 16 biases
    copies = 2 * 256  # of 4 records of 40 bytes, for tick and warm-up
    assert estimate.parts == {
        **common_parts(ring_rows=4),
        "conditions": tick_time + warm_up_time + prompt_bytes(8) + SINGLE,
        "rows": warm_up + window + copies,
    }


def test_with_overlap_the_greediest_plan_of_each_lane_decides(tmp_path: Path) -> None:
    stored = stored_plans(tmp_path, rows=2, split=True)
    one, three = (
        estimate_session(SPEC, stored, MEASURED, room=StreamRoom(3), overlap=overlap) for overlap in (False, True)
    )
    assert three.parts == {**one.parts, "scratch": 5000 + 9000 + 70}


def test_the_ring_is_most_of_what_grows_with_the_steps(tmp_path: Path) -> None:
    stored = stored_plans(tmp_path, rows=1, split=True)
    sizes = [
        estimate_session(SPEC, stored, MEASURED, room=StreamRoom(rows), overlap=False).parts["kv-cache ring"]
        - table_bytes(rows)
        for rows in (3, 4, 8)
    ]
    assert sizes == [SPEC.with_step_list((30,)).cache_bytes * rows for rows in (3, 4, 8)]


def test_the_overhead_is_what_was_measured(tmp_path: Path) -> None:
    measured = {**MEASURED, "overhead_bytes": 600_000_000}
    estimate = estimate_session(
        SPEC, stored_plans(tmp_path, rows=2, split=True), measured, room=StreamRoom(3), overlap=False
    )
    assert estimate.overhead == 600_000_000
    assert estimate.total == estimate.allocated + 600_000_000
    assert estimate.describe().startswith("driver and kernels 600 MB, source picture 6 MB")


ESTIMATE = MemoryEstimate({"weights": 2_000_000_000}, {"arena": 30_000_000, "constants": 1536}, overhead=500_000_000)


def test_the_breakdown_is_sorted_and_leaves_out_what_is_tiny() -> None:
    assert ESTIMATE.describe() == "weights 2,000 MB, driver and kernels 500 MB, arena 30 MB"


@pytest.mark.parametrize("overhead_is_there", [False, True])
def test_what_fits_to_the_byte_is_not_refused(overhead_is_there: bool) -> None:
    needed = 2_030_001_536 + (0 if overhead_is_there else 500_000_000)
    ESTIMATE.refuse_unless_free(needed, SPEC, overhead_is_there=overhead_is_there)
    with pytest.raises(DeviceMemoryError):
        ESTIMATE.refuse_unless_free(needed - 1, SPEC, overhead_is_there=overhead_is_there)


def test_one_more_takes_what_is_its_own() -> None:
    assert ESTIMATE.of_one_more.allocated == ESTIMATE.of_one_more.total == 30_001_536


def test_a_refusal_says_how_much_of_what_and_what_to_do() -> None:
    with pytest.raises(DeviceMemoryError) as caught:
        ESTIMATE.refuse_unless_free(1_230_000_000, SPEC, overhead_is_there=False)
    assert caught.value.problem.startswith("64x128 with T = 3 takes 2.53 GB of GPU memory, 1.23 GB are free")
    assert ESTIMATE.describe() in caught.value.problem
    assert "--step-list" in caught.value.remedy
    assert "--size" in caught.value.remedy
