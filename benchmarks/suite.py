"""The suite: the base point with every backend, then one axis at a time, each point a process of its own.

1. Start-up is measured, while nothing else runs: it leaves the base point's bundle and plans.
2. The other bundles and plans are made, and PyTorch compiles, several processes at a time, each on the GPU on which its
   point will be measured; what failed, once more and one at a time, if it was not alone.
3. The points are measured, the base point first, each alone on its GPU; parts are written as they grow.
4. The parts become one results file.

What is interrupted goes on where it was, if it is started again the same way on the same code and machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from live2diff_trt.benchmarks.our_commands import build_command, export_command
from live2diff_trt.benchmarks.point import AXES, BASES, Point, choose_points
from live2diff_trt.benchmarks.results_file import RESULTS_FOLDER, ResultsFile
from live2diff_trt.benchmarks.rows import ROWS, SPLIT, TENSORRT_ROWS, best_rows, choose_builders, choose_rows
from live2diff_trt.benchmarks.suite_gpus import share_gpus
from live2diff_trt.benchmarks.suite_parts import WHAT_PLANS_ARE_MADE_BY, fingerprint_run, hash_sources, read_part
from live2diff_trt.benchmarks.suite_process import Job
from live2diff_trt.benchmarks.suite_tasks import ProcessRunner, RunTask, Task, run_tasks
from live2diff_trt.benchmarks.timing import MeasurementError
from live2diff_trt.engine.gpu import Gpu

_STARTUP = "startup"
_OF_BASE = ("limits", "memory", "unet", "frame", "latency", "steadiness", "stages", "kernels")
_LOAD_OF_BASE = 3.0
"""As long as so many others it takes."""
_OF_OTHERS = ("unet", "frame")
_OF_OTHER_NETWORKS = ("frame",)
"""The UNet is the base point's."""

_CACHES = {
    "LIVE2DIFF_TRT_CACHE": "kernels",
    "CUDA_CACHE_PATH": "cuda",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
}
_COMPILED_BY_A_FIRST_OPENING = ("LIVE2DIFF_TRT_CACHE", "CUDA_CACHE_PATH")


@dataclass(frozen=True)
class SuiteOptions:
    """What is measured, and where it is done.

    Attributes:
        work: folder of bundles, plans, compiled kernels, logs and parts; it is kept.
        out: folder of the results.
        base: the point from which the axes go.
        axes: names, some of ``point.AXES``.
        rows: names of backends at the base point.
        samples: of each figure. steady_ticks: in a row.
        jobs: processes that prepare at a time.
        gpus: how many there are, all alike; as many points are measured at a time, each alone on its GPU.
        clip, quality: a video, and the options of TensorRT that are compared with the usual ones on it.
    """

    work: Path
    out: Path = RESULTS_FOLDER
    base: Point = BASES["sd15"]
    axes: tuple[str, ...] = AXES
    rows: tuple[str, ...] = ROWS
    samples: int = 200
    steady_ticks: int = 2000
    jobs: int = 1
    gpus: int = 1
    clip: Path | None = None
    quality: tuple[str, ...] = ()


@dataclass(frozen=True)
class SuiteOutcome:
    """What a run of the suite came to.

    Attributes:
        path: of the results.
        results: what is in it.
        failed: what failed, and why; its parts are missing. Started again, the suite tries these anew.
    """

    path: Path
    results: ResultsFile
    failed: dict[str, str]


