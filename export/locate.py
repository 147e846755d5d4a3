"""Where a model is: a path on this machine, or a repository on the hub, which is asked only if it has to be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from httpx import HTTPError
from huggingface_hub import list_repo_files, snapshot_download
from huggingface_hub.errors import HFValidationError

from live2diff_trt.export.checkpoint_file import WEIGHTS_SUFFIXES
from live2diff_trt.export.errors import CheckpointError
from live2diff_trt.export.model_files import ChooseFiles

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Located:
    """A model that is on this machine: as the user named it, and the folder or file."""

    source: str
    path: Path


def locate(source: str, what: str, *, offline: bool, choose: ChooseFiles) -> Located:
    """Find a model: at a path, or as OWNER/NAME on the hub, whose files are fetched unless they were before.

    Args:
        source: path or hub id. A path that exists is never looked for anywhere else.
        what: what it is, for messages.
        offline: take what was fetched before and contact nobody.
        choose: which files to fetch.

    Raises:
        CheckpointError: if it is at neither place, can't be fetched, or lacks what is to be fetched.
    """
    path = Path(source).expanduser()
    if path.exists():
        return Located(source, path)
    if not is_hub_id(source):
        raise CheckpointError(f"there is no {what} at {source}", "Mend the path, or name a hub id as OWNER/NAME")
    try:
        return Located(source, _find_fetched(source) if offline else _fetch(source, choose))
    except (OSError, HTTPError, HFValidationError) as error:
        remedy = (
            "Leave out --offline once, or name a local path"
            if offline
            else "Check the name and the connection, take with --offline what was fetched before, or name a local path"
        )
        raise CheckpointError(f"{what} {source} can't be had from the hub ({error})", remedy) from error


def _find_fetched(repository: str) -> Path:
    return Path(snapshot_download(repository, local_files_only=True))


def _fetch(repository: str, choose: ChooseFiles) -> Path:
    wanted = choose(list_repo_files(repository), repository)
    return Path(snapshot_download(repository, allow_patterns=[escape(name) for name in wanted]))


def is_hub_id(source: str) -> bool:
    """Tell whether a name reads as OWNER/NAME and not as a path: no weights file, no folder of that owner here."""
    owner = source.partition("/")[0]
    return bool(_HUB_ID.fullmatch(source)) and not source.endswith(WEIGHTS_SUFFIXES) and not Path(owner).is_dir()
