"""The suite's order of work, what it skips, and what it does with what fails. No process is started but a tiny one."""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from live2diff_trt.benchmarks import measures, rows
from live2diff_trt.benchmarks.point import BASES
from live2diff_trt.benchmarks.results_file import ResultsFile, read_results
from live2diff_trt.benchmarks.rows import ROWS
from live2diff_trt.benchmarks.suite import SuiteOptions, SuitePlan, run_suite
from live2diff_trt.benchmarks.suite_gpus import see_one_gpu, share_gpus
from live2diff_trt.benchmarks.suite_parts import read_part, write_part
from live2diff_trt.benchmarks.suite_process import Job, run_job
from live2diff_trt.benchmarks.suite_tasks import ProcessRunner, RunTask, Task, run_tasks
from live2diff_trt.benchmarks.timing import MeasurementError
from live2diff_trt.engine.flavour import Flavour
from live2diff_trt.engine.gpu import Gpu

GPU = Gpu("NVIDIA T4", (7, 5), "580.1")


def options_in(folder: Path, **changed: object) -> SuiteOptions:
    options = SuiteOptions(folder / "work", folder / "out", BASES["tiny"], ("base", "steps"), samples=3)
    return replace(options, **changed)  # type: ignore[arg-type] # fields by name


class FakeProcesses:
    """Stands for processes: what measures writes a part with one entry, an export a manifest."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.failing: set[str] = set()

    def __call__(self, task: Task) -> str | None:
        self.names.append(task.name)
        if task.name in self.failing:
            return "it ended with 1: out of memory"
        if task.name.startswith("export"):
            bundle = Path(task.command[-1])
            bundle.mkdir(parents=True, exist_ok=True)
            (bundle / "manifest.json").touch()
        if task.name.startswith("measure"):
            job = Job.from_json(json.loads(task.command[-1]))
            results = ResultsFile()
            results.add_samples(f"stage/{'_'.join(job.what)}", "torch", None, job.point, [1.0])
            results.not_run["whole"] = "it is not right"
            write_part(job.part, job.fingerprint, job.what, results)
            if job.what == ("startup",):
                self(Task(f"export {job.point.bundle_name}", [str(job.bundle)]))
                self.names.pop()
        return None

    @property
    def measured(self) -> list[str]:
        return [name.partition(" ")[2].partition("-")[0] for name in self.names if name.startswith("measure")]


def test_start_up_then_what_prepares_then_point_after_point(tmp_path: Path) -> None:
    processes = FakeProcesses()
    outcome = run_suite(options_in(tmp_path, axes=("base", "sizes")), None, run=processes)
    kinds = [name.partition(" ")[0] for name in processes.names]
    assert kinds == ["measure", "export", "export", "measure", "measure", "measure"]
    assert processes.measured == ["startup", "t2", "t2", "t2"]
    assert outcome.failed == {}
    results = read_results(outcome.path)
    assert [entry.name for entry in results.entries] == [
        "stage/startup",
        "stage/limits_memory_unet_frame_latency_steadiness_stages_kernels",
        "stage/unet_frame",
        "stage/unet_frame",
    ]
    assert results.not_run == {"whole": "it is not right"}


def test_what_was_interrupted_goes_on_where_it_was(tmp_path: Path) -> None:
    class Interrupted(FakeProcesses):
        def __call__(self, task: Task) -> str | None:
            if task.name.startswith("measure t3"):
                raise KeyboardInterrupt
            return super().__call__(task)

    first, second, third = Interrupted(), FakeProcesses(), FakeProcesses()
    with pytest.raises(KeyboardInterrupt):
        run_suite(options_in(tmp_path), None, run=first)
    assert first.measured == ["startup", "t2", "t1"]
    assert not (tmp_path / "out").exists()
    outcome = run_suite(options_in(tmp_path), None, run=second)
    assert second.measured == ["t3", "t4"]
    assert {entry.steps for entry in read_results(outcome.path).entries} == {1, 2, 3, 4}
    run_suite(options_in(tmp_path), None, run=third)  # the last run was complete: this one is another
    assert third.measured == ["startup", "t2", "t1", "t3", "t4"]


def test_parts_of_another_run_are_measured_again(tmp_path: Path) -> None:
    first, second = FakeProcesses(), FakeProcesses()
    first.failing = {"measure t4-tiny-64x64-tiny-tiny-float32-seed0"}
    assert run_suite(options_in(tmp_path), None, run=first).failed
    run_suite(options_in(tmp_path, samples=4), None, run=second)
    assert second.measured == ["startup", "t2", "t1", "t3", "t4"]


def test_a_point_that_fails_leaves_the_others(tmp_path: Path) -> None:
    processes = FakeProcesses()
    processes.failing = {"measure t1-tiny-64x64-tiny-tiny-float32-seed0"}
    said: list[str] = []
    outcome = run_suite(options_in(tmp_path), None, run=processes, show=said.append)
    assert processes.measured == ["startup", "t2", "t1", "t3", "t4"]
    assert outcome.failed == {"t1-tiny-64x64-tiny-tiny-float32-seed0": "it ended with 1: out of memory"}
    assert read_results(outcome.path).not_run.items() > outcome.failed.items()
    assert any("out of memory" in line for line in said)
    processes.failing.clear()
    assert run_suite(options_in(tmp_path), None, run=processes).failed == {}
    assert processes.measured[-1] == "t1"


def test_what_a_point_measured_before_it_failed_is_kept(tmp_path: Path) -> None:
    class HalfDone(FakeProcesses):
        def __call__(self, task: Task) -> str | None:
            if not task.name.startswith("measure t1"):
                return super().__call__(task)
            job = Job.from_json(json.loads(task.command[-1]))
            super().__call__(replace(task, command=[json.dumps(replace(job, what=job.what[:1]).to_json())]))
            return "it ended with 1: out of memory"

    outcome = run_suite(options_in(tmp_path), None, run=HalfDone())
    assert outcome.failed == {"t1-tiny-64x64-tiny-tiny-float32-seed0": "it ended with 1: out of memory"}
    assert [entry.name for entry in outcome.results.entries if entry.steps == 1] == ["stage/unet"]
    second = FakeProcesses()
    assert run_suite(options_in(tmp_path), None, run=second).failed == {}
    assert second.measured == ["t1"]


def test_a_process_measures_what_its_part_does_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, job, *_ = SuitePlan(options_in(tmp_path), None).jobs()
    asked: list[set[str]] = []

    def stub(results: ResultsFile, *arguments: object) -> None:
        *_, what, _extent, on_measured = arguments
        assert isinstance(what, set)
        assert callable(on_measured)
        asked.append(what)
        for name in job.what:
            if name in what:
                if name == "frame" and len(asked) == 1:
                    raise RuntimeError("out of memory")
                results.add_samples(f"stage/{name}", "torch", None, job.point, [1.0])
                on_measured(name)

    monkeypatch.setattr(measures, "measure", stub)
    with pytest.raises(RuntimeError, match="out of memory"):
        run_job(job)
    run_job(job)
    before = {"limits", "memory", "unet"}
    assert asked == [set(job.what), set(job.what) - before]
    part = read_part(job.part, job.fingerprint)
    assert part is not None
    assert part.measured == job.what
    assert [entry.name for entry in part.entries] == [f"stage/{name}" for name in job.what]


def test_points_share_the_gpus(tmp_path: Path) -> None:
    together = threading.Barrier(2, timeout=20)
    seen: dict[str, int] = {}

    class OnTwo(FakeProcesses):
        def __call__(self, task: Task) -> str | None:
            if task.name.startswith("measure"):
                seen[task.name.split()[1].partition("-")[0]] = task.gpu_index
                if len(seen) in (2, 3):  # after start-up
                    together.wait()
            return super().__call__(task)

    processes = OnTwo()
    outcome = run_suite(options_in(tmp_path, gpus=2), None, run=processes)
    assert outcome.failed == {}
    assert seen == {"startup": 0, "t2": 0, "t1": 1, "t3": 1, "t4": 1}  # the base point takes as long as the others
    assert [entry.steps for entry in outcome.results.entries] == [2, 2, 1, 3, 4]


def test_loads_are_shared_alike() -> None:
    assert share_gpus([3, 1, 1, 1, 1, 1, 1, 1], 2) == [0, 1, 1, 1, 0, 1, 0, 1]
    assert share_gpus([3, 1, 1], 1) == [0, 0, 0]
    assert share_gpus([], 2) == []


@pytest.mark.parametrize(("visible", "index", "seen"), [(None, 1, "1"), ("3,5", 1, "5"), ("7", 0, "7")])
def test_a_process_sees_one_of_the_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, index: int, seen: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")  # set once, so that it is put back
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    program = "import os, sys; sys.exit(os.environ['CUDA_VISIBLE_DEVICES'])"
    assert see_one_gpu(index) == {"CUDA_VISIBLE_DEVICES": seen}
    run = ProcessRunner(tmp_path, {})
    assert run(Task("look", [sys.executable, "-c", program], gpu_index=index)) == f"it ended with 1: {seen}"


def test_nothing_is_prepared_if_start_up_failed(tmp_path: Path) -> None:
    processes = FakeProcesses()
    processes.failing = {"measure startup"}
    with pytest.raises(MeasurementError, match="out of memory"):
        run_suite(options_in(tmp_path), None, run=processes)
    assert processes.names == ["measure startup"]
    assert not (tmp_path / "out").exists()


def test_a_point_whose_bundle_failed_is_not_measured(tmp_path: Path) -> None:
    processes = FakeProcesses()
    export = "export tiny-128x64-tiny-tiny-float32-seed0"
    processes.failing = {export}
    outcome = run_suite(options_in(tmp_path, axes=("base", "sizes")), None, run=processes)
    assert outcome.failed == {
        "t2-tiny-128x64-tiny-tiny-float32-seed0": f"{export}: it ended with 1: out of memory",
    }
    assert len(processes.measured) == 3


def test_what_could_not_be_prepared_beside_others_is_tried_alone(tmp_path: Path) -> None:
    export = "export tiny-128x64-tiny-tiny-float32-seed0"

    class Crowded(FakeProcesses):
        """Lacks memory for an export the first time."""

        def __call__(self, task: Task) -> str | None:
            self.failing = {export} - set(self.names)
            return super().__call__(task)

    processes = Crowded()
    outcome = run_suite(options_in(tmp_path, axes=("base", "sizes"), jobs=8), None, run=processes)
    assert outcome.failed == {}
    assert processes.names.count(export) == 2
    assert len(set(processes.names)) == len(processes.names) - 1
    assert len(processes.measured) == 4


def test_on_a_gpu_plans_are_built_and_pytorch_compiles_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "choose_flavour", lambda *_: (Flavour("tensorrt-rtx", "1.6", None), "it is there"))
    plan = SuitePlan(options_in(tmp_path, base=BASES["sd15"], axes=("base", "steps", "autoencoder")), GPU)
    names = [task.name.partition("-sd15")[0].partition("-512")[0] for task in plan.tasks()]
    assert names[:2] == ["export sd15"] * 2
    of_base = ["build tensorrt-split t2", "build tensorrt-whole t2", "compile t2"]
    of_others = ["build tensorrt-split t{}", "compile t{}"]
    assert names[2:] == of_base + [name.format(steps) for steps in (1, 3, 4, 2) for name in of_others]
    (build,) = [task for task in plan.tasks() if task.name.startswith("build tensorrt-split t3")]
    assert build.needs == ("export sd15-512x512-taesd-dpt-hybrid-float16-seed0",)
    assert build.command[build.command.index("--rows") + 1] == "3"
    (kl,) = [task for task in plan.tasks() if task.name.startswith("export") and "-kl-" in task.name]
    assert kl.command[kl.command.index("--vae") + 1] == "kl"
    _, base, one, _, _, autoencoder = plan.jobs()
    assert base.rows == ROWS
    assert one.rows == ("torch-compile", "tensorrt-split", "tensorrt-overlap")
    assert one.what == ("unet", "frame")
    assert autoencoder.what == ("frame",)  # its UNet is the base point's
    on_two = SuitePlan(options_in(tmp_path, base=BASES["sd15"], axes=("base", "steps"), gpus=2), GPU).tasks()
    indices = {task.name.partition("-sd15")[0]: task.gpu_index for task in on_two if task.name[:6] != "export"}
    assert {name for name, index in indices.items() if index == 0} == {
        *("build tensorrt-split t2", "build tensorrt-whole t2", "compile t2")
    }  # where the base point is measured
    done = plan.marking(lambda *_: None)
    done(build)
    assert build.name not in [task.name for task in plan.tasks()]


def test_a_clip_adds_quality(tmp_path: Path) -> None:
    plan = SuitePlan(options_in(tmp_path, clip=Path("clip.mp4"), quality=("one-row:rows=1",)), None)
    base = plan.jobs()[1]
    assert base.what[-1] == "quality"
    assert Job.from_json(json.loads(json.dumps(base.to_json()))) == base


def test_a_part_of_another_run_is_none(tmp_path: Path) -> None:
    results = ResultsFile()
    entry = results.add_samples("frame", "torch", None, BASES["tiny"], [1.0], 1e-3)
    path = tmp_path / "parts" / "base.json"
    assert read_part(path, "a") is None
    write_part(path, "a", ["unet"], results)
    part = read_part(path, "a")
    assert part is not None
    assert part.entries == (entry,)
    assert part.measured == ("unet",)
    assert read_part(path, "b") is None


def test_tasks_wait_for_what_they_need() -> None:
    together = threading.Barrier(2, timeout=20)
    order: list[str] = []

    def run(task: Task) -> str | None:
        if task.name in ("a", "b"):
            together.wait()  # both at a time
        order.append(task.name)
        return "it broke" if task.name == "b" else None

    tasks = [Task("after a", [], ("a",)), Task("after b", [], ("b",)), Task("a", []), Task("b", [])]
    assert run_tasks(tasks, 2, run) == {"b": "it broke", "after b": "what it needs was not made"}
    assert sorted(order) == ["a", "after a", "b"]
    assert run_tasks([], 1, run) == {}


def test_tasks_may_want_a_gpu_alone() -> None:
    busy: set[int] = set()
    most = 0

    def run(task: Task) -> str | None:
        nonlocal most
        assert task.gpu_index not in busy
        busy.add(task.gpu_index)
        most = max(most, len(busy))
        time.sleep(0.02)
        busy.remove(task.gpu_index)
        return None

    tasks = [Task(f"{number}", [], (), number // 3) for number in range(6)]
    assert run_tasks(tasks, 4, run, alone_on_gpu=True) == {}
    assert most == 2


def test_an_interruption_ends_what_runs(tmp_path: Path) -> None:
    runner = ProcessRunner(tmp_path, {})

    def run(task: Task) -> str | None:
        if task.name == "interrupt":
            raise KeyboardInterrupt
        return runner(task)

    began = time.monotonic()
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    with pytest.raises(KeyboardInterrupt):
        run_tasks([Task("sleep", sleep), Task("interrupt", [])], 2, run, runner.kill)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("print('done')", None),
        ("print('first'); raise SystemExit('no room')", "it ended with 1: no room"),
        ("raise SystemExit(3)", "it ended with 3: it said nothing"),
    ],
)
def test_a_process_that_fails_says_why(tmp_path: Path, program: str, problem: str | None) -> None:
    runner: RunTask = ProcessRunner(tmp_path / "logs", {"GREETING": "hello"})
    assert runner(Task("measure base", [sys.executable, "-c", program])) == problem
    assert (tmp_path / "logs" / "measure-base.log").is_file()


def test_processes_keep_what_they_compile_in_the_work_folder(tmp_path: Path) -> None:
    plan = SuitePlan(options_in(tmp_path), None)
    assert all(Path(folder).parent == tmp_path / "work" for folder in plan.environment.values())
    kernels = Path(plan.environment["LIVE2DIFF_TRT_CACHE"])
    kernels.mkdir(parents=True)
    startup = plan.jobs()[0]
    write_part(startup.part, startup.fingerprint, startup.what, ResultsFile())
    plan.forget_compiled(startup)
    assert kernels.is_dir()
    startup.part.unlink()
    plan.forget_compiled(startup)
    assert not kernels.exists()
