"""Our kernels and TensorRT's plans against the reference's recordings, in float16. Run with ``pytest -m gpu``."""

from __future__ import annotations

import numpy as np
import pytest

from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.conformance.goldens import Goldens
from live2diff_trt.conformance.replay import replay_closed_loop, replay_open_loop
from live2diff_trt.conformance.run import describe_recording
from live2diff_trt.conformance.torch_network import TorchNetwork
from live2diff_trt.engine.deviation import relative_error
from live2diff_trt.engine.plan_manifest import Form
from live2diff_trt.engine.store import StoredPlans
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.model.weights import load_unet
from live2diff_trt.runtime.denoiser import Denoiser, PhiloxNoise
from live2diff_trt.runtime.kv_ring import Array
from live2diff_trt.runtime.network import Network

pytestmark = pytest.mark.gpu

TOLERANCE = 2e-2


@pytest.fixture(scope="module", params=["split", "whole"])
def form(request: pytest.FixtureRequest) -> Form:
    return request.param


@pytest.fixture(scope="module")
def stored(goldens: Goldens, form: Form, tmp_path_factory: pytest.TempPathFactory) -> StoredPlans:
    """Plans for two rows, whatever the number of steps."""
    from live2diff_trt.conformance.tensorrt_network import build_recorded_plans

    spec = describe_recording(goldens, goldens.recording(2)).with_dtype("float16")
    unet = load_unet(goldens.configuration, goldens.weights())
    return build_recorded_plans(tmp_path_factory.mktemp(form), unet, spec, TensorRTOptions(form=form))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_recordings_are_replayed(goldens: Goldens, stored: StoredPlans, form: Form, steps: int) -> None:
    from live2diff_trt.conformance.tensorrt_network import open_tensorrt_network

    recording = goldens.recording(steps)
    spec = describe_recording(goldens, recording).with_dtype("float16")
    with open_tensorrt_network(stored, spec, TensorRTOptions(form=form)) as network:
        for replay in (replay_open_loop(spec, network, recording), replay_closed_loop(spec, network, recording)):
            worst = replay.worst_relative
            assert worst.relative <= TOLERANCE, f"{worst.tensor}: {worst.relative:.2e}"


def test_errors_do_not_grow_over_500_ticks(goldens: Goldens, stored: StoredPlans, form: Form) -> None:
    from live2diff_trt.conformance.tensorrt_network import open_tensorrt_network

    exact = describe_recording(goldens, goldens.recording(2))
    embeddings = goldens.recording(2).prompt_embeddings
    wanted = stream_noise(TorchNetwork(load_unet(goldens.configuration, goldens.weights())), exact, embeddings)
    rounded = exact.with_dtype("float16")
    with open_tensorrt_network(stored, rounded, TensorRTOptions(form=form)) as network:
        found = stream_noise(network, rounded, embeddings)
    errors = [relative_error(one, other) for one, other in zip(found, wanted, strict=True)]
    assert np.median(errors[400:500]) <= 1.2 * np.median(errors[20:120])


def stream_noise(network: Network, spec: StreamSpec, embeddings: Array) -> list[Array]:
    """Stream 500 random frames; return the clean latent that leaves with each tick."""
    generator = np.random.default_rng(1)

    def draw(count: int) -> Array:
        return generator.standard_normal((count, *spec.latent_shape)).astype(np.float16).astype(spec.dtype)

    network.set_prompt(embeddings)
    denoiser = Denoiser(spec, network, PhiloxNoise(3, spec.latent_shape))
    denoiser.warm_up(draw(spec.sink), draw(spec.sink))
    left = []
    for tick in range(501):
        denoiser.enter(spec.sink + tick, draw(1)[0], draw(1)[0])
        left.append(denoiser.tick().prediction.x0[-1])
    return left[spec.steps - 1 :]
