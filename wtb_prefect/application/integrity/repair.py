"""Doing about issues what their actions say; each is looked at again just before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

from wtb_prefect.application.at_work import is_at_work
from wtb_prefect.application.collect_garbage import GRACE_HOURS, collect_garbage
from wtb_prefect.application.integrity.audit_stores import AuditStores
from wtb_prefect.application.integrity.check_files import Copies
from wtb_prefect.application.step_records import claims_of
from wtb_prefect.domain.batch_test import BatchStatus
from wtb_prefect.domain.checkpoint import subgraph_heads
from wtb_prefect.domain.execution import ExecutionStatus
from wtb_prefect.domain.identifiers import BlobId, thread_id
from wtb_prefect.domain.integrity import IntegrityIssue, IssueKind, RepairAction
from wtb_prefect.domain.interfaces.unit_of_work import UnitOfWork
from wtb_prefect.domain.outbox import AuditEntry, OutboxStatus
from wtb_prefect.errors import InfrastructureError

_ACTOR = "check_integrity"


def repair_all(issues: list[IntegrityIssue], stores: AuditStores) -> list[IntegrityIssue]:
    """The issues, with those that were put right marked; the rest is left as it was.

    What one repair cannot do (a store fails) is no reason to leave out the others: it says so.
    """
    done = []
    for issue in issues:
        work = _REPAIRS.get((issue.action, issue.kind)) or _REPAIRS.get((issue.action, None))
        if work is None:
            done.append(issue)
            continue
        try:
            repaired = work(issue, stores)
        except InfrastructureError as exc:
            done.append(replace(issue, detail=f"{issue.detail} (not repaired: {exc})"))
            continue
        if repaired:
            _note(issue, stores)
        done.append(replace(issue, repaired=repaired))
    return done


def _note(issue: IntegrityIssue, stores: AuditStores) -> None:
    with stores.open_uow(write=True) as uow:
        uow.audit_log.append(
            AuditEntry(
                at=stores.clock.now(),
                actor=_ACTOR,
                action=f"integrity.{issue.action}",
                subject=issue.subject,
                details={"kind": str(issue.kind), "detail": issue.detail},
            )
        )
        uow.commit()


def _mark_crashed(issue: IntegrityIssue, stores: AuditStores) -> bool:
    with stores.open_uow(write=True) as uow:
        if (batch_id := issue.about.get("batch_id")) is not None:
            batch = uow.batch_tests.get(batch_id)
            if batch is None or batch.status is not BatchStatus.RUNNING:
                return False
            if batch.owner and is_at_work(batch.owner, batch_id, stores.is_alive):
                return False
            uow.batch_tests.finish(batch_id, BatchStatus.INTERRUPTED, 0, stores.clock.now())
        elif not _mark_execution(uow, issue.about["execution_id"], stores):
            return False
        uow.commit()
    return True


def _mark_execution(uow: UnitOfWork, execution_id: str, stores: AuditStores) -> bool:
    found = uow.executions.get(execution_id)
    if found is None or found.status is not ExecutionStatus.RUNNING:
        return False
    control = uow.execution_controls.get(execution_id)
    batch = None if found.batch_id is None else uow.batch_tests.get(found.batch_id)
    # Somebody may have gone on with it since it was looked at.
    if control and control.owner and is_at_work(control.owner, execution_id, stores.is_alive):
        return False
    if batch and batch.owner and is_at_work(batch.owner, batch.batch_id, stores.is_alive):
        return False
    if control is not None:
        uow.execution_controls.save(replace(control, owner=None, asked=None))
    return uow.executions.leave(execution_id, ExecutionStatus.CRASHED)


def _retry_claim(issue: IntegrityIssue, stores: AuditStores) -> bool:
    with stores.open_uow(write=True) as uow:
        again = uow.outbox.retry(issue.about["event_id"])
        uow.commit()
    return again


def _ask_again(issue: IntegrityIssue, stores: AuditStores) -> bool:
    """The cell has no answer that can be shown: the next run of its batch makes one."""
    with stores.open_uow(write=True) as uow:
        cell = uow.cells.get(issue.about["cell_id"])
        if cell is None or cell.execution_id != issue.subject:
            return False
        uow.cells.resolve([cell.cell_id], None, ExecutionStatus.PENDING, None)
        uow.commit()
    return True


def _follow_execution(issue: IntegrityIssue, stores: AuditStores) -> bool:
    """The cell says what its execution says."""
    with stores.open_uow(write=True) as uow:
        cell = uow.cells.get(issue.about["cell_id"])
        found = uow.executions.get(issue.subject)
        if cell is None or found is None or cell.execution_id != found.execution_id:
            return False
        reason = found.unshared_reason
        uow.cells.resolve([cell.cell_id], found.execution_id, found.status, reason)
        uow.commit()
    return True


def _claim_again(issue: IntegrityIssue, stores: AuditStores) -> bool:
    with stores.open_uow(write=True) as uow:
        links = uow.checkpoint_files.list(issue.subject)
        made = [claim for link in links if not link.namespace for claim in claims_of(link)]
        missing = [claim for claim in made if claim.event_id == issue.about["event_id"]]
        fresh = [replace(claim, status=OutboxStatus.PENDING) for claim in missing]
        uow.outbox.add_many(fresh)
        uow.commit()
    return bool(missing)


def _delete_thread(issue: IntegrityIssue, stores: AuditStores) -> bool:
    if (thread := issue.about.get("thread")) is not None:
        with stores.open_uow() as uow:
            if uow.executions.get(thread.removeprefix(thread_id(""))) is not None:
                return False
        stores.checkpoints.delete(thread)
        return True
    return _put_back(issue.about["execution_id"], stores)


def _put_back(execution_id: str, stores: AuditStores) -> bool:
    """The thread ends where the ledger says, with the pending writes that it knows."""
    with stores.open_uow() as uow:
        found = uow.executions.get(execution_id)
        links = uow.checkpoint_files.list(execution_id)
        line = uow.executions.lineage(execution_id)
        visits = uow.node_boundaries.list_many([one.execution_id for one in line])
    if found is None or found.head is None or found.status is ExecutionStatus.RUNNING:
        return False  # a running one is ahead of the ledger for a moment after every super-step
    heads = subgraph_heads(links)
    points = {found.head, *heads.all.values()}
    kept = {
        visit.task_id
        for of_one in visits.values()
        for visit in of_one
        if visit.entry_checkpoint_id in points and visit.exit_checkpoint_id is None
    }
    stores.checkpoints.rewind(thread_id(execution_id), found.head, kept, heads.all)
    return True


def _delete_writes(issue: IntegrityIssue, stores: AuditStores) -> bool:
    stores.checkpoints.delete_orphan_writes(issue.about["thread"])
    return True


def _collect(issue: IntegrityIssue, stores: AuditStores) -> bool:
    """With everything else that nothing names: asked for the next one, it is gone already."""
    collect_garbage(stores.garbage, GRACE_HOURS)
    return stores.blobs.size(BlobId(issue.subject)) is None


def _restore_copy(issue: IntegrityIssue, stores: AuditStores) -> bool:
    """Stores the same content again, from a file that has it; only then the damaged one goes."""
    blob_id, size = BlobId(issue.subject), issue.about.get("size")
    copy = Copies(stores).find(blob_id, int(size) if size else None)
    if copy is None:
        return False
    stores.blobs.remove(blob_id, stores.clock.now() + timedelta(days=1))
    stored, _ = stores.blobs.put_file(copy)
    stores.blobs.flush()
    return stored == blob_id


_REPAIRS: Mapping[
    tuple[RepairAction, IssueKind | None], Callable[[IntegrityIssue, AuditStores], bool]
] = {
    (RepairAction.MARK_CRASHED, None): _mark_crashed,
    (RepairAction.RETRY, IssueKind.OUTBOX_STUCK): _retry_claim,
    (RepairAction.RETRY, None): _ask_again,
    (RepairAction.RELINK, IssueKind.STATE_MISMATCH): _follow_execution,
    (RepairAction.RELINK, IssueKind.MISSING_ROW): _claim_again,
    (RepairAction.DELETE_ORPHAN, IssueKind.ORPHAN_CHECKPOINT): _delete_thread,
    (RepairAction.DELETE_ORPHAN, IssueKind.ORPHAN_WRITES): _delete_writes,
    (RepairAction.DELETE_ORPHAN, None): _collect,
    (RepairAction.RESTORE_COPY, None): _restore_copy,
}
