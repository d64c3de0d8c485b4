"""Workspaces as plain folders below one root."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from wtb_prefect.domain.events import (
    Tell,
    WorkspaceActivated,
    WorkspaceCleanedUp,
    WorkspaceCreated,
    WorkspaceForked,
    tell_nobody,
)
from wtb_prefect.domain.file_processing import FileMemento, FileSnapshot
from wtb_prefect.domain.interfaces.file_tracking import FileTracker
from wtb_prefect.domain.interfaces.workspace import ORPHAN_SECONDS
from wtb_prefect.errors import FileTrackingError
from wtb_prefect.infrastructure.file_tracking.staging import staging_folders, staging_name
from wtb_prefect.infrastructure.file_tracking.swap import HALF_CHANGED
from wtb_prefect.infrastructure.processes import is_alive
from wtb_prefect.infrastructure.workspace.overlays import Overlays
from wtb_prefect.infrastructure.workspace.owners import WorkspaceOwners
from wtb_prefect.infrastructure.workspace.trees import delete, last_written, size_of

_ASIDE = ".removed"
_ROOMY_BYTES = 2 * 1024**3
_MAX_COMPONENT_BYTES = 100
_ID_CHARACTERS = 12
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>]')


class FolderWorkspaces:
    """A `WorkspaceStore`: `<root>/<label>-<end of the execution id>`.

    `strategy` tells how the tracker fills a folder below a given one. `standing` are folders that
    every workspace has, also empty: the tracker remembers files only. `tell` is told what becomes
    of workspaces. With `overlay` new ones are overlay mounts; those of a store with it are taken
    away by any.
    """

    def __init__(
        self,
        root: Path,
        tracker: FileTracker,
        strategy: Callable[[Path], str] = lambda _: "copy",
        standing: Sequence[str] = (),
        tell: Tell = tell_nobody,
        *,
        overlay: bool = False,
    ) -> None:
        self.tell = tell
        self._root = Path(os.path.abspath(root))
        self.tracker = tracker
        self._find_strategy = strategy
        self._standing = tuple(standing)
        self._overlay = overlay
        self._overlays = Overlays(self._root.with_name(f"{self._root.name}-overlays"), tracker)
        # Beside the root: what runs in a workspace sees nothing but workspaces around it.
        self._owners = WorkspaceOwners(
            self._root, self._root.with_name(f"{self._root.name}-owners")
        )

    @cached_property
    def strategy(self) -> str:
        """How workspaces are made here; found out once."""
        return "overlay" if self._overlay else self._find_strategy(self._root)

    def open(
        self,
        execution_id: str,
        label: str,
        start: Mapping[str, FileMemento],
        parent_id: str | None = None,
    ) -> FolderWorkspace:
        """The workspace of an execution; nothing is made before it asks for its path."""
        folder = self._root / folder_of(label, execution_id)
        return FolderWorkspace(self, folder, start, execution_id, parent_id)

    def fill(self, folder: Path, start: Mapping[str, FileMemento]) -> FileSnapshot:
        """Makes a workspace, in place of one from an earlier attempt, which stays if that fails."""
        self._owners.claim(folder)
        if os.path.ismount(folder):
            return self._make_instead_of_mount(folder, start)
        earlier = folder.with_name(staging_name("replaced"))
        try:
            os.rename(folder, earlier)
        except FileNotFoundError:
            return self._make(folder, start)
        except OSError as exc:
            raise FileTrackingError(f"cannot replace {str(folder)!r}: {exc}") from exc
        try:
            snapshot = self._make(folder, start)
        except BaseException:  # whatever it was: what was there is needed to see what happened
            os.rename(earlier, folder)
            raise
        delete(earlier)
        return snapshot

    def _make(self, folder: Path, start: Mapping[str, FileMemento]) -> FileSnapshot:
        make = self._overlays.make if self._overlay else self._restore
        snapshot = make(folder, start)
        self.stand(folder)
        return snapshot

    def _restore(self, folder: Path, start: Mapping[str, FileMemento]) -> FileSnapshot:
        return self.tracker.restore(start, folder)

    def _make_instead_of_mount(
        self, folder: Path, start: Mapping[str, FileMemento]
    ) -> FileSnapshot:
        """A mount cannot be renamed: another one goes on top of it, a plain folder beside it."""
        if self._overlay:
            return self._make(folder, start)
        beside = folder.with_name(staging_name("restoring"))
        snapshot = self._make(beside, start)
        self._overlays.take_away(folder)
        try:
            os.rename(beside, folder)
        except OSError as exc:
            raise FileTrackingError(f"cannot replace {str(folder)!r}: {exc}") from exc
        return snapshot

    def put_back(self, folder: Path, start: Mapping[str, FileMemento]) -> FileSnapshot | None:
        """Changes a folder that is there to hold the starting files; None where there is none."""
        if not os.path.lexists(folder):
            return None
        try:
            snapshot = self.tracker.update(start, folder, FileSnapshot())
        except FileTrackingError:
            # Something is in it that cannot be changed in place, a FIFO or a read-only folder.
            is_kept = self._owners.owner_of(folder) is None
            snapshot = self.fill(folder, start)
            if is_kept:  # for people: it must not go with the process that has put it back
                self.let_go(folder)
            return snapshot
        self.stand(folder)
        return snapshot

    def stand(self, folder: Path) -> None:
        """Makes the folders that every workspace has."""
        for name in self._standing:
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder / name)

    def size(self, execution_id: str, label: str) -> int:
        """See `WorkspaceStore.size`; links count as themselves."""
        return size_of(self._root / folder_of(label, execution_id))

    def sweep(self) -> None:
        """Deletes what `remove` has put aside, in this process or another.

        Another batch of the project may be putting folders aside meanwhile: they get a name of
        their own first. Names left by a sweep that was killed are swept too.
        """
        with contextlib.suppress(FileNotFoundError):
            (self._root / _ASIDE).rename(self._root / f"{_ASIDE}-{secrets.token_hex(8)}")
        for found in self._root.glob(f"{_ASIDE}-*"):
            delete(found)
        self._overlays.sweep()

    def clean_orphans(self, grace_seconds: float = ORPHAN_SECONDS) -> list[Path]:
        """See `WorkspaceStore.clean_orphans`."""
        cleaned = []
        for folder, owner in self._owners.claims():
            if is_alive(owner) or time.time() - last_written(folder) < grace_seconds:
                continue
            with self._owners.locked():
                if self._owners.owner_of(folder) != owner:
                    continue  # somebody goes on with it just now
                there = os.path.lexists(folder)
                self.put_away(folder)
            if there:
                cleaned.append(folder)
                at = datetime.now(UTC)
                self.tell(WorkspaceCleanedUp(at=at, path=str(folder), orphaned=True))
        cleaned += self._clean_staging(grace_seconds)
        self._overlays.clean_staging(grace_seconds)
        self.sweep()
        return cleaned

    def _clean_staging(self, grace_seconds: float) -> list[Path]:
        """Removes what processes left that died while they made, changed or replaced a workspace.

        What could not be put back is not touched: nothing else holds it.
        """
        cleaned = []
        for found, maker in staging_folders(self._root, but=self._claimed()):
            is_left = not is_alive(maker) and not os.path.lexists(found / HALF_CHANGED)
            if is_left and time.time() - last_written(found) >= grace_seconds:
                delete(found)
                self._remove_empty_parents(found)
                cleaned.append(found)
        return cleaned

    def _claimed(self) -> set[Path]:
        return {folder for folder, _ in self._owners.claims()}

    def put_away(self, folder: Path) -> None:
        """Puts a workspace aside for `sweep`, with parents left empty."""
        self._overlays.take_away(folder)
        if os.path.lexists(folder):
            self._put_aside(folder)
        self._owners.release(folder)
        self._remove_empty_parents(folder)

    def _remove_empty_parents(self, folder: Path) -> None:
        for parent in folder.parents:
            if parent == self._root:
                return
            try:
                os.rmdir(parent)
            except OSError:  # not empty, or gone: the parents above are not ours to remove either
                return

    def _put_aside(self, folder: Path) -> None:
        aside = self._root / _ASIDE / f"{folder.name}-{time.time_ns()}"
        try:
            if shutil.disk_usage(self._root).free > _ROOMY_BYTES:
                aside.parent.mkdir(parents=True, exist_ok=True)
                folder.rename(aside)
                return
        except OSError:
            # Read-only, deleted by the workflow itself, or swept by another process just now:
            # deleting knows what to do.
            pass
        delete(folder)

    def let_go(self, folder: Path) -> None:
        """The workspace is no orphan, whoever ends."""
        self._owners.release(folder)


class FolderWorkspace:
    """A `Workspace`: a folder that holds the starting files once it is asked for."""

    def __init__(
        self,
        store: FolderWorkspaces,
        folder: Path,
        start: Mapping[str, FileMemento],
        execution_id: str,
        parent_id: str | None,
    ) -> None:
        self._store = store
        self._folder = folder
        self._execution_id = execution_id
        self._parent_id = parent_id
        self._tracker = store.tracker
        self._start = start
        self._last: FileSnapshot | None = None
        self._lock = threading.Lock()

    def path(self) -> Path:
        """The folder; the first call makes it, in place of one from an earlier attempt."""
        with self._lock:
            if self._last is None:
                is_new = not os.path.lexists(self._folder)
                self._last = self._store.fill(self._folder, self._start)
                self._tell_made(is_new=is_new)
        return self._folder

    def put_back(self) -> FileSnapshot | None:
        """See `Workspace.put_back`."""
        with self._lock:
            return self._store.put_back(self._folder, self._start)

    def _tell_made(self, *, is_new: bool) -> None:
        said: dict[str, Any] = {"at": datetime.now(UTC), "path": str(self._folder)}
        said["execution_id"] = self._execution_id
        if is_new:
            self._store.tell(WorkspaceCreated(**said, strategy=self._store.strategy))
        if self._parent_id is not None:
            self._store.tell(WorkspaceForked(**said, parent_id=self._parent_id))
        self._store.tell(WorkspaceActivated(**said, files=len(self._start)))

    @property
    def is_made(self) -> bool:
        """Whether `path()` has been called."""
        return self._last is not None

    @property
    def strategy(self) -> str | None:
        """See `Workspace.strategy`."""
        return self._store.strategy if self.is_made else None

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
                self._store.stand(self._folder)

    def snapshot(self) -> FileSnapshot | None:
        """What the folder holds now; a folder that the workflow deleted holds nothing."""
        with self._lock:
            if self._last is not None:
                self._last = self._tracker.snapshot(self._folder, self._last)
            return self._last

    def keep(self) -> None:
        """See `Workspace.keep`."""
        self._store.let_go(self._folder)

    def remove(self) -> None:
        """Puts the folder aside (also one from an earlier attempt), with parents left empty.

        It is deleted by `sweep`: on ext4 creating files soon after deleting many is many times
        slower, and a batch makes folders all the time (100 ms instead of 10 for 80 files). Where
        the disk is nearly full it is deleted at once.
        """
        with self._lock:
            there = os.path.lexists(self._folder)
            self._store.put_away(self._folder)
            self._last = None
        if there:
            gone = WorkspaceCleanedUp(
                at=datetime.now(UTC), path=str(self._folder), execution_id=self._execution_id
            )
            self._store.tell(gone)


def folder_of(label: str, execution_id: str) -> Path:
    """The relative path of a workspace: readable, safe to join, different for every execution."""
    *parents, name = [_safe(part, _MAX_COMPONENT_BYTES) for part in label.split("/")]
    ending = f"-{_safe(execution_id[-_ID_CHARACTERS:], _ID_CHARACTERS * 4)}"
    return Path(*parents, _cut(name, _MAX_COMPONENT_BYTES - len(ending.encode())) + ending)


def _safe(part: str, limit: int) -> str:
    """A file name like `part`; it never starts with a dot, so it is never hidden, `.` or `..`."""
    text = _UNSAFE.sub("_", part.encode(errors="replace").decode())
    if text.startswith("."):
        text = f"_{text[1:]}"
    return _cut(text, limit).strip() or "_"


def _cut(text: str, limit: int) -> str:
    return text.encode()[:limit].decode(errors="ignore")
