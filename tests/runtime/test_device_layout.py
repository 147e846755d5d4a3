"""Tensors in an allocation: aligned, apart from each other, and never beyond its end."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from live2diff_trt.engine.arena import ALIGNMENT_BYTES
from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.runtime.device_layout import BlockLayout, TensorLayout, align

BASE = 7 * ALIGNMENT_BYTES
tensors = st.builds(
    TensorLayout,
    shape=st.tuples(st.integers(1, 9), st.integers(1, 5), st.integers(1, 30)),
    dtype=st.sampled_from(["float16", "float32", "int32", "uint8", "uint64"]),
    chunk_rows=st.integers(0, 9),
)
blocks = st.dictionaries(st.text("abc", min_size=1, max_size=4), tensors, min_size=1, max_size=8).map(BlockLayout)


def extents(view: DeviceTensor) -> list[tuple[int, int]]:
    """Return where each row begins and ends."""
    rows = [view.row(index).address for index in range(view.shape[0])]
    return [(address, address + view.row_bytes) for address in rows]


@pytest.mark.parametrize(("size", "rounded"), [(0, 0), (1, 256), (255, 256), (256, 256), (257, 512), (10**12 + 1, 0)])
def test_sizes_are_rounded_up_to_the_alignment(size: int, rounded: int) -> None:
    assert align(size) == (rounded or math.ceil(size / 256) * 256)


def test_a_dense_tensor_takes_its_elements_rounded_up() -> None:
    layout = TensorLayout((3, 5, 7), "float16")
    assert (layout.chunk_bytes, layout.nbytes) == (256, 256)  # 210 bytes
    view = layout.at(512, device_id=1)
    assert view == DeviceTensor(512, (3, 5, 7), "float16", 1)
    assert view.row(2).address == 512 + 2 * 70


def test_rows_in_chunks_begin_each_chunk_at_an_aligned_address() -> None:
    layout = TensorLayout((5, 70), "float32", chunk_rows=2)
    assert layout.chunk_bytes == 768  # 2 rows of 280 bytes
    assert layout.nbytes == 3 * 768  # the third chunk has room for two rows, and holds one
    view = layout.at(0, device_id=0)
    assert [view.row(index).address for index in range(5)] == [0, 280, 768, 1048, 1536]
    assert [view.chunk(index).address for index in range(3)] == [0, 768, 1536]
    assert view.chunk(2).shape == (2, 70)


def test_a_chunk_larger_than_the_rows_has_room_for_idle_ones() -> None:
    layout = TensorLayout((2, 100), "float32", chunk_rows=8)
    assert layout.nbytes == align(8 * 400)
    assert layout.at(0, 0).chunk(0).shape == (8, 100)


@given(block=blocks)
def test_views_do_not_overlap_and_stay_inside(block: BlockLayout) -> None:
    views = block.at(BASE, device_id=3)
    assert list(views) == list(block.tensors)
    taken = sorted(extent for view in views.values() for extent in extents(view))
    assert taken[0][0] >= BASE
    assert taken[-1][1] <= BASE + block.nbytes
    assert all(end <= start for (_, end), (start, _) in pairwise(taken))
    assert block.nbytes == sum(layout.nbytes for layout in block.tensors.values())
    assert block.bytes_at(BASE, device_id=3) == DeviceTensor(BASE, (block.nbytes,), "uint8", 3)


@given(block=blocks)
def test_a_plan_may_write_whole_chunks(block: BlockLayout) -> None:
    """A plan writes R rows wherever it is bound, idle ones too: they must not lie in another tensor."""
    end = BASE
    for name, view in block.at(BASE, device_id=0).items():
        layout = block.tensors[name]
        rows = layout.chunk_rows or layout.shape[0]
        for index in range(math.ceil(layout.shape[0] / rows)):
            chunk = view.chunk(index)
            assert chunk.address % ALIGNMENT_BYTES == 0
            assert chunk.address >= end
            end = chunk.address + rows * math.prod(layout.shape[1:]) * np.dtype(layout.dtype).itemsize
    assert end <= BASE + block.nbytes
