"""Running an execution again from one of its checkpoints, beside the batch: nothing of it changes.

The new execution is a run of its own: kind `run`, in no batch, on its own thread (a fork of the
checkpoint without what was pending there, so that every node after it runs), in its own workspace
with the files of that point.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace

from wtb_prefect.application.begin_segment import Begin
from wtb_prefect.application.delete_batch import remove_executions
from wtb_prefect.application.fork_at_point import begin_at_point, fork_point
from wtb_prefect.application.read_history import read_boundaries
from wtb_prefect.application.read_state import holder_of
from wtb_prefect.application.run_attempt import batch_terms, counted, run_attempt
from wtb_prefect.application.session import BatchScope, PreparedCase, Session
from wtb_prefect.application.time_limit import deadline_of
from wtb_prefect.application.workspace_label import label_of
from wtb_prefect.domain.batch_test import BatchCell, VariantCombination
from wtb_prefect.domain.checkpoint import (
    Checkpoint,
    ExecutionHistory,
)
from wtb_prefect.domain.execution import (
    Execution,
    ExecutionKind,
    ExecutionStatus,
)
from wtb_prefect.domain.identifiers import thread_id
from wtb_prefect.domain.interfaces.segment_runner import WorkItem
from wtb_prefect.domain.node_boundary import BoundaryStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """What to run again: a cell of the batch of `scope`, from a point behind `source` or from the
    start."""

    cell: BatchCell
    scope: BatchScope
    prepared: PreparedCase
    source: Execution | None = None
    point: Checkpoint | None = None


def before_failure(
    source: Execution, history: ExecutionHistory, session: Session
) -> Checkpoint | None:
    """The checkpoint before the node that failed; None if nothing failed, or before the first."""
    if source.error is None:
        return None
    failed = [
        boundary.entry_checkpoint_id
        for boundary in read_boundaries(session.open_uow, source.execution_id)
        if boundary.status is BoundaryStatus.FAILED and boundary.node == source.error.node
    ]
    known = [history.get(entry) for entry in failed if entry is not None]
    return next((point for point in reversed(known) if point is not None), history.latest)


def begin_again(again: Again, session: Session) -> Begin:
    """The new execution at its point, not yet run or recorded. Raises as `holder_of`."""
    case = again.prepared.case
    execution = Execution(
        execution_id=str(uuid.uuid4()),
        workflow_id=session.project.workflow_id,
        kind=ExecutionKind.RUN,
        status=ExecutionStatus.RUNNING,
        choices=dict(VariantCombination.named(again.cell.combination).choices),
        created_at=session.clock.now(),
        case_id=case.id,
        repeat=again.cell.repeat,
        commit_id=again.prepared.commit_id,
    )
    if again.point is None or again.source is None:
        return Begin(execution=execution)
    holder = holder_of(again.source.execution_id, again.point, session)
    with session.open_uow() as uow:
        point = fork_point(uow, holder, again.point)
    return begin_at_point(execution, point, again.source.answers, session)


async def run_again(begin: Begin, again: Again, session: Session) -> Execution:
    """Runs it to an end, an interrupt or a failure, and records it like any other."""
    item, scope = _place(again)
    deadline = deadline_of(begin.execution, None, session)
    terms = batch_terms(item, begin.execution, scope, session)
    attempt = await run_attempt(begin, again.prepared.case, deadline, terms, session)
    with session.open_uow(write=True) as uow:
        attempt.recorder.write_end(uow)
        ended = counted(attempt.ended, attempt.recorder)
        uow.executions.save(ended)
        uow.commit()
    return ended


def _place(again: Again) -> tuple[WorkItem, BatchScope]:
    """The cell as an item, and its batch: nothing is answered from the cache, nothing recorded."""
    name = again.cell.combination
    item = WorkItem(
        case_id=again.cell.case_id,
        repeat=again.cell.repeat,
        combinations=(name,),
        wanted=(name,),
    )
    scope = replace(
        again.scope,
        # An earlier request of the batch may have asked for this combination.
        combinations={**again.scope.combinations, name: VariantCombination.named(name)},
        options=replace(again.scope.options, use_cache=False, record=()),
    )
    return item, scope


def forget(execution: Execution, session: Session) -> None:
    """Removes a run with its thread, workspace and rows; none of them is no error."""
    session.checkpoints.delete(thread_id(execution.execution_id))
    session.workspaces.open(execution.execution_id, label_of(execution), {}).remove()
    session.workspaces.sweep()
    with session.open_uow(write=True) as uow:
        remove_executions(uow, [execution.execution_id])
        uow.commit()
