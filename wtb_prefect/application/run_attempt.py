"""One attempt at an execution: from where it stands until it stops."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import partial

from wtb_prefect.application.answers import CaseAnswers
from wtb_prefect.application.begin_segment import Begin
from wtb_prefect.application.commit_tree import CommitTree
from wtb_prefect.application.mock_nodes import item_mocks
from wtb_prefect.application.record_steps import StepRecorder
from wtb_prefect.application.recorded_nodes import kept_result
from wtb_prefect.application.session import BatchScope, PreparedCase, Session
from wtb_prefect.application.time_limit import Deadline, advance_until
from wtb_prefect.application.trace_labels import trace_labels
from wtb_prefect.application.workspace_label import label_of
from wtb_prefect.domain.batch_test import Case
from wtb_prefect.domain.execution import Execution, ExecutionKind, ExecutionStatus
from wtb_prefect.domain.identifiers import thread_id
from wtb_prefect.domain.interfaces.segment_runner import WorkItem
from wtb_prefect.domain.interfaces.workflow_engine import Advance, Stop, StopKind
from wtb_prefect.domain.interfaces.workspace import Workspace

_VISIBLE_SECONDS = 0.5

_STATUS = {
    StopKind.COMPLETED: ExecutionStatus.COMPLETED,
    StopKind.GATE: ExecutionStatus.COMPLETED,
    StopKind.INTERRUPTED: ExecutionStatus.PAUSED,
    StopKind.FAILED: ExecutionStatus.FAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt at a stretch: how it stopped, and the execution as it stands then.

    What the recorder has not written yet is not in the ledger, nor in the execution's counts.
    """

    ended: Execution
    recorder: StepRecorder
    workspace: Workspace
    stop: Stop


def counted(ended: Execution, recorder: StepRecorder) -> Execution:
    """With what the recorder counted, all of it: ask after `write_end`."""
    return replace(
        ended,
        node_executions=ended.node_executions + recorder.spent.bodies,
        cache_hits=ended.cache_hits + recorder.spent.cache_hits,
    )


async def run_attempt(
    item: WorkItem,
    begin: Begin,
    prepared: PreparedCase,
    deadline: Deadline,
    scope: BatchScope,
    session: Session,
) -> Attempt:
    """Runs an execution from where it stands, until it stops; the end is not recorded yet.

    `item` and `scope` say which nodes are mocked, and what of it is kept.
    """
    execution = begin.execution
    tree = CommitTree(session.open_uow, execution.commit_id)
    workspace = session.workspaces.open(execution.execution_id, label_of(execution), tree)
    recorder = StepRecorder(
        execution=execution,
        workspace=workspace,
        tree=tree,
        open_uow=session.open_uow,
        tracker=session.tracker,
        clock=session.clock,
        implementation_of=session.engine.implementation_of,
        sequence=begin.sequence,
        unsaved_execution=begin.sequence == 0,
        use_cache=scope.options.use_cache,
        heads=begin.heads,
        store_id=begin.store_id,
        mocked={mock.node: mock.fingerprint for mock in scope.mocks},
        keep=partial(kept_result, execution, session),
    )
    if execution.lineage is not None and begin.sequence == 0:
        recorder.begin_at(execution.lineage, begin.inherited)
    # One that lasts is seen in the ledger while it runs; short ones are written once, at the end.
    visible = asyncio.get_running_loop().call_later(_VISIBLE_SECONDS, recorder.show)
    began = session.clock.elapsed()
    request = replace(
        _request(begin, recorder, prepared.case, session),
        mocks=item_mocks(item, execution, scope, session),
        kept=frozenset(scope.options.record),
    )
    try:
        stop = await advance_until(deadline, request, recorder, session)
    finally:
        visible.cancel()
    ended = _ended(execution, recorder, stop, session, session.clock.elapsed() - began)
    return Attempt(ended=ended, recorder=recorder, workspace=workspace, stop=stop)


def _request(begin: Begin, recorder: StepRecorder, case: Case, session: Session) -> Advance:
    execution = begin.execution
    return Advance(
        thread_id=thread_id(execution.execution_id),
        choices=execution.choices,
        gated=frozenset(execution.gated),
        input=case.state if execution.head is None else None,
        step=execution.step,
        workspace=recorder.workspace,
        tags={"wtb_case_id": case.id, "wtb_execution_id": execution.execution_id},
        trace=trace_labels(execution, session.project.name),
        subgraphs_under_way=bool(begin.heads.under_way),
        answers=CaseAnswers(case.answers) if case.answers else None,
        answered=recorder.answers,
        store=None if begin.store_id is None else session.tracker.contents(begin.store_id),
    )


def _ended(
    execution: Execution, recorder: StepRecorder, stop: Stop, session: Session, seconds: float
) -> Execution:
    error = None if stop.error is None else recorder.attributed(stop.error)
    at_gate = stop.kind is StopKind.GATE
    order = [node for node in execution.gated if node in stop.gates]
    return replace(
        execution,
        kind=ExecutionKind.SEGMENT if at_gate else execution.kind,
        status=_STATUS[stop.kind],
        head=recorder.head,
        step=recorder.step,
        commit_id=recorder.commit_id,
        split_nodes=tuple(order) if at_gate else (),
        next_nodes=stop.gates or stop.next_nodes,
        error=error,
        unshared_reason=stop.not_shareable or execution.unshared_reason,
        answers=recorder.answers,
        input_tokens=execution.input_tokens + recorder.spent.input_tokens,
        output_tokens=execution.output_tokens + recorder.spent.output_tokens,
        duration=execution.duration + seconds,
        finished_at=session.clock.now(),
    )
