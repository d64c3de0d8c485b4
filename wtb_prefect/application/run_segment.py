"""Running one stretch: from its start, its fork or its last record to a gate or an end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from functools import partial

from wtb_prefect.application.answers import CaseAnswers
from wtb_prefect.application.commit_tree import CommitTree
from wtb_prefect.application.evaluate import Evidence, evaluate, score_fingerprints
from wtb_prefect.application.execution_tree import Stretch, split, stretch_of, unshare
from wtb_prefect.application.find_past import PastPoint, begin_there, find_past, root_key
from wtb_prefect.application.load_case import load_case
from wtb_prefect.application.read_history import boundaries_behind, read_boundaries
from wtb_prefect.application.record_steps import StepRecorder
from wtb_prefect.application.session import BatchScope, PreparedCase, Session
from wtb_prefect.application.trace_labels import trace_labels
from wtb_prefect.application.workspace_label import label_of
from wtb_prefect.domain.batch_test import Case
from wtb_prefect.domain.checkpoint import SubgraphHeads, subgraph_heads
from wtb_prefect.domain.evaluation import EvaluationResult
from wtb_prefect.domain.execution import (
    Execution,
    ExecutionKind,
    ExecutionStatus,
    Lineage,
)
from wtb_prefect.domain.file_processing import CheckpointFileLink
from wtb_prefect.domain.identifiers import BlobId, thread_id
from wtb_prefect.domain.interfaces.segment_runner import WorkItem
from wtb_prefect.domain.interfaces.unit_of_work import UnitOfWork
from wtb_prefect.domain.interfaces.workflow_engine import Advance, Stop, StopKind
from wtb_prefect.domain.interfaces.workspace import Workspace
from wtb_prefect.domain.outbox import AuditEntry
from wtb_prefect.errors import LedgerError

_VISIBLE_SECONDS = 0.5

_STATUS = {
    StopKind.COMPLETED: ExecutionStatus.COMPLETED,
    StopKind.GATE: ExecutionStatus.COMPLETED,
    StopKind.INTERRUPTED: ExecutionStatus.PAUSED,
    StopKind.FAILED: ExecutionStatus.FAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentOutcome:
    """The parts that go on from here (none at an end), and the node bodies that were run."""

    children: tuple[WorkItem, ...] = ()
    node_executions: int = 0


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
            (*scope.roots, prepared.fingerprints.of_run, prepared.commit_id or ""),
            session.engine.variant_fingerprint,
        )
        known = uow.executions.get(stretch.execution_id)
        parent = _parent(uow, item.parent_id)
    if known is not None and known.status.is_final:
        return await _already_done(item, known, prepared, scope, session)
    if known is not None and known.head is not None:
        begin = _rewound(known, session)
    else:
        begin = _start(item, stretch, parent, prepared, scope, session)
    return await _run(item, begin, prepared, scope, session)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parent:
    """An execution to fork from, and its records."""

    execution: Execution
    links: list[CheckpointFileLink]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begin:
    """What a stretch begins with: its row, where its subgraphs stand, what its store holds.

    `sequence` is the number of its next record; `inherited` the answers used before a fork.
    """

    execution: Execution
    sequence: int = 0
    heads: SubgraphHeads = field(default_factory=SubgraphHeads)
    store_id: BlobId | None = None
    inherited: int = 0


def _parent(uow: UnitOfWork, execution_id: str | None) -> _Parent | None:
    if execution_id is None:
        return None
    found = uow.executions.get(execution_id)
    if found is None or found.head is None:
        raise LedgerError(f"execution {execution_id}, to be forked, is not in the ledger")
    return _Parent(execution=found, links=uow.checkpoint_files.list(execution_id))


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
        workspace.remove()


def _children(item: WorkItem, trunk: Execution, scope: BatchScope) -> tuple[WorkItem, ...]:
    if trunk.unshared_reason is not None:
        return unshare(item, trunk.unshared_reason)
    if trunk.is_pruned:
        return unshare(item, "the checkpoint of its shared prefix was pruned")
    return split(item, trunk.split_nodes[0], trunk.execution_id, scope.combinations)


async def _run(
    item: WorkItem,
    begin: _Begin,
    prepared: PreparedCase,
    scope: BatchScope,
    session: Session,
) -> SegmentOutcome:
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
    )
    if execution.lineage is not None and begin.sequence == 0:
        recorder.begin_at(execution.lineage, begin.inherited)
    # One that lasts is seen in the ledger while it runs; short ones are written once, at the end.
    visible = asyncio.get_running_loop().call_later(_VISIBLE_SECONDS, recorder.show)
    began = session.clock.elapsed()
    try:
        stop = await session.engine.advance(
            _advance(begin, recorder, prepared.case, session), recorder
        )
    finally:
        visible.cancel()
    ended = _ended(execution, recorder, stop, session, session.clock.elapsed() - began)
    results: list[EvaluationResult] = []
    if stop.kind is StopKind.COMPLETED and session.evaluators:
        recorder.flush()  # evaluators see every boundary, and may take long
        results = await _score(ended, prepared, session, workspace)
    _record_end(item, ended, recorder, results, scope, session)
    session.announce(ended)
    if ended.status is ExecutionStatus.COMPLETED:
        workspace.remove()  # everything in it is in the blob store; a failed one is kept to look at
    children = _children(item, ended, scope) if stop.kind is StopKind.GATE else ()
    return SegmentOutcome(children=children, node_executions=recorder.spent.bodies)


def _advance(begin: _Begin, recorder: StepRecorder, case: Case, session: Session) -> Advance:
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


def _start(
    item: WorkItem,
    stretch: Stretch,
    parent: _Parent | None,
    prepared: PreparedCase,
    scope: BatchScope,
    session: Session,
) -> _Begin:
    """A new execution: from the start, or forked."""
    thread = thread_id(stretch.execution_id)
    if session.checkpoints.latest(thread) is not None:
        # A crash between a checkpoint and its row: to the ledger this execution never began.
        session.checkpoints.delete(thread)
    execution = Execution(
        execution_id=stretch.execution_id,
        workflow_id=session.project.workflow_id,
        kind=ExecutionKind.CELL,
        status=ExecutionStatus.RUNNING,
        choices=stretch.choices,
        created_at=session.clock.now(),
        batch_id=scope.batch_id,
        case_id=item.case_id,
        repeat=item.repeat,
        path=item.path,
        gated=stretch.gated,
        commit_id=prepared.commit_id,
        unshared_reason=item.unshared_reason,
        root_key=root_key(item, prepared, scope, session),
        metadata=_metadata(item, prepared),
    )
    forked_from = None if parent is None else parent.execution
    point = find_past(execution, stretch, forked_from, scope, session)
    if point is not None:
        return _taken_over(execution, point, scope, session)
    return _Begin(execution=execution) if parent is None else _forked(execution, parent, session)


def _metadata(item: WorkItem, prepared: PreparedCase) -> dict[str, object]:
    answers = prepared.fingerprints.answers
    given = {} if answers is None else {"answers": answers}
    return {"combinations": list(item.combinations), **given}


def _taken_over(
    execution: Execution, point: PastPoint, scope: BatchScope, session: Session
) -> _Begin:
    """A fork of what an earlier run recorded."""
    return _Begin(
        execution=begin_there(point, execution, scope, session),
        heads=point.heads,
        store_id=point.last.store_id,
        inherited=point.last.answers,
    )


def _forked(execution: Execution, source: _Parent, session: Session) -> _Begin:
    """Copies the parent's head into the new thread. Its row follows: a fork without one is made
    again."""
    parent, heads = source.execution, subgraph_heads(source.links)
    assert parent.head is not None
    thread = thread_id(execution.execution_id)
    session.checkpoints.fork(thread_id(parent.execution_id), parent.head, thread, heads.all)
    forked = replace(
        execution,
        lineage=Lineage(
            parent_id=parent.execution_id, checkpoint_id=parent.head, commit_id=parent.commit_id
        ),
        head=parent.head,
        step=parent.step,
        commit_id=parent.commit_id,
        answers=parent.answers,
    )
    store_id = source.links[-1].store_id if source.links else None
    return _Begin(execution=forked, heads=heads, store_id=store_id, inherited=len(parent.answers))


def _rewound(known: Execution, session: Session) -> _Begin:
    """An interrupted execution as the ledger has it; what the stores have beyond it is removed.

    Kept are the pending writes that the ledger knows: those of its own tasks, and while it still
    stands at its fork those that came with the copy, which are recorded with its ancestors.
    """
    assert known.head is not None
    with session.open_uow() as uow:
        line = uow.executions.lineage(known.execution_id)
        visits = boundaries_behind(uow, line)
        links = uow.checkpoint_files.list(known.execution_id)
    heads = subgraph_heads(links)
    points = {known.head, *heads.all.values()}
    pending = {
        b.task_id
        for b in visits
        if b.entry_checkpoint_id in points and b.exit_checkpoint_id is None and not b.error
    }
    session.checkpoints.rewind(thread_id(known.execution_id), known.head, pending, heads.all)
    return _Begin(
        execution=replace(known, status=ExecutionStatus.RUNNING),
        sequence=links[-1].sequence + 1,
        heads=heads,
        store_id=links[-1].store_id,
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
        uow.executions.save(
            replace(
                ended,
                node_executions=ended.node_executions + recorder.spent.bodies,
                cache_hits=ended.cache_hits + recorder.spent.cache_hits,
            )
        )
        if ended.kind is not ExecutionKind.SEGMENT:
            uow.evaluation_results.replace(ended.execution_id, results)
            _resolve(uow, item, scope, ended)
        uow.audit_log.append(
            AuditEntry(
                at=session.clock.now(),
                actor="run_segment",
                action=f"execution.{'forked' if ended.split_nodes else ended.status}",
                subject=ended.execution_id,
                details={"batch_id": scope.batch_id, "next": list(ended.next_nodes)},
            )
        )
        uow.commit()


def _resolve(uow: UnitOfWork, item: WorkItem, scope: BatchScope, execution: Execution) -> None:
    ids = [scope.cell_id(item.case_id, item.repeat, name) for name in item.wanted]
    uow.cells.resolve(ids, execution.execution_id, execution.status, execution.unshared_reason)


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
