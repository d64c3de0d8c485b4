"""The folder an execution works in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from wtb_prefect.domain.file_processing import FileMemento, FileSnapshot

ORPHAN_SECONDS = 3600.0


class Workspace(Protocol):
    """One execution's own folder, made on first use.

    An execution that never asks for its folder never pays for one: until `path()` is called, its
    files are exactly those it started with, and what was replayed.
    """

    def path(self) -> Path:
        """The folder, with the starting files in it. Thread-safe."""
        ...

    @property
    def is_made(self) -> bool:
        """Whether `path()` has been called."""
        ...

    @property
    def strategy(self) -> str | None:
        """How the folder was made (`copy`, `reflink`, `overlay`); None while it is not."""
        ...

    def replay(
        self,
        changed: Iterable[FileMemento],
        removed: Iterable[str],
        after: Mapping[str, FileMemento],
    ) -> None:
        """Changes the files as a node that was answered from a cache would have done.

        `after` are all files with the change in them: while the folder is not made it will start
        with these, and nothing is written now. Otherwise the change is made in the folder.
        """
        ...

    def put_back(self) -> FileSnapshot | None:
        """Makes a folder that an earlier attempt left hold the starting files again, in place.

        None where there is none. Nobody may be working in it. Raises `FileTrackingError`: it is
        as it was.
        """
        ...

    def snapshot(self) -> FileSnapshot | None:
        """What the folder holds now, its blobs durable; None while it is not made."""
        ...

    def keep(self) -> None:
        """Leaves the folder to people: from now on it is no orphan, whoever ends."""
        ...

    def remove(self) -> None:
        """Takes the folder away, if it was made; its space is free after the store's `sweep`."""
        ...


class WorkspaceStore(Protocol):
    """Makes workspaces below one folder."""

    def open(
        self,
        execution_id: str,
        label: str,
        start: Mapping[str, FileMemento],
        parent_id: str | None = None,
    ) -> Workspace:
        """The workspace of an execution that starts with these files, those of `parent_id`, if it
        goes on from another execution.

        `label` is a relative path that people can read (`<combination>/<case>-<repeat>`), made
        safe for the file system here. A folder left by an earlier attempt is replaced on first use.
        """
        ...

    def size(self, execution_id: str, label: str) -> int:
        """Bytes of the files in the workspace of an execution; 0 where there is none."""
        ...

    def sweep(self) -> None:
        """Deletes what removed workspaces left; called when no more are made for a while."""
        ...

    def clean_orphans(self, grace_seconds: float = ORPHAN_SECONDS) -> list[Path]:
        """Removes workspaces whose process has died without removing or keeping them.

        Only those of this host, and only where nothing was written for the grace period; what they
        were just making or replacing goes too. Gives the folders; nothing that is needed to go on
        is in them, only in the ledger and the blob store.
        """
        ...
