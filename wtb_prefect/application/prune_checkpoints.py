"""Retention: the checkpoints of trunks, and all but the last one of each leaf, can go.

What the ledger says of them stays: results, scores, paths and files are read as before. What needs
a checkpoint's values (the state in the middle of an execution, a fork from there) is gone, and
said to be when it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from wtb_prefect.application.batch_owner import IsAlive, refuse_if_owned
from wtb_prefect.application.stores import Stores
from wtb_prefect.domain.execution import Execution, ExecutionKind, ExecutionStatus
from wtb_prefect.domain.identifiers import thread_id
from wtb_prefect.domain.outbox import AuditEntry
from wtb_prefect.errors import NotFoundError


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """What was pruned of a batch, or would be: trunks whole, leaves but for their end."""

    trunks: tuple[Execution, ...]
    leaves: tuple[Execution, ...]


def plan_pruning(batch_id: str, is_alive: IsAlive, stores: Stores) -> Pruning:
    """What pruning a batch would touch: everything in it that has ended by itself.

    Raises:
        NotFoundError: no such batch.
        BatchBusyError: a live process runs it.
    """
    with stores.open_uow() as uow:
        batch = uow.batch_tests.get(batch_id)
        if batch is None:
            raise NotFoundError("batch", batch_id, [b.batch_id for b in uow.batch_tests.list()])
        refuse_if_owned(batch, is_alive)
        ended = [e for e in uow.executions.list(batch_id=batch_id) if e.status.is_final]
    return _parts(ended)


def prune_batch(batch_id: str, is_alive: IsAlive, stores: Stores) -> Pruning:
    """Prunes a batch, also what was begun before a crash. Raises as `plan_pruning`."""
    found = plan_pruning(batch_id, is_alive, stores)
    _prune(batch_id, found, stores)
    return found


def prune_completed(batch_id: str, stores: Stores) -> Pruning:
    """Prunes what only completed cells of a batch stand on; the caller owns the batch.

    Trunks of cells that failed, crashed or are missing stay: running those begins there.
    """
    with stores.open_uow() as uow:
        cells = uow.cells.list(batch_id)
        executions = uow.executions.list(batch_id=batch_id)
    needed = {
        (cell.case_id, cell.repeat, cell.combination)
        for cell in cells
        if cell.status is not ExecutionStatus.COMPLETED
    }
    fresh = [e for e in executions if e.status.is_final and not e.is_pruned]
    found = _parts([e for e in fresh if _is_done(e, needed)])
    _prune(batch_id, found, stores)
    return found


def _is_done(execution: Execution, needed: set[tuple[str, int, str]]) -> bool:
    if execution.kind is not ExecutionKind.SEGMENT:
        return execution.status is ExecutionStatus.COMPLETED
    place = (execution.case_id or "", execution.repeat)
    names = execution.metadata.get("combinations", ())
    return not any((*place, name) in needed for name in names)


def _parts(executions: Sequence[Execution]) -> Pruning:
    trunks = (e for e in executions if e.kind is ExecutionKind.SEGMENT)
    leaves = (e for e in executions if e.kind is ExecutionKind.CELL and e.head is not None)
    return Pruning(trunks=tuple(trunks), leaves=tuple(leaves))


def _prune(batch_id: str, found: Pruning, stores: Stores) -> None:
    """The ledger first: it never says that something is there which is gone."""
    if not found.trunks and not found.leaves:
        return
    with stores.open_uow(write=True) as uow:
        for execution in (*found.trunks, *found.leaves):
            metadata = {**execution.metadata, "pruned": True}
            uow.executions.save(replace(execution, metadata=metadata))
        uow.audit_log.append(
            AuditEntry(
                at=stores.clock.now(),
                actor="prune_checkpoints",
                action="checkpoints.pruned",
                subject=batch_id,
                details={"trunks": len(found.trunks), "leaves": len(found.leaves)},
            )
        )
        uow.commit()
    stores.checkpoints.delete_many([thread_id(e.execution_id) for e in found.trunks])
    ends = {thread_id(e.execution_id): [e.head] for e in found.leaves if e.head is not None}
    stores.checkpoints.prune(ends)
