"""The process's current directory: lent to one workspace at a time, or watched for stray files."""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from wtb_prefect.errors import InfrastructureError

_lock = threading.Lock()
_folder: Path | None = None
_depth = 0
_before = -1


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Runs the block with `folder` as the current directory; nests for the same folder.

    Raises:
        InfrastructureError: another batch of this process works in another folder.
    """
    _enter(folder)
    try:
        yield
    finally:
        _leave()


def _enter(folder: Path) -> None:
    global _folder, _depth, _before  # noqa: PLW0603 - the current directory is the process's
    with _lock:
        if _depth and _folder != folder:
            raise InfrastructureError(
                f"this process works in {_folder} already: with cwd='workspace' one batch at a "
                "time runs in a process"
            )
        if _depth == 0:
            # A handle, not a path: the directory may be renamed or removed meanwhile.
            _before = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
            try:
                go_to(folder)
            except BaseException:  # whatever it was: nothing stays open
                os.close(_before)
                raise
        _folder = folder
        _depth += 1


def _leave() -> None:
    global _depth  # noqa: PLW0603 - as above
    with _lock:
        _depth -= 1
        if _depth == 0:
            os.fchdir(_before)
            os.close(_before)


def go_to(folder: Path) -> None:
    """Makes it the current directory, also if a node has gone elsewhere or deleted it."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)


class DirectoryWatch:
    """Tells which files of the current directory appeared or changed since it was made.

    Only the top level counts, without hidden files, `__pycache__`, the files the process's own
    output goes to, and what lies at or above a `known` path: the project's own stores.
    """

    def __init__(self, known: Iterable[Path]) -> None:
        self._folder = Path.cwd()
        self._known = [os.path.realpath(path) for path in known]
        self._began = self._listing()

    def found(self) -> list[str]:
        """Their names, sorted."""
        now = self._listing()
        return sorted(name for name, seen in now.items() if self._began.get(name) != seen)

    def _listing(self) -> dict[str, tuple[int, ...]]:
        own_output = set(_outputs())
        found: dict[str, tuple[int, ...]] = {}
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    if self._counts(entry) and (status.st_dev, status.st_ino) not in own_output:
                        plain = stat.S_ISREG(status.st_mode)
                        # A folder counts when it appears.
                        found[entry.name] = (status.st_mtime_ns, status.st_size) if plain else ()
        except OSError:
            return {}  # a folder that is gone or unreadable holds no news
        return found

    def _counts(self, entry: os.DirEntry[str]) -> bool:
        if entry.name.startswith(".") or entry.name == "__pycache__":
            return False
        # `wtb.db` is known, and so is `wtb.db-wal` beside it.
        return not any(
            known == entry.path
            or known.startswith(f"{entry.path}/")
            or entry.path.startswith(f"{known}-")
            for known in self._known
        )


def _outputs() -> Iterator[tuple[int, int]]:
    """`wtb run > out.txt` writes to a file that changes, and it is no node's."""
    for stream in (sys.__stdout__, sys.__stderr__):
        try:
            if stream is not None:
                status = os.fstat(stream.fileno())
                yield status.st_dev, status.st_ino
        except (OSError, ValueError):  # closed, or no file at all
            continue
