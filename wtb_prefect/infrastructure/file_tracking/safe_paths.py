"""Paths of a commit that are safe to join to a folder."""

from __future__ import annotations

from collections.abc import Mapping

from wtb_prefect.errors import FileTrackingError

_NO_NAMES = frozenset(("", ".", ".."))


def check_path(path: str) -> None:
    """Refuses a path that is not plainly below its root, or that no other system could name."""
    if "\0" in path or not _NO_NAMES.isdisjoint(path.split("/")):
        raise FileTrackingError(f"{path!r} is not a relative path inside the workspace")
    try:
        path.encode()
    except UnicodeEncodeError as exc:
        raise FileTrackingError(f"the file name {path!r} is not valid UTF-8") from exc


def checked_folders(paths: Mapping[str, object]) -> list[str]:
    """The folders these paths need, parents first; refuses paths that could leave their root."""
    folders: set[str] = set()
    for path in paths:
        check_path(path)
        folder = path.rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    for folder in folders:
        # A link here would take what is below it out of the workspace.
        if folder in paths:
            raise FileTrackingError(f"{folder!r} is recorded both as a file and as a folder")
    return sorted(folders)
