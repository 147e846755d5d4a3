"""The two flavours of TensorRT behind one API. The only file that imports ``tensorrt`` or ``tensorrt_rtx``."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from importlib import import_module
from threading import get_ident
from typing import Any, Literal

from live2diff_trt.engine.errors import FlavourError

FlavourName = Literal["tensorrt", "tensorrt-rtx"]
FlavourChoice = Literal["auto", "tensorrt", "tensorrt-rtx"]
ComputeCapability = tuple[int, int]

_MODULES: dict[FlavourName, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_RTX_TARGETS = {(7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1)}
_HOPPER = (9, 0)
_OLDEST_WITH_TENSOR_CORES = (7, 5)
_CANCELLED = "BuildCanceled"
"""In the message with which a build ends that we stopped: no error of TensorRT's."""
_SILENCE = "it did not say why"
_tensorrt_log = logging.getLogger("live2diff_trt.tensorrt")


@dataclass(frozen=True)
class Flavour:
    """A flavour that is installed.

    Attributes:
        version: of the library, as in 1.6.1.120.
        module: the imported package.
    """

    name: FlavourName
    version: str
    module: Any = field(compare=False, repr=False)

    @property
    def is_rtx(self) -> bool:
        """Whether this is TensorRT for RTX: it builds without a GPU, and compiles kernels when a plan is opened."""
        return self.name == "tensorrt-rtx"


@dataclass(frozen=True)
class Verdict:
    """Whether a flavour can be used on a GPU, and why. ``version`` is None where it is not installed."""

    name: FlavourName
    version: str | None
    usable: bool
    reason: str


def judge_flavours(compute_capability: ComputeCapability | None) -> tuple[Verdict, ...]:
    """Judge every flavour for the GPU of this machine, best first; None: there is no GPU, plans are built ahead."""
    return tuple(_judge(name, compute_capability)[1] for name in _MODULES)


def choose_flavour(choice: FlavourChoice, compute_capability: ComputeCapability | None) -> tuple[Flavour, str]:
    """Return the flavour to use, and why.

    Args:
        choice: ``auto`` prefers ``tensorrt``, whose kernels are the newest; a name is taken as it is, never replaced.
        compute_capability: of the GPU in this machine; None where there is none, and plans are built ahead.

    Raises:
        FlavourError: if none is usable, or not the one that was named.
    """
    names = tuple(_MODULES) if choice == "auto" else (choice,)
    judged = [_judge(name, compute_capability) for name in names]
    for flavour, verdict in judged:
        if flavour is not None and verdict.usable:
            return flavour, verdict.reason
    reasons = "; ".join(f"{verdict.name}: {verdict.reason}" for _, verdict in judged)
    if choice == "auto":
        remedy = "Install one with `pip install live2diff-trt[tensorrt-rtx]`"
        raise FlavourError(f"no flavour of TensorRT can be used ({reasons})", remedy)
    remedy = f"Install it with `pip install live2diff-trt[{choice}]` where its GPU is, or use --flavour auto"
    raise FlavourError(f"the flavour that was asked for can't be used ({reasons})", remedy)


def refuse_target(flavour: Flavour, target: ComputeCapability, gpu: ComputeCapability | None) -> None:
    """Raise FlavourError if plans for GPUs of compute capability ``target`` can't be built where ``gpu`` is."""
    if flavour.is_rtx:
        obstacle = _find_rtx_obstacle(flavour.version, target)
        remedy = "Choose another --target-cc, or another --flavour on a machine with that GPU"
    else:
        obstacle = None if target == gpu else "tensorrt builds only for the GPU of its own machine"
        remedy = f"Build on a machine with a GPU of compute capability {_dotted(target)}, or use --flavour tensorrt-rtx"
    if obstacle is not None:
        raise FlavourError(f"no plans can be built for compute capability {_dotted(target)}: {obstacle}", remedy)


def build_target(compute_capability: ComputeCapability) -> ComputeCapability:
    """Return what TensorRT-RTX must compile a plan for, so that it runs on a GPU."""
    # Hopper is none of RTX's targets. Plans for 8.9 run there, and as fast as any; with the default targets the context
    # of some plans can't be created ("Compatible cubin or ptx module for device target '90' not found"), and plans for
    # CURRENT are a quarter slower.
    return (8, 9) if compute_capability == _HOPPER else compute_capability


