"""Changing what a folder holds so that it can be taken back: nothing is deleted, only moved."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from wtb_prefect.errors import FileTrackingError

HALF_CHANGED = "what-the-folder-held"


def exchange(
    root: str, staging: str, extra: Iterable[str], wanted: Sequence[str]
) -> dict[str, os.stat_result]:
    """Takes the extra files out of a folder, then puts the wanted ones in: `staging` has them by
    their numbers. Gives what `lstat` says of these: moving a file changes its ctime.

    Raises:
        OSError, FileTrackingError: the folder is as it was, unless the message says otherwise.
    """
    aside = f"{staging}/old"
    os.mkdir(aside)
    swap = _Swap(root, aside)
    try:
        swap.make_root()
        for path in extra:
            swap.take_out(path)
        for number, path in enumerate(wanted):
            swap.put_in(f"{staging}/{number}", path)
        return {path: os.lstat(f"{root}/{path}") for path in wanted}
    except BaseException as error:  # whatever happened: the folder must be as it was
        try:
            swap.undo()
        except OSError as exc:
            os.rename(aside, f"{staging}/{HALF_CHANGED}")
            raise FileTrackingError(
                f"{root!r} is half changed ({error}), and could not be put back ({exc}): "
                f"what it held is in {staging!r}"
            ) from exc
        raise


def refuse_collisions(paths: Iterable[str], folder: str) -> None:
    """Names that differ in case only are one file, or one folder, where case is ignored.

    Raises:
        FileTrackingError: `folder`, which is there, ignores case, and two paths would be one.
    """
    parent, name = os.path.split(folder)
    if not os.path.lexists(f"{parent}/{name.upper()}"):
        return
    seen: dict[str, str] = {}
    for path in paths:
        for name in _with_folders(path):
            other = seen.setdefault(name.casefold(), name)
            if other != name:
                raise FileTrackingError(f"{other!r} and {name!r} are one here: case is ignored")


def _with_folders(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]


class _Swap:
    """Moves files out of and into a folder; `undo` moves them back.

    What is taken out lies in `aside`, a folder of the same file system, until somebody deletes it.
    """

    def __init__(self, root: str, aside: str) -> None:
        self._root = root
        self._aside = aside
        self._undo: list[Callable[[], object]] = []

    def take_out(self, path: str) -> None:
        """Removes a file or link, and the folders that are empty then."""
        with contextlib.suppress(FileNotFoundError):  # the workflow was faster
            self._move_aside(f"{self._root}/{path}")
        folder = path.rpartition("/")[0]
        while folder and self._remove_folder(f"{self._root}/{folder}"):
            folder = folder.rpartition("/")[0]

    def put_in(self, staged: str, path: str) -> None:
        """Gives a staged file its place, instead of a file, a link or empty folders there."""
        self._make_folders(path)
        target = f"{self._root}/{path}"
        if os.path.isdir(target) and not os.path.islink(target):
            for folder, _, _ in os.walk(target, topdown=False):
                if not self._remove_folder(folder):
                    raise FileTrackingError(f"the folder {path!r} is in the way: it is not empty")
        elif os.path.lexists(target):
            self._move_aside(target)
        os.rename(staged, target)
        self._undo.append(partial(os.unlink, target))

    def make_root(self) -> None:
        """The folder itself, if the workflow has deleted it."""
        if not os.path.isdir(self._root):
            os.makedirs(self._root)
            self._undo.append(partial(os.rmdir, self._root))

    def undo(self) -> None:
        """Puts everything back, the last change first.

        Raises:
            OSError: the folder is half changed; what it held is in `aside`.
        """
        while self._undo:
            self._undo[-1]()
            self._undo.pop()

    def _move_aside(self, place: str) -> None:
        kept = f"{self._aside}/{len(self._undo)}"
        os.rename(place, kept)
        self._undo.append(partial(os.rename, kept, place))

    def _make_folders(self, path: str) -> None:
        """Never one behind a link, which may lead out of the workspace."""
        parts = path.split("/")[:-1]
        for length in range(1, len(parts) + 1):
            folder = "/".join(parts[:length])
            place = f"{self._root}/{folder}"
            if not os.path.lexists(place):
                os.mkdir(place)
                self._undo.append(partial(os.rmdir, place))
            elif os.path.islink(place) or not os.path.isdir(place):
                raise FileTrackingError(f"{folder!r} is in the way of {path!r}: it is no folder")

    def _remove_folder(self, place: str) -> bool:
        with contextlib.suppress(OSError):  # not empty, or gone
            mode = stat.S_IMODE(os.lstat(place).st_mode)
            os.rmdir(place)
            self._undo.append(partial(_make_again, place, mode))
            return True
        return False


def _make_again(folder: str, mode: int) -> None:
    os.mkdir(folder)
    os.chmod(folder, mode)
