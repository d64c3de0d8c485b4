"""Running one stretch: from its start, its fork or its last record to a gate or an end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from wtb_prefect.application.attempts import run_attempts
from wtb_prefect.application.begin_segment import (
    Begin,
    begin_new,
    find_parent,
    rewound,
)
from wtb_prefect.application.commit_tree import CommitTree
from wtb_prefect.application.evaluate import Evidence, evaluate, score_fingerprints
from wtb_prefect.application.execution_tree import split, stretch_of, unshare
from wtb_prefect.application.fail_fast import stop_batch
from wtb_prefect.application.load_case import load_case
from wtb_prefect.application.mock_nodes import mock_roots
from wtb_prefect.application.read_history import read_boundaries
from wtb_prefect.application.record_steps import StepRecorder
from wtb_prefect.application.run_attempt import batch_terms, counted
from wtb_prefect.application.session import BatchScope, PreparedCase, Session
from wtb_prefect.application.settle_workspace import is_kept, settle_workspace
from wtb_prefect.application.workspace_label import label_of
from wtb_prefect.domain.evaluation import EvaluationResult
from wtb_prefect.domain.events import ExecutionResumed, stopped
from wtb_prefect.domain.execution import (
    Execution,
    ExecutionKind,
    ExecutionStatus,
)
from wtb_prefect.domain.identifiers import thread_id
from wtb_prefect.domain.interfaces.segment_runner import WorkItem
from wtb_prefect.domain.interfaces.unit_of_work import UnitOfWork
from wtb_prefect.domain.interfaces.workflow_engine import StopKind
from wtb_prefect.domain.interfaces.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentOutcome:
    """The parts that go on from here (none at an end), the node bodies that were run, by which
    execution (None: an earlier one had done it all)."""

    children: tuple[WorkItem, ...] = ()
    node_executions: int = 0
    execution_id: str | None = None


async def run_segment(item: WorkItem, scope: BatchScope, session: Session) -> SegmentOutcome:
    """Runs one work item as far as its combinations agree, and records everything.

    What the ledger has already is not run again: a finished leaf answers its cells, a finished
    trunk gives its children, an interrupted execution goes on from its last record.
    """
    with session.open_uow() as uow:
        prepared = load_case(uow, session, scope, item.case_id)
        stretch = stretch_of(
            item,
            scope.combinations,
            scope.batch_id,
            (
                *scope.roots,
                *mock_roots(item, scope, session),
                prepared.fingerprints.of_run,
                prepared.commit_id or "",
            ),
            session.engine.variant_fingerprint,
        )
        known = uow.executions.get(stretch.execution_id)
        parent = find_parent(uow, item.parent_id)
    if known is not None and known.status.is_final and not _is_retried(known, scope):
        return await _already_done(item, known, prepared, scope, session)
    if known is not None and known.head is not None:
        resumed = ExecutionResumed(at=session.clock.now(), **ExecutionResumed.fields_of(known))
        begin = replace(rewound(known, session), begun=resumed)
    else:
        begin = begin_new(item, stretch, parent, prepared, scope, session)
    return await _run(item, begin, prepared, scope, session)


def _is_retried(known: Execution, scope: BatchScope) -> bool:
    """Whether it failed in an earlier run and this one is asked to try again."""
    failed = known.status is ExecutionStatus.FAILED and scope.options.retry_failed
    return failed and (known.finished_at is None or known.finished_at < scope.began)


async def _already_done(
    item: WorkItem, known: Execution, prepared: PreparedCase, scope: BatchScope, session: Session
) -> SegmentOutcome:
    if known.kind is ExecutionKind.SEGMENT:
        return SegmentOutcome(children=_children(item, known, scope))
    results = None
    if known.status is ExecutionStatus.COMPLETED:
        results = await _missing_scores(known, prepared, session)
    with session.open_uow(write=True) as uow:
        if results is not None:
            uow.evaluation_results.replace(known.execution_id, results)
        _resolve(uow, item, scope, known)
        uow.commit()
    return SegmentOutcome()


async def _missing_scores(
    known: Execution, prepared: PreparedCase, session: Session
) -> list[EvaluationResult] | None:
    """New results if the recorded ones are not of today's evaluators; None if they are."""
    with session.open_uow() as uow:
        recorded = uow.evaluation_results.list_many([known.execution_id])
    have = {r.evaluator: r.fingerprint for r in recorded.get(known.execution_id, [])}
    if have == score_fingerprints(session.evaluator_fingerprints, prepared.fingerprints.expected):
        return None
    tree = CommitTree(session.open_uow, known.commit_id)
    workspace = session.workspaces.open(known.execution_id, label_of(known), tree)
    try:
        return await _score(known, prepared, session, workspace)
    finally:
        if is_kept(session.project.keep_workspaces, known.status):
            workspace.keep()
        else:
            workspace.remove()


