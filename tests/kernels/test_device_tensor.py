"""Views of device memory: rows and chunks are found, and what a kernel does not take is refused by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live2diff_trt.kernels.device_tensor import DeviceTensor, DeviceTensorError, check_tensor

DENSE = DeviceTensor(4096, (5, 6, 8), "float16", device_id=1)
CHUNKED = replace(DENSE, chunk_rows=2, chunk_bytes=512)


def test_sizes_follow_from_shape_and_dtype() -> None:
    assert (DENSE.item_bytes, DENSE.row_bytes, DENSE.rows_per_chunk) == (2, 96, 5)
    assert (CHUNKED.row_bytes, CHUNKED.rows_per_chunk) == (96, 2)
    assert DeviceTensor(0, (3,), "uint64").row_bytes == 8


def test_a_row_is_found_inside_its_chunk() -> None:
    assert DENSE.row(3) == DeviceTensor(4096 + 3 * 96, (6, 8), "float16", 1)
    assert [CHUNKED.row(index).address - 4096 for index in range(5)] == [0, 96, 512, 608, 1024]
    assert CHUNKED.row(3).chunk_rows == 0


@given(rows=st.integers(1, 20), chunk_rows=st.integers(1, 20), padding=st.integers(0, 100))
def test_the_rows_of_a_chunk_are_rows_of_the_whole(rows: int, chunk_rows: int, padding: int) -> None:
    whole = DeviceTensor(64, (rows, 3), "float32", chunk_rows=chunk_rows, chunk_bytes=chunk_rows * 12 + padding)
    for row in range(rows):
        chunk = whole.chunk(row // chunk_rows)
        assert chunk.shape == (chunk_rows, 3)
        assert chunk.row(row % chunk_rows) == whole.row(row)


def test_the_only_chunk_of_a_dense_tensor_is_all_of_it() -> None:
    assert DENSE.chunk(0) == DENSE


def test_a_shape_of_as_many_elements_is_the_same_memory() -> None:
    assert DENSE.reshape(30, 8) == replace(DENSE, shape=(30, 8))
    seen = CHUNKED.reshape(5, 48)
    assert (seen.chunk_rows, seen.chunk_bytes) == (2, 512)
    assert [seen.row(index).address for index in range(5)] == [CHUNKED.row(index).address for index in range(5)]


@pytest.mark.parametrize("shape", [(5, 6, 9), (239,), (5, 6, 8, 0)])
def test_another_number_of_elements_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DeviceTensorError, match=r"\[5, 6, 8\] can't be seen as"):
        DENSE.reshape(*shape)


def test_rows_in_chunks_stay_rows() -> None:
    with pytest.raises(DeviceTensorError, match="can't be seen as"):
        CHUNKED.reshape(30, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (5, 8, 6)}, r"q is float16 \[5, 8, 6\] on device 1\. Pass float16 \[5, 6, 8\] on device 1"),
        ({"dtype": "float32"}, r"q is float32"),
        ({"device_id": 0}, r"on device 0\. Pass .* on device 1"),
        ({"address": 4096 + 8}, r"q begins at an unaligned address"),
    ],
)
def test_what_is_not_as_asked_for_is_refused_by_name(change: dict[str, object], message: str) -> None:
    check_tensor("q", DENSE, [5, 6, 8], "float16", 1)
    with pytest.raises(DeviceTensorError, match=message):
        check_tensor("q", replace(DENSE, **change), [5, 6, 8], "float16", 1)  # type: ignore[arg-type]


@given(
    block=st.integers(1, 5000),
    shape=st.lists(st.integers(1, 40), max_size=3),
    dtype=st.sampled_from(["uint8", "float16", "int32", "float32", "uint64"]),
)
def test_what_an_allocation_begins_with_is_aligned_whatever_its_shape(block: int, shape: list[int], dtype: str) -> None:
    """Pictures have 3 bytes a pixel, and 3 rows have 12 bytes of positions: no power of two, yet all is well."""
    tensor = DeviceTensor(256 * block, tuple(shape), dtype)
    check_tensor("pixels", tensor, shape, dtype, 0)


def test_a_row_need_only_be_as_aligned_as_its_size_allows() -> None:
    table = DeviceTensor(256, (4, 2), "float32")
    check_tensor("entry", table.row(1), [2], "float32", 0)
    with pytest.raises(DeviceTensorError, match="unaligned"):
        check_tensor("entry", replace(table.row(1), address=260), [2], "float32", 0)
