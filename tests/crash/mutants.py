"""Faults planted in the product on purpose, in the child only: each has to be found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wtb_prefect.domain.identifiers import BlobId
from wtb_prefect.infrastructure.database.repositories.outbox import SqlOutbox
from wtb_prefect.infrastructure.database.unit_of_work import SqlAlchemyUnitOfWork
from wtb_prefect.infrastructure.file_tracking import blob_store
from wtb_prefect.infrastructure.file_tracking.blob_store import LocalBlobStore


def ledger_before_blobs() -> None:
    """Blobs get their names and are made durable once the transaction that names them is over."""
    flush, commit = LocalBlobStore.flush, SqlAlchemyUnitOfWork.commit
    waiting: list[LocalBlobStore] = []

    def later(self: LocalBlobStore) -> None:
        if self not in waiting:
            waiting.append(self)

    def committed(self: SqlAlchemyUnitOfWork) -> None:
        commit(self)
        while waiting:
            flush(waiting.pop())

    LocalBlobStore.flush = later  # type: ignore[method-assign]
    SqlAlchemyUnitOfWork.commit = committed  # type: ignore[method-assign]


def no_fsync() -> None:
    """Nothing of the blob store is ever synced."""

    def nothing(*_: Any) -> None:
        pass

    blob_store._sync = nothing
    blob_store.FileSystemSync.sync = nothing  # type: ignore[method-assign,assignment]


def names_not_synced() -> None:
    """Contents are, the folders that hold their names are not."""
    sync = blob_store._sync

    def files_only(path: str) -> None:
        if "/tmp/" in path.rpartition("objects")[2]:
            sync(path)

    blob_store._sync = files_only


def no_lease() -> None:
    """A claim that is taken can be taken by the next one, too."""
    claim = SqlOutbox.claim

    def for_anybody(self: SqlOutbox, limit: int, now: Any, lease_until: Any) -> Any:
        return claim(self, limit, now, now)

    SqlOutbox.claim = for_anybody  # type: ignore[method-assign]


def no_hash_check() -> None:
    """Whatever a blob holds is restored."""

    def believe(blob_id: BlobId, actual: str) -> None:
        pass

    blob_store.verify = believe


def direct_write() -> None:
    """A blob is written under its final name."""

    def put(self: LocalBlobStore, data: bytes) -> BlobId:
        blob_id = BlobId(blob_store.hashlib.sha256(data).hexdigest())
        if not self._is_stored(blob_id, len(data)):
            fd = blob_store.os.open(self._path(blob_id), blob_store.NEW, 0o444)
            blob_store.write_all(fd, data)
            blob_store.os.fsync(fd)
            blob_store.os.close(fd)
            self._pending.setdefault(blob_id, None)
        self._mine.add(blob_id)
        return blob_id

    LocalBlobStore._put = put  # type: ignore[method-assign]


MUTANTS: dict[str, Callable[[], None]] = {
    "ledger before blobs": ledger_before_blobs,
    "no fsync": no_fsync,
    "names not synced": names_not_synced,
    "no lease": no_lease,
    "no hash check": no_hash_check,
    "direct write": direct_write,
}
