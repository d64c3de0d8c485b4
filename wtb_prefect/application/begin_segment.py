"""Where a stretch begins: at the input, at a fork, in the past, or at its last record."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from wtb_prefect.application.execution_tree import Stretch
from wtb_prefect.application.find_past import PastPoint, begin_there, find_past, root_key
from wtb_prefect.application.mock_nodes import marks_of
from wtb_prefect.application.read_history import boundaries_behind
from wtb_prefect.application.session import BatchScope, PreparedCase, Session
from wtb_prefect.domain.checkpoint import SubgraphHeads, subgraph_heads
from wtb_prefect.domain.events import ExecutionEvent, started
from wtb_prefect.domain.execution import Execution, ExecutionKind, ExecutionStatus, Lineage
from wtb_prefect.domain.file_processing import CheckpointFileLink
from wtb_prefect.domain.identifiers import BlobId, thread_id
from wtb_prefect.domain.interfaces.segment_runner import WorkItem
from wtb_prefect.domain.interfaces.unit_of_work import UnitOfWork
from wtb_prefect.errors import LedgerError


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkedFrom:
    """An execution to fork from, and its records."""

    execution: Execution
    links: list[CheckpointFileLink]


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """What a stretch begins with: its row, where its subgraphs stand, what its store holds.

    `sequence` is the number of its next record; `inherited` the answers used before a fork; `begun`
    is what to tell of it with its first record.
    """

    execution: Execution
    sequence: int = 0
    heads: SubgraphHeads = field(default_factory=SubgraphHeads)
    store_id: BlobId | None = None
    inherited: int = 0
    begun: ExecutionEvent | None = None


def find_parent(uow: UnitOfWork, execution_id: str | None) -> ForkedFrom | None:
    """What an item is forked from; None: it begins at the start.

    Raises:
        LedgerError: the ledger does not have it.
    """
    if execution_id is None:
        return None
    found = uow.executions.get(execution_id)
    if found is None or found.head is None:
        raise LedgerError(f"execution {execution_id}, to be forked, is not in the ledger")
    return ForkedFrom(execution=found, links=uow.checkpoint_files.list(execution_id))


def begin_new(
    item: WorkItem,
    stretch: Stretch,
    parent: ForkedFrom | None,
    prepared: PreparedCase,
    scope: BatchScope,
    session: Session,
) -> Begin:
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
        metadata={**_metadata(item, prepared), **marks_of(scope)},
    )
    fork_of = None if parent is None else parent.execution
    point = find_past(execution, stretch, fork_of, scope, session)
    if point is not None:
        begin = _taken_over(execution, point, scope, session)
    elif parent is None:
        begin = Begin(execution=execution)
    else:
        begin = _forked(execution, parent, session)
    return replace(begin, begun=started(begin.execution, session.clock.now()))


def _metadata(item: WorkItem, prepared: PreparedCase) -> dict[str, object]:
    answers = prepared.fingerprints.answers
    given = {} if answers is None else {"answers": answers}
    return {"combinations": list(item.combinations), **given}


def _taken_over(
    execution: Execution, point: PastPoint, scope: BatchScope, session: Session
) -> Begin:
    """A fork of what an earlier run recorded."""
    return Begin(
        execution=begin_there(point, execution, scope, session),
        heads=point.heads,
        store_id=point.last.store_id,
        inherited=point.last.answers,
    )


def _forked(execution: Execution, source: ForkedFrom, session: Session) -> Begin:
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
    return Begin(execution=forked, heads=heads, store_id=store_id, inherited=len(parent.answers))


def rewound(known: Execution, session: Session, answered: frozenset[str] = frozenset()) -> Begin:
    """An interrupted execution as the ledger has it; what the stores have beyond it is removed.

    Kept are the pending writes that the ledger knows: those of its own tasks, and while it still
    stands at its fork those that came with the copy, which are recorded with its ancestors. So are
    the questions and earlier answers of the tasks `answered`, which get an answer now: without
    them LangGraph does not know that the answer is theirs.
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
    session.checkpoints.rewind(
        thread_id(known.execution_id), known.head, pending | answered, heads.all
    )
    going_on = replace(known, status=ExecutionStatus.RUNNING, error=None, finished_at=None)
    if known.status is not ExecutionStatus.RUNNING:
        with session.open_uow(write=True) as uow:
            uow.executions.save(going_on)  # killed from now on, it has not failed again
            uow.commit()
    return Begin(
        execution=going_on,
        sequence=links[-1].sequence + 1,
        heads=heads,
        store_id=links[-1].store_id,
    )


def begin_retry(
    execution: Execution, session: Session, answered: frozenset[str] = frozenset()
) -> Begin:
    """Where an execution goes on after a failed attempt."""
    if execution.head is not None:
        return rewound(execution, session, answered)
    session.checkpoints.delete(thread_id(execution.execution_id))  # it failed before any record
    return Begin(execution=execution)
