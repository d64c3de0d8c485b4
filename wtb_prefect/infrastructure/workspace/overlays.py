"""Workspaces as overlay mounts: a shared folder of the starting files under a layer of changes."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import secrets
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from operator import is_
from pathlib import Path

from wtb_prefect.domain.file_processing import FileMemento, FileSnapshot
from wtb_prefect.domain.interfaces.file_tracking import FileTracker
from wtb_prefect.errors import FileTrackingError
from wtb_prefect.infrastructure.file_tracking.staging import (
    make_folder,
    staging_folders,
    staging_name,
)
from wtb_prefect.infrastructure.file_tracking.store_lock import StoreLock
from wtb_prefect.infrastructure.processes import is_alive
from wtb_prefect.infrastructure.workspace.trees import delete, last_written

# linux/mount.h. Detached, because a process that still sits in a workspace must not keep it.
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
# redirect_dir: else nodes could not rename folders they started with. metacopy: else a layer would
# point into the folder below it. volatile: an unmount would sync the whole file system otherwise.
_OPTIONS = "redirect_dir=on,metacopy=off,volatile"
_TRIES = 10
_REMEMBERED = 32


class Overlays:
    """Below one folder: `starts/<key>`, the starting files of any number of workspaces, never
    changed once it has its name, and `layers/<workspace>/<token>` with what one has changed.

    A layer names its start in the file `start`, and is written before anything is mounted: a start
    that no layer names is used by nobody. Whoever writes or removes a layer and whoever looks for
    starts to remove lock each other out.
    """

    def __init__(self, folder: Path, tracker: FileTracker) -> None:
        self._tracker = tracker
        self._starts = folder / "starts"
        self._layers = folder / "layers"
        self._removed = folder / "removed"
        self._lock = StoreLock(str(folder / ".lock"))
        self._making = threading.Lock()
        # What is known of a start, with its folder's inode and ctime: another process may have
        # removed it and made it again.
        self._known: OrderedDict[str, tuple[tuple[int, int], FileSnapshot]] = OrderedDict()
        self._last: tuple[tuple[FileMemento, ...], str] = ((), _key({}))

    def make(self, folder: Path, start: Mapping[str, FileMemento]) -> FileSnapshot:
        """Mounts a workspace at a new folder, or on top of an earlier one, which stays if it fails.

        Raises:
            FileTrackingError: a blob is missing or damaged, or it cannot be mounted.
        """
        key = self._key_of(start)
        layer = self._layers / folder.name / secrets.token_hex(8)
        was_there = os.path.lexists(folder)
        try:
            snapshot = self._begin(key, start, layer)
            if not was_there:
                make_folder(os.fspath(folder))
            mount_overlay(self._starts / key, layer / "upper", layer / "work", folder)
        except OSError as exc:
            if layer.exists():
                with self._lock.shared():
                    delete(layer)
            if not was_there and folder.is_dir():
                folder.rmdir()
            raise FileTrackingError(f"cannot mount the workspace {str(folder)!r}: {exc}") from exc
        return snapshot

    def take_away(self, folder: Path) -> None:
        """Unmounts a workspace, if it is mounted, and puts its changes aside for `sweep`."""
        try:
            while os.path.ismount(folder):  # one on top of another
                unmount(folder)
            layers = self._layers / folder.name
            if layers.exists():
                with self._lock.shared():
                    self._put_aside(layers)
        except OSError as exc:
            raise FileTrackingError(f"cannot unmount {str(folder)!r}: {exc}") from exc

    def sweep(self) -> None:
        """Deletes what was put aside, and starting files that no workspace uses."""
        try:
            if self._starts.is_dir():
                with self._lock.exclusive():
                    used = {note.read_text() for note in self._layers.glob("*/*/start")}
                    for start in self._starts.iterdir():
                        if start.name not in used and not start.name.startswith("."):
                            self._put_aside(start)
        except OSError as exc:
            raise FileTrackingError(f"cannot clean up {str(self._starts)!r}: {exc}") from exc
        for found in self._removed.glob("*"):
            delete(found)

    def clean_staging(self, grace_seconds: float) -> None:
        """Deletes what processes left that died while they made starting files."""
        for found, maker in staging_folders(self._starts):
            if not is_alive(maker) and time.time() - last_written(found) >= grace_seconds:
                delete(found)

    def _key_of(self, start: Mapping[str, FileMemento]) -> str:
        """The key of the last one is remembered: it takes 4 ms of 10,000 files."""
        mementos, key = self._last
        if len(mementos) == len(start) and all(map(is_, mementos, start.values())):
            return key
        key = _key(start)
        self._last = (tuple(start.values()), key)
        return key

    def _begin(self, key: str, start: Mapping[str, FileMemento], layer: Path) -> FileSnapshot:
        """Makes a layer over the starting files, which are made first where there are none."""
        self._starts.mkdir(parents=True, exist_ok=True)
        for _ in range(_TRIES):
            with self._lock.shared():
                snapshot = self._what_is_known(key)
                if snapshot is not None:
                    for name in ("upper", "work"):
                        (layer / name).mkdir(parents=True)
                    (layer / "start").write_text(key)
                    return snapshot
            with self._making:
                if self._what_is_known(key) is None:
                    self._make_start(key, start)
        raise FileTrackingError(f"{str(self._starts / key)!r} is removed again and again")

    def _what_is_known(self, key: str) -> FileSnapshot | None:
        known = self._known.get(key)
        return known[1] if known and known[0] == _identity(self._starts / key) else None

    def _make_start(self, key: str, start: Mapping[str, FileMemento]) -> None:
        place = self._starts / key
        seen = _identity(place)
        if seen is not None:  # of another process: every file is read and compared
            found = self._tracker.snapshot(place, FileSnapshot(files=start))
            if found.files == start:
                self._remember(key, seen, found)
            else:
                with self._lock.exclusive():
                    self._put_aside(place)
            return
        made = self._starts / staging_name("restoring")
        snapshot = self._tracker.restore(start, made)
        try:
            os.rename(made, place)
        except OSError as exc:
            delete(made)
            if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another process was faster
                raise
            return
        identity = _identity(place)
        if identity is not None:
            self._remember(key, identity, snapshot)

    def _remember(self, key: str, identity: tuple[int, int], snapshot: FileSnapshot) -> None:
        self._known[key] = (identity, snapshot)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def _put_aside(self, folder: Path) -> None:
        self._removed.mkdir(parents=True, exist_ok=True)
        os.rename(folder, self._removed / f"{folder.name}-{secrets.token_hex(8)}")


def why_no_overlays(folder: Path) -> str | None:
    """Why nothing can be mounted below a folder; None if it can. Found out by doing it."""
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    try:
        with tempfile.TemporaryDirectory(prefix=".overlay-", dir=existing) as name:
            lower, upper, work, place = (Path(name) / n for n in ("lower", "upper", "work", "it"))
            for each in (lower, upper, work, place):
                each.mkdir()
            (lower / "file").touch()
            mount_overlay(lower, upper, work, place)
            try:
                (place / "file").unlink()
            finally:
                unmount(place)
            if not (lower / "file").exists():
                return f"what is deleted in an overlay below {existing} is deleted under it"
    except OSError as exc:
        advice = ": only root may mount" if exc.errno == errno.EPERM else ""
        return f"mounting an overlay below {existing} fails with {exc.strerror!r}{advice}"
    return None


def mount_overlay(lower: Path, upper: Path, work: Path, target: Path) -> None:
    """`mount(2)`: no process is started for it.

    Raises:
        OSError: the system does not mount it.
    """
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, "only Linux has overlay mounts")
    lowerdir, upperdir, workdir = map(_escaped, (lower, upper, work))
    options = f"lowerdir={lowerdir},upperdir={upperdir},workdir={workdir},{_OPTIONS}"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"overlay", os.fsencode(target), b"overlay", 0, os.fsencode(options)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(target))


def unmount(folder: Path) -> None:
    """Raises `OSError`: it is not mounted, or this process may not."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(folder), _MNT_DETACH | _UMOUNT_NOFOLLOW):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(folder))


def _escaped(path: Path) -> str:
    return re.sub(r"([\\,:])", r"\\\1", str(path))


def _key(start: Mapping[str, FileMemento]) -> str:
    """A digest of the files. Column by column: row by row it took twice as long."""
    rows = [start[path] for path in sorted(start)]
    modes, links = [m.mode for m in rows], [m.is_symlink for m in rows]
    names = "\0".join([m.path for m in rows])
    text = f"{names}\0{''.join([m.blob_id for m in rows])}{modes}{links}"
    return hashlib.sha256(text.encode()).hexdigest()


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = os.lstat(folder)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_ctime_ns
