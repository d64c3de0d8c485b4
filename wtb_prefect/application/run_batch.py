"""Running a plan: claim the batch, deal its stretches to a runner, close the books."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from math import ceil

from wtb_prefect.application.at_work import begin_work
from wtb_prefect.application.batch_owner import IsAlive, refuse_if_owned
from wtb_prefect.application.compare_cells import CellState
from wtb_prefect.application.fail_fast import is_stopped, stop_batch
from wtb_prefect.application.find_past import past_reasons
from wtb_prefect.application.load_case import store_case
from wtb_prefect.application.mock_nodes import dump_mocks, load_mocks
from wtb_prefect.application.plan_batch import BatchPlan, compare_again
from wtb_prefect.application.session import BatchScope, Session, cell_id_of
from wtb_prefect.application.tell_variants import CompletedVariants
from wtb_prefect.application.warn_of_files_outside import warn_of_files_outside
from wtb_prefect.domain.batch_test import (
    BatchStatus,
    BatchTest,
    Owner,
    RunOptions,
    VariantCombination,
)
from wtb_prefect.domain.events import (
    BatchCancelled,
    BatchEnded,
    BatchFailed,
    BatchFinished,
    BatchInterrupted,
    BatchStarted,
    files_committed,
    stopped,
)
from wtb_prefect.domain.execution import ExecutionKind, ExecutionStatus
from wtb_prefect.domain.file_processing import FileCommit
from wtb_prefect.domain.identifiers import stable_id
from wtb_prefect.domain.interfaces.segment_runner import (
    Chunk,
    ChunkResult,
    SegmentRunner,
    WorkItem,
)
from wtb_prefect.domain.interfaces.unit_of_work import UnitOfWork
from wtb_prefect.domain.outbox import AuditEntry, OutboxEvent, OutboxEventType, event_id
from wtb_prefect.domain.workflow import NodeVariant, TestWorkflow
from wtb_prefect.errors import BatchBusyError, NotFoundError

MAX_LOSSES = 3
"""How often an item, and the stretches before it, may lose their worker before its cells are given
up as crashed."""

SUSPICIOUS = 2
"""From so many losses on, an item is dealt alone and only up to its next forks."""

_RETURNS = 8
"""How many chunks may hand their forks back: bounds the number of chunks of a batch."""


ACTOR = "run_batch"

_ENDED: Mapping[BatchStatus | None, type[BatchEnded]] = {
    None: BatchFinished,
    BatchStatus.INTERRUPTED: BatchInterrupted,
    BatchStatus.CANCELLED: BatchCancelled,
    BatchStatus.FAILED: BatchFailed,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRun:
    """How a batch is run: by whom, on what, and how to tell whether another owner still lives.

    `was_terminated` says, when it ended early, whether that was asked for (SIGTERM, a cancelled
    flow run) and not an interruption at the keyboard.
    """

    owner: Owner
    runner_name: str
    is_alive: IsAlive
    on_plan: Callable[[BatchPlan], None] | None = None
    was_terminated: Callable[[], bool] = lambda: False


def register_batch(
    plan: BatchPlan, base: FileCommit | None, is_alive: IsAlive, session: Session
) -> BatchPlan:
    """Writes a request into the ledger, so that whoever runs it needs only its id.

    Returns the plan as it was written. Raises `BatchBusyError` as `claim_batch` does.
    """
    with session.open_uow(write=True) as uow:
        _refuse_if_busy(uow.batch_tests.get(plan.batch_id), is_alive)
        written = _write_request(uow, plan, base, session)
        uow.commit()
    return written


def claim_batch(
    plan: BatchPlan, base: FileCommit | None, run: BatchRun, session: Session
) -> BatchPlan:
    """Writes the request into the ledger and takes ownership, in one transaction.

    Returns the plan as it was written: cells that another run finished meanwhile are done in it.

    Raises:
        BatchBusyError: another live process owns the batch.
    """
    with session.open_uow(write=True) as uow:
        _refuse_if_busy(uow.batch_tests.get(plan.batch_id), run.is_alive)
        written = _write_request(uow, plan, base, session)
        uow.batch_tests.own(plan.batch_id, run.owner, run.runner_name, session.clock.now())
        started = BatchStarted(
            at=session.clock.now(),
            batch_id=plan.batch_id,
            project=session.project.name,
            runner=run.runner_name,
            cells=len(plan.cells),
        )
        uow.record(started, ACTOR)
        begin_work(plan.batch_id, run.owner)
        uow.commit()
    return written


def _write_request(
    uow: UnitOfWork, plan: BatchPlan, base: FileCommit | None, session: Session
) -> BatchPlan:
    uow.workflows.save(plan.workflow)
    uow.variants.save_many(_variants(session))
    commits = [] if base is None else [base]
    known = uow.batch_tests.get(plan.batch_id)
    fresh = _batch(plan, known, session)
    uow.batch_tests.save(replace(known, request=fresh.request) if known else fresh)
    cases = []
    for position, case in enumerate(plan.cases):
        stored, commit = store_case(session, plan.batch_id, position, case, plan.base_commit)
        cases.append(stored)
        commits += [] if commit is None else [commit]
    for commit in commits:
        uow.file_commits.add(commit)
        uow.record(files_committed(commit), ACTOR)
    uow.outbox.add_many([_commit_claim(commit, session) for commit in commits])
    uow.cases.save_many(cases)
    current = compare_again(plan, uow)
    states = (CellState.NEW, CellState.STALE, CellState.ADOPTED)
    uow.cells.save_many(
        planned.cell
        for planned in current.cells
        # What is left out is in the ledger as missing; what the ledger has of it stays as it is.
        if planned.again
        or planned.state in states
        or (planned.state is CellState.LEFT_OUT and not planned.recorded)
    )
    uow.cells.mark_stale(_marks(current))
    return current


def _marks(plan: BatchPlan) -> dict[str, tuple[str, ...]]:
    """Cells that are kept although stale; and those kept earlier whose code is back."""
    kept = {p.cell.cell_id: p.changed for p in plan.cells if p.state is CellState.KEPT}
    return kept | {p.cell.cell_id: () for p in plan.cells if p.cell.stale}


def _commit_claim(commit: FileCommit, session: Session) -> OutboxEvent:
    return OutboxEvent(
        event_id=event_id(OutboxEventType.FILE_COMMIT_VERIFY, commit.commit_id, "start"),
        type=OutboxEventType.FILE_COMMIT_VERIFY,
        aggregate_id=commit.commit_id,
        payload={"execution_id": None, "subject": commit.commit_id},
        created_at=session.clock.now(),
    )


def stored_scope(batch_id: str, session: Session) -> BatchScope:
    """What the segments of a batch share, from the ledger: a worker knows only the id.

    Raises `NotFoundError` for an unknown one.
    """
    with session.open_uow() as uow:
        batch = uow.batch_tests.get(batch_id)
        if batch is None:
            raise NotFoundError("batch", batch_id)
        began = batch.started_at or batch.created_at
        has_past = uow.executions.any_before(batch.workflow_id, began)
    found = [VariantCombination.of(choices) for choices in batch.request["combinations"]]
    return BatchScope(
        batch_id=batch_id,
        combinations={combination.name: combination for combination in found},
        roots=_roots(session.engine.describe()),
        options=RunOptions.from_json(batch.request.get("options", {})),
        began=began,
        reuse=batch.request["reuse"],
        has_past=has_past and not past_reasons(session),
        mocks=load_mocks(batch.request, session),
    )


def _roots(workflow: TestWorkflow) -> tuple[str, ...]:
    return (workflow.fingerprint, *(node.fingerprint for node in workflow.nodes))


def root_items(plan: BatchPlan) -> list[WorkItem]:
    """One item per case and repeat that wants something; one per cell where nothing is shared."""
    wanted: dict[tuple[str, int], list[str]] = {}
    for planned in plan.cells:
        if planned.is_wanted:
            cell = planned.cell
            wanted.setdefault((cell.case_id, cell.repeat), []).append(cell.combination)
    names = tuple(combination.name for combination in plan.combinations)
    if plan.is_shared:
        return [
            WorkItem(case_id=case, repeat=repeat, combinations=names, wanted=tuple(missing))
            for (case, repeat), missing in wanted.items()
        ]
    reason = "; ".join(plan.unshared_reasons)
    return [
        WorkItem(
            case_id=case,
            repeat=repeat,
            combinations=(name,),
            wanted=(name,),
            shared=False,
            unshared_reason=reason,
        )
        for (case, repeat), missing in wanted.items()
        for name in missing
    ]


async def run_items(
    items: list[WorkItem], runner: SegmentRunner, plan: BatchPlan, session: Session
) -> None:
    """Deals items to the runner until all have ended, or until a failure stops the batch."""
    dealer = _Dealer(ready=list(items), slots=runner.slots, roots=len(items))
    outside: set[str] = set()
    variants = CompletedVariants(plan.batch_id, session)
    while dealer.ready or runner.in_flight:
        while dealer.ready and runner.in_flight < runner.slots:
            runner.submit(dealer.next_chunk(runner.slots - runner.in_flight))
        result = await runner.next_result()
        outside.update(result.files_outside)
        dealer.ready.extend(result.remaining)
        _give_up(dealer.take_back(result), result.lost_reason, plan, session)
        variants.tell()
        if plan.options.fail_fast and is_stopped(plan.batch_id, session):
            dealer.ready.clear()
    warn_of_files_outside(outside)


def close_batch(
    plan: BatchPlan,
    session: Session,
    node_executions: int,
    status: BatchStatus | None = None,
    reason: str | None = None,
) -> BatchStatus:
    """Sets the final status: what the cells say, or `status` if it ended early for a `reason`;
    releases ownership."""
    now = session.clock.now()
    with session.open_uow(write=True) as uow:
        final = status or _status(uow, plan)
        _leave_executions(uow, plan.batch_id, status, reason, now)
        uow.batch_tests.finish(plan.batch_id, final, node_executions, now)
        ended = _ENDED[status](
            at=now,
            batch_id=plan.batch_id,
            project=session.project.name,
            status=str(final),
            cells={str(s): n for s, n in uow.cells.count(plan.batch_id).items() if n},
            node_executions=node_executions,
            reason=reason,
        )
        uow.record(ended, ACTOR)
        uow.commit()
    return final


def _leave_executions(
    uow: UnitOfWork, batch_id: str, early: BatchStatus | None, reason: str | None, now: datetime
) -> None:
    """Nobody runs them now: those of a worker that was lost, or of a batch that ended early."""
    asked_for = early in (BatchStatus.INTERRUPTED, BatchStatus.CANCELLED)
    status = ExecutionStatus.PAUSED if asked_for else ExecutionStatus.CRASHED
    for execution in uow.executions.list_running(batch_id):
        # A worker that is being killed may write to it yet: only the status is set.
        if execution.kind is not ExecutionKind.RUN and uow.executions.leave(
            execution.execution_id, status
        ):
            left = replace(execution, status=status)
            uow.record(stopped(left, now, reason or "its worker was lost"), ACTOR)


@dataclass(slots=True)
class _Dealer:
    """Decides how many items go into one chunk, and whether its forks come back.

    A Prefect task run on Ray costs about 0.2 s of CPU, so chunks are few (about four per slot) and
    run depth first; only while there are fewer items than slots are forks handed back, so that the
    other slots get something to do.
    """

    ready: list[WorkItem]
    slots: int
    roots: int
    returned: int = 0
    losses: Counter[WorkItem] = field(default_factory=Counter)

    def next_chunk(self, free: int) -> Chunk:
        """The next chunk, taken from `ready`."""
        alone = next((item for item in self.ready if self._losses_of(item) >= SUSPICIOUS), None)
        if alone is not None:
            # One stretch of these may kill its worker: it must not take its neighbours along, nor
            # the stretches beside it in its own case.
            self.ready.remove(alone)
            return Chunk(items=(alone,), return_forks=True)
        hand_back = self.slots > 1 and len(self.ready) < free and self.returned < _RETURNS
        if hand_back:
            self.returned += 1
            return Chunk(items=(self.ready.pop(0),), return_forks=True)
        size = max(ceil(self.roots / (4 * self.slots)), 1) if self.slots > 1 else len(self.ready)
        size = min(size, ceil(len(self.ready) / free))
        items, self.ready = self.ready[:size], self.ready[size:]
        return Chunk(items=tuple(items), return_forks=False)

    def take_back(self, result: ChunkResult) -> list[WorkItem]:
        """Puts lost items back, and returns those that were lost too often."""
        hopeless = []
        for item in result.lost:
            self.losses[item] = self._losses_of(item) + 1
            if self.losses[item] < MAX_LOSSES:
                self.ready.append(item)
            else:
                hopeless.append(item)
        return hopeless

    def _losses_of(self, item: WorkItem) -> int:
        """An item's losses, those of the stretches it came from included."""
        return max((n for lost, n in self.losses.items() if _comes_from(item, lost)), default=0)


