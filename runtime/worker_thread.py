"""A thread that keeps its error for the thread that waits for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


class WorkerThread:
    """Does one thing, once. It never keeps the process alive.

    Args:
        name: what the log calls it.
        work: to be done; an exception ends it.
        at_end: called in the thread when the work is over, however it ended; it must not raise.

    Attributes:
        error: what ended the work, None if it was completed or still goes on.
    """

    def __init__(self, name: str, work: Callable[[], None], at_end: Callable[[], None]) -> None:
        self.error: BaseException | None = None
        self._work, self._at_end = work, at_end
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the end."""
        self._thread.join()

    def leave(self, seconds: float) -> None:
        """Wait for the end, but not for longer: what does not return is left behind, and the log says so."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            logger.warning("%s did not end within %g s and is left behind", self._thread.name, seconds)

    def raise_error(self) -> None:
        """Raise what ended the work, if something did."""
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - raised by raise_error, in the thread that waits
            self.error = error
        finally:
            self._at_end()
