"""What a folder holds, as mementos over a blob store; and a folder made from mementos."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Protocol

from wtb_prefect.domain.file_processing import FileMemento, FileSnapshot, StatSignature
from wtb_prefect.domain.identifiers import BlobId
from wtb_prefect.domain.interfaces.file_tracking import BlobStore
from wtb_prefect.errors import FileTrackingError
from wtb_prefect.infrastructure.file_tracking.hash_only import HashOnly
from wtb_prefect.infrastructure.file_tracking.ignored_files import IgnoredFiles, folders_of
from wtb_prefect.infrastructure.file_tracking.safe_paths import check_path, checked_folders
from wtb_prefect.infrastructure.file_tracking.staging import make_staging
from wtb_prefect.infrastructure.file_tracking.swap import HALF_CHANGED, exchange, refuse_collisions

_PERMISSIONS = 0o777
# How much older than a snapshot a file's mtime must be for its signature to be trusted. The kernel
# stamps files by a clock that ticks every 1 to 10 ms; a file system that keeps whole (or pairs of)
# seconds shows it by round numbers.
_TICK_NS = 20_000_000
_COARSE_TICK_NS = 2_100_000_000
_MICROSECOND_NS = 1_000
# Restored files get an mtime this far back, so that the next snapshot trusts their signatures and
# any write shows, even one in the same tick.
_SETTLED_NS = 4_000_000_000


class _Stores(Protocol):
    """Where a scan puts what it finds."""

    def put_file(self, source: Path) -> tuple[BlobId, int]: ...
    def put_bytes(self, data: bytes) -> BlobId: ...


class LocalFileTracker:
    """A `FileTracker` for folders of the local file system.

    Folders are only the paths of files: an empty one is not remembered, nor is a folder's mode.
    """

    def __init__(self, blobs: BlobStore, ignored: IgnoredFiles | None = None) -> None:
        self._blobs = blobs
        self._ignored = IgnoredFiles() if ignored is None else ignored

    def snapshot(self, root: Path, previous: FileSnapshot) -> FileSnapshot:
        """Stores what changed; an untouched folder costs one stat a file and gives `previous`.

        A file changed while it is read is recorded as it was stored, and read again next time.
        """
        scan = _Scan(self._blobs, previous, time.time_ns(), self._ignored)
        try:
            scan.folder(os.fspath(root))
        except OSError as exc:
            raise FileTrackingError(f"cannot read {str(root)!r}: {exc}") from exc
        if scan.is_unchanged:
            return previous
        self._blobs.flush()
        return scan.result()

    def restore(self, files: Mapping[str, FileMemento], root: Path) -> FileSnapshot:
        """Fills a folder next to `root`, then gives it the name. It need not survive a power cut.

        Links are written as links, wherever they point; nothing is ever written through one.
        """
        folders = checked_folders(files)
        staging = ""
        try:
            staging = make_staging(os.path.dirname(os.path.abspath(root)), "restoring")
            refuse_collisions(files, staging)
            for folder in folders:
                os.mkdir(f"{staging}/{folder}")
            # Two threads were no faster on two cores: they wait for the interpreter's lock.
            stats = {
                path: self._write(memento, f"{staging}/{path}") for path, memento in files.items()
            }
            # Nobody writes in it before it has its name, and by then most files are old enough:
            # setting each one's time took a tenth of the whole.
            taken = time.time_ns()
            for path, found in stats.items():
                if _is_racy(found.mtime_ns, taken):
                    stats[path] = _settle(f"{staging}/{path}", taken)
            os.rename(staging, root)
        except OSError as exc:
            raise FileTrackingError(f"cannot restore {str(root)!r}: {exc}") from exc
        finally:
            if staging and os.path.lexists(staging):
                shutil.rmtree(staging, ignore_errors=True)
        return FileSnapshot(files=dict(files), stats=stats, taken_ns=taken)

    def apply(
        self,
        changed: Iterable[FileMemento],
        removed: Iterable[str],
        root: Path,
        previous: FileSnapshot,
    ) -> FileSnapshot:
        """Removes, then writes each file beside its place and renames it there.

        What is written gets an mtime that `previous` trusts, so that it is not hashed again.
        """
        files, stats = dict(previous.files), dict(previous.stats)
        base = os.fspath(root)
        try:
            os.makedirs(base, exist_ok=True)  # the workflow may have deleted it
            for path in removed:
                _remove_file(base, path)
                files.pop(path, None)
                stats.pop(path, None)
            for memento in changed:
                stats[memento.path] = self._put_in_place(memento, base, previous.taken_ns)
                files[memento.path] = memento
        except OSError as exc:
            raise FileTrackingError(f"cannot change {base!r}: {exc}") from exc
        return FileSnapshot(files=files, stats=stats, taken_ns=previous.taken_ns)

    def update(
        self, files: Mapping[str, FileMemento], root: Path, previous: FileSnapshot
    ) -> FileSnapshot:
        """Stages what differs beside `root`, then moves it in; taken back if a move fails.

        A process that is killed meanwhile leaves the folder between the two, and what it held in
        `.updating-...` beside it.
        """
        checked_folders(files)
        base = os.path.abspath(root)
        scan = _Scan(HashOnly(), previous, time.time_ns(), self._ignored)
        staging = ""
        try:
            scan.folder(base)
            held = scan.result()
            wanted = [m for m in files.values() if not _is_held(m, held)]
            extra = [path for path in held.files if path not in files]
            if not wanted and not extra:
                return FileSnapshot(files=dict(files), stats=held.stats, taken_ns=held.taken_ns)
            # Files can be moved within one file system only: in a mount it is inside.
            parent = base if os.path.ismount(base) else os.path.dirname(base)
            staging = make_staging(parent, "updating")
            refuse_collisions(files, staging)
            for number, memento in enumerate(wanted):
                self._write(memento, f"{staging}/{number}")
                _settle(f"{staging}/{number}", held.taken_ns)
            found = exchange(base, staging, extra, [memento.path for memento in wanted])
        except OSError as exc:
            raise FileTrackingError(f"cannot change {base!r}: {exc}") from exc
        finally:
            with contextlib.suppress(OSError):  # what cannot be cleared away is no failure
                if staging and not os.path.lexists(f"{staging}/{HALF_CHANGED}"):
                    shutil.rmtree(staging)
        stats = {path: held.stats[path] for path in files if path not in found}
        stats.update((path, _signature(entry)) for path, entry in found.items())
        return FileSnapshot(files=dict(files), stats=stats, taken_ns=held.taken_ns)

    def store_texts(self, files: Iterable[tuple[str, bytes]]) -> tuple[FileMemento, ...]:
        """Stores given contents as durable blobs and returns their mementos (for case files)."""
        contents = dict(files)
        checked_folders(contents)
        mementos = tuple(
            FileMemento(path=path, blob_id=self._blobs.put_bytes(data), size=len(data))
            for path, data in contents.items()
        )
        self._blobs.flush()
        return mementos

    def verify(self, files: Iterable[FileMemento], *, deep: bool = True) -> None:
        """Reads what these files are made of, each content once, or only asks for their sizes."""
        for memento in {memento.blob_id: memento for memento in files}.values():
            try:
                self._check_size(memento)
                if deep:
                    self._blobs.check(memento.blob_id)
            except FileTrackingError as exc:
                raise FileTrackingError(f"{memento.path!r} cannot be restored: {exc}") from exc

    def _check_size(self, memento: FileMemento) -> None:
        found = self._blobs.size(memento.blob_id)
        if found is None:
            raise FileTrackingError(f"blob {memento.blob_id} is missing")
        if found != memento.size:
            raise FileTrackingError(
                f"blob {memento.blob_id} has {found} bytes, recorded were {memento.size}"
            )

    def contents(self, blob_id: BlobId) -> bytes:
        """The bytes of a blob, checked against their hash."""
        return self._blobs.read(blob_id)

    def _put_in_place(self, memento: FileMemento, root: str, taken_ns: int) -> StatSignature:
        check_path(memento.path)
        _make_folders(root, memento.path)
        target = f"{root}/{memento.path}"
        if _is_plain_folder(target):
            _remove_empty(target)
        beside = f"{root}/.replaying-{secrets.token_hex(8)}"
        try:
            self._write(memento, beside)
            _settle(beside, taken_ns)
            os.rename(beside, target)
        except BaseException:  # whatever happened: half a file must not stay
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise
        return _signature(os.lstat(target))  # renaming changes the ctime

    def _write(self, memento: FileMemento, target: str) -> StatSignature:
        permissions = memento.mode & _PERMISSIONS
        try:
            if memento.is_symlink:
                found = self._write_link(memento, target)
            else:
                found = self._blobs.copy_to(memento.blob_id, target, permissions)
        except FileTrackingError as exc:
            raise FileTrackingError(f"{memento.path!r} cannot be restored: {exc}") from exc
        if found.st_size != memento.size:
            raise FileTrackingError(
                f"blob {memento.blob_id} has {found.st_size} bytes, "
                f"but {memento.path!r} was recorded with {memento.size}"
            )
        if found.st_mode & _PERMISSIONS != permissions and not memento.is_symlink:
            os.chmod(target, permissions)
            found = os.lstat(target)
        return _signature(found)

    def _write_link(self, memento: FileMemento, target: str) -> os.stat_result:
        text = self._blobs.read(memento.blob_id)
        if b"\0" in text:
            raise FileTrackingError(f"blob {memento.blob_id} is no link target: it holds a NUL")
        os.symlink(os.fsdecode(text), target)
        return os.lstat(target)


class _Scan:
    """One walk over a folder: reuses what `previous` knows, stores the rest."""

    def __init__(
        self, blobs: _Stores, previous: FileSnapshot, taken_ns: int, ignored: IgnoredFiles
    ) -> None:
        self._ignored = ignored
        self._blobs = blobs
        self._previous = previous
        self._taken_ns = taken_ns
        self._files: dict[str, FileMemento] = {}
        self._stats: dict[str, StatSignature] = {}
        self._stored = 0

    @property
    def is_unchanged(self) -> bool:
        """Every file of the previous snapshot was found, trusted, and no other."""
        return not self._stored and len(self._files) == len(self._previous.files)

    def result(self) -> FileSnapshot:
        return FileSnapshot(files=self._files, stats=self._stats, taken_ns=self._taken_ns)

    def folder(self, root: str) -> None:
        """Walks the folder; what vanishes meanwhile counts as absent."""
        waiting = [""]
        while waiting:
            prefix = waiting.pop()
            try:
                with os.scandir(f"{root}/{prefix}") as entries:
                    for entry in entries:
                        self._entry(entry, prefix, waiting)
            except FileNotFoundError:
                continue
            except NotADirectoryError:
                if not prefix:
                    raise

    def _entry(self, entry: os.DirEntry[str], prefix: str, waiting: list[str]) -> None:
        path = prefix + entry.name
        try:
            found = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(found.st_mode):
            folder = f"{path}/"
            if not self._ignored.has(folder) or folder in self._tracked_folders:
                waiting.append(folder)
        elif (known := self._known(path, found)) is not None:
            self._files[path] = known
            self._stats[path] = self._previous.stats[path]
        elif path not in self._previous.files and self._ignored.has(path):
            return
        elif (memento := self._store(entry.path, path, found)) is not None:
            self._files[path] = memento
            self._stats[path] = _signature(found)

    @cached_property
    def _tracked_folders(self) -> set[str]:
        """Looked for only where a folder is ignored: 2 ms of 10,000 files."""
        return folders_of(self._previous.files)

    def _known(self, path: str, found: os.stat_result) -> FileMemento | None:
        """The previous memento, if the file was surely not touched since.

        The mode is compared by itself: a restored file's ctime is new, so a chmod in the same tick
        leaves no other trace.
        """
        old = self._previous.stats.get(path)
        memento = self._previous.files.get(path)
        if (
            old is None
            or memento is None
            or memento.mode != found.st_mode & _PERMISSIONS
            or memento.is_symlink != stat.S_ISLNK(found.st_mode)
            or old.mtime_ns != found.st_mtime_ns
            or old.ctime_ns != found.st_ctime_ns
            or old.size != found.st_size
            or old.inode != found.st_ino
            or _is_racy(old.mtime_ns, self._previous.taken_ns)
        ):
            return None
        return memento

    def _store(self, source: str, path: str, found: os.stat_result) -> FileMemento | None:
        check_path(path)
        self._stored += 1
        try:
            blob_id, size = self._put(source, found.st_mode)
        except FileNotFoundError:
            return None
        except FileTrackingError as exc:
            if _vanished(exc, source):
                return None
            raise
        return FileMemento(
            path=path,
            blob_id=blob_id,
            size=size,
            mode=found.st_mode & _PERMISSIONS,
            is_symlink=stat.S_ISLNK(found.st_mode),
        )

    def _put(self, source: str, mode: int) -> tuple[BlobId, int]:
        if stat.S_ISREG(mode):
            return self._blobs.put_file(Path(source))
        if stat.S_ISLNK(mode):
            target = os.fsencode(os.readlink(source))
            return self._blobs.put_bytes(target), len(target)
        raise FileTrackingError(f"{source!r} is neither a file, a folder nor a link")


def _vanished(error: FileTrackingError, source: str) -> bool:
    cause = error.__cause__
    return (
        isinstance(cause, FileNotFoundError | NotADirectoryError)
        and cause.filename is not None
        and os.fspath(cause.filename) == source
    )


def _is_racy(mtime_ns: int, taken_ns: int) -> bool:
    """Whether a write just after the snapshot could have left the file's times as they were."""
    tick = _TICK_NS if mtime_ns % _MICROSECOND_NS else _COARSE_TICK_NS
    return mtime_ns + tick > taken_ns


