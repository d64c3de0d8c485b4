"""Folders in which something is made ready before it gets its place, and what is left of them."""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal

from wtb_prefect.domain.batch_test import Owner
from wtb_prefect.infrastructure.processes import this_process

Purpose = Literal["restoring", "updating", "replaced"]
_TRIES = 100
_NAME = re.compile(r"\.(?:restoring|updating|replaced)-(\d+)-(\d+)-[0-9a-f]{16}")


def staging_name(purpose: Purpose) -> str:
    """A new hidden name that says which process has chosen it."""
    maker = this_process()
    return f".{purpose}-{maker.pid}-{maker.started:.0f}-{secrets.token_hex(8)}"


def make_staging(parent: str, purpose: Purpose) -> str:
    """An empty folder in `parent` with such a name."""
    staging = f"{parent}/{staging_name(purpose)}"
    make_folder(staging)
    return staging


def make_folder(folder: str) -> None:
    """A new folder in one that another thread may be removing because it is empty.

    Raises `OSError`: it cannot be made, or is there.
    """
    for attempt in range(_TRIES):
        try:
            os.makedirs(os.path.dirname(folder), exist_ok=True)
            os.mkdir(folder)
        except (FileNotFoundError, FileExistsError):  # makedirs raises either in that race
            if attempt == _TRIES - 1:
                raise
        else:
            return


def maker_of(name: str) -> Owner | None:
    """The process of this host that has chosen such a name; None for any other name."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    return Owner(host=socket.gethostname(), pid=int(found[1]), started=float(found[2]))


def staging_folders(root: Path, but: Collection[Path] = ()) -> Iterator[tuple[Path, Owner]]:
    """Each one below a folder and who has made it; not within hidden folders, mounts and `but`."""
    passed = {os.fspath(path) for path in but}
    waiting = [os.fspath(root)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        continue
                    if (maker := maker_of(entry.name)) is not None:
                        yield Path(entry.path), maker
                    elif not (
                        entry.name.startswith(".")
                        or entry.path in passed
                        or os.path.ismount(entry.path)
                    ):
                        waiting.append(entry.path)
        except OSError:  # gone, or closed to this user: then nothing of ours is in it
            continue