def _children(item: WorkItem, trunk: Execution, scope: BatchScope) -> tuple[WorkItem, ...]:
    if trunk.unshared_reason is not None:
        return unshare(item, trunk.unshared_reason)
    if trunk.is_pruned:
        return unshare(item, "the checkpoint of its shared prefix was pruned")
    return split(item, trunk.split_nodes[0], trunk.execution_id, scope.combinations)


async def _run(
    item: WorkItem,
    begin: Begin,
    prepared: PreparedCase,
    scope: BatchScope,
    session: Session,
) -> SegmentOutcome:
    terms = batch_terms(item, begin.execution, scope, session)
    last, earlier = await run_attempts(begin, prepared.case, terms, session)
    ended, recorder, workspace, stop = last.ended, last.recorder, last.workspace, last.stop
    results: list[EvaluationResult] = []
    if stop.kind is StopKind.COMPLETED and session.evaluators:
        recorder.flush()  # evaluators see every boundary, and may take long
        results = await _score(ended, prepared, session, workspace)
    policy = session.project.keep_workspaces
    ended = settle_workspace(ended, workspace, policy)
    _record_end(item, ended, recorder, results, scope, session)
    if not is_kept(policy, ended.status):
        workspace.remove()
    children = _children(item, ended, scope) if stop.kind is StopKind.GATE else ()
    return SegmentOutcome(
        children=children,
        node_executions=earlier + recorder.spent.bodies,
        execution_id=ended.execution_id,
    )


def _record_end(
    item: WorkItem,
    ended: Execution,
    recorder: StepRecorder,
    results: list[EvaluationResult],
    scope: BatchScope,
    session: Session,
) -> None:
    with session.open_uow(write=True) as uow:
        recorder.write_end(uow)
        final = counted(ended, recorder)
        uow.executions.save(final)
        if ended.kind is not ExecutionKind.SEGMENT:
            uow.evaluation_results.replace(ended.execution_id, results)
            _resolve(uow, item, scope, ended)
        uow.record(stopped(final, session.clock.now()), "run_segment")
        uow.commit()


def _resolve(uow: UnitOfWork, item: WorkItem, scope: BatchScope, execution: Execution) -> None:
    ids = [scope.cell_id(item.case_id, item.repeat, name) for name in item.wanted]
    uow.cells.resolve(ids, execution.execution_id, execution.status, execution.unshared_reason)
    if scope.options.fail_fast and execution.status is ExecutionStatus.FAILED:
        stop_batch(uow, scope.batch_id)


async def _score(
    execution: Execution, prepared: PreparedCase, session: Session, workspace: Workspace
) -> list[EvaluationResult]:
    if execution.head is None:
        return []
    state = session.engine.state(thread_id(execution.execution_id), execution.head)
    evidence = Evidence(
        state=state.values,
        case=prepared.case,
        execution=execution,
        boundaries=partial(read_boundaries, session.open_uow, execution.execution_id),
        workspace=workspace.path,
        around=partial(session.surroundings.evaluator, execution.execution_id, workspace),
        mask=session.surroundings.mask,
    )
    prints = score_fingerprints(session.evaluator_fingerprints, prepared.fingerprints.expected)
    return await evaluate(session.evaluators, prints, evidence, session.clock.now())
