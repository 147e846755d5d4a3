"""``live2diff-trt build``: makes TensorRT plans of a bundle."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from live2diff_trt.bundle.errors import SpecError
from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.cli.backend_options import DeviceOption, FlavourOption, PlansOption
from live2diff_trt.cli.choices import FlavourChoice, FormChoice
from live2diff_trt.cli.console import messages, output
from live2diff_trt.engine.errors import GpuError
from live2diff_trt.engine.flavour import ComputeCapability, Flavour, choose_flavour
from live2diff_trt.engine.gpu import Gpu, detect_gpu
from live2diff_trt.engine.tensorrt_options import TensorRTOptions

if TYPE_CHECKING:
    from live2diff_trt.engine.build_progress import BuildProgress
    from live2diff_trt.engine.store import StoredPlans
    from live2diff_trt.engine.verify import PlanCheck


def build(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    flavour: FlavourOption = FlavourChoice.auto,
    form: Annotated[
        FormChoice, typer.Option(help="The UNet in segments around our attention kernels, or as one plan.")
    ] = FormChoice.in_segments,
    rows: Annotated[int | None, typer.Option(min=1, help="Rows the UNet takes at once; the bundle's T.")] = None,
    target_cc: Annotated[
        str | None, typer.Option("--target-cc", help="Build for GPUs of this compute capability, as in 8.9.")
    ] = None,
    refittable: Annotated[
        bool, typer.Option("--refittable", help="Weights can be replaced later, as by a style. Needs a GPU.")
    ] = False,
    plans: PlansOption = None,
    device: DeviceOption = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Build again what was built before.")] = False,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Leave the plans' first opening on this GPU to the first run.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every plan with ONNX Runtime; exit 1 if one is off.")
    ] = False,
) -> None:
    """Build the TensorRT plans of a bundle for one kind of GPU, and open them once if it is this machine's."""
    started = time.perf_counter()
    wanted = None if target_cc is None else read_compute_capability(target_cc)
    here = detect_gpu(device)
    gpu = None if here is None else here.compute_capability
    target = _choose_target(wanted, gpu)
    runs_here = here if target == gpu else None
    if verify and runs_here is None:
        raise _not_verifiable(target)
    chosen, reason = choose_flavour(flavour.value, None if runs_here is None else gpu)
    messages.print(f"[dim]{chosen.name}: {reason}[/]")
    # The builder needs onnx, which comes with the flavours: what can't be had is refused before it is imported.
    from live2diff_trt.engine.build import BuildOptions, build_plans
    from live2diff_trt.engine.store import PlanStore

    options = BuildOptions(target=target, gpu=gpu, form=form.value, rows=rows, refittable=refittable)
    opened = Bundle.open(bundle)
    with PlanProgress(messages) as progress:
        built = build_plans(opened, chosen, PlanStore(plans), options, progress.show, overwrite=overwrite)
    seconds = time.perf_counter() - started
    output.print(f"{built.folder}: {built.bytes / 1e6:,.0f} MB in {seconds:.1f} s", soft_wrap=True)
    if runs_here is not None and not no_open:
        _open_once(opened, built, chosen, runs_here, device)
    if runs_here is not None and verify:
        _verify(opened, built, chosen, runs_here, device)


def _open_once(bundle: Bundle, stored: StoredPlans, flavour: Flavour, gpu: Gpu, device: int) -> None:
    """Open a stream on the plans as a run does, so that kernels are compiled and memory is measured before the first.

    Raises:
        DeviceMemoryError: if a stream would not fit into what is free on the GPU.
    """
    from live2diff_trt.runtime.cuda_session import open_plans, open_session
    from live2diff_trt.runtime.memory_estimate import estimate_session
    from live2diff_trt.runtime.stream_rows import StreamRoom

    options = TensorRTOptions(device=device)
    spec, room = bundle.spec, StreamRoom(bundle.spec.steps)
    with PlanProgress(messages) as progress:
        progress.announce("opening on this GPU")
        with open_plans(spec, stored, flavour, gpu, options, room=room) as plans:
            open_session(bundle, spec, plans, options, seed=0, room=room).close()
    measured = stored.facts(gpu).load_measured()
    estimate = estimate_session(spec, stored, measured, room=room, overlap=options.overlap)
    output.print(f"GPU memory: {estimate.total / 1e9:.2f} GB: {estimate.describe()}", soft_wrap=True, highlight=False)


def _verify(bundle: Bundle, stored: StoredPlans, flavour: Flavour, gpu: Gpu, device: int) -> None:
    """Compare every plan with its graph and print a table; raise PlanBuildError if one is off."""
    from live2diff_trt.engine.verify import refuse_failed
    from live2diff_trt.runtime.verify import verify_plans

    with PlanProgress(messages) as progress:
        checks = verify_plans(bundle, stored, flavour, gpu, device, progress.announce)
    output.print(_tabulate(checks))
    refuse_failed(checks)


def _tabulate(checks: Sequence[PlanCheck]) -> Table:
    table = Table("plan", "worst tensor", "error", "tolerance", "", title="plans against ONNX Runtime")
    for check in checks:
        verdict = "passed" if check.passed else "FAILED"
        table.add_row(check.plan, check.tensor, f"{check.error:.1e}", f"{check.tolerance:g}", verdict)
    return table


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


def _not_verifiable(target: ComputeCapability) -> GpuError:
    major, minor = target
    return GpuError(
        f"--verify runs the plans, and this machine has no GPU of compute capability {major}.{minor} to run them",
        "Leave --verify out, or build on the machine that will run the plans",
    )


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

    def announce(self, plan: str, done: int = 0, plans: int | None = None) -> None:
        """Show work on the plans that has no phases."""
        self._display.update(self._plans, description=plan, completed=done, total=plans)
        self._display.update(self._phase, visible=False)
