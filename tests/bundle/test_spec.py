"""StreamSpec: what it refuses, what it derives, and its way through JSON."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live2diff_trt.bundle.errors import SpecError
from live2diff_trt.bundle.schedule import ScheduleSpec
from live2diff_trt.bundle.spec import HoistedSpec, KvCacheSpec, StreamSpec, check_size
from live2diff_trt.model.configuration import UNetConfiguration
from live2diff_trt.model.stream_spec import describe_network

names = st.text(max_size=12)
hoisted = st.lists(st.builds(HoistedSpec, names, st.integers(1, 2000)), max_size=3).map(tuple)
specs = st.builds(
    StreamSpec,
    width=st.integers(1, 30).map(lambda count: count * 64),
    height=st.integers(1, 30).map(lambda count: count * 64),
    step_list=st.lists(st.integers(0, 49), min_size=1, max_size=8, unique=True).map(sorted).map(tuple),
    dtype=st.sampled_from(["float16", "float32"]),
    heads=st.just(8),
    kv_caches=st.lists(
        st.builds(KvCacheSpec, names, st.integers(1, 160).map(lambda count: count * 8), st.integers(1), st.integers(1)),
        max_size=3,
    ).map(tuple),
    time_projections=hoisted,
    prompt_kvs=hoisted,
    prompt_tokens=st.integers(1, 300),
    text_channels=st.integers(1, 2000),
    depth_channels=st.integers(1, 2000),
    depth_size=st.integers(0, 600),
    sink=st.integers(1, 15),
    schedule=st.builds(ScheduleSpec, beta_start=st.floats(1e-6, 1e-3), beta_end=st.floats(1e-3, 0.5)),
)


def changed(spec: StreamSpec, **changes: Any) -> StreamSpec:
    return replace(spec, **changes)


def describe_stable_diffusion(step_list: tuple[int, ...]) -> StreamSpec:
    return StreamSpec(
        width=512,
        height=512,
        step_list=step_list,
        dtype="float16",
        prompt_tokens=77,
        depth_size=384,
        **describe_network(UNetConfiguration(), 64, 64),
    )


@given(st.integers(1, 100), st.integers(1, 100))
def test_multiples_of_64_are_sizes(columns: int, rows: int) -> None:
    check_size(columns * 64, rows * 64)
    with pytest.raises(SpecError):
        check_size(columns * 64 + 1, rows * 64)
    with pytest.raises(SpecError):
        check_size(columns * 64, rows * 64 - 1)


@pytest.mark.parametrize(
    ("width", "height", "nearest"),
    [
        (500, 512, "512x512"),
        (512, 300, "512x320"),
        (1920, 1080, "1920x1088"),
        (1, 1, "64x64"),
        (0, 64, "64x64"),
        (-512, 512, "64x512"),
    ],
)
def test_a_wrong_size_is_answered_with_the_nearest(width: int, height: int, nearest: str) -> None:
    with pytest.raises(SpecError) as caught:
        check_size(width, height)
    assert f"{width}x{height}" in caught.value.problem
    assert caught.value.remedy.endswith(nearest)


@given(st.integers(-10, 5000), st.integers(1, 5000))
def test_the_nearest_size_is_a_size_and_near(width: int, height: int) -> None:
    try:
        check_size(width, height)
    except SpecError as error:
        found = re.search(r"(\d+)x(\d+)$", error.remedy)
        assert found is not None
        near_width, near_height = int(found[1]), int(found[2])
        check_size(near_width, near_height)
        assert abs(near_width - max(width, 64)) <= 32
        assert abs(near_height - max(height, 64)) <= 32
    else:
        assert width % 64 == height % 64 == 0


@given(specs)
def test_json_gives_an_equal_spec_back(spec: StreamSpec) -> None:
    assert StreamSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize("key", ["width", "step_list", "dtype", "heads", "kv_caches", "prompt_tokens", "schedule"])
def test_json_that_lacks_a_key_is_not_a_spec(spec: StreamSpec, key: str) -> None:
    values = spec.to_json()
    del values[key]
    with pytest.raises((KeyError, TypeError), match=key):
        StreamSpec.from_json(values)


def test_json_with_a_key_too_many_is_not_a_spec(spec: StreamSpec) -> None:
    with pytest.raises(TypeError, match="colour"):
        StreamSpec.from_json({**spec.to_json(), "colour": "red"})


def test_another_step_list_changes_nothing_else(spec: StreamSpec) -> None:
    other = spec.with_step_list((10, 20, 30))
    assert other.steps == 3
    assert spec.steps == 2
    assert other.with_step_list(spec.step_list) == spec


@pytest.mark.parametrize("step_list", [(), (40, 30), (50,)])
def test_a_bad_step_list_is_refused(spec: StreamSpec, step_list: tuple[int, ...]) -> None:
    with pytest.raises(SpecError, match=re.escape(str(list(step_list)))):
        spec.with_step_list(step_list)


def test_latents_are_an_eighth_of_the_picture(spec: StreamSpec) -> None:
    assert spec.latent_shape == (4, 8, 24)
    assert spec.depth_features_shape == (6, 8, 24)
    assert spec.rolling == 8


def test_the_caches_of_stable_diffusion_take_a_gigabyte_and_a_half_per_step() -> None:
    one = describe_stable_diffusion((30,))
    assert len(one.kv_caches) == 40
    assert one.cache_bytes == 1_520_435_200
    assert describe_stable_diffusion((30, 40)).cache_bytes == 2 * one.cache_bytes
    assert changed(one, dtype="float32").cache_bytes == 2 * one.cache_bytes


def test_cache_bytes_count_keys_and_values_of_every_slot(spec: StreamSpec) -> None:
    floats = 2 * 8 * 24 * 6 + 4 * 12 * 10
    assert spec.cache_bytes == 2 * 2 * 13 * floats * 2  # rows, k and v, window, bytes


@pytest.mark.parametrize("dtype", ["bfloat16", "float64", "half", ""])
def test_an_unsupported_dtype_is_refused(spec: StreamSpec, dtype: str) -> None:
    with pytest.raises(SpecError, match=f"dtype '{dtype}'"):
        changed(spec, dtype=dtype)


@pytest.mark.parametrize("sink", [-1, 0, 13, 14])
def test_a_sink_that_leaves_no_room_is_refused(spec: StreamSpec, sink: int) -> None:
    with pytest.raises(SpecError, match=f"a sink of {sink} does not fit a window of 13"):
        changed(spec, sink=sink)


def test_heads_that_do_not_divide_the_channels_are_refused(spec: StreamSpec) -> None:
    with pytest.raises(SpecError, match=re.escape(spec.kv_caches[2].name)):
        changed(spec, heads=3)


@pytest.mark.parametrize("size", [{"width": 100}, {"height": 100}, {"width": 0}])
def test_a_stream_of_a_wrong_size_is_refused(spec: StreamSpec, size: dict[str, int]) -> None:
    with pytest.raises(SpecError, match="multiples of 64"):
        changed(spec, **size)
