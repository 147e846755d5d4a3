"""Frames in page-locked memory: lent to one at a time, taken back with the last reference, read where they lie."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from live2diff_trt.runtime.errors import FrameError, StreamClosedError
from live2diff_trt.runtime.frame import FinishedFrame, Image
from live2diff_trt.runtime.page_locked import FramePool, address_of
from live2diff_trt.runtime.source import TestPatternSource
from live2diff_trt.runtime.stream import Stream
from tests.runtime.emulated_bench import Bench, pictures, run
from tests.runtime.emulated_device import EmulatedGpu
from tests.runtime.emulated_streams import Pace


@pytest.fixture
def pool(gpu: EmulatedGpu) -> FramePool:
    return FramePool(gpu)


def place_of(frame: Image) -> int:
    address = address_of(frame)
    assert address is not None
    return address


def locked(stream: Stream, picture: Image) -> Image:
    """Return a picture in a frame of the stream's."""
    frame = stream.empty_frame(*picture.shape[:2])
    frame[:] = picture
    return frame


def same(found: list[FinishedFrame], expected: list[FinishedFrame]) -> bool:
    return [frame.index for frame in found] == [frame.index for frame in expected] and all(
        np.array_equal(one.image, other.image) for one, other in zip(found, expected, strict=True)
    )


def test_a_frame_is_an_array_in_page_locked_memory(pool: FramePool, gpu: EmulatedGpu) -> None:
    frame = pool.empty(3, 5)
    assert frame.shape == (3, 5, 3)
    assert frame.dtype == np.uint8
    assert frame.flags.c_contiguous
    assert frame.flags.writeable
    assert place_of(frame) == frame.ctypes.data
    assert gpu.pinned.holds(place_of(frame), 45)


def test_what_is_no_whole_frame_has_no_address(pool: FramePool) -> None:
    frame = pool.empty(4, 4)
    assert [address_of(one) for one in (frame[1:], frame[:, ::-1], frame.copy(), np.empty((4, 4, 3), np.uint8))] == [
        None
    ] * 4


def test_memory_comes_back_with_the_last_reference(pool: FramePool, gpu: EmulatedGpu) -> None:
    first = pool.empty(4, 4)
    first_place, corner = place_of(first), first[:1, :1]
    del first
    second = pool.empty(4, 4)
    assert place_of(second) != first_place  # the corner may still be read
    del corner
    assert place_of(pool.empty(4, 2)) == first_place
    assert gpu.pinned.allocated == 2 * 48


def test_larger_frames_take_the_place_of_smaller_ones(pool: FramePool, gpu: EmulatedGpu) -> None:
    frames = [pool.empty(4, 4) for _ in range(3)]
    frames.clear()
    large = pool.empty(8, 8)
    assert gpu.pinned.allocated == large.nbytes


def test_a_frame_outlives_its_pool(pool: FramePool, gpu: EmulatedGpu) -> None:
    kept, _ = pool.empty(4, 4), pool.empty(4, 4)
    del _
    pool.close()
    assert gpu.pinned.allocated == kept.nbytes
    kept[:] = 1
    del kept
    assert gpu.pinned.allocated == 0


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("haste", [0, 1, 0.5])
def test_page_locked_frames_give_the_same_pictures(bench: Bench, gpu: EmulatedGpu, overlap: bool, haste: float) -> None:
    """Of frames that are forgotten when they were given, as a source does; their memory is then another frame's."""
    frames = [*pictures(12), *pictures(3, 50, 90)]
    expected = bench.device(run(frames, ahead=3), "split", overlap=overlap)
    gpu.keep_pace(Pace((haste,) * 4))

    def use(stream: Stream) -> list[FinishedFrame]:
        return list(stream.run((locked(stream, picture) for picture in frames), ahead=3))

    assert same(bench.device(use, "split", overlap=overlap), expected)
    gc.collect()
    assert gpu.pinned.allocated == 0


def test_a_page_locked_frame_is_not_copied_by_the_host(bench: Bench, gpu: EmulatedGpu) -> None:
    """What it holds when the tick is done is what counts, not what it held when it was given."""
    frames = pictures(10)
    expected = bench.device(run(frames), "split", steps=1)
    with bench.stream("split", 2, steps=1) as stream:
        found = [finished for picture in frames[:8] for finished in stream(picture)]
        for picture in frames[8:]:
            frame = locked(stream, 255 - picture)
            stream._take(frame, None)
            frame[:] = picture
            found += stream._deliver()
    assert same(found, expected)


def test_memory_does_not_grow_with_the_clip(bench: Bench, gpu: EmulatedGpu) -> None:
    with bench.stream("split", 2) as stream, TestPatternSource(80, 60, frame_count=40) as source:
        source.new_frame = stream.empty_frame
        before = gpu.pinned.allocated
        assert len(list(stream.run(source, ahead=3))) == 40
        assert gpu.pinned.allocated - before < 10 * 80 * 60 * 3


@pytest.mark.parametrize(("height", "width"), [(0, 4), (4, 0), (-1, 4)])
def test_a_frame_of_no_pixels_is_refused(bench: Bench, gpu: EmulatedGpu, height: int, width: int) -> None:
    with bench.stream("split", 2) as stream, pytest.raises(FrameError, match=f"{width}x{height}"):
        stream.empty_frame(height, width)


def test_a_closed_stream_has_no_frames(bench: Bench, gpu: EmulatedGpu) -> None:
    stream = bench.stream("split", 2)
    stream.close()
    with pytest.raises(StreamClosedError):
        stream.empty_frame(4, 4)