def run_suite(
    options: SuiteOptions,
    gpu: Gpu | None,
    *,
    run: RunTask | None = None,
    kill: Callable[[], None] = lambda: None,
    show: Callable[[str], None] = lambda _: None,
) -> SuiteOutcome:
    """Run the suite, or what is left of it.

    Args:
        options: what is measured.
        gpu: of this machine.
        run: runs a process; None: as it is. kill: ends what it runs.
        show: told what happens.

    Raises:
        MeasurementError: start-up can't be measured; nothing is written.
    """
    plan = SuitePlan(options, gpu)
    if run is None:
        run = processes = ProcessRunner(options.work / "logs", plan.environment)
        kill = processes.kill
    results = ResultsFile()

    def run_and_show(task: Task) -> str | None:
        show(task.name)
        problem = run(task)
        if problem is not None:
            show(f"{task.name} failed: {problem}")
        return problem

    startup, *jobs = plan.jobs()
    plan.forget_compiled(startup)
    problem = _measure(startup, 0, run_and_show)
    if problem is not None:  # everything stands on it
        raise MeasurementError(f"measuring start-up failed: {problem}", f"See {options.work / 'logs'}, and start again")

    def prepare(jobs: int) -> dict[str, str]:
        return run_tasks(plan.tasks(), jobs, plan.marking(run_and_show), kill)

    preparing = prepare(options.jobs)
    if preparing and options.jobs > 1:  # side by side they may have wanted more memory than there is
        preparing = prepare(1)

    by_name = {_name(job): job for job in jobs}

    def measure(task: Task) -> str | None:
        job = by_name[task.name]
        missing = [name for name in plan.needs(job) if name in preparing]
        return f"{missing[0]}: {preparing[missing[0]]}" if missing else _measure(job, task.gpu_index, run_and_show)

    points = [Task(name, job.command, (), plan.gpu_of(job.point)) for name, job in by_name.items()]
    failed = run_tasks(points, options.gpus, measure, kill, alone_on_gpu=True)
    _assemble(results, [startup, *jobs])
    results.not_run.update(failed)
    path = results.write(options.out)
    if not failed:
        shutil.rmtree(plan.parts)  # the next run measures anew
    return SuiteOutcome(path, results, failed)


