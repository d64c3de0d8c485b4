"""Making an execution's thread agree with the ledger after it was rolled back."""

from __future__ import annotations

from wtb_prefect.application.stores import Stores
from wtb_prefect.domain.checkpoint import subgraph_heads
from wtb_prefect.domain.execution import Execution
from wtb_prefect.domain.identifiers import thread_id
from wtb_prefect.errors import LedgerError


def put_thread_back(execution: Execution, stores: Stores) -> None:
    """Begins the thread anew if it does not hold the head that the ledger names.

    Rolling back to before the fork an execution began with leaves it so, for a moment or after a
    crash: its head is its parent's checkpoint. Whatever is newer than a head is removed later, when
    the execution goes on.
    """
    assert execution.head is not None
    thread = thread_id(execution.execution_id)
    if stores.checkpoints.exists(thread, execution.head):
        return
    if execution.lineage is None or execution.lineage.checkpoint_id != execution.head:
        raise LedgerError(
            f"checkpoint {execution.head} of execution {execution.execution_id} is missing"
        )
    with stores.open_uow() as uow:
        heads = subgraph_heads(uow.checkpoint_files.list(execution.execution_id))
    source = thread_id(execution.lineage.parent_id)
    stores.checkpoints.delete(thread)
    stores.checkpoints.fork(source, execution.head, thread, heads.standing, with_writes=False)
