"""Deleting a batch: what only it uses goes, what other batches stand on stays.

First one transaction marks the batch, so that nothing in it counts any more: its cells have no
answers, its executions are cancelled, it cannot be run or adopted from. Then the threads and
workspaces go, then the rows in one transaction. A crash in between leaves nothing that the ledger
claims and that is not there, and deleting again finishes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from wtb_prefect.application.at_work import begin_work, end_work
from wtb_prefect.application.batch_owner import IsAlive, refuse_if_owned
from wtb_prefect.application.stores import OpenStores, Stores
from wtb_prefect.application.workspace_label import label_of
from wtb_prefect.domain.batch_test import BatchStatus, BatchTest, Owner
from wtb_prefect.domain.execution import Execution, ExecutionStatus
from wtb_prefect.domain.identifiers import thread_id
from wtb_prefect.domain.interfaces.unit_of_work import UnitOfWork
from wtb_prefect.domain.outbox import AuditEntry
from wtb_prefect.errors import NotFoundError


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """What deleting a batch takes away, and the executions that stay because others use them.

    `heirs` are the batches these belong to from then on (None: no batch, only single runs).
    """

    batch: BatchTest
    cells: int
    cases: int
    gone: tuple[Execution, ...]
    kept: tuple[Execution, ...]
    heirs: dict[str, str | None]


def plan_deletion(batch_id: str, is_alive: IsAlive, stores: Stores) -> Deletion:
    """What deleting would do. Nothing is changed.

    Raises:
        NotFoundError: no such batch.
        BatchBusyError: a live process runs it.
    """
    with stores.open_uow() as uow:
        return _deletion(uow, batch_id, is_alive)


def delete_batch(batch_id: str, owner: Owner, is_alive: IsAlive, stores: OpenStores) -> Deletion:
    """Deletes a batch; files' contents are left to `collect_garbage`. Raises as `plan_deletion`."""
    with stores.open_uow(write=True) as uow:
        found = _deletion(uow, batch_id, is_alive)
        _mark(uow, found, owner, stores)
        begin_work(batch_id, owner)
        uow.commit()
    try:
        return _delete(found, stores)
    finally:
        end_work(batch_id)


def _delete(found: Deletion, stores: OpenStores) -> Deletion:
    stores.checkpoints.delete_many([thread_id(e.execution_id) for e in found.gone])
    for execution in found.gone:
        stores.workspaces.open(execution.execution_id, label_of(execution), {}).remove()
        stores.logs.remove(execution.execution_id)
    stores.workspaces.sweep()
    with stores.open_uow(write=True) as uow:
        _remove_rows(uow, found)
        uow.audit_log.append(_audit("batch.deleted", found, stores))
        uow.commit()
    return found


def remove_executions(uow: UnitOfWork, execution_ids: Sequence[str]) -> None:
    """Removes executions with all that the ledger says of them, claims to verify included."""
    for execution_id in execution_ids:
        uow.executions.delete(execution_id)
    uow.outbox.delete_about(execution_ids)


def _remove_rows(uow: UnitOfWork, found: Deletion) -> None:
    """What somebody began to use after it was marked stays as a row that says what is gone."""
    late = _used_elsewhere(uow, found.batch.batch_id, found.gone)
    for execution in found.gone:
        if execution.execution_id in late:
            uow.executions.save(
                replace(
                    execution,
                    batch_id=late[execution.execution_id],
                    metadata={**execution.metadata, "pruned": True},
                )
            )
    ids = (execution.execution_id for execution in found.gone)
    remove_executions(uow, [execution_id for execution_id in ids if execution_id not in late])
    uow.batch_tests.delete(found.batch.batch_id)


def _deletion(uow: UnitOfWork, batch_id: str, is_alive: IsAlive) -> Deletion:
    batch = uow.batch_tests.get(batch_id)
    if batch is None:
        raise NotFoundError("batch", batch_id, [b.batch_id for b in uow.batch_tests.list()])
    refuse_if_owned(batch, is_alive)
    own = uow.executions.list(batch_id=batch_id)
    heirs = _used_elsewhere(uow, batch_id, own)
    return Deletion(
        batch=batch,
        cells=sum(uow.cells.count(batch_id).values()),
        cases=len(uow.cases.list(batch_id)),
        gone=tuple(e for e in own if e.execution_id not in heirs),
        kept=tuple(e for e in own if e.execution_id in heirs),
        heirs=heirs,
    )


def _used_elsewhere(
    uow: UnitOfWork, batch_id: str, own: Sequence[Execution]
) -> dict[str, str | None]:
    """Executions that answer cells of other batches, or that others were forked from, with all
    their ancestors -> who uses them."""
    by_id = {execution.execution_id: execution for execution in own}
    users: dict[str, str | None] = {}
    for child in uow.executions.list_children(list(by_id)):
        if child.execution_id not in by_id and child.lineage is not None:
            users.setdefault(child.lineage.parent_id, child.batch_id)
    for cell in uow.cells.list_by_executions(list(by_id)):
        if cell.batch_id != batch_id and cell.execution_id is not None:
            users[cell.execution_id] = cell.batch_id
    heirs: dict[str, str | None] = {}
    for execution_id, user in users.items():
        current = by_id.get(execution_id)
        while current is not None and heirs.get(current.execution_id) is None:
            heirs[current.execution_id] = user
            current = by_id.get(current.lineage.parent_id) if current.lineage else None
    return heirs


def _mark(uow: UnitOfWork, found: Deletion, owner: Owner, stores: Stores) -> None:
    batch_id = found.batch.batch_id
    uow.batch_tests.save(replace(found.batch, status=BatchStatus.DELETING, owner=owner))
    ids = [cell.cell_id for cell in uow.cells.list(batch_id)]
    uow.cells.resolve(ids, None, ExecutionStatus.CANCELLED, None)
    for execution in found.gone:
        uow.executions.set_status(execution.execution_id, ExecutionStatus.CANCELLED)
    for execution in found.kept:
        heir = found.heirs[execution.execution_id]
        uow.executions.save(replace(execution, batch_id=heir))
    uow.audit_log.append(_audit("batch.deleting", found, stores))


def _audit(action: str, found: Deletion, stores: Stores) -> AuditEntry:
    return AuditEntry(
        at=stores.clock.now(),
        actor="delete_batch",
        action=action,
        subject=found.batch.batch_id,
        details={
            "project": found.batch.name,
            "cells": found.cells,
            "executions": len(found.gone),
            "kept": len(found.kept),
        },
    )
