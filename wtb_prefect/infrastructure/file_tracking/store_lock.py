"""Keeps removal of blobs and those who are about to count on them apart, in all processes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class StoreLock:
    """An advisory lock on a file; the kernel releases it however its holder ends.

    Each holder opens the file anew (6 us): a descriptor of its own is what makes the lock one
    between threads too, and no child process inherits it for longer than its `exec`.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Held by any number of writers. A file system without locks has none: there is nobody to
        be kept apart from, because `exclusive` fails on it."""
        with self._opened() as fd:
            try:
                fcntl.flock(fd, fcntl.LOCK_SH)
            except OSError as exc:
                if exc.errno not in _NO_LOCKS:
                    raise
            yield

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Held by one remover, while no writer holds it."""
        with self._opened() as fd:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            yield fd
        finally:
            os.close(fd)
