"""Running an execution again from one of its checkpoints, beside the batch: nothing of it changes.

The new execution is a run of its own: kind `run`, in no batch, on its own thread (a fork of the
checkpoint without what was pending there, so that every node after it runs), in its own workspace
with the files of that point.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace

from wtb_prefect.application.commit_tree import CommitTree
from wtb_prefect.application.delete_batch import remove_executions
from wtb_prefect.application.read_history import read_boundaries
from wtb_prefect.application.read_state import thread_of
from wtb_prefect.application.record_steps import StepRecorder
from wtb_prefect.application.session import PreparedCase, Session
from wtb_prefect.application.workspace_label import label_of
from wtb_prefect.domain.checkpoint import Checkpoint, ExecutionHistory
from wtb_prefect.domain.execution import Execution, ExecutionKind, ExecutionStatus, Lineage
from wtb_prefect.domain.identifiers import CheckpointId, thread_id
from wtb_prefect.domain.interfaces.workflow_engine import Advance, Stop, StopKind
from wtb_prefect.domain.node_boundary import BoundaryStatus

_STATUS = {
    StopKind.COMPLETED: ExecutionStatus.COMPLETED,
    StopKind.GATE: ExecutionStatus.COMPLETED,
    StopKind.INTERRUPTED: ExecutionStatus.PAUSED,
    StopKind.FAILED: ExecutionStatus.FAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """What to run again: a case with choices, from a point behind `source` or from the start."""

    prepared: PreparedCase
    repeat: int
    choices: Mapping[str, str]
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


def begin_again(again: Again, session: Session) -> Execution:
    """The new execution at its point, not yet run or recorded. Raises as `thread_of`."""
    case = again.prepared.case
    execution = Execution(
        execution_id=str(uuid.uuid4()),
        workflow_id=session.project.workflow_id,
        kind=ExecutionKind.RUN,
        status=ExecutionStatus.RUNNING,
        choices=again.choices,
        created_at=session.clock.now(),
        case_id=case.id,
        repeat=again.repeat,
        commit_id=again.prepared.commit_id,
    )
    if again.point is None or again.source is None:
        return execution
    point, target = again.point, thread_id(execution.execution_id)
    head = CheckpointId(point.checkpoint_id)
    source = thread_of(again.source.execution_id, point, session)
    session.checkpoints.fork(source, head, target)
    session.checkpoints.rewind(target, head, ())
    return replace(
        execution,
        lineage=Lineage(
            parent_id=point.execution_id, checkpoint_id=head, commit_id=point.file_commit_id
        ),
        head=head,
        step=point.step,
        commit_id=point.file_commit_id,
    )


async def run_again(execution: Execution, again: Again, session: Session) -> Execution:
    """Runs it to an end, an interrupt or a failure, and records it like any other."""
    tree = CommitTree(session.open_uow, execution.commit_id)
    workspace = session.workspaces.open(execution.execution_id, label_of(execution), tree)
    recorder = StepRecorder(
        execution=execution,
        workspace=workspace,
        tree=tree,
        open_uow=session.open_uow,
        clock=session.clock,
        fingerprint=session.engine.variant_fingerprint,
    )
    if execution.lineage is not None:
        recorder.begin_at(execution.lineage)
    request = Advance(
        thread_id=thread_id(execution.execution_id),
        choices=execution.choices,
        gated=frozenset(),
        input=None if execution.head else again.prepared.case.state,
        step=execution.step,
        workspace=workspace,
        tags={
            "wtb_case_id": again.prepared.case.id,
            "wtb_execution_id": execution.execution_id,
        },
    )
    began = session.clock.elapsed()
    stop = await session.engine.advance(request, recorder)
    ended = _ended(execution, recorder, stop, session, session.clock.elapsed() - began)
    with session.open_uow(write=True) as uow:
        recorder.write_end(uow)
        ended = replace(ended, node_executions=recorder.spent.bodies)
        uow.executions.save(ended)
        uow.commit()
    return ended


def forget(execution: Execution, session: Session) -> None:
    """Removes a run with its thread, workspace and rows; none of them is no error."""
    session.checkpoints.delete(thread_id(execution.execution_id))
    session.workspaces.open(execution.execution_id, label_of(execution), {}).remove()
    session.workspaces.sweep()
    with session.open_uow(write=True) as uow:
        remove_executions(uow, [execution.execution_id])
        uow.commit()


def _ended(
    execution: Execution, recorder: StepRecorder, stop: Stop, session: Session, seconds: float
) -> Execution:
    return replace(
        execution,
        status=_STATUS[stop.kind],
        head=recorder.head,
        step=recorder.step,
        commit_id=recorder.commit_id,
        next_nodes=stop.next_nodes,
        error=None if stop.error is None else recorder.attributed(stop.error),
        input_tokens=recorder.spent.input_tokens,
        output_tokens=recorder.spent.output_tokens,
        duration=seconds,
        finished_at=session.clock.now(),
    )
