"""Processes of the suite that prepare: several at a time, each as soon as what it needs is there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from live2diff_trt.benchmarks.suite_gpus import see_one_gpu

_NEEDS_FAILED = "what it needs was not made"


@dataclass(frozen=True)
class Task:
    """A process that makes something others need.

    Attributes:
        name: as messages and its log have it.
        command: that runs it.
        needs: names of tasks that come first.
        gpu_index: of those that this machine shows, the one that the process sees.
    """

    name: str
    command: list[str]
    needs: tuple[str, ...] = ()
    gpu_index: int = 0


RunTask = Callable[[Task], str | None]
"""Runs a task to its end; returns why it failed, or None."""


class ProcessRunner:
    """Runs commands as processes, their output in files.

    Args:
        logs: folder of the files.
        environment: variables beside this process's own.
    """

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self._logs = logs
        self._environment = {**os.environ, **environment}
        self._running: set[subprocess.Popen[bytes]] = set()
        self._ending = False

    def __call__(self, task: Task) -> str | None:
        """Run a task to its end; return why it failed, with the last line of what it said, or None."""
        self._logs.mkdir(parents=True, exist_ok=True)
        path = self._logs / f"{task.name.replace(' ', '-')}.log"
        environment = {**self._environment, **see_one_gpu(task.gpu_index)}
        with (
            path.open("w", encoding="utf-8") as log,
            subprocess.Popen(task.command, stdout=log, stderr=subprocess.STDOUT, env=environment) as process,
        ):
            self._running.add(process)
            if self._ending:
                process.kill()
            try:
                status = process.wait()
            except BaseException:
                process.kill()
                raise
            finally:
                self._running.discard(process)
        if status == 0:
            return None
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"it ended with {status}: {lines[-1].strip() if lines else 'it said nothing'}"

    def kill(self) -> None:
        """End what is running in any thread, and what is started from here on."""
        self._ending = True
        for process in list(self._running):
            process.kill()


def run_tasks(
    tasks: Sequence[Task],
    jobs: int,
    run: RunTask,
    kill: Callable[[], None] = lambda: None,
    *,
    alone_on_gpu: bool = False,
) -> dict[str, str]:
    """Run all tasks, those named first before others.

    Args:
        tasks: what is run.
        jobs: how many run at a time.
        run: runs one.
        kill: is called if this is interrupted, and is to end what runs.
        alone_on_gpu: whether a task waits until no other one has its GPU.

    Returns:
        Why some failed, by name.
    """
    waiting, failed, done = list(tasks), dict[str, str](), set[str]()
    running: dict[Future[str | None], Task] = {}
    with ThreadPoolExecutor(jobs) as pool, _ending(kill):
        while True:
            for task in [task for task in waiting if done.issuperset(task.needs)]:
                busy = {one.gpu_index for one in running.values()} if alone_on_gpu else set()
                if len(running) < jobs and task.gpu_index not in busy:
                    waiting.remove(task)
                    running[pool.submit(run, task)] = task
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task, problem = running.pop(future), future.result()
                if problem is None:
                    done.add(task.name)
                else:
                    failed[task.name] = problem
    return {**failed, **{task.name: _NEEDS_FAILED for task in waiting}}


@contextmanager
def _ending(kill: Callable[[], None]) -> Iterator[None]:
    """End what runs if the block is interrupted: its threads are waited for."""
    try:
        yield
    except BaseException:
        kill()
        raise
