"""Checkpoints by thread, whatever keeps them (the document's ICheckpointStore)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from wtb_prefect.domain.checkpoint import StoredCheckpoint, StoreSpace
from wtb_prefect.domain.identifiers import CheckpointId


class CheckpointStore(Protocol):
    """Checkpoints of the root graph of each thread. Faults are raised as `CheckpointError`."""

    def save(self, checkpoint: StoredCheckpoint) -> None:
        """Stores a checkpoint (its channel values) under its thread and id."""
        ...

    def load(self, thread_id: str, checkpoint_id: CheckpointId) -> StoredCheckpoint:
        """Raises `CheckpointError` if there is none."""
        ...

    def latest(self, thread_id: str) -> StoredCheckpoint | None:
        """The checkpoint with the highest id. Use the ledger's head to know where a run stands."""
        ...

    def history(self, thread_id: str) -> list[StoredCheckpoint]:
        """Oldest first."""
        ...

    def exists(self, thread_id: str, checkpoint_id: CheckpointId) -> bool: ...

    def threads(self) -> list[str]:
        """All threads that have a checkpoint or a write, in order."""
        ...

    def orphan_writes(self) -> dict[str, int]:
        """Writes whose checkpoint is not there, by thread: deleting it was not finished."""
        ...

    def delete_orphan_writes(self, thread_id: str) -> None:
        """Removes those of a thread."""
        ...

    def parents(
        self, thread_ids: Sequence[str]
    ) -> dict[tuple[str, CheckpointId], CheckpointId | None]:
        """Every checkpoint of these threads (any number), as (thread, id) -> its parent."""
        ...

    def delete(self, thread_id: str) -> None:
        """Removes a thread with all its checkpoints and writes; an unknown thread is no error."""
        ...

    def delete_many(self, thread_ids: Sequence[str]) -> None:
        """The same for any number of threads; what a crash leaves of them goes the next time."""
        ...

    def prune(self, keep: Mapping[str, Collection[CheckpointId]]) -> int:
        """Removes the checkpoints of threads with their writes; counts them.

        `keep` names the threads and the checkpoints that stay of each.

        Of a subgraph its newest checkpoint stays. So do those from which one that is kept is
        rebuilt (`DeltaChannel`).
        """
        ...

    def sizes(self, thread_ids: Sequence[str]) -> dict[str, int]:
        """Bytes of the checkpoints and writes of each thread; a thread without any: absent."""
        ...

    def space(self) -> StoreSpace:
        """What the store takes; removing makes space free inside it first."""
        ...

    def compact(self) -> str | None:
        """Gives free space back to the file system; answers why that was not possible, if so."""
        ...

    def fork(
        self,
        source_thread: str,
        checkpoint_id: CheckpointId,
        target_thread: str,
        subgraphs: Mapping[str, CheckpointId] = ...,
        *,
        with_writes: bool = True,
    ) -> None:
        """Begins `target_thread` with a copy of one checkpoint and its pending writes.

        The copy keeps the checkpoint's id, so pending writes still match their tasks and finished
        siblings of a gate are not run again. Forking twice is forking once. `subgraphs` (namespace
        -> checkpoint) are copied too: what they have done already is not done again.

        Without writes every task of the next step runs: from a checkpoint in the middle of a
        thread, whose writes led to the one after it. Memories of subgraphs come without them too.
        """
        ...

    def copy(self, source_thread: str, checkpoint_id: CheckpointId, target_thread: str) -> None:
        """Copies a checkpoint and all that came after it, with its writes, into a new thread.

        Subgraphs come with everything they have, and so do the ancestors of a graph that rebuilds
        values from them (`DeltaChannel`). Copying twice is copying once.
        """
        ...

    def rewind(
        self,
        thread_id: str,
        checkpoint_id: CheckpointId,
        keep_tasks: Collection[str],
        subgraphs: Mapping[str, CheckpointId] = ...,
    ) -> None:
        """Removes what is newer than a checkpoint, and pending writes of tasks not named.

        Subgraphs are put back to where `subgraphs` says (namespace -> checkpoint); what others
        saved since goes. After a crash the store can hold more than the ledger recorded; the
        ledger is the truth. Questions and answers of unfinished tasks go too: they ask again.
        """
        ...

    def close(self) -> None: ...
