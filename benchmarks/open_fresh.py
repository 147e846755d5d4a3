"""Opens a stream in a process of its own, as a user's restart does, and looks at the GPU's memory round that.

``python -m live2diff_trt.benchmarks.open_fresh JOB``: a job is JSON, and so is what is printed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from live2diff_trt.benchmarks.timing import MeasurementError

if TYPE_CHECKING:
    from live2diff_trt.bundle.spec import StreamSpec
    from live2diff_trt.engine.tensorrt_options import TensorRTOptions


def open_fresh(bundle: Path, plans: Path | None, row: str, step_list: tuple[int, ...]) -> dict[str, Any]:
    """Open a stream in a new process.

    Args:
        bundle: its folder.
        plans: root of the plan store; unused by ONNX Runtime.
        row: one of ``rows.TENSORRT_ROWS``, or ``rows.ONNX_ROW``.
        step_list: of the stream.

    Returns:
        ``seconds``, from the start of the process until the stream takes its first frame; of a row on a GPU, what its
        memory is, too: ``fell_bytes``, ``estimated_bytes``, ``parts`` and others.
    """
    job = {
        "bundle": str(bundle),
        "plans": None if plans is None else str(plans),
        "row": row,
        "step_list": step_list,
        "started": time.time(),
    }
    command = [sys.executable, "-m", "live2diff_trt.benchmarks.open_fresh", json.dumps(job)]
    finished = subprocess.run(command, check=False, capture_output=True, text=True)
    if finished.returncode:
        raise MeasurementError(f"{row} can't be opened: {finished.stderr.strip()[-500:]}", "Mend that first")
    answer: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return answer


def _open(job: dict[str, Any]) -> dict[str, Any]:
    from live2diff_trt.benchmarks.rows import ONNX_ROW, tensorrt_options

    plans = None if job["plans"] is None else Path(job["plans"])
    options = None if job["row"] == ONNX_ROW else tensorrt_options(job["row"], plans)
    free_before = 0 if options is None else _free_bytes()
    from live2diff_trt import Stream

    with Stream.open(job["bundle"], options=options, step_list=tuple(job["step_list"])) as stream:
        seconds = time.time() - job["started"]
        if options is None:
            return {"seconds": seconds}
        fell_bytes = free_before - _free_bytes()
        return {"seconds": seconds, "fell_bytes": fell_bytes, **_look_up_memory(job["bundle"], stream.spec, options)}


def _look_up_memory(bundle: str, spec: StreamSpec, options: TensorRTOptions) -> dict[str, Any]:
    """Return what was estimated, in all and part by part."""
    from live2diff_trt.bundle.manifest import Bundle
    from live2diff_trt.runtime.cuda_session import estimate_for
    from live2diff_trt.runtime.stream_rows import StreamRoom

    estimate = estimate_for(Bundle.open(bundle, ()), spec, options, room=StreamRoom(spec.steps))
    if estimate is None:
        return {}
    parts = {**estimate.parts, "driver and kernels": estimate.overhead}
    return {"estimated_bytes": estimate.total, "parts": parts}


def _free_bytes() -> int:
    from cuda.core import Device

    return int(Device(0).to_system_device().memory_info.free)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_open(json.loads(sys.argv[1]))) + "\n")
