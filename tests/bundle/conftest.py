"""A small stream whose sizes all differ, so that no dimension can be taken for another."""

from __future__ import annotations

import pytest

from live2diff_trt.bundle.spec import HoistedSpec, KvCacheSpec, StreamSpec


@pytest.fixture(scope="session")
def spec() -> StreamSpec:
    return StreamSpec(
        width=192,
        height=64,
        step_list=(30, 40),
        dtype="float16",
        heads=2,
        kv_caches=(
            KvCacheSpec("down_blocks.0.motion_modules.0.attention_blocks.0", 6, 8, 24),
            KvCacheSpec("down_blocks.0.motion_modules.0.attention_blocks.1", 6, 8, 24),
            KvCacheSpec("up_blocks.0.motion_modules.0.attention_blocks.0", 10, 4, 12),
        ),
        time_projections=(HoistedSpec("down_blocks.0.resnets.0", 6), HoistedSpec("mid_block.resnets.0", 10)),
        prompt_kvs=(HoistedSpec("down_blocks.0.attentions.0", 6), HoistedSpec("mid_block.attentions.0", 10)),
        prompt_tokens=77,
        text_channels=14,
        depth_channels=6,
        depth_size=32,
        window=13,
        sink=5,
    )
