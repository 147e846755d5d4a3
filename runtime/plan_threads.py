"""Work on many plans, several at a time: TensorRT lets go of the interpreter while it loads, compiles or refits one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

from cuda.core import Device

Found = TypeVar("Found")
_MOST_THREADS = 16


def call_per_plan(call: Callable[[str], Found], names: Iterable[str], device_id: int) -> dict[str, Found]:
    """Call for every plan, in threads in which the device is current.

    Args:
        call: takes a plan's name. What it raises stops all calls that have not begun, and is raised when the others
            have ended; if several raise, what the first plan's did.
        names: of the plans.
        device_id: number of the CUDA device.

    Returns:
        What the calls gave, in the order of the names.
    """

    def call_on_device(name: str) -> Found:
        Device(device_id).set_current()  # CUDA remembers it by thread
        return call(name)

    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1), thread_name_prefix="plans") as pool:
        futures = {name: pool.submit(call_on_device, name) for name in names}
        try:
            wait(futures.values(), return_when=FIRST_EXCEPTION)
        finally:
            pool.shutdown(cancel_futures=True)
    return {name: future.result() for name, future in futures.items()}