class SuitePlan:
    """The processes of a suite, and where what they make lies."""

    def __init__(self, options: SuiteOptions, gpu: Gpu | None) -> None:
        self._options = options
        self._gpu = gpu
        made_by = hash_sources(WHAT_PLANS_ARE_MADE_BY)
        self._made = options.work / f"made-{made_by}"
        self.parts = options.work / "parts"
        measured = [options.samples, options.steady_ticks, str(options.clip), options.quality]
        settings = [options.base.to_json(), options.axes, options.rows, measured]
        self._fingerprint = fingerprint_run(settings)
        self._points = choose_points(options.base, options.axes)
        loads = [_LOAD_OF_BASE if point == options.base else 1.0 for point in self._points]
        self._gpus = dict(zip(self._points, share_gpus(loads, options.gpus), strict=True))

    @property
    def environment(self) -> dict[str, str]:
        """Where processes keep what they compile: in the work folder, so that a first time is one."""
        return {name: str((self._options.work / folder).absolute()) for name, folder in _CACHES.items()}

    def forget_compiled(self, startup: Job) -> None:
        """Remove the kernels that were compiled in a run before, where the first opening is about to be timed."""
        if _find_unmeasured(startup):
            for name in _COMPILED_BY_A_FIRST_OPENING:
                shutil.rmtree(self.environment[name], ignore_errors=True)

    def jobs(self) -> list[Job]:
        """Return what is measured: start-up, then the points, in order."""
        base = self._options.base
        startup = self._job(base, (_STARTUP,), (SPLIT,), self.parts / f"{_STARTUP}.json")
        jobs = [startup]
        for index, point in enumerate(self._points):
            what = self._what(point)
            if index == 0 and "limits" not in what:
                what = ("limits", *what)
            jobs.append(self._job(point, what, self._rows(point), self.parts / f"{point.name}.json"))
        return jobs

    def tasks(self) -> list[Task]:
        """Return what prepares all points and was not done yet, what others need first."""
        exports = {self._export_name(point): export_command(point, self._bundle(point)) for point in self._points}
        tasks = [Task(name, command) for name, command in exports.items()]
        for point in self._points:
            export, gpu_index = (self._export_name(point),), self.gpu_of(point)
            rows = choose_rows(self._rows(point), self._gpu).rows
            for row in choose_builders(rows):
                command = build_command(point, self._bundle(point), self._made / "plans", row, opened=True)
                tasks.append(Task(f"build {row} {point.name}", command, export, gpu_index))
            if "torch-compile" in rows:
                job = self._job(point, (), ("torch-compile",), Path())
                tasks.append(Task(f"compile {point.name}", job.command, export, gpu_index))
        return self._without_done(tasks)

    def gpu_of(self, point: Point) -> int:
        """Return the index of the GPU that a point has."""
        return self._gpus[point]

    def needs(self, job: Job) -> list[str]:
        """Return the names of the tasks that a job needs."""
        names = [self._export_name(job.point), f"compile {job.point.name}"]
        return [*names, *(f"build {row} {job.point.name}" for row in TENSORRT_ROWS)]

    def marking(self, run: RunTask) -> RunTask:
        """Return what runs a task and remembers that it was done."""

        def run_and_mark(task: Task) -> str | None:
            problem = run(task)
            if problem is None:
                self._mark(task.name).parent.mkdir(parents=True, exist_ok=True)
                self._mark(task.name).touch()
            return problem

        return run_and_mark

    def _without_done(self, tasks: Sequence[Task]) -> list[Task]:
        # Start-up leaves the base point's bundle.
        done = {task.name for task in tasks if self._mark(task.name).is_file()}
        base = self._export_name(self._options.base)
        if (self._bundle(self._options.base) / "manifest.json").is_file():
            done.add(base)
        return [
            replace(task, needs=tuple(need for need in task.needs if need not in done))
            for task in tasks
            if task.name not in done
        ]

    def _job(self, point: Point, what: tuple[str, ...], rows: tuple[str, ...], part: Path) -> Job:
        options = self._options
        return Job(
            point,
            what,
            rows,
            options.samples,
            options.steady_ticks,
            self._bundle(point),
            self._made / "plans",
            self._made / "weights",
            part,
            self._fingerprint,
            options.clip,
            options.quality,
        )

    def _what(self, point: Point) -> tuple[str, ...]:
        base = self._options.base
        if point == base:
            return (*_OF_BASE, "quality") if self._options.quality else _OF_BASE
        same_unet = (point.steps, point.width, point.height) == (base.steps, base.width, base.height)
        return _OF_OTHER_NETWORKS if same_unet else _OF_OTHERS

    def _rows(self, point: Point) -> tuple[str, ...]:
        if point == self._options.base:
            return self._options.rows
        return tuple(row for row in best_rows(self._gpu) if row in self._options.rows) or self._options.rows

    def _bundle(self, point: Point) -> Path:
        return self._made / "bundles" / point.bundle_name

    def _export_name(self, point: Point) -> str:
        return f"export {point.bundle_name}"

    def _mark(self, task: str) -> Path:
        return self._made / "done" / task.replace(" ", "-")


def _measure(job: Job, gpu_index: int, run: RunTask) -> str | None:
    """Measure what a job says and its part does not hold yet; return why it failed, or None."""
    if not _find_unmeasured(job):
        return None
    problem = run(Task(f"measure {_name(job)}", job.command, (), gpu_index))
    if problem is None and (unmeasured := _find_unmeasured(job)):
        return f"it left no {', '.join(unmeasured)} in {job.part}"
    return problem


def _find_unmeasured(job: Job) -> list[str]:
    part = read_part(job.part, job.fingerprint)
    return [name for name in job.what if part is None or name not in part.measured]


def _name(job: Job) -> str:
    return job.part.stem


def _assemble(results: ResultsFile, jobs: Sequence[Job]) -> None:
    """Gather the parts of this run."""
    for job in jobs:
        part = read_part(job.part, job.fingerprint)
        if part is not None:
            results.entries += part.entries
            results.not_run.update(part.not_run)
