"""Blobs in a local folder: `objects/{hash[:2]}/{hash[2:]}`, written once, read with a check."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import secrets
import stat
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from wtb_prefect.domain.file_processing import Leftovers, StoredBlob
from wtb_prefect.domain.identifiers import BlobId, digest
from wtb_prefect.errors import FileTrackingError
from wtb_prefect.infrastructure.file_tracking.file_system import (
    Cloner,
    CopyStrategy,
    FileSystemSync,
    copy_strategy,
)
from wtb_prefect.infrastructure.file_tracking.hashed_copy import (
    BLOB_ID,
    CHUNK,
    NEW,
    READ,
    PutByThisThread,
    chunks,
    copy_bytes,
    verify,
    write_all,
)
from wtb_prefect.infrastructure.file_tracking.store_lock import StoreLock

# From how many files on one sync of the file system is cheaper than one of each file.
_MANY = 64


class LocalBlobStore:
    """A `BlobStore` that several threads and several processes may write to at once.

    A blob gets its name, and can be read, once it is flushed: what has a name has durable content.
    A crash leaves nothing but files in `objects/tmp/`. Removing a blob locks out whoever sets its
    time or gives it its name (`StoreLock`): between a look at the time and the removal nobody can
    begin to count on the blob.
    """

    def __init__(self, root: Path) -> None:
        self._objects = os.path.join(os.path.abspath(root), "objects")
        self._temporary = os.path.join(self._objects, "tmp")
        self._ledgers = os.path.join(os.path.abspath(root), "ledgers")
        self._removal = StoreLock(os.path.join(os.path.abspath(root), "removal.lock"))
        self._token = secrets.token_hex(8)
        self._counter = itertools.count()
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        # The temp file of each blob put since the last flush; None where the blob has its name
        # already, but maybe only in memory (another process may be about to sync the folder).
        self._pending: dict[BlobId, str | None] = {}
        self._durable: set[BlobId] = set()
        self._mine = PutByThisThread()
        self._cloner = Cloner()
        self._make_folders()
        self._whole = FileSystemSync(self._temporary)

    def put_file(self, source: Path) -> tuple[BlobId, int]:
        """Stores a regular file's bytes; a symbolic link is refused, not followed.

        Raises:
            FileTrackingError: naming the file; no trace of it is left in the store.
        """
        try:
            fd = os.open(source, READ)
            try:
                found = os.fstat(fd)
                if not stat.S_ISREG(found.st_mode):
                    raise FileTrackingError(f"cannot store {str(source)!r}: not a regular file")
                if found.st_size <= CHUNK:
                    data = os.read(fd, found.st_size + 1)
                    if len(data) == found.st_size:
                        return self._put(data), len(data)
                    os.lseek(fd, 0, os.SEEK_SET)  # it is being written to: read on until it ends
                return self._put_stream(fd)
            finally:
                os.close(fd)
        except OSError as exc:
            raise FileTrackingError(f"cannot store {str(source)!r}: {exc}") from exc

    def put_bytes(self, data: bytes) -> BlobId:
        """The same for bytes in memory."""
        try:
            return self._put(data)
        except OSError as exc:
            raise FileTrackingError(f"cannot store {len(data)} bytes: {exc}") from exc

    def flush(self) -> None:
        """Makes everything put so far durable, by whichever thread.

        Raises:
            FileTrackingError: something this thread put since its last flush, or anything that was
                pending now, could not be made durable. It must be put again.
        """
        mine = self._mine.take()
        with self._flushing:
            with self._lock:
                batch, self._pending = self._pending, {}
            if batch:
                self._publish(batch)
        lost = mine - self._durable
        if lost:
            raise FileTrackingError(f"blob {min(lost)} was lost when another thread's flush failed")

    def read(self, blob_id: BlobId) -> bytes:
        """The bytes, checked against the hash."""
        fd = self._open(blob_id)
        try:
            data = b"".join(chunks(fd))
        except OSError as exc:
            raise FileTrackingError(f"cannot read blob {blob_id}: {exc}") from exc
        finally:
            os.close(fd)
        verify(blob_id, hashlib.sha256(data).hexdigest())
        return data

    def check(self, blob_id: BlobId) -> None:
        """The same, and nothing is kept of them."""
        fd, hasher = self._open(blob_id), hashlib.sha256()
        try:
            for data in chunks(fd):
                hasher.update(data)
        except OSError as exc:
            raise FileTrackingError(f"cannot read blob {blob_id}: {exc}") from exc
        finally:
            os.close(fd)
        verify(blob_id, hasher.hexdigest())

    def copy_to(self, blob_id: BlobId, target: Path | str, mode: int = 0o666) -> os.stat_result:
        """Writes the bytes to a new file, verifying the hash while copying.

        A clone is verified by its own bytes: those of the blob may have changed meanwhile.
        """
        fd = self._open(blob_id)
        try:
            copy = os.open(target, NEW, mode)
            try:
                verify(blob_id, self._copied(fd, copy))
                return os.fstat(copy)
            except BaseException:  # whatever happened: half a file must not stay
                os.unlink(target)
                raise
            finally:
                os.close(copy)
        except OSError as exc:
            raise FileTrackingError(
                f"cannot copy blob {blob_id} to {str(target)!r}: {exc}"
            ) from exc
        finally:
            os.close(fd)

    def strategy(self, folder: Path) -> CopyStrategy:
        """How `copy_to` gets large files into a folder: as clones, if the file system has them."""
        return copy_strategy(Path(self._temporary), folder)

    def _copied(self, source: int, target: int) -> str:
        """The hash of what the target holds now.

        A clone's bytes are read from the disk, a copy's from memory: on XFS 10,000 clones of 10 KB
        took 1.9 s, copies 0.7 s.
        """
        size = os.fstat(source).st_size
        if size < CHUNK or not self._cloner.clone(source, target):
            data = os.read(source, size + 1)
            if len(data) == size:
                write_all(target, data)
                return hashlib.sha256(data).hexdigest()
            os.lseek(source, 0, os.SEEK_SET)
            return copy_bytes(source, target)[0]
        hasher = hashlib.sha256()
        for data in chunks(target):
            hasher.update(data)
        return hasher.hexdigest()

    def exists(self, blob_id: BlobId) -> bool:
        """Whether the blob has its name (its bytes are not looked at)."""
        return os.path.exists(self._path(blob_id))

    def size(self, blob_id: BlobId) -> int | None:
        """By its name alone."""
        try:
            return os.stat(self._path(blob_id)).st_size
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise FileTrackingError(f"cannot look at blob {blob_id}: {exc}") from exc

    def stored(self) -> Iterator[StoredBlob]:
        """See `BlobStore.stored`; what has no blob's name is not looked at."""
        try:
            for number in range(256):
                prefix = f"{number:02x}"
                with os.scandir(f"{self._objects}/{prefix}") as entries:
                    for entry in entries:
                        if BLOB_ID.fullmatch(prefix + entry.name):
                            with contextlib.suppress(FileNotFoundError):
                                found = entry.stat(follow_symlinks=False)
                                at = datetime.fromtimestamp(found.st_mtime, UTC)
                                blob_id = BlobId(prefix + entry.name)
                                yield StoredBlob(blob_id=blob_id, size=found.st_size, put_at=at)
        except OSError as exc:
            raise FileTrackingError(f"cannot list blobs: {exc}") from exc

    def remove(self, blob_id: BlobId, put_before: datetime) -> bool:
        """See `BlobStore.remove`. Raises `FileTrackingError` where files cannot be locked."""
        path = self._path(blob_id)
        try:
            with self._removal.exclusive():
                if os.stat(path).st_mtime >= put_before.timestamp():
                    return False
                os.unlink(path)
        except FileNotFoundError:
            return False
        except OSError as exc:
            raise FileTrackingError(f"cannot remove blob {blob_id}: {exc}") from exc
        return True

    def leftovers(self, put_before: datetime, *, remove: bool) -> Leftovers:
        """Files in `objects/tmp/` that were not written to since."""
        count = size = 0
        try:
            with os.scandir(self._temporary) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):  # flushed just now
                        found = entry.stat(follow_symlinks=False)
                        if found.st_mtime < put_before.timestamp():
                            if remove:
                                os.unlink(entry.path)
                            count, size = count + 1, size + found.st_size
        except OSError as exc:
            raise FileTrackingError(f"cannot clean up {self._temporary!r}: {exc}") from exc
        return Leftovers(count=count, size=size)

    def register_ledger(self, url: str) -> None:
        """One file a ledger, its URL in it, written at once."""
        note = f"{self._ledgers}/{digest(url)}"
        if os.path.exists(note):
            return
        try:
            _make_durable_folder(self._ledgers)
            with self._temporary_file() as (fd, name):
                write_all(fd, url.encode())
                os.fsync(fd)
            os.rename(name, note)
            _sync(self._ledgers)
        except OSError as exc:
            raise FileTrackingError(f"cannot note the ledger {url!r}: {exc}") from exc

    def ledgers(self) -> dict[str, str]:
        """The notes of `register_ledger`."""
        try:
            return {str(note): note.read_text() for note in sorted(Path(self._ledgers).glob("*"))}
        except OSError as exc:
            raise FileTrackingError(f"cannot read {self._ledgers!r}: {exc}") from exc

    def _make_folders(self) -> None:
        """All folders at once: one made later would need a sync of `objects/` per flush.

        `tmp` is made last, so that its presence says that the others are there, durably.
        """
        if os.path.isdir(self._temporary):
            return
        try:
            _make_durable_folder(self._objects)
            for number in range(256):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(os.path.join(self._objects, f"{number:02x}"))
            _sync(self._objects)
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._temporary)
            _sync(self._objects)
        except OSError as exc:
            raise FileTrackingError(f"cannot make a blob store: {exc}") from exc

    def _path(self, blob_id: BlobId) -> str:
        if not BLOB_ID.fullmatch(blob_id):
            raise FileTrackingError(f"{blob_id!r} is not a blob id")
        return f"{self._objects}/{blob_id[:2]}/{blob_id[2:]}"

    def _open(self, blob_id: BlobId) -> int:
        try:
            return os.open(self._path(blob_id), READ)
        except FileNotFoundError as exc:
            raise FileTrackingError(f"blob {blob_id} is missing from {self._objects!r}") from exc
        except OSError as exc:
            raise FileTrackingError(f"cannot read blob {blob_id}: {exc}") from exc

    def _put(self, data: bytes) -> BlobId:
        blob_id = BlobId(hashlib.sha256(data).hexdigest())
        if not self._is_stored(blob_id, len(data)):
            with self._temporary_file() as (fd, name):
                write_all(fd, data)
            self._keep(blob_id, name)
        self._mine.add(blob_id)
        return blob_id

    def _put_stream(self, source: int) -> tuple[BlobId, int]:
        with self._temporary_file() as (fd, name):
            digest, size = copy_bytes(source, fd)
            blob_id = BlobId(digest)
            is_stored = self._is_stored(blob_id, size)
        if is_stored:
            os.unlink(name)
        else:
            self._keep(blob_id, name)
        self._mine.add(blob_id)
        return blob_id, size

    def _is_stored(self, blob_id: BlobId, size: int) -> bool:
        """Whether nothing more needs writing; then the blob is part of the next flush, if need be.

        A blob of the wrong size is damaged, and is replaced by a good one. The time of a good one
        is set to now, so that a clean-up of old blobs spares it.
        """
        with self._lock:
            if self._pending.get(blob_id) is not None:
                return True
        path, was_durable = self._path(blob_id), blob_id in self._durable
        try:
            is_good = os.stat(path).st_size == size
            if is_good:
                with self._removal.shared():
                    os.utime(path)
        except FileNotFoundError:
            is_good = False
        if not is_good:
            if was_durable:  # removed by a clean-up, or damaged, since then
                self._durable.discard(blob_id)
            return False
        if blob_id not in self._durable:
            with self._lock:
                self._pending.setdefault(blob_id, None)
        return True

    def _keep(self, blob_id: BlobId, temporary: str) -> None:
        with self._lock:
            other = self._pending.get(blob_id)
            self._pending[blob_id] = temporary
        if other is not None:
            os.unlink(other)  # two threads put the same bytes at the same moment

    @contextlib.contextmanager
    def _temporary_file(self) -> Iterator[tuple[int, str]]:
        # The process id keeps a forked child, which inherits token and counter, off its parent.
        name = f"{self._temporary}/{self._token}-{os.getpid()}-{next(self._counter)}"
        fd = os.open(name, NEW, 0o444)
        try:
            yield fd, name
        except BaseException:  # whatever happened: the half-written file is of no use
            os.unlink(name)
            raise
        finally:
            os.close(fd)

    def _publish(self, batch: dict[BlobId, str | None]) -> None:
        """Contents first, then names, then the folders that hold the names.

        A file that could not be synced is dropped: a second fsync may well report success for pages
        that the first one lost.
        """
        written = {blob_id: name for blob_id, name in batch.items() if name is not None}
        unnamed = set(written.values())
        try:
            if self._whole.is_safe and len(unnamed) >= _MANY:
                self._whole.sync()
            else:
                for name in unnamed:
                    _start_writing(name)
                for name in unnamed:
                    _sync(name)
            with self._removal.shared():
                for blob_id, name in written.items():
                    os.rename(name, self._path(blob_id))
                    unnamed.discard(name)
            for folder in {blob_id[:2] for blob_id in batch}:
                _sync(f"{self._objects}/{folder}")
        except OSError as exc:
            raise FileTrackingError(f"cannot make blobs durable: {exc}") from exc
        finally:
            for name in unnamed:
                with contextlib.suppress(OSError):
                    os.unlink(name)
        self._durable.update(batch)


def _start_writing(path: str) -> None:
    """Has the disk begin on a file, so that syncing many takes half the time.

    The kernel writes dirty pages out before it drops them, and keeps those still being written.
    """
    if hasattr(os, "posix_fadvise"):  # not on macOS
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as exc:
        exc.filename = path  # os.fsync knows only the descriptor
        raise
    finally:
        os.close(fd)


def _make_durable_folder(path: str) -> None:
    if not os.path.isdir(path):
        parent = os.path.dirname(path)
        _make_durable_folder(parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
        _sync(parent)
