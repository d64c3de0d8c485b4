"""Workspaces as plain folders below one root."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from wtb_prefect.domain.file_processing import FileMemento, FileSnapshot
from wtb_prefect.domain.interfaces.file_tracking import FileTracker
from wtb_prefect.errors import FileTrackingError

_ASIDE = ".removed"
_ROOMY_BYTES = 2 * 1024**3
_MAX_COMPONENT_BYTES = 100
_ID_CHARACTERS = 12
# A rename that had looked up `.removed` before a sweep renamed it lands there after the sweep
# has listed it: "Directory not empty", 5 times beside 12,000 removed folders. Nothing finds the
# directory by its new name, so one more attempt is nearly always enough.
_DELETE_ATTEMPTS = 5
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>]')


class FolderWorkspaces:
    """A `WorkspaceStore`: `<root>/<label>-<end of the execution id>`."""

    def __init__(self, root: Path, tracker: FileTracker) -> None:
        self._root = Path(os.path.abspath(root))
        self._tracker = tracker

    def open(
        self, execution_id: str, label: str, start: Mapping[str, FileMemento]
    ) -> FolderWorkspace:
        """The workspace of an execution; nothing is made before it asks for its path."""
        return FolderWorkspace(
            self._root, self._root / folder_of(label, execution_id), self._tracker, start
        )

    def size(self, execution_id: str, label: str) -> int:
        """See `WorkspaceStore.size`; links count as themselves."""
        return _size(self._root / folder_of(label, execution_id))

    def sweep(self) -> None:
        """Deletes what `remove` has put aside, in this process or another.

        Another batch of the project may be putting folders aside meanwhile: they get a name of
        their own first. Names left by a sweep that was killed are swept too.
        """
        with contextlib.suppress(FileNotFoundError):
            (self._root / _ASIDE).rename(self._root / f"{_ASIDE}-{secrets.token_hex(8)}")
        for found in self._root.glob(f"{_ASIDE}-*"):
            _delete(found)


class FolderWorkspace:
    """A `Workspace`: a folder that holds the starting files once it is asked for."""

    def __init__(
        self, root: Path, folder: Path, tracker: FileTracker, start: Mapping[str, FileMemento]
    ) -> None:
        self._root = root
        self._folder = folder
        self._tracker = tracker
        self._start = start
        self._last: FileSnapshot | None = None
        self._lock = threading.Lock()

    def path(self) -> Path:
        """The folder; the first call makes it, in place of one from an earlier attempt."""
        with self._lock:
            if self._last is None:
                _delete(self._folder)
                self._last = self._tracker.restore(self._start, self._folder)
        return self._folder

    @property
    def is_made(self) -> bool:
        """Whether `path()` has been called."""
        return self._last is not None

    def replay(
        self,
        changed: Iterable[FileMemento],
        removed: Iterable[str],
        after: Mapping[str, FileMemento],
    ) -> None:
        """Changes the files; while there is no folder only what it will start with."""
        with self._lock:
            if self._last is None:
                self._start = after
            else:
                self._last = self._tracker.apply(changed, removed, self._folder, self._last)

    def snapshot(self) -> FileSnapshot | None:
        """What the folder holds now; a folder that the workflow deleted holds nothing."""
        with self._lock:
            if self._last is not None:
                self._last = self._tracker.snapshot(self._folder, self._last)
            return self._last

    def remove(self) -> None:
        """Puts the folder aside (also one from an earlier attempt), with parents left empty.

        It is deleted by `sweep`: on ext4 creating files soon after deleting many is many times
        slower, and a batch makes folders all the time (100 ms instead of 10 for 80 files). Where
        the disk is nearly full it is deleted at once.
        """
        with self._lock:
            if os.path.lexists(self._folder):
                self._put_aside()
            self._last = None
        for parent in self._folder.parents:
            if parent == self._root:
                return
            try:
                os.rmdir(parent)
            except OSError:  # not empty, or gone: the parents above are not ours to remove either
                return

    def _put_aside(self) -> None:
        aside = self._root / _ASIDE / f"{self._folder.name}-{time.time_ns()}"
        try:
            if shutil.disk_usage(self._root).free > _ROOMY_BYTES:
                aside.parent.mkdir(parents=True, exist_ok=True)
                self._folder.rename(aside)
                return
        except OSError:
            # Read-only, deleted by the workflow itself, or swept by another process just now:
            # deleting knows what to do.
            pass
        _delete(self._folder)


def folder_of(label: str, execution_id: str) -> Path:
    """The relative path of a workspace: readable, safe to join, different for every execution."""
    *parents, name = [_safe(part, _MAX_COMPONENT_BYTES) for part in label.split("/")]
    ending = f"-{_safe(execution_id[-_ID_CHARACTERS:], _ID_CHARACTERS * 4)}"
    return Path(*parents, _cut(name, _MAX_COMPONENT_BYTES - len(ending.encode())) + ending)


def _size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # a workflow may be at work there
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def _safe(part: str, limit: int) -> str:
    """A file name like `part`; it never starts with a dot, so it is never hidden, `.` or `..`."""
    text = _UNSAFE.sub("_", part.encode(errors="replace").decode())
    if text.startswith("."):
        text = f"_{text[1:]}"
    return _cut(text, limit).strip() or "_"


def _cut(text: str, limit: int) -> str:
    return text.encode()[:limit].decode(errors="ignore")


def _delete(folder: Path) -> None:
    for attempt in range(1, _DELETE_ATTEMPTS + 1):
        try:
            if folder.is_dir() and not folder.is_symlink():
                _delete_tree(folder)
            else:
                folder.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return  # another process is deleting it too
        except OSError as exc:
            if exc.errno != errno.ENOTEMPTY or attempt == _DELETE_ATTEMPTS:
                raise FileTrackingError(
                    f"cannot delete the workspace {str(folder)!r}: {exc}"
                ) from exc


def _delete_tree(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except PermissionError:
        # Workflows may leave read-only folders, which refuse to have their files deleted.
        folder.chmod(0o700)
        for parent, names, _ in os.walk(folder):
            for path in (os.path.join(parent, name) for name in names):
                if not os.path.islink(path):
                    os.chmod(path, 0o700)
        shutil.rmtree(folder)
