"""Checkpoints and files after a rollback: they follow what the ledger says already."""

from __future__ import annotations

from dataclasses import replace

from wtb_prefect.application.commit_tree import CommitTree
from wtb_prefect.application.put_thread_back import put_thread_back
from wtb_prefect.application.session import Session
from wtb_prefect.application.workspace_label import label_of
from wtb_prefect.domain.checkpoint import subgraph_heads
from wtb_prefect.domain.events import FilesRestored
from wtb_prefect.domain.execution import Execution, ExecutionStatus
from wtb_prefect.domain.identifiers import thread_id
from wtb_prefect.domain.outbox import OutboxEvent


def stores_follow(after: Execution, tree: CommitTree, session: Session) -> Execution:
    """The thread ends at the head, and a folder that is there holds the files of that point."""
    assert after.head is not None
    thread = thread_id(after.execution_id)
    put_thread_back(after, session)
    with session.open_uow() as uow:
        heads = subgraph_heads(uow.checkpoint_files.list(after.execution_id))
    session.checkpoints.rewind(thread, after.head, (), heads.all)
    next_nodes = session.engine.standing(thread, after.choices).next_nodes
    if next_nodes != after.next_nodes:
        after = replace(after, next_nodes=next_nodes)
        with session.open_uow(write=True) as uow:
            uow.executions.save(after)
            uow.commit()
    workspace = session.workspaces.open(after.execution_id, label_of(after), tree)
    if workspace.put_back() is not None and after.commit_id is not None:
        restored = FilesRestored(
            at=session.clock.now(),
            execution_id=after.execution_id,
            commit_id=after.commit_id,
            files=len(tree),
            path=label_of(after),
        )
        with session.open_uow(write=True) as uow:
            uow.record(restored, "roll_back")
            uow.commit()
    return after


def finish_rollback(event: OutboxEvent, session: Session) -> None:
    """Does for the stores what a process was about to do when it died after the ledger's part.

    Nothing, if the execution has gone on since: then they follow anyway. Raises
    `InfrastructureError`: a store failed, or files are missing or damaged.
    """
    with session.open_uow() as uow:
        found = uow.executions.get(event.aggregate_id)
        control = uow.execution_controls.get(event.aggregate_id)
    checkpoint_id = str(event.payload["subject"]).partition(":")[0]
    if found is None or found.status is not ExecutionStatus.PAUSED or found.head != checkpoint_id:
        return
    if control is not None and control.owner is not None:
        return
    stores_follow(found, CommitTree(session.open_uow, found.commit_id), session)
