"""Files as content: remembering what a folder holds, and making a folder hold it again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Protocol

from wtb_prefect.domain.file_processing import FileMemento, FileSnapshot, Leftovers, StoredBlob
from wtb_prefect.domain.identifiers import BlobId


class BlobStore(Protocol):
    """Bytes by their SHA-256. What `put` returned for is durable and never changes."""

    def put_file(self, source: Path) -> tuple[BlobId, int]:
        """Stores a file's bytes (hashing what is stored, while copying): (blob id, size).

        Not durable before `flush`.
        """
        ...

    def put_bytes(self, data: bytes) -> BlobId:
        """The same for bytes in memory."""
        ...

    def flush(self) -> None:
        """Makes everything put so far durable: contents first, then their names."""
        ...

    def read(self, blob_id: BlobId) -> bytes:
        """The bytes. Raises `FileTrackingError` naming the blob if missing or damaged."""
        ...

    def check(self, blob_id: BlobId) -> None:
        """Reads the bytes. Raises `FileTrackingError` naming the blob if missing or damaged."""
        ...

    def copy_to(self, blob_id: BlobId, target: Path | str, mode: int = 0o666) -> os.stat_result:
        """Writes the bytes to a new file, verifying the hash while copying; gives its `fstat`.

        `mode` is cut by the umask, as for every new file.
        Raises `FileTrackingError` naming the blob if it is missing or damaged; then `target` does
        not exist.
        """
        ...

    def exists(self, blob_id: BlobId) -> bool: ...

    def size(self, blob_id: BlobId) -> int | None:
        """Bytes of the blob, which are not read; None if there is none."""
        ...

    def strategy(self, folder: Path) -> str:
        """How `copy_to` gets large files into a folder: `copy`, or what the file system has."""
        ...

    def stored(self) -> Iterator[StoredBlob]:
        """The blobs that are flushed, in no order; others may come and go meanwhile."""
        ...

    def remove(self, blob_id: BlobId, put_before: datetime) -> bool:
        """Removes a blob unless it was put since; answers whether it did.

        Looking at the time and removing is one step for whoever puts the same bytes at that moment:
        they are stored afterwards. A store without locks may put a blob aside first, where it is
        still read, and remove it when asked again after the same time.
        """
        ...

    def leftovers(self, put_before: datetime, *, remove: bool) -> Leftovers:
        """What writers that ended early have left before a time; removed if asked for."""
        ...

    def register_ledger(self, url: str) -> None:
        """Notes a ledger that names blobs of this store; again is no change."""
        ...

    def ledgers(self) -> dict[str, str]:
        """The ledgers that were noted: URL by the place of the note."""
        ...


class FileTracker(Protocol):
    """What a folder holds, as mementos over a blob store."""

    def snapshot(self, root: Path, previous: FileSnapshot) -> FileSnapshot:
        """Stores what changed in `root` since `previous` and says what it holds now.

        Blobs of the returned snapshot are durable. A missing `root` is an empty folder. Symbolic
        links are recorded as links and never followed; sockets, FIFOs and devices raise
        `FileTrackingError` naming the path.
        """
        ...

    def restore(self, files: Mapping[str, FileMemento], root: Path) -> FileSnapshot:
        """Makes a new folder `root` that holds exactly these files (all or nothing).

        Raises `FileTrackingError`: `root` exists and is not empty, a blob is missing or damaged, or
        a path would leave `root`. Nothing is left at `root` then.
        """
        ...

    def verify(self, files: Iterable[FileMemento], *, deep: bool = True) -> None:
        """Reads what these files are made of; only asks for their sizes if not `deep`.

        Raises `FileTrackingError` naming the file and the blob that is missing or damaged.
        """
        ...

    def contents(self, blob_id: BlobId) -> bytes:
        """The bytes of a blob. Raises `FileTrackingError` naming it if missing or damaged."""
        ...

    def apply(
        self,
        changed: Iterable[FileMemento],
        removed: Iterable[str],
        root: Path,
        previous: FileSnapshot,
    ) -> FileSnapshot:
        """Makes a change in `root`, of which `previous` is the last snapshot; gives the next one.

        Folders left empty by a removal go too; nothing is written through a symbolic link. Raises
        `FileTrackingError`: a blob is missing or damaged, a path would leave `root`, or something
        else is in the way. `root` may then hold a part of the change.
        """
        ...

    def update(
        self, files: Mapping[str, FileMemento], root: Path, previous: FileSnapshot
    ) -> FileSnapshot:
        """Makes an existing folder hold exactly these files; gives the snapshot of it.

        `previous` is the last snapshot of `root`; an empty one if there is none. Later files go,
        and folders left empty by that; deleted ones come back. Only what differs is written, after
        every blob it needs was checked. Nothing is written through a symbolic link.

        Raises `FileTrackingError`: a blob is missing or damaged (naming the file too), a path would
        leave `root`, or something in it is neither file, folder nor link. `root` is as it was then.
        """
        ...

    def store_texts(self, files: Iterable[tuple[str, bytes]]) -> tuple[FileMemento, ...]:
        """Stores given contents as durable blobs and returns their mementos (for case files)."""
        ...
