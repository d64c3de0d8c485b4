"""What an execution's workspace and store hold, against what is recorded of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from wtb_prefect.application.commit_tree import ReplayedTree
from wtb_prefect.domain.file_processing import (
    FileCommit,
    FileMemento,
    FileSnapshot,
    commit_id_of,
)
from wtb_prefect.domain.identifiers import BlobId
from wtb_prefect.domain.interfaces.clock import Clock
from wtb_prefect.domain.interfaces.file_tracking import FileTracker
from wtb_prefect.domain.interfaces.workspace import Workspace

Change = tuple[Mapping[str, FileMemento], tuple[FileMemento, ...], tuple[str, ...]]
"""All files, and of them what was changed and removed."""


class _Coming(NamedTuple):
    """A commit that is not recorded yet, and all files with it."""

    commit: FileCommit
    files: Mapping[str, FileMemento]


@dataclass(slots=True)
class StepFiles:
    """The files of one execution: `tree` is what they were at `commit_id`, the last one recorded.

    Tasks of a super-step end beside one another, and each looks at the files in a thread. A look
    that comes back after a later one is left out, and every look is compared with what is recorded:
    without that, files were recorded as they had been in the middle of a write, or not at all.
    """

    execution_id: str
    workspace: Workspace
    tree: Mapping[str, FileMemento]
    commit_id: str | None
    tracker: FileTracker
    clock: Clock
    store_id: BlobId | None = None
    store_changed: Callable[[], bytes | None] | None = None
    _coming: _Coming | None = None
    _replayed: ReplayedTree | None = None
    _looking: threading.Lock = field(default_factory=threading.Lock)
    _looks: int = 0
    _newest: int = 0
    _seen: FileSnapshot | None = None
    _store_writes: int = 0
    _newest_store: int = 0

    async def are_as_recorded(self) -> bool:
        """Whether nothing was changed since the last recorded commit."""
        if not self.workspace.is_made:
            return True
        _, snapshot = await self._looked()
        return snapshot is not None and not any(snapshot.changes_since(self.tree))

    async def replay(self, changed: Iterable[FileMemento], removed: Iterable[str]) -> None:
        """Makes a recorded change, which the next `save` commits."""
        after = ReplayedTree(self.tree, tuple(changed), tuple(removed))
        # Copies files if the folder is made: not in the event loop.
        await asyncio.to_thread(self.workspace.replay, after.changed, after.removed, after)
        self._replayed = after

    async def change(self) -> Change | None:
        """The files now, and what was changed and removed since the last recorded commit.

        None if there is nothing to look at.
        """
        if self.workspace.is_made:
            number, snapshot = await self._looked()
            if number > self._newest:
                self._newest, self._seen = number, snapshot
            if (seen := self._seen) is None:
                return None
            return seen.files, *seen.changes_since(self.tree)
        done = self._replayed
        return None if done is None else (done, done.changed, done.removed)

    async def save(self) -> None:
        """Makes files and store durable; what changed is the commit to `take`."""
        await self._save_store()
        if (found := await self.change()) is None:
            return
        files, changed, removed = found
        self._replayed = self._coming = None
        if changed or removed:
            commit = FileCommit(
                commit_id=commit_id_of(self.commit_id, changed, removed),
                parent_id=self.commit_id,
                execution_id=self.execution_id,
                changed=changed,
                removed=removed,
                created_at=self.clock.now(),
            )
            self._coming = _Coming(commit, files)

    def take(self) -> FileCommit | None:
        """The commit to record now, if files have changed since the one before."""
        coming, self._coming = self._coming, None
        if coming is None:
            return None
        self.tree, self.commit_id = coming.files, coming.commit.commit_id
        return coming.commit

    async def _looked(self) -> tuple[int, FileSnapshot | None]:
        # Hashing many or large files would hold up every other execution of this process.
        return await asyncio.to_thread(self._look)

    def _look(self) -> tuple[int, FileSnapshot | None]:
        with self._looking:
            self._looks += 1
            return self._looks, self.workspace.snapshot()

    async def _save_store(self) -> None:
        if self.store_changed is None or (content := self.store_changed()) is None:
            return
        self._store_writes += 1
        number = self._store_writes
        # As durable as files are, before the checkpoint that goes with it.
        (stored,) = await asyncio.to_thread(self.tracker.store_texts, [("store", content)])
        if number > self._newest_store:
            self._newest_store, self.store_id = number, stored.blob_id
