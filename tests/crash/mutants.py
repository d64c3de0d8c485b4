"""Faults planted in the product on purpose, in the child only: each has to be found."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from wtb_prefect.application import collect_garbage, process_outbox
from wtb_prefect.application.record_steps import StepRecorder
from wtb_prefect.domain.file_processing import FileSnapshot, Leftovers
from wtb_prefect.domain.identifiers import BlobId
from wtb_prefect.infrastructure.checkpoints import recording_saver
from wtb_prefect.infrastructure.checkpoints.langgraph_store import SqliteCheckpointStore
from wtb_prefect.infrastructure.database.repositories.outbox import SqlOutbox
from wtb_prefect.infrastructure.database.unit_of_work import SqlAlchemyUnitOfWork
from wtb_prefect.infrastructure.file_tracking import blob_store, swap
from wtb_prefect.infrastructure.file_tracking.blob_store import LocalBlobStore
from wtb_prefect.infrastructure.file_tracking.tracker import LocalFileTracker
from wtb_prefect.infrastructure.workspace.folders import FolderWorkspaces


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


def restore_in_place() -> None:
    """A workspace is filled under its own name."""

    def restore(self: LocalFileTracker, files: Any, root: Any) -> FileSnapshot:
        for path, memento in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            self._write(memento, str(root / path))
        return FileSnapshot(files=dict(files), stats={}, taken_ns=0)

    LocalFileTracker.restore = restore  # type: ignore[method-assign]


def no_way_back() -> None:
    """An update in place that fails half way stays there, and nobody makes the folder anew."""
    swap._Swap.undo = lambda self: None  # type: ignore[method-assign]

    def put_back(self: FolderWorkspaces, folder: Any, start: Any) -> FileSnapshot | None:
        return self.tracker.update(start, folder, FileSnapshot())

    FolderWorkspaces.put_back = put_back  # type: ignore[method-assign]


def records_late() -> None:
    """Nothing is recorded before the end."""
    StepRecorder.flush = lambda self: None  # type: ignore[method-assign]


def checkpoints_not_synced() -> None:
    """The store of checkpoints leaves it to the kernel when they are on the disk."""
    made = SqliteCheckpointStore.__init__

    def unsynced(self: SqliteCheckpointStore, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        self._connection.execute("PRAGMA synchronous=OFF")

    SqliteCheckpointStore.__init__ = unsynced  # type: ignore[method-assign]


def no_patience() -> None:
    """Nobody waits for a lock on the checkpoints."""
    made = SqliteCheckpointStore.__init__

    def impatient(self: SqliteCheckpointStore, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        self._connection.execute("PRAGMA busy_timeout=0")

    SqliteCheckpointStore.__init__ = impatient  # type: ignore[method-assign]


def ids_by_the_clock() -> None:
    """Ids of checkpoints are what the clock says."""
    recording_saver.continue_after = lambda _: None


def no_grace() -> None:
    """Garbage is what nothing names now, however young it is."""
    collect_garbage.timedelta = lambda **_: timedelta(0)  # type: ignore[assignment,misc]


def lease_of_a_day() -> None:
    """What a dead process holds is held for a day."""
    process_outbox.LEASE_SECONDS = 86_400.0


def check_of_names() -> None:
    """The deep check looks whether a content is there, and no deeper."""
    LocalBlobStore.check = lambda self, blob_id: None  # type: ignore[method-assign]


def nothing_swept() -> None:
    """What dead processes have left stays."""
    LocalBlobStore.leftovers = lambda *_, **__: Leftovers(count=0, size=0)  # type: ignore[method-assign]
    FolderWorkspaces._clean_staging = lambda *_: []  # type: ignore[method-assign]


MUTANTS: dict[str, Callable[[], None]] = {
    "ledger before blobs": ledger_before_blobs,
    "no fsync": no_fsync,
    "names not synced": names_not_synced,
    "no lease": no_lease,
    "no hash check": no_hash_check,
    "direct write": direct_write,
    "restore in place": restore_in_place,
    "no way back": no_way_back,
    "records late": records_late,
    "nothing swept": nothing_swept,
    "checkpoints not synced": checkpoints_not_synced,
    "no patience": no_patience,
    "ids by the clock": ids_by_the_clock,
    "no grace": no_grace,
    "lease of a day": lease_of_a_day,
    "check of names": check_of_names,
}