def _comes_from(item: WorkItem, other: WorkItem) -> bool:
    same = (item.case_id, item.repeat) == (other.case_id, other.repeat)
    return same and set(item.combinations) <= set(other.combinations)


def _give_up(items: list[WorkItem], reason: str | None, plan: BatchPlan, session: Session) -> None:
    if not items:
        return
    with session.open_uow(write=True) as uow:
        for item in items:
            ids = [cell_id_of(plan.batch_id, item.case_id, item.repeat, n) for n in item.wanted]
            open_ids = [i for i in ids if not _has_ended(uow, i)]
            uow.cells.resolve(open_ids, None, ExecutionStatus.CRASHED, None)
            if open_ids and plan.options.fail_fast:
                stop_batch(uow, plan.batch_id)
            uow.audit_log.append(
                _audit(session, "cells.crashed", plan.batch_id, cells=open_ids, reason=reason)
            )
        uow.commit()


def _has_ended(uow: UnitOfWork, cell_id: str) -> bool:
    cell = uow.cells.get(cell_id)
    return cell is not None and cell.status.is_final


def _refuse_if_busy(known: BatchTest | None, is_alive: IsAlive) -> None:
    if known is None:
        return
    if known.status is BatchStatus.DELETING:
        raise BatchBusyError(
            f"batch {known.batch_id} is being deleted; to finish that: wtb delete PROJECT "
            f"{known.batch_id}"
        )
    refuse_if_owned(known, is_alive)


