"""A batch test from request to closed books, whichever runner carries its stretches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from wtb_prefect.application.answers import check_importable
from wtb_prefect.application.at_work import end_work
from wtb_prefect.application.batch_owner import IsAlive
from wtb_prefect.application.commit_base_workspace import commit_base_workspace
from wtb_prefect.application.mock_nodes import refuse_local_functions
from wtb_prefect.application.plan_batch import BatchPlan, BatchRequest, plan_batch
from wtb_prefect.application.process_outbox import process_pending
from wtb_prefect.application.prune_checkpoints import prune_completed
from wtb_prefect.application.run_batch import (
    BatchRun,
    claim_batch,
    close_batch,
    register_batch,
    root_items,
    run_items,
    stored_scope,
)
from wtb_prefect.application.self_check import self_check
from wtb_prefect.application.session import BatchScope, Session
from wtb_prefect.domain.batch_test import BatchStatus
from wtb_prefect.domain.execution import ExecutionStatus
from wtb_prefect.domain.interfaces.segment_runner import SegmentRunner

VERIFIED_AT_END = 500
"""Claims that a batch verifies when it is over (its users wait for it): the schedule, `wtb verify`
or the next call go on."""

MakeRunner = Callable[[BatchScope], SegmentRunner]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchEnd:
    """How a batch test ended, and the node bodies this run of it really called."""

    plan: BatchPlan
    status: BatchStatus
    node_executions: int


def plan_request(request: BatchRequest, session: Session) -> BatchPlan:
    """The plan of a request, against the base workspace as it is now."""
    base = commit_base_workspace(session)
    return plan_batch(request, session, base.commit_id if base else None)


def register_request(
    request: BatchRequest, session: Session, is_alive: IsAlive, runner: str
) -> BatchPlan:
    """Checks a request and stores it in the ledger under its batch id, for a runner that reads it
    there.

    Raises:
        BatchBusyError: another live process runs this batch.
    """
    base = commit_base_workspace(session)
    plan = plan_batch(request, session, base.commit_id if base else None)
    check_importable(plan.cases, runner)
    refuse_local_functions(plan.mocks)
    return register_batch(plan, base, is_alive, session)


async def check_itself(plan: BatchPlan, session: Session) -> None:
    """The self-check of a batch whose cells have ended, in this process whatever ran them."""
    scope = replace(stored_scope(plan.batch_id, session), mocks=plan.mocks)
    await self_check(plan, scope, session)


async def run_batch_test(
    request: BatchRequest, session: Session, make_runner: MakeRunner, run: BatchRun
) -> BatchEnd:
    """Plans, claims, runs and closes one batch test.

    Whatever ends it early (Ctrl-C, a lost database, a cancelled flow) leaves a ledger from which
    the same request goes on: finished stretches stay finished, others resume at their last record.
    """
    base = commit_base_workspace(session)
    plan = plan_batch(request, session, base.commit_id if base else None)
    plan = claim_batch(plan, base, run, session)
    try:
        return await _run_claimed(plan, session, make_runner, run)
    finally:
        end_work(plan.batch_id)


async def _run_claimed(
    plan: BatchPlan, session: Session, make_runner: MakeRunner, run: BatchRun
) -> BatchEnd:
    before = bodies_of(plan.batch_id, session)
    status: BatchStatus | None = BatchStatus.FAILED
    reason = None
    try:
        if run.on_plan is not None:
            run.on_plan(plan)
        items = root_items(plan)
        if items:
            # Functions that only this process has are in the plan, not in the ledger.
            scope = replace(stored_scope(plan.batch_id, session), mocks=plan.mocks)
            await run_items(items, make_runner(scope), plan, session)
        if plan.options.self_check:
            await check_itself(plan, session)
        status = None
        if session.project.keep_checkpoints == "last":
            prune_completed(plan.batch_id, session)
    except BaseException as exc:  # told, and raised on
        reason = session.surroundings.mask(f"{type(exc).__name__}: {exc}")
        if isinstance(exc, (KeyboardInterrupt, SystemExit, asyncio.CancelledError)):
            status = BatchStatus.CANCELLED if run.was_terminated() else BatchStatus.INTERRUPTED
        raise
    finally:
        # From the ledger: a worker that died had recorded work that no result tells of.
        bodies = max(0, bodies_of(plan.batch_id, session) - before)
        final = close_batch(plan, session, bodies, status, reason)
        if status is None:
            process_pending(session, VERIFIED_AT_END)
        session.workspaces.clean_orphans()  # sweeps, too
    return BatchEnd(plan=plan, status=final, node_executions=bodies)


def bodies_of(batch_id: str, session: Session) -> int:
    """The node bodies recorded for a batch so far."""
    with session.open_uow() as uow:
        return uow.executions.total_bodies(batch_id)


def has_ended(batch_id: str, session: Session) -> bool:
    """Whether every cell of a batch has its end, or a failure has stopped it: its books are closed
    and nobody runs it."""
    with session.open_uow() as uow:
        batch, counts = uow.batch_tests.get(batch_id), uow.cells.count(batch_id)
    if batch is None or batch.owner is not None:
        return False
    is_open = any(counts.get(s, 0) for s in (ExecutionStatus.PENDING, ExecutionStatus.RUNNING))
    return not is_open or batch.status is BatchStatus.INTERRUPTED