def _settle(path: str, taken_ns: int) -> StatSignature:
    """Gives a file an mtime that a snapshot of that moment trusts."""
    mtime_ns = taken_ns - _SETTLED_NS
    os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)
    return _signature(os.lstat(path))


def _signature(found: os.stat_result) -> StatSignature:
    return StatSignature(found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)


def _is_held(wanted: FileMemento, held: FileSnapshot) -> bool:
    found = held.files.get(wanted.path)
    if found is None or not (wanted.is_symlink and found.is_symlink):
        return found == wanted
    return found.blob_id == wanted.blob_id  # a link has no mode of its own


def _parents(path: str) -> list[str]:
    """The folders a path lies in, the innermost first."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[:length]) for length in range(len(parts), 0, -1)]


def _is_plain_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _remove_file(root: str, path: str) -> None:
    """Removes a file or link, and the folders that are empty then: only files are remembered."""
    check_path(path)
    folders = [f"{root}/{folder}" for folder in _parents(path)]
    if not all(map(_is_plain_folder, folders)):
        return  # there is no such file any more
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{root}/{path}")
    for folder in folders:
        try:
            os.rmdir(folder)
        except OSError:  # not empty
            return


def _remove_empty(folder: str) -> None:
    """Removes a folder that holds nothing but folders; raises `OSError` if it holds a file."""
    for parent, _, _ in os.walk(folder, topdown=False):
        os.rmdir(parent)


def _make_folders(root: str, path: str) -> None:
    """The folders a path needs; never one behind a link, which may lead out of the workspace."""
    for folder in reversed(_parents(path)):
        place = f"{root}/{folder}"
        if not os.path.lexists(place):
            os.mkdir(place)
        elif not _is_plain_folder(place):
            raise FileTrackingError(f"{folder!r} is in the way of {path!r}: it is no folder")
