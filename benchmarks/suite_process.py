"""A process of the suite: ``python -m live2diff_trt.benchmarks.suite_process JOB``; a job is JSON.

It either measures, and writes a part that grows as it goes on, or lets PyTorch compile, so that the process that
measures finds it compiled.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from live2diff_trt.benchmarks.point import Point
from live2diff_trt.benchmarks.rows import find_gpu

logger = logging.getLogger(__name__)

_PATHS = ("bundle", "plans", "kept", "part", "clip")


@dataclass(frozen=True)
class Job:
    """What a process is to do.

    Attributes:
        point: of the suite.
        what: names of ``measures.MEASURES``; none: PyTorch compiles.
        rows: names of backends.
        samples, steady_ticks: how much is measured.
        bundle, plans, kept: folders, as ``opened_rows.Place`` has them.
        part: file to write.
        fingerprint: of the run.
        clip, quality: of the measure of that name: a video, and options as ``bench_quality.read_named_options`` reads
            them.
    """

    point: Point
    what: tuple[str, ...]
    rows: tuple[str, ...]
    samples: int
    steady_ticks: int
    bundle: Path
    plans: Path
    kept: Path
    part: Path
    fingerprint: str
    clip: Path | None = None
    quality: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        """What runs it."""
        return [sys.executable, "-m", "live2diff_trt.benchmarks.suite_process", json.dumps(self.to_json())]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        folders = {name: str(getattr(self, name)) for name in _PATHS if getattr(self, name) is not None}
        return {**asdict(self), **folders, "point": self.point.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Job:
        """Read what ``to_json`` wrote."""
        folders = {name: Path(values[name]) for name in _PATHS if values[name] is not None}
        names = {name: tuple(values[name]) for name in ("what", "rows", "quality")}
        return cls(**{**values, **folders, **names, "point": Point.from_json(values["point"])})


def run_job(job: Job) -> None:
    """Do what a job says and its part does not hold yet, in this process."""
    from live2diff_trt.benchmarks.measures import Extent, measure
    from live2diff_trt.benchmarks.opened_rows import OpenedRows, Place
    from live2diff_trt.benchmarks.results_file import ResultsFile
    from live2diff_trt.benchmarks.suite_parts import read_part, write_part

    place = Place(job.bundle, job.plans, find_gpu(), job.kept)
    if not job.what:
        with OpenedRows(job.point, place, job.rows).opened() as opened:
            opened.pipelines()
        return
    results, measured = ResultsFile(), list[str]()
    part = read_part(job.part, job.fingerprint)
    if part is not None:
        results.entries += part.entries
        results.not_run.update(part.not_run)
        measured += part.measured

    def keep(name: str) -> None:
        measured.append(name)
        logger.info("%s was measured", name)
        write_part(job.part, job.fingerprint, measured, results)

    extent = Extent(job.samples, job.steady_ticks, job.clip, job.quality)
    measure(results, job.point, place, job.rows, set(job.what).difference(measured), extent, keep)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    run_job(Job.from_json(json.loads(sys.argv[1])))
