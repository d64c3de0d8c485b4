"""Blobs on any file system that fsspec knows: object stores, above all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from wtb_prefect.domain.file_processing import Leftovers, StoredBlob
from wtb_prefect.domain.identifiers import BlobId, digest
from wtb_prefect.errors import FileTrackingError, InvalidInputError
from wtb_prefect.infrastructure.file_tracking.hashed_copy import (
    BLOB_ID,
    NEW,
    READ,
    copy_bytes,
    verify,
    write_all,
)

# Here an object is there whole or not at all; elsewhere it is written beside its place and moved.
_WHOLE_PUTS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "r2"}
_AT_ONCE = 16
_PIECE = 16 << 20


class _PutsOfThisThread(threading.local):
    """The last put of each blob by the current thread since its last flush."""

    def __init__(self) -> None:
        self.puts: dict[BlobId, int] = {}


class FsspecBlobStore:
    """A `BlobStore` below a URL: `objects/{hash[:2]}/{hash[2:]}`, as in a local one.

    What is put waits in a local folder, and is uploaded by `flush`: as durable then as the other
    side makes it. There are no locks over there, so removing has two phases. First a blob is moved
    to `trash/`, where it is still read; whoever puts it finds it missing and uploads it again.
    `remove` deletes it there if it was moved before the time it is told, so a commit that counted
    on the blob in the moment it was moved is recorded, and names it, long before.
    """

    def __init__(self, url: str) -> None:
        self._fs, self._root = _file_system(url)
        protocols = self._fs.protocol
        names = {protocols} if isinstance(protocols, str) else set(protocols)
        self._puts_whole = bool(names & _WHOLE_PUTS)
        self._url = url
        self._staging = tempfile.mkdtemp(prefix="wtb-blobs-")
        weakref.finalize(self, _remove_staging, self._staging, os.getpid())
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._puts = 0
        # By blob: the local file, and which put it was.
        self._pending: dict[BlobId, tuple[str, int]] = {}
        self._uploaded: dict[BlobId, int] = {}
        self._mine = _PutsOfThisThread()

    def put_file(self, source: Path) -> tuple[BlobId, int]:
        """See `BlobStore.put_file`; a symbolic link is refused, not followed."""
        try:
            fd = os.open(source, READ)
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise FileTrackingError(f"cannot store {str(source)!r}: not a regular file")
                with self._staged() as (copy, name):
                    found, size = copy_bytes(fd, copy)
            finally:
                os.close(fd)
        except OSError as exc:
            raise FileTrackingError(f"cannot store {str(source)!r}: {exc}") from exc
        return self._keep(BlobId(found), name), size

    def put_bytes(self, data: bytes) -> BlobId:
        """See `BlobStore.put_bytes`."""
        try:
            with self._staged() as (copy, name):
                write_all(copy, data)
        except OSError as exc:
            raise FileTrackingError(f"cannot store {len(data)} bytes: {exc}") from exc
        return self._keep(BlobId(hashlib.sha256(data).hexdigest()), name)

    def flush(self) -> None:
        """Uploads everything put so far, by whichever thread, several at once.

        Raises:
            FileTrackingError: something this thread put since its last flush, or anything that was
                pending now, was not uploaded. It must be put again.
        """
        mine, self._mine.puts = self._mine.puts, {}
        with self._flushing:
            with self._lock:
                batch, self._pending = self._pending, {}
            if batch:
                self._upload_all(batch)
        for blob_id, number in mine.items():
            if self._uploaded.get(blob_id, -1) < number:
                raise FileTrackingError(
                    f"blob {blob_id} was lost when another thread's flush failed"
                )

    def read(self, blob_id: BlobId) -> bytes:
        """The bytes, checked against the hash."""
        data = b"".join(self._pieces(blob_id))
        verify(blob_id, hashlib.sha256(data).hexdigest())
        return data

    def check(self, blob_id: BlobId) -> None:
        """The same, and nothing is kept of them."""
        hasher = hashlib.sha256()
        for data in self._pieces(blob_id):
            hasher.update(data)
        verify(blob_id, hasher.hexdigest())

    def copy_to(self, blob_id: BlobId, target: Path | str, mode: int = 0o666) -> os.stat_result:
        """Writes the bytes to a new file, verifying the hash while copying."""
        pieces = self._pieces(blob_id)
        first = next(pieces)  # a missing blob leaves no file
        hasher = hashlib.sha256(first)
        try:
            copy = os.open(target, NEW, mode)
            try:
                write_all(copy, first)
                for data in pieces:
                    hasher.update(data)
                    write_all(copy, data)
                verify(blob_id, hasher.hexdigest())
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

    def strategy(self, folder: Path) -> str:
        """Contents come from elsewhere: there is nothing to clone."""
        return "copy"

    def exists(self, blob_id: BlobId) -> bool:
        """Whether the blob has its name, be it in the trash."""
        with self._faults(f"cannot look for blob {blob_id}"):
            return self._fs.exists(self._path(blob_id)) or bool(self._in_trash(blob_id))

    def size(self, blob_id: BlobId) -> int | None:
        """By its name alone, be it in the trash."""
        with self._faults(f"cannot look at blob {blob_id}"):
            for path in (self._path(blob_id), *self._in_trash(blob_id)):
                try:
                    return int(self._fs.info(path)["size"])
                except FileNotFoundError:
                    continue
        return None

    def stored(self) -> Iterator[StoredBlob]:
        """See `BlobStore.stored`; one in the trash was put there last."""
        listed: set[BlobId] = set()
        for name, found in self._find("objects"):
            blob_id = name.replace("/", "")
            if BLOB_ID.fullmatch(blob_id):
                listed.add(BlobId(blob_id))
                at = self._modified(found)
                yield StoredBlob(blob_id=BlobId(blob_id), size=found["size"], put_at=at)
        for name, found in self._find("trash"):
            blob_id, _, moved = name.partition("/")
            if blob_id not in listed:
                listed.add(BlobId(blob_id))
                at = datetime.fromtimestamp(float(moved), UTC)
                yield StoredBlob(blob_id=BlobId(blob_id), size=found["size"], put_at=at)

    def remove(self, blob_id: BlobId, put_before: datetime) -> bool:
        """Moves a blob to the trash, or deletes it there: see the class."""
        path = self._path(blob_id)
        with self._faults(f"cannot remove blob {blob_id}"):
            if self._fs.exists(path):
                if self._modified(self._fs.info(path)) >= put_before:
                    return False
                self._move(path, f"{self._root}/trash/{blob_id}/{time.time():.6f}")
                return True
            found = self._in_trash(blob_id)
            if not found or any(float(_name(p)) >= put_before.timestamp() for p in found):
                return False
            for copy in found:
                self._fs.rm_file(copy)
        return True

    def leftovers(self, put_before: datetime, *, remove: bool) -> Leftovers:
        """Uploads that were not finished, and what is in the trash besides being stored again."""
        count = size = 0
        for folder in ("uploads", "trash"):
            for name, found in list(self._find(folder)):
                if folder == "uploads":
                    is_old = self._modified(found) < put_before
                else:
                    blob_id, _, moved = name.partition("/")
                    is_old = float(moved) < put_before.timestamp()
                    is_old = is_old and self._fs.exists(self._path(BlobId(blob_id)))
                if is_old:
                    count, size = count + 1, size + found["size"]
                    if remove:
                        with self._faults(f"cannot clean up {folder}"):
                            self._fs.rm_file(found["name"])
        return Leftovers(count=count, size=size)

    def register_ledger(self, url: str) -> None:
        """One object a ledger, its URL in it."""
        note = f"{self._root}/ledgers/{digest(url)}"
        with self._faults(f"cannot note the ledger {url!r}"):
            if not self._fs.exists(note):
                with self._staged() as (copy, name):
                    write_all(copy, url.encode())
                self._upload(name, note)
                os.unlink(name)

    def ledgers(self) -> dict[str, str]:
        """The notes of `register_ledger`."""
        with self._faults("cannot read the notes of ledgers"):
            notes = [found["name"] for _, found in self._find("ledgers")]
            return {note: self._fs.cat_file(note).decode() for note in sorted(notes)}

    def _path(self, blob_id: BlobId) -> str:
        if not BLOB_ID.fullmatch(blob_id):
            raise FileTrackingError(f"{blob_id!r} is not a blob id")
        return f"{self._root}/objects/{blob_id[:2]}/{blob_id[2:]}"

    @contextlib.contextmanager
    def _staged(self) -> Iterator[tuple[int, str]]:
        # The process id keeps a forked child off its parent, whose folder this is.
        name = f"{self._staging}/{os.getpid()}-{secrets.token_hex(8)}"
        fd = os.open(name, NEW, 0o600)
        try:
            yield fd, name
        except BaseException:  # whatever happened: the half-written file is of no use
            os.unlink(name)
            raise
        finally:
            os.close(fd)

    def _keep(self, blob_id: BlobId, name: str) -> BlobId:
        with self._lock:
            self._puts += 1
            other = self._pending.get(blob_id)
            self._pending[blob_id] = (name, self._puts)
            self._mine.puts[blob_id] = self._puts
        if other is not None:
            os.unlink(other[0])
        return blob_id

    def _upload_all(self, batch: dict[BlobId, tuple[str, int]]) -> None:
        def upload(blob_id: BlobId) -> None:
            name, number = batch[blob_id]
            path = self._path(blob_id)
            with self._faults(f"cannot store blob {blob_id}"):
                if not self._has(path, os.path.getsize(name)):
                    self._upload(name, path)
            self._uploaded[blob_id] = number

        try:
            with ThreadPoolExecutor(min(_AT_ONCE, len(batch))) as pool:
                list(pool.map(upload, batch))
        finally:
            for name, _ in batch.values():
                os.unlink(name)

    def _has(self, path: str, size: int) -> bool:
        """A blob of the wrong size is damaged, and is replaced."""
        try:
            return bool(self._fs.info(path)["size"] == size)
        except FileNotFoundError:
            return False

    def _upload(self, source: str, path: str) -> None:
        if self._puts_whole:
            self._fs.put_file(source, path)
            return
        beside = f"{self._root}/uploads/{secrets.token_hex(16)}"
        self._fs.makedirs(f"{self._root}/uploads", exist_ok=True)
        self._fs.put_file(source, beside)
        self._move(beside, path)

    def _move(self, source: str, target: str) -> None:
        if not self._puts_whole:
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._fs.mv(source, target)

    def _in_trash(self, blob_id: BlobId) -> list[str]:
        try:
            return [str(found) for found in self._fs.ls(f"{self._root}/trash/{blob_id}", False)]
        except FileNotFoundError:
            return []

    def _find(self, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Everything below a folder: its name there, and what the file system says of it."""
        top = f"{self._root}/{folder}"
        with self._faults(f"cannot list {folder}"):
            try:
                found = self._fs.find(top, detail=True)
            except FileNotFoundError:
                return
        for path, info in found.items():
            yield path.partition(f"{top}/")[2], info

    def _modified(self, info: dict[str, Any]) -> datetime:
        """When a file was written at the latest: object stores tell whole seconds, begun ones.

        One that cannot tell is as new as can be: it stays.
        """
        for key in ("LastModified", "last_modified", "updated", "mtime", "created"):
            at = info.get(key)
            if isinstance(at, str):
                at = datetime.fromisoformat(at)
            if isinstance(at, datetime):
                at = at if at.tzinfo else at.replace(tzinfo=UTC)
                return at if at.microsecond else at + timedelta(seconds=1)
            if isinstance(at, (int, float)):
                return datetime.fromtimestamp(at, UTC)
        return datetime.max.replace(tzinfo=UTC)

    def _pieces(self, blob_id: BlobId) -> Iterator[bytes]:
        """A blob's bytes, at least one piece; from the trash if they are there.

        Not through `open`: of a file in memory that is one file, with one position, for all.
        """
        with self._faults(f"cannot read blob {blob_id}"):
            path, size = self._found(blob_id)
        yield from (
            self._piece(blob_id, path, start, min(start + _PIECE, size))
            for start in range(0, size or 1, _PIECE)
        )

    def _piece(self, blob_id: BlobId, path: str, start: int, end: int) -> bytes:
        if start == end:  # of an empty object there is no range to ask for
            return b""
        with self._faults(f"cannot read blob {blob_id}"):
            return bytes(self._fs.cat_file(path, start=start, end=end))

    def _found(self, blob_id: BlobId) -> tuple[str, int]:
        """Where a blob is, and its size."""
        path = self._path(blob_id)
        try:
            return path, int(self._fs.info(path)["size"])
        except FileNotFoundError:
            for kept in self._in_trash(blob_id):
                return kept, int(self._fs.info(kept)["size"])
        raise FileTrackingError(f"blob {blob_id} is missing from {self._url!r}")

    @contextlib.contextmanager
    def _faults(self, what: str) -> Iterator[None]:
        try:
            yield
        except FileTrackingError:
            raise
        except Exception as exc:  # each file system has kinds of its own, few are an OSError
            raise FileTrackingError(f"{what} at {self._url!r}: {exc}") from exc


def _remove_staging(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # not a forked child, which ends before its parent
        shutil.rmtree(folder, ignore_errors=True)


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, which lists what is there now, and the path in it."""
    try:
        from fsspec.core import url_to_fs  # noqa: PLC0415 - an optional dependency

        found, root = url_to_fs(url, use_listings_cache=False)
    except ImportError as exc:
        raise InvalidInputError(
            f"blob_url={url!r} needs a library: pip install 'wtb-prefect[objectstore]', and {exc}"
        ) from exc
    except ValueError as exc:
        raise InvalidInputError(f"blob_url={url!r} cannot be used: {exc}") from exc
    return found, str(root).rstrip("/")
