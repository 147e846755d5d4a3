"""Files and folders that take the place of others: there complete, or as they were.

No system replaces a folder that holds something, and Windows neither replaces, renames nor deletes a file that is open
or mapped anywhere, nor renames a folder that holds one. What does not work there leaves what was in its place.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

RENAME_ATTEMPTS = 20
RENAME_PAUSE_SECONDS = 0.1


def name_beside(path: Path, ending: str) -> Path:
    """Return a hidden path in the same folder, and so on the same drive, that nobody else takes."""
    return path.with_name(f".{path.name}.{_token()}.{ending}")


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Give a path that becomes ``path`` when the block ends well, and is removed when it does not.

    What is written there is closed before the block ends.

    Raises:
        OSError: if it can't take its place; on Windows, as long as anyone has a file at ``path`` open or mapped.
    """
    scratch = path.with_name(f".{_token()}.partial")  # short: Windows may take no path of more than 259 characters
    try:
        yield scratch
        scratch.replace(path)
    except BaseException:
        with suppress(OSError):  # the first error says more
            scratch.unlink()
        raise


def rename_folder(folder: Path, target: Path) -> None:
    """Rename a folder as a whole, or not at all. Files in it that are open for a moment are waited for.

    On Windows those are in the way, which others verify, or a scanner of viruses looks at because they are new.

    Raises:
        PermissionError: if it is not allowed for 2 s.
        OSError: if it can't be; as FileExistsError, where something is at ``target``.
    """
    for _ in range(RENAME_ATTEMPTS - 1):
        with suppress(PermissionError):
            folder.rename(target)
            return
        time.sleep(RENAME_PAUSE_SECONDS)
    folder.rename(target)


def move_aside(folder: Path) -> Path | None:
    """Rename a folder out of its place, as a whole or not at all; return where it is, None if it was gone already.

    Raises:
        OSError: as ``rename_folder`` does; it is where it was then.
    """
    aside = name_beside(folder, "stale")
    try:
        rename_folder(folder, aside)
    except FileNotFoundError:  # another process did it
        return None
    return aside


def _token() -> str:
    return f"{os.getpid()}-{secrets.token_hex(4)}"
