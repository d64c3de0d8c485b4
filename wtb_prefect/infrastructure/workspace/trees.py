"""Whole folders: how large, how old, and gone."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

from wtb_prefect.errors import FileTrackingError

# A rename that had looked up `.removed` before a sweep renamed it lands there after the sweep
# has listed it: "Directory not empty", 5 times beside 12,000 removed folders. Nothing finds the
# directory by its new name, so one more attempt is nearly always enough.
_DELETE_ATTEMPTS = 5


def size_of(folder: Path) -> int:
    """Bytes of the files in it; links count as themselves."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # a workflow may be at work there
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def last_written(folder: Path) -> float:
    """When something in a folder was last changed; links count as themselves. 0 if it is gone.

    Restored files have times of the past, so their ctime counts too.
    """
    latest = 0.0
    paths = [str(folder)]
    for parent, folders, names in os.walk(folder):
        paths += (os.path.join(parent, name) for name in (*folders, *names))
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(path)
            latest = max(latest, found.st_mtime, found.st_ctime)
    return latest


def delete(folder: Path) -> None:
    """Deletes a folder, or what is there in its place; another process may be doing it too.

    Raises:
        FileTrackingError: it cannot be deleted.
    """
    for attempt in range(1, _DELETE_ATTEMPTS + 1):
        try:
            if folder.is_dir() and not folder.is_symlink():
                _delete_tree(folder)
            else:
                folder.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return  # another process is deleting it too
        except OSError as exc:
            if exc.errno != errno.ENOTEMPTY or attempt == _DELETE_ATTEMPTS:
                raise FileTrackingError(
                    f"cannot delete the workspace {str(folder)!r}: {exc}"
                ) from exc


def _delete_tree(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except PermissionError:
        # Workflows may leave read-only folders, which refuse to have their files deleted.
        folder.chmod(0o700)
        for parent, names, _ in os.walk(folder):
            for path in (os.path.join(parent, name) for name in names):
                if not os.path.islink(path):
                    os.chmod(path, 0o700)
        shutil.rmtree(folder)
