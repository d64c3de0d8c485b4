"""One attempt at an execution: from where it stands until it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from wtb_prefect.application.answers import CaseAnswers
from wtb_prefect.application.begin_segment import Begin
from wtb_prefect.application.commit_tree import CommitTree
from wtb_prefect.application.mock_nodes import item_mocks
from wtb_prefect.application.record_steps import StepRecorder
from wtb_prefect.application.recorded_nodes import kept_result
from wtb_prefect.application.session import BatchScope, Session
from wtb_prefect.application.step_files import StepFiles
from wtb_prefect.application.time_limit import Deadline, advance_until
from wtb_prefect.application.trace_labels import trace_labels
from wtb_prefect.application.workspace_label import label_of
from wtb_prefect.domain.batch_test import Case
from wtb_prefect.domain.execution import Execution, ExecutionKind, ExecutionStatus
from wtb_prefect.domain.identifiers import thread_id
from wtb_prefect.domain.interfaces.segment_runner import WorkItem
from wtb_prefect.domain.interfaces.workflow_engine import Advance, Hold, Stop, StopKind
from wtb_prefect.domain.interfaces.workspace import Workspace
from wtb_prefect.domain.mock_node import Mocks

_VISIBLE_SECONDS = 0.5

_STATUS = {
    StopKind.COMPLETED: ExecutionStatus.COMPLETED,
    StopKind.GATE: ExecutionStatus.COMPLETED,
    StopKind.INTERRUPTED: ExecutionStatus.PAUSED,
    StopKind.HELD: ExecutionStatus.PAUSED,
    StopKind.FAILED: ExecutionStatus.FAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How an execution is run, besides what it is.

    `mocks` are answered for instead of run (`mocked`: with these fingerprints), what the nodes
    `record` return is kept. `retries` are attempts after a transient error; `time_limit` is in
    seconds. Of a controlled execution: `hold` says where to stop, `edit` is a change of the state
    before anything runs, `answers` are those to its open questions, by their ids.
    """

    retries: int = 3
    time_limit: float | None = None
    use_cache: bool = False
    mocks: Mocks = field(default_factory=dict)
    mocked: Mapping[str, str] = field(default_factory=dict)
    record: tuple[str, ...] = ()
    hold: Hold | None = None
    edit: Mapping[str, Any] | None = None
    answers: Mapping[str, Any] = field(default_factory=dict)


def batch_terms(item: WorkItem, execution: Execution, scope: BatchScope, session: Session) -> Terms:
    """Those of the executions of a batch: `item` and `scope` say which nodes are mocked."""
    options = scope.options
    return Terms(
        retries=options.retries,
        time_limit=options.time_limit,
        use_cache=options.use_cache,
        mocks=item_mocks(item, execution, scope, session),
        mocked={mock.node: mock.fingerprint for mock in scope.mocks},
        record=options.record,
    )


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
    begin: Begin, case: Case, deadline: Deadline, terms: Terms, session: Session
) -> Attempt:
    """Runs an execution from where it stands, until it stops; the end is not recorded yet."""
    execution = begin.execution
    tree = CommitTree(session.open_uow, execution.commit_id)
    parent_id = execution.lineage.parent_id if execution.lineage else None
    workspace = session.workspaces.open(
        execution.execution_id, label_of(execution), tree, parent_id
    )
    files = StepFiles(
        execution_id=execution.execution_id,
        workspace=workspace,
        tree=tree,
        commit_id=execution.commit_id,
        tracker=session.tracker,
        clock=session.clock,
        store_id=begin.store_id,
    )
    recorder = StepRecorder(
        execution=execution,
        files=files,
        open_uow=session.open_uow,
        clock=session.clock,
        implementation_of=session.engine.implementation_of,
        sequence=begin.sequence,
        unsaved_execution=begin.sequence == 0,
        use_cache=terms.use_cache,
        heads=begin.heads,
        mocked=terms.mocked,
        keep=partial(kept_result, execution, session),
        tell=session.tell,
        begun=begin.begun,
    )
    if execution.lineage is not None and begin.sequence == 0:
        recorder.begin_at(execution.lineage, begin.inherited)
    # One that lasts is seen in the ledger while it runs; short ones are written once, at the end.
    visible = asyncio.get_running_loop().call_later(_VISIBLE_SECONDS, recorder.show)
    began = session.clock.elapsed()
    request = _request(begin, recorder, case, terms, session)
    try:
        stop = await advance_until(deadline, request, recorder, session)
    finally:
        visible.cancel()
    ended = _ended(execution, recorder, stop, session, session.clock.elapsed() - began)
    return Attempt(ended=ended, recorder=recorder, workspace=workspace, stop=stop)


def _request(
    begin: Begin, recorder: StepRecorder, case: Case, terms: Terms, session: Session
) -> Advance:
    execution = begin.execution
    return Advance(
        thread_id=thread_id(execution.execution_id),
        choices=execution.choices,
        gated=frozenset(execution.gated),
        input=case.state if execution.head is None else None,
        step=execution.step,
        head=execution.head,
        workspace=recorder.files.workspace,
        tags={"wtb_case_id": case.id, "wtb_execution_id": execution.execution_id},
        trace=trace_labels(execution, session.project.name),
        subgraphs_under_way=bool(begin.heads.under_way),
        answers=CaseAnswers(case.answers) if case.answers else None,
        answered=recorder.answers,
        store=None if begin.store_id is None else session.tracker.contents(begin.store_id),
        mocks=terms.mocks,
        kept=frozenset(terms.record),
        hold=terms.hold,
        edit=terms.edit,
        resume=terms.answers,
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
        commit_id=recorder.files.commit_id,
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
