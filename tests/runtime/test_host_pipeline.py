"""The pipeline of ONNX Runtime on a real bundle: prompts reach the network, pictures leave in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine.onnxruntime_backend import OnnxGraphs, OnnxRuntimeOptions
from live2diff_trt.runtime.errors import FrameError
from live2diff_trt.runtime.frame import Image
from live2diff_trt.runtime.host_pipeline import HostPipeline
from live2diff_trt.runtime.prompt import PromptTokenizer
from live2diff_trt.runtime.stream_rows import StreamRoom

OPTIONS = OnnxRuntimeOptions(threads=1)
CLIP = np.random.default_rng(5).integers(0, 256, (12, 48, 80, 3), np.uint8)


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle)


@pytest.fixture(scope="module")
def opened(bundle: Bundle) -> HostPipeline:
    """Opened once, since that takes longest; ``pipeline`` begins anew for each test."""
    return HostPipeline(bundle, bundle.spec, OPTIONS, seed=7, room=StreamRoom(8))


@pytest.fixture
def pipeline(opened: HostPipeline) -> Iterator[HostPipeline]:
    opened.reset()
    set_prompt(opened, "")
    yield opened
    opened.reset()


def set_prompt(pipeline: HostPipeline, prompt: str) -> None:
    pipeline.set_text_embeddings(pipeline.encode_prompt(prompt))


def gather(pipeline: HostPipeline, frames: int = 8) -> None:
    for frame in range(frames):
        pipeline.gather(frame, CLIP[frame])


def warm_up(pipeline: HostPipeline, frames: int = 8) -> list[Image]:
    gather(pipeline, frames)
    return list(pipeline.warm_up(frames).wait())


def test_a_prompt_goes_through_the_text_encoder_into_every_cross_attention(
    pipeline: HostPipeline, bundle: Bundle
) -> None:
    set_prompt(pipeline, "a red fox")
    ids = PromptTokenizer(bundle).tokenize("a red fox")
    graphs = OnnxGraphs(bundle.folder, bundle.manifest.signatures, OPTIONS)
    embeddings = graphs.open("text_encoder").run({"token_ids": ids[None]})["text_embeddings"]
    assert embeddings.shape == (1, bundle.spec.prompt_tokens, bundle.spec.text_channels)
    expected = graphs.open("prompt_kv").run({"text_embeddings": embeddings})
    assert len(expected) == 2 * len(bundle.spec.prompt_kvs) > 0
    for name, tensor in expected.items():
        np.testing.assert_array_equal(pipeline._network._prompt[name], tensor)
        for row in pipeline._network._tick_prompt[name]:
            np.testing.assert_array_equal(row, tensor[0])


def test_another_prompt_is_another_picture_and_the_same_one_the_same(pipeline: HostPipeline) -> None:
    pictures = []
    for prompt in ("a red fox", "snow at night", "a red fox"):
        pipeline.reset()
        set_prompt(pipeline, prompt)
        pictures.append(np.stack(warm_up(pipeline)))
    np.testing.assert_array_equal(pictures[0], pictures[2])
    assert (pictures[0] != pictures[1]).any()


def test_a_prompt_acts_from_the_next_tick_on(pipeline: HostPipeline) -> None:
    def stream(change_before: int | None) -> list[Image]:
        pipeline.reset()
        set_prompt(pipeline, "a red fox")
        warm_up(pipeline)
        pictures: list[Image] = []
        for frame in range(8, 12):
            if frame == change_before:
                set_prompt(pipeline, "snow at night")
            pictures += pipeline.tick(frame, CLIP[frame]).pending.wait()
        return pictures

    same, changed = stream(None), stream(10)
    assert len(same) == len(changed) == 3  # T = 2: the first tick finishes none
    np.testing.assert_array_equal(same[0], changed[0])
    assert (same[1] != changed[1]).any()


def test_frames_leave_one_tick_after_they_came(pipeline: HostPipeline, bundle: Bundle) -> None:
    assert bundle.spec.steps == 2
    warm_up(pipeline)
    left = []
    for frame in (8, 9, None, None):
        submitted = pipeline.tick(frame, None if frame is None else CLIP[frame])
        pictures = submitted.pending.wait()
        left.append((submitted.finished, len(pictures), pipeline.in_flight))
        assert all(picture.shape == (64, 64, 3) and picture.dtype == np.uint8 for picture in pictures)
    assert left == [(None, 0, 1), (8, 1, 1), (9, 1, 0), (None, 0, 0)]


def test_a_short_clip_repeats_its_last_frame_and_delivers_the_real_ones(pipeline: HostPipeline) -> None:
    short = warm_up(pipeline, 3)
    assert len(short) == 3
    pipeline.reset()
    for frame in range(8):
        pipeline.gather(frame, CLIP[min(frame, 2)])
    np.testing.assert_array_equal(short, pipeline.warm_up(8).wait()[:3])


def test_a_frame_that_is_none_leaves_everything_as_it_was(pipeline: HostPipeline) -> None:
    expected = warm_up(pipeline)
    pipeline.reset()
    gather(pipeline, 5)
    with pytest.raises(FrameError):
        pipeline.gather(5, CLIP[5].astype(np.float32))
    for frame in range(5, 8):
        pipeline.gather(frame, CLIP[frame])
    np.testing.assert_array_equal(pipeline.warm_up(8).wait(), expected)
    with pytest.raises(FrameError):
        pipeline.tick(8, CLIP[8, ..., :2])
    assert pipeline.in_flight == 0


def test_resetting_forgets_frames_that_were_gathered(pipeline: HostPipeline) -> None:
    expected = warm_up(pipeline)
    pipeline.reset()
    pipeline.gather(0, CLIP[11])
    pipeline.reset()
    np.testing.assert_array_equal(warm_up(pipeline), expected)
