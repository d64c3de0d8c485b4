"""One at a time: who computes what several executions want, in all processes of a machine."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from weakref import WeakKeyDictionary, WeakValueDictionary

from wtb_prefect.errors import InfrastructureError

_FIRST_PAUSE = 0.005
_LONGEST_PAUSE = 0.1

Locks = WeakValueDictionary[str, asyncio.Lock]


class Claim:
    """What `Claims.take` gives: held until `release`, or until the process ends in whatever way."""

    def __init__(self, release: Callable[[], None]) -> None:
        self._release: Callable[[], None] | None = release

    def release(self) -> None:
        """Lets the next one have it; again is no change."""
        release, self._release = self._release, None
        if release is not None:
            release()


class Claims:
    """Advisory locks on files of one folder, waited for without blocking the event loop.

    The kernel releases them when their process ends, `kill -9` included. Of one event loop only
    the first waits for the file; the others wait for it, in order, and cost nothing meanwhile.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, Locks] = WeakKeyDictionary()

    async def take(self, key: str) -> Claim:
        """Waits until nobody else has the claim on `key`. Call it in an event loop.

        Raises:
            InfrastructureError: the folder cannot be written, or its file system has no locks.
        """
        locks = self._locks.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
        lock = locks.get(key)
        if lock is None:
            lock = locks[key] = asyncio.Lock()
        await lock.acquire()
        try:
            path = self._folder / key
            fd = await self._locked(path)
        except BaseException:  # also when this task is cancelled: the next one must not wait on
            lock.release()
            raise

        def release() -> None:
            try:
                _unlock(path, fd)
            finally:
                lock.release()

        return Claim(release)

    async def _locked(self, path: Path) -> int:
        pause = _FIRST_PAUSE
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            while (fd := _try_lock(path)) is None:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
        except OSError as exc:
            raise InfrastructureError(f"cannot lock {str(path)!r}: {exc}") from exc
        return fd


def _try_lock(path: Path) -> int | None:
    """The locked file; None if another has it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
    except BlockingIOError:
        pass
    except BaseException:  # whatever it was, the file is not ours: closed, then raised on
        os.close(fd)
        raise
    os.close(fd)  # another's, or a file that its last owner has removed
    return None


def _unlock(path: Path, fd: int) -> None:
    """The file goes while it is still locked, so that nobody locks a file without a name for long.

    A child process that a node forked may hold the file open: unlocking needs no closing.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)
