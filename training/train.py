"""The whole training, from packed footage to weights: first the autoencoder, then UNet and text encoder together."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from live2diff_trt.bundle.spec import check_size
from live2diff_trt.export.presets import TINY
from live2diff_trt.export.trained_weights import TrainedWeights
from live2diff_trt.training.autoencoder_training import AutoencoderLoss
from live2diff_trt.training.clip_sampler import ClipSampler
from live2diff_trt.training.judge import AutoencoderJudge, StyleJudge
from live2diff_trt.training.loop import Budget, FindLoss, Judge, Loop, LoopOptions, TrainingLog
from live2diff_trt.training.networks import SINK, TWIN, Networks
from live2diff_trt.training.packed import HELD_OUT_FILE, TRAINING_FILE, read_packed
from live2diff_trt.training.provenance import write_provenance
from live2diff_trt.training.structure_map import make_structure_map
from live2diff_trt.training.style_training import StyleLoss

logger = logging.getLogger(__name__)

LOG_FILE = "training-log.jsonl"
_AUTOENCODER_SHARE = 0.25
"""Of the minutes."""
_AUTOENCODER_RATE, _STYLE_RATE = 2e-3, 1e-3


@dataclass(frozen=True)
class TrainingOptions:
    """What is trained, from what, for how long.

    Attributes:
        footage: folder of packed footage.
        out: folder for weights, log and checkpoints; training goes on from checkpoints that lie there.
        minutes: for all of it.
        steps: no more than so many of each network; None: as many as fit.
        seed: of weights, footage and noise.
        device: as PyTorch names it.
        clips, frames: of a batch; a clip begins with 8 warm-up frames.
        width, height: of the pictures, in pixels.
        judge_every: steps between two lines of the log, with figures of held-out footage.
        twin: train the twin without temporal attention instead, with the autoencoder that lies in ``out``.
    """

    footage: Path
    out: Path
    minutes: float = 18.0
    steps: int | None = None
    seed: int = 0
    device: str = "cuda"
    clips: int = 12
    frames: int = 20
    width: int = 192
    height: int = 128
    judge_every: int = 250
    twin: bool = False

    def __post_init__(self) -> None:
        check_size(self.width, self.height)

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values, without folders."""
        return {key: value for key, value in asdict(self).items() if not isinstance(value, Path)}


class Trainer:
    """Trains one network after the other, and writes each when it is done."""

    def __init__(self, options: TrainingOptions) -> None:
        options.out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(options.seed)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        self._options = options
        self._device = torch.device(options.device)
        self._log = TrainingLog(options.out / LOG_FILE)
        self._held_out = read_packed(options.footage / HELD_OUT_FILE)
        shots = read_packed(options.footage / TRAINING_FILE)
        self._sampler = ClipSampler(shots, options.width, options.height, options.seed, self._device)
        self.networks = Networks.make(TWIN if options.twin else TINY, self._device)
        self._weights = TrainedWeights(options.out)

    def run(self) -> None:
        """Train until the minutes are used; write weights, beside them log, licence and sources."""
        started = time.perf_counter()
        self._log.write(event="start", torch=torch.__version__, runs_on=self._name_device(), **self._options.to_json())
        write_provenance(self._options.out)
        if self._options.twin:
            self.take_autoencoder()
        else:
            self.train_autoencoder()
        self.train_styles()
        self._log.write(event="end", minutes=round((time.perf_counter() - started) / 60, 2))

    def train_autoencoder(self) -> None:
        """Train the autoencoder, which stays as it is from then on."""
        options, autoencoder = self._options, self.networks.autoencoder
        pictures = 2 * max(1, options.clips * options.frames // 8)
        loss = AutoencoderLoss(autoencoder, self.networks.structure, self._sampler, pictures)
        judge = AutoencoderJudge(self.networks, self._held_out, self._device)
        budget = Budget(options.minutes * _AUTOENCODER_SHARE, options.steps)
        modules = nn.ModuleDict({"autoencoder": autoencoder})
        self._train("autoencoder", modules, budget, _AUTOENCODER_RATE, loss, judge)
        autoencoder.requires_grad_(False)
        self._weights.save("autoencoder", autoencoder)
        self._weights.save("depth", make_structure_map())

    def take_autoencoder(self) -> None:
        """Take the autoencoder that lies in ``out``, trained; raise CheckpointError if that training is not done."""
        autoencoder = self._weights.autoencoder(TINY, torch.float32).to(self._device)
        self.networks = replace(self.networks, autoencoder=autoencoder)

    def train_styles(self) -> None:
        """Train UNet and text encoder, which has no other task than to tell the UNet what is wanted."""
        options, networks = self._options, self.networks
        loss = StyleLoss(networks, self._sampler, options.clips, options.frames)
        judge = StyleJudge(networks, self._held_out, SINK + 16, self._device)
        budget = Budget(options.minutes * (1 - _AUTOENCODER_SHARE), options.steps)
        modules = nn.ModuleDict({"unet": networks.unet, "text_encoder": networks.text_encoder})
        self._train("twin" if options.twin else "styles", modules, budget, _STYLE_RATE, loss, judge)
        weights = TrainedWeights(options.out / "twin") if options.twin else self._weights
        weights.save("unet", networks.unet)
        weights.save("text_encoder", networks.text_encoder)

    def _train(
        self, name: str, modules: nn.ModuleDict, budget: Budget, rate: float, loss: FindLoss, judge: Judge
    ) -> None:
        """Run one loop. Footage and noise are drawn anew from the seed and the step that it goes on from."""
        loop = Loop(modules, LoopOptions(name, budget, rate, self._options.judge_every), self._log, self._options.out)
        self._sampler.random.seed(f"{self._options.seed} {name} {loop.step}")
        torch.manual_seed(self._options.seed + loop.step)
        loop.run(loss, judge)

    def _name_device(self) -> str:
        return torch.cuda.get_device_name() if self._device.type == "cuda" else "CPU"
