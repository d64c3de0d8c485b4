"""Running an execution again from one of its checkpoints, beside the batch: nothing of it changes.

The new execution is a run of its own: kind `run`, in no batch, on its own thread (a fork of the
checkpoint without what was pending there, so that every node after it runs), in its own workspace
with the files of that point.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from wtb_prefect.application.answers import CaseAnswers
from wtb_prefect.application.commit_tree import CommitTree
from wtb_prefect.application.delete_batch import remove_executions
from wtb_prefect.application.mock_nodes import item_mocks
from wtb_prefect.application.read_history import read_boundaries
from wtb_prefect.application.read_state import holder_of
from wtb_prefect.application.record_steps import StepRecorder
from wtb_prefect.application.session import BatchScope, PreparedCase, Session
from wtb_prefect.application.trace_labels import trace_labels
from wtb_prefect.application.workspace_label import label_of
from wtb_prefect.domain.batch_test import BatchCell, VariantCombination
from wtb_prefect.domain.checkpoint import (
    Checkpoint,
    ExecutionHistory,
    SubgraphHeads,
    subgraph_heads,
)
from wtb_prefect.domain.execution import (
    Execution,
    ExecutionKind,
    ExecutionStatus,
    Inherited,
    Lineage,
)
from wtb_prefect.domain.file_processing import CheckpointFileLink
from wtb_prefect.domain.identifiers import BlobId, thread_id
from wtb_prefect.domain.interfaces.segment_runner import WorkItem
from wtb_prefect.domain.interfaces.workflow_engine import Advance, Stop, StopKind
from wtb_prefect.domain.mock_node import Mocks
from wtb_prefect.domain.node_boundary import BoundaryStatus
from wtb_prefect.errors import LedgerError

_STATUS = {
    StopKind.COMPLETED: ExecutionStatus.COMPLETED,
    StopKind.GATE: ExecutionStatus.COMPLETED,
    StopKind.INTERRUPTED: ExecutionStatus.PAUSED,
    StopKind.FAILED: ExecutionStatus.FAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """What to run again: a cell of the batch of `scope`, from a point behind `source` or from the
    start."""

    cell: BatchCell
    scope: BatchScope
    prepared: PreparedCase
    source: Execution | None = None
    point: Checkpoint | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """Where it begins: the execution, and what comes along from the point.

    `inherited` is the number of answers used up to there.
    """

    execution: Execution
    heads: SubgraphHeads = field(default_factory=SubgraphHeads)
    store_id: BlobId | None = None
    inherited: int = 0


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


def begin_again(again: Again, session: Session) -> Beginning:
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
        return Beginning(execution=execution)
    holder = holder_of(again.source.execution_id, again.point, session)
    with session.open_uow() as uow:
        links = _links_until(uow.checkpoint_files.list(holder), again.point)
    return _forked(execution, again.source, holder, links, session)


def _links_until(
    links: Sequence[CheckpointFileLink], point: Checkpoint
) -> Sequence[CheckpointFileLink]:
    """The records of an execution up to a checkpoint of the top graph."""
    for place, link in enumerate(links, 1):
        if link.checkpoint_id == point.checkpoint_id and not link.pending and not link.namespace:
            return links[:place]
    raise LedgerError(f"checkpoint {point.checkpoint_id} is in the store and not in the ledger")


def _forked(
    execution: Execution,
    source: Execution,
    holder: str,
    links: Sequence[CheckpointFileLink],
    session: Session,
) -> Beginning:
    """What was pending at the checkpoint stays behind; memories of subgraphs come along."""
    link, target = links[-1], thread_id(execution.execution_id)
    standing = subgraph_heads(links).standing
    session.checkpoints.fork(
        thread_id(holder), link.checkpoint_id, target, standing, with_writes=False
    )
    return Beginning(
        execution=replace(
            execution,
            lineage=Lineage(
                parent_id=holder, checkpoint_id=link.checkpoint_id, commit_id=link.commit_id
            ),
            head=link.checkpoint_id,
            step=link.step,
            commit_id=link.commit_id,
            answers=source.answers,
            inherited=Inherited(),
        ),
        heads=SubgraphHeads(standing=standing),
        store_id=link.store_id,
        inherited=link.answers,
    )


async def run_again(begin: Beginning, again: Again, session: Session) -> Execution:
    """Runs it to an end, an interrupt or a failure, and records it like any other."""
    execution, case = begin.execution, again.prepared.case
    tree = CommitTree(session.open_uow, execution.commit_id)
    recorder = StepRecorder(
        execution=execution,
        workspace=session.workspaces.open(execution.execution_id, label_of(execution), tree),
        tree=tree,
        open_uow=session.open_uow,
        tracker=session.tracker,
        clock=session.clock,
        implementation_of=session.engine.implementation_of,
        heads=begin.heads,
        store_id=begin.store_id,
        mocked={mock.node: mock.fingerprint for mock in again.scope.mocks},
    )
    if execution.lineage is not None:
        recorder.begin_at(execution.lineage, begin.inherited)
    request = Advance(
        mocks=_mocks(again, execution, session),
        thread_id=thread_id(execution.execution_id),
        choices=execution.choices,
        gated=frozenset(),
        input=None if execution.head else case.state,
        step=execution.step,
        workspace=recorder.workspace,
        tags={"wtb_case_id": case.id, "wtb_execution_id": execution.execution_id},
        trace=trace_labels(execution, session.project.name),
        answers=CaseAnswers(case.answers) if case.answers else None,
        answered=recorder.answers,
        store=None if begin.store_id is None else session.tracker.contents(begin.store_id),
    )
    began = session.clock.elapsed()
    stop = await session.engine.advance(request, recorder)
    ended = _ended(execution, recorder, stop, session, session.clock.elapsed() - began)
    with session.open_uow(write=True) as uow:
        recorder.write_end(uow)
        spent = recorder.spent
        ended = replace(ended, node_executions=spent.bodies, cache_hits=spent.cache_hits)
        uow.executions.save(ended)
        uow.commit()
    return ended


def _mocks(again: Again, execution: Execution, session: Session) -> Mocks:
    """The nodes that the batch answers for."""
    name = again.cell.combination
    item = WorkItem(
        case_id=again.cell.case_id,
        repeat=again.cell.repeat,
        combinations=(name,),
        wanted=(name,),
    )
    # An earlier request of the batch may have asked for this combination.
    combinations = {**again.scope.combinations, name: VariantCombination.named(name)}
    scope = replace(again.scope, combinations=combinations)
    return item_mocks(item, execution, scope, session)


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
        answers=recorder.answers,
        input_tokens=recorder.spent.input_tokens,
        output_tokens=recorder.spent.output_tokens,
        duration=seconds,
        finished_at=session.clock.now(),
    )