def _variants(session: Session) -> list[NodeVariant]:
    workflow_id = session.project.workflow_id
    found = []
    for spec in session.project.variants:
        fingerprint = session.engine.variant_fingerprint(spec.node, spec.name)
        code = spec.implementation
        where = f"{getattr(code, '__module__', '?')}:{getattr(code, '__qualname__', repr(code))}"
        found.append(
            NodeVariant(
                variant_id=stable_id("variant", workflow_id, spec.node, spec.name, fingerprint),
                workflow_id=workflow_id,
                node=spec.node,
                name=spec.name,
                fingerprint=fingerprint,
                version=spec.version,
                location=session.surroundings.mask(where),  # a partial shows its arguments
            )
        )
    return found


def _batch(plan: BatchPlan, known: BatchTest | None, session: Session) -> BatchTest:
    recorded = set(plan.options.record).union(known.request.get("recorded", ()) if known else ())
    return BatchTest(
        batch_id=plan.batch_id,
        workflow_id=session.project.workflow_id,
        name=session.project.name,
        status=BatchStatus.PENDING,
        request={
            "combinations": [dict(c.choices) for c in plan.combinations],
            "cases": [case.id for case in plan.cases],
            "repeats": plan.repeats,
            "share_prefixes": plan.share_prefixes,
            "reuse": plan.reuse,
            "options": plan.options.to_json(),
            "mocks": dump_mocks(plan.mocks),
            "recorded": sorted(recorded),
            "only": plan.only.to_json() if plan.only else {},
        },
        created_at=session.clock.now(),
    )


def _status(uow: UnitOfWork, plan: BatchPlan) -> BatchStatus:
    counts = uow.cells.count(plan.batch_id)
    unfinished = (ExecutionStatus.PENDING, ExecutionStatus.RUNNING, ExecutionStatus.CRASHED)
    if not any(counts.get(status, 0) for status in unfinished):
        return BatchStatus.COMPLETED
    batch = uow.batch_tests.get(plan.batch_id)
    if batch is not None and batch.status is BatchStatus.INTERRUPTED:
        return BatchStatus.INTERRUPTED
    if plan.choice is None:
        return BatchStatus.FAILED
    open_cells = (cell for cell in uow.cells.list(plan.batch_id) if cell.status in unfinished)
    failed = any(plan.asked(cell.case_id, cell.combination) for cell in open_cells)
    return BatchStatus.FAILED if failed else BatchStatus.PARTIAL


def _audit(session: Session, action: str, subject: str, **details: object) -> AuditEntry:
    return AuditEntry(
        at=session.clock.now(), actor=ACTOR, action=action, subject=subject, details=details
    )
