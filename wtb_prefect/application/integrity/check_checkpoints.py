"""The ledger against LangGraph's checkpoints, both ways."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from wtb_prefect.application.integrity.check_ledger import How, issue
from wtb_prefect.application.integrity.ledger_view import LedgerView
from wtb_prefect.domain.execution import Execution, ExecutionKind
from wtb_prefect.domain.file_processing import CheckpointFileLink
from wtb_prefect.domain.identifiers import CheckpointId, thread_id
from wtb_prefect.domain.integrity import IntegrityIssue, IssueKind, RepairAction, Severity
from wtb_prefect.domain.interfaces.checkpoint_store import CheckpointStore
from wtb_prefect.errors import CheckpointError

DELETE: How = (RepairAction.DELETE_ORPHAN, Severity.INFO)

Parents = dict[tuple[str, CheckpointId], CheckpointId | None]


def check_checkpoints(
    view: LedgerView, store: CheckpointStore, *, deep: bool
) -> Iterator[IntegrityIssue]:
    """What the ledger names has to be there; what it does not name is left over."""
    threads = {thread_id(known): execution for known, execution in view.executions.items()}
    parents = store.parents(list(threads))
    there: dict[str, list[CheckpointId]] = defaultdict(list)
    for thread, checkpoint_id in parents:
        there[thread].append(checkpoint_id)
    for execution in view.executions.values():
        if not execution.is_pruned:
            yield from _recorded(execution, view, parents)
            yield from _pending(execution, view, store)
        if deep and not execution.is_pruned:
            yield from _read_back(execution, view, store, parents)
        if not view.is_live(execution):
            yield from _ahead(execution, there[thread_id(execution.execution_id)])
    for thread in store.threads():
        if thread.startswith(thread_id("")) and thread not in threads:
            detail = "a thread of no execution"
            yield issue(IssueKind.ORPHAN_CHECKPOINT, thread, detail, DELETE, {"thread": thread})
    for thread, count in store.orphan_writes().items():
        if thread.startswith(thread_id("")):
            detail = f"{count} writes belong to no checkpoint"
            yield issue(IssueKind.ORPHAN_WRITES, thread, detail, DELETE, {"thread": thread})


def _recorded(execution: Execution, view: LedgerView, parents: Parents) -> Iterator[IntegrityIssue]:
    known = execution.execution_id
    for number, link in enumerate(_tops(execution, view)):
        key = thread_id(known), link.checkpoint_id
        if key not in parents:
            detail = f"execution {known} was there, and the store does not have it"
            yield issue(IssueKind.MISSING_CHECKPOINT, link.checkpoint_id, detail)
        elif number and parents[key] != link.parent_checkpoint_id:
            detail = f"it comes after {parents[key]} in the store, after "
            detail += f"{link.parent_checkpoint_id} in the ledger, in execution {known}"
            yield issue(IssueKind.STATE_MISMATCH, link.checkpoint_id, detail)


def _pending(
    execution: Execution, view: LedgerView, store: CheckpointStore
) -> Iterator[IntegrityIssue]:
    """Writes that the head waits with, for those who go on or fork from there."""
    goes_on = not execution.status.is_final or execution.kind is ExecutionKind.SEGMENT
    if execution.head is None or not goes_on or view.is_live(execution):
        return
    tasks = {
        visit.task_id: visit.node
        for visit in view.boundaries.get(execution.execution_id, ())
        if not visit.namespace
        and visit.exit_checkpoint_id is None
        and visit.entry_checkpoint_id == execution.head
        and visit.error is None
    }
    if not tasks:
        return
    try:
        there = store.load(thread_id(execution.execution_id), execution.head).pending_tasks
    except CheckpointError:
        return  # said already
    for task, node in tasks.items():
        if task not in there:
            detail = f"what node {node!r} returned in execution {execution.execution_id} is gone"
            yield issue(IssueKind.MISSING_CHECKPOINT, execution.head, detail)


def _read_back(
    execution: Execution, view: LedgerView, store: CheckpointStore, parents: Parents
) -> Iterator[IntegrityIssue]:
    thread = thread_id(execution.execution_id)
    for link in _tops(execution, view):
        if (thread, link.checkpoint_id) not in parents:
            continue
        try:
            store.load(thread, link.checkpoint_id)
        except CheckpointError as exc:
            yield issue(IssueKind.DAMAGED_CHECKPOINT, link.checkpoint_id, str(exc))


def _ahead(execution: Execution, there: Sequence[CheckpointId]) -> Iterator[IntegrityIssue]:
    """A crash leaves the store ahead of the ledger; going on takes that back, too."""
    newer = [known for known in there if execution.head and known > execution.head]
    if newer:
        detail = f"{len(newer)} checkpoints are newer than where the execution stands"
        about = {"execution_id": execution.execution_id}
        thread = thread_id(execution.execution_id)
        yield issue(IssueKind.ORPHAN_CHECKPOINT, thread, detail, DELETE, about)


def _tops(execution: Execution, view: LedgerView) -> list[CheckpointFileLink]:
    links = view.links.get(execution.execution_id, ())
    return [link for link in links if not link.namespace and not link.pending]
