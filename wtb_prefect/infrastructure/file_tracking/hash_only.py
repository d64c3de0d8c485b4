"""Looking at what a folder holds without storing it."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from wtb_prefect.domain.identifiers import BlobId
from wtb_prefect.errors import FileTrackingError

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class HashOnly:
    """Says which blobs files would be."""

    def put_file(self, source: Path) -> tuple[BlobId, int]:
        """The hash and size of a regular file."""
        try:
            with open(source, "rb", opener=_open) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise FileTrackingError(f"cannot read {str(source)!r}: not a regular file")
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                return BlobId(digest), file.tell()
        except OSError as exc:
            raise FileTrackingError(f"cannot read {str(source)!r}: {exc}") from exc

    def put_bytes(self, data: bytes) -> BlobId:
        """The hash of bytes in memory."""
        return BlobId(hashlib.sha256(data).hexdigest())


def _open(path: str, flags: int) -> int:
    return os.open(path, _READ)
