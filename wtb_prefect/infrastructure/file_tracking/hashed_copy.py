"""Bytes of files on their way into and out of a blob store, hashed on that way."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterator

from wtb_prefect.domain.identifiers import BlobId
from wtb_prefect.errors import FileTrackingError

CHUNK = 1 << 20
BLOB_ID = re.compile(r"[0-9a-f]{64}")
# O_NONBLOCK: a FIFO put in a file's place must not hang the open.
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class PutByThisThread(threading.local):
    """The blobs the current thread has put since its last flush."""

    def __init__(self) -> None:
        self._ids: set[BlobId] = set()

    def add(self, blob_id: BlobId) -> None:
        self._ids.add(blob_id)

    def take(self) -> set[BlobId]:
        ids, self._ids = self._ids, set()
        return ids


def chunks(fd: int) -> Iterator[bytes]:
    """A file's bytes to its end; one read call for a small file that nobody is writing to."""
    size = os.fstat(fd).st_size
    data = os.read(fd, min(size + 1, CHUNK))
    yield data
    if len(data) != size:
        while data := os.read(fd, CHUNK):
            yield data


def copy_bytes(source: int, target: int) -> tuple[str, int]:
    """Copies to the end of the source: the hash and the size of what was written."""
    hasher, size = hashlib.sha256(), 0
    for data in chunks(source):
        hasher.update(data)
        write_all(target, data)
        size += len(data)
    return hasher.hexdigest(), size


def write_all(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    while written < len(data):  # a nearly full disk takes a part and reports the error next time
        written += os.write(fd, data[written:])


def verify(blob_id: BlobId, actual: str) -> None:
    if actual != blob_id:
        raise FileTrackingError(f"blob {blob_id} is damaged: its bytes hash to {actual}")
