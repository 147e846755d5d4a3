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
from live2diff_trt.training.autoencoder_training import AutoencoderTask
from live2diff_trt.training.clip_sampler import ClipSampler
from live2diff_trt.training.compiled import compile_unet
from live2diff_trt.training.gradients import Batch, Task
from live2diff_trt.training.judge import AutoencoderJudge, StyleJudge
from live2diff_trt.training.loop import Budget, Judge, Loop, LoopOptions, TrainingLog
from live2diff_trt.training.networks import SINK, TWIN, Networks
from live2diff_trt.training.packed import HELD_OUT_FILE, TRAINING_FILE, read_packed
from live2diff_trt.training.provenance import write_provenance
from live2diff_trt.training.structure_map import make_structure_map
from live2diff_trt.training.style_training import StyleTask

logger = logging.getLogger(__name__)

LOG_FILE = "training-log.jsonl"
_STYLES = "styles"
"""Name of the network in the log."""
_AUTOENCODER_SHARE = 0.25
"""Of the minutes."""
_AUTOENCODER_RATE, _STYLE_RATE = 1e-3, 8e-4


@dataclass(frozen=True)
class TrainingOptions:
    """What is trained, from what, for how long.

    Attributes:
        footage: folder of packed footage.
        out: folder for weights, log and checkpoints; training goes on from checkpoints that lie there.
        minutes: for all of it.
        steps: no more than so many of each network; None: as many as fit, of the twin as many as the network in ``out``
            took.
        seed: of weights, footage and noise.
        device: as PyTorch names it.
        clips, frames: of a batch; a clip begins with 8 warm-up frames.
        width, height: of the pictures, in pixels.
        judge_every: steps between two lines of the log, with figures of held-out footage.
        pause_after: minutes after which a run saves and stops, to be gone on with; None: it runs to the end.
        compiled: whether to compile the UNet, which takes most of a minute in every run; None: on a GPU.
        captured: whether to launch losses and gradients as CUDA graphs; None: on a GPU.
        twin: train the twin without temporal attention instead, with the autoencoder that lies in ``out``.
    """

    footage: Path
    out: Path
    minutes: float = 18.0
    steps: int | None = None
    seed: int = 0
    device: str = "cuda"
    clips: int = 10
    frames: int = 24
    width: int = 192
    height: int = 128
    judge_every: int = 250
    pause_after: float | None = None
    compiled: bool | None = None
    captured: bool | None = None
    twin: bool = False

    def __post_init__(self) -> None:
        check_size(self.width, self.height)

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values, without folders."""
        return {key: value for key, value in asdict(self).items() if not isinstance(value, Path)}


class Trainer:
    """Trains one network after the other, and writes each when it is done."""

    def __init__(self, options: TrainingOptions) -> None:
        self._started = time.perf_counter()
        options.out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(options.seed)
        # Networks are trained in bfloat16. What is not, the filters' targets among it, is worth float32's exactness.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
        self._options = options
        self._device = torch.device(options.device)
        self._log = TrainingLog(options.out / LOG_FILE)
        self._held_out = read_packed(options.footage / HELD_OUT_FILE)
        shots = read_packed(options.footage / TRAINING_FILE)
        self._sampler = ClipSampler(shots, options.width, options.height, options.seed, self._device)
        self.networks = Networks.make(TWIN if options.twin else TINY, self._device)
        self._weights = TrainedWeights(options.out)

    def run(self) -> bool:
        """Train until the minutes are used; write weights, beside them log, licence and sources.

        Returns:
            Whether it came to the end. If not, it paused, and the same options go on from there.
        """
        self._log.write(event="start", torch=torch.__version__, runs_on=self._name_device(), **self._options.to_json())
        write_provenance(self._options.out)
        if self._options.twin:
            self.take_autoencoder()
        done = (self._options.twin or self.train_autoencoder()) and self.train_styles()
        minutes = round((time.perf_counter() - self._started) / 60, 2)
        self._log.write(event="end" if done else "pause", minutes=minutes)
        return done

    def train_autoencoder(self) -> bool:
        """Train the autoencoder, which stays as it is from then on; return whether that was finished."""
        options, autoencoder = self._options, self.networks.autoencoder
        pictures = 2 * max(1, options.clips * options.frames // 8)
        task = AutoencoderTask(autoencoder, self.networks.structure, self._sampler, pictures)
        judge = AutoencoderJudge(self.networks, self._held_out, self._device)
        budget = Budget(options.minutes * _AUTOENCODER_SHARE, options.steps)
        modules = nn.ModuleDict({"autoencoder": autoencoder})
        if not self._train("autoencoder", modules, budget, _AUTOENCODER_RATE, task, judge):
            return False
        autoencoder.requires_grad_(False)
        self._weights.save("autoencoder", autoencoder)
        self._weights.save("depth", make_structure_map())
        return True

    def take_autoencoder(self) -> None:
        """Take the autoencoder that lies in ``out``, trained; raise CheckpointError if that training is not done."""
        autoencoder = self._weights.autoencoder(TINY, torch.float32).to(self._device)
        self.networks = replace(self.networks, autoencoder=autoencoder)

    def train_styles(self) -> bool:
        """Train UNet and text encoder, which has no other task than to tell the UNet what is wanted.

        Returns:
            Whether that was finished.
        """
        options, networks = self._options, self.networks
        run_unet = compile_unet(networks.unet) if self._choose(options.compiled) else None
        task = StyleTask(networks, self._sampler, options.clips, options.frames, run_unet)
        judge = StyleJudge(networks, self._held_out, SINK + 16, self._device)
        steps = self._log.last_step(_STYLES) if options.twin and options.steps is None else options.steps
        budget = Budget(options.minutes * (1 - _AUTOENCODER_SHARE), steps)
        modules = nn.ModuleDict({"unet": networks.unet, "text_encoder": networks.text_encoder})
        if not self._train("twin" if options.twin else _STYLES, modules, budget, _STYLE_RATE, task, judge):
            return False
        weights = TrainedWeights(options.out / "twin") if options.twin else self._weights
        weights.save("unet", networks.unet)
        weights.save("text_encoder", networks.text_encoder)
        return True

    def _train(
        self, name: str, modules: nn.ModuleDict, budget: Budget, rate: float, task: Task[Batch], judge: Judge
    ) -> bool:
        options = self._options
        pause_at = None if options.pause_after is None else self._started + 60 * options.pause_after
        draws = _STYLES if options.twin else name
        captured = self._choose(options.captured)
        loop_options = LoopOptions(
            name, budget, rate, options.seed, draws, options.judge_every, pause_at=pause_at, captured=captured
        )
        return Loop(modules, loop_options, self._log, options.out).run(task, judge)

    def _choose(self, wanted: bool | None) -> bool:
        """Return what was chosen; left open, it is for GPUs alone."""
        return self._device.type == "cuda" if wanted is None else wanted

    def _name_device(self) -> str:
        return torch.cuda.get_device_name() if self._device.type == "cuda" else "CPU"
