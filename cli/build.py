"""``live2diff-trt build``: makes TensorRT plans of a bundle."""

from __future__ import annotations

import re
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from live2diff_trt.bundle.errors import SpecError
from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.cli.choices import FlavourOption, FormOption
from live2diff_trt.cli.console import messages, output
from live2diff_trt.engine.errors import GpuError
from live2diff_trt.engine.flavour import ComputeCapability, choose_flavour
from live2diff_trt.engine.gpu import detect_gpu

if TYPE_CHECKING:
    from live2diff_trt.engine.build import BuildProgress


def build(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    flavour: Annotated[FlavourOption, typer.Option(help="Which TensorRT.")] = FlavourOption.auto,
    form: Annotated[
        FormOption, typer.Option(help="The UNet in segments around our attention kernels, or as one plan.")
    ] = FormOption.in_segments,
    rows: Annotated[int | None, typer.Option(min=1, help="Rows the UNet takes at once; the bundle's T.")] = None,
    target_cc: Annotated[
        str | None, typer.Option("--target-cc", help="Build for GPUs of this compute capability, as in 8.9.")
    ] = None,
    refittable: Annotated[
        bool, typer.Option("--refittable", help="Weights can be replaced later, as by a style. Needs a GPU.")
    ] = False,
    plans: Annotated[Path | None, typer.Option("--plans", help="Folder of all plans; a cache of the user's.")] = None,
    device: Annotated[int, typer.Option(min=0, help="Which GPU.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Build again what was built before.")] = False,
) -> None:
    """Build the TensorRT plans of a bundle for one kind of GPU."""
    started = time.perf_counter()
    wanted = None if target_cc is None else read_compute_capability(target_cc)
    here = detect_gpu(device)
    gpu = None if here is None else here.compute_capability
    target = _choose_target(wanted, gpu)
    chosen, reason = choose_flavour(flavour.value, gpu if target == gpu else None)
    messages.print(f"[dim]{chosen.name}: {reason}[/]")
    # The builder needs onnx, which comes with the flavours: what can't be had is refused before it is imported.
    from live2diff_trt.engine.build import BuildOptions, build_plans
    from live2diff_trt.engine.store import PlanStore

    options = BuildOptions(target=target, gpu=gpu, form=form.value, rows=rows, refittable=refittable)
    with PlanProgress(messages) as progress:
        built = build_plans(Bundle.open(bundle), chosen, PlanStore(plans), options, progress.show, overwrite=overwrite)
    seconds = time.perf_counter() - started
    output.print(f"{built.folder}: {built.bytes / 1e6:,.0f} MB in {seconds:.1f} s", soft_wrap=True)


def read_compute_capability(text: str) -> ComputeCapability:
    """Read MAJOR.MINOR; raise SpecError if it is something else."""
    form = re.fullmatch(r"(\d+)\.(\d)", text)
    if form is None:
        raise SpecError(f"{text!r} is not a compute capability", "Write MAJOR.MINOR, as in --target-cc 8.9")
    return int(form[1]), int(form[2])


def _choose_target(wanted: ComputeCapability | None, gpu: ComputeCapability | None) -> ComputeCapability:
    """Return the compute capability to build for: the one asked for, else that of the GPU in this machine."""
    target = wanted or gpu
    if target is None:
        raise GpuError(
            "this machine has no GPU to build for",
            "Name the compute capability of the GPU that will run the plans, as in --target-cc 8.9",
        )
    return target


class PlanProgress:
    """Two bars: which plan of how many, and what TensorRT does with it."""

    def __init__(self, console: Console) -> None:
        self._display = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        self._plans = self._display.add_task("plans", total=None)
        self._phase = self._display.add_task("", total=None)

    def __enter__(self) -> PlanProgress:
        self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.stop()

    def show(self, progress: BuildProgress) -> None:
        """Show how far a build is."""
        self._display.update(self._plans, description=progress.plan, completed=progress.index, total=progress.plans)
        self._display.update(self._phase, description=progress.phase, completed=progress.done, total=progress.steps)