class LogMessages:
    """The first and the last error that TensorRT logged: its calls return None, its log says why.

    Several threads may call TensorRT at once, each after ``clear``. Each finds the errors that were logged in its own
    thread, and those of TensorRT's own threads, which can't be told apart; never those of another caller.
    """

    def __init__(self) -> None:
        self._errors: list[tuple[int, str]] = []  # of every thread, with its number
        self._callers: dict[int, int] = {}  # thread → how many errors there were when it cleared

    def note(self, message: str) -> None:
        """Keep an error of this thread."""
        self._errors.append((get_ident(), " ".join(message.split()).rstrip(".")))

    def clear(self) -> None:
        """Forget all errors, as far as this thread is concerned."""
        self._callers[get_ident()] = len(self._errors)

    def first(self) -> str:
        """Return the oldest error since ``clear``: the cause, where the others are its consequences."""
        return next(iter(self._find()), _SILENCE)

    def last(self) -> str:
        """Return the newest error since ``clear``."""
        return next(reversed(self._find()), _SILENCE)

    def _find(self) -> list[str]:
        me = get_ident()
        errors = self._errors[self._callers.get(me, 0) :]
        return [error for thread, error in errors if thread == me or thread not in self._callers]


def make_logger(flavour: Flavour) -> tuple[Any, LogMessages]:
    """Return a logger for TensorRT that hands everything on to ``logging``, and the errors it keeps.

    TensorRT calls it from threads of its own. Its warnings concern developers, so they are logged as information.
    """
    trt = flavour.module
    base: Any = trt.ILogger
    messages = LogMessages()
    levels = {
        trt.ILogger.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.ERROR: logging.ERROR,
        trt.ILogger.WARNING: logging.INFO,
    }

    class ForwardingLogger(base):  # type: ignore[misc]
        """Hands messages on."""

        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, message: str) -> None:
            """Take one message."""
            level = levels.get(severity, logging.DEBUG)
            if _CANCELLED in message:
                level = logging.INFO
            _tensorrt_log.log(level, "%s", message)
            if level == logging.ERROR:
                messages.note(message)

    return ForwardingLogger(), messages


def _judge(name: FlavourName, compute_capability: ComputeCapability | None) -> tuple[Flavour | None, Verdict]:
    """Return the flavour, None where it can't be imported, and what is to be said of it."""
    try:
        module = import_module(_MODULES[name])
        flavour = Flavour(name, str(module.__version__), module)
    except (ImportError, OSError, AttributeError) as error:  # bindings without libraries, or a folder of that name
        return None, Verdict(name, None, usable=False, reason=f"it can't be imported ({str(error).rstrip('.')})")
    obstacle = _find_obstacle(flavour, compute_capability)
    if obstacle is not None:
        return flavour, Verdict(name, flavour.version, usable=False, reason=obstacle)
    place = "ahead of time" if compute_capability is None else f"on compute capability {_dotted(compute_capability)}"
    return flavour, Verdict(name, flavour.version, usable=True, reason=f"version {flavour.version} works {place}")


def _find_obstacle(flavour: Flavour, compute_capability: ComputeCapability | None) -> str | None:
    """Return why a flavour can't be used, or None."""
    if flavour.is_rtx:
        return None if compute_capability is None else _find_rtx_obstacle(flavour.version, compute_capability)
    if compute_capability is None:
        return "it builds only on the GPU that will run the plans, and there is none here"
    if compute_capability < _OLDEST_WITH_TENSOR_CORES:
        return f"it does not support compute capability {_dotted(compute_capability)}"
    return None


def _find_rtx_obstacle(version: str, compute_capability: ComputeCapability) -> str | None:
    if compute_capability in _RTX_TARGETS:
        return None
    if compute_capability == _HOPPER:
        # Not in its list of GPUs: 1.4 to 1.6 load and run there all the same, 1.7 refuses.
        loads = (1, 4) <= _read_version(version) < (1, 7)
        return None if loads else f"version {version} refuses compute capability 9.0, which 1.4 to 1.6 take"
    return f"version {version} does not support compute capability {_dotted(compute_capability)}"


def _read_version(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _dotted(compute_capability: ComputeCapability) -> str:
    return ".".join(map(str, compute_capability))
