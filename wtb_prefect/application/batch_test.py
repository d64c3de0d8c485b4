"""A batch test from request to closed books, whichever runner carries its stretches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from wtb_prefect.application.answers import check_importable
from wtb_prefect.application.commit_base_workspace import commit_base_workspace
from wtb_prefect.application.plan_batch import BatchPlan, BatchRequest, plan_batch
from wtb_prefect.application.prune_checkpoints import prune_completed
from wtb_prefect.application.run_batch import (
    BatchRun,
    IsAlive,
    claim_batch,
    close_batch,
    register_batch,
    root_items,
    run_items,
    stored_scope,
)
from wtb_prefect.application.session import BatchScope, Session
from wtb_prefect.domain.batch_test import BatchStatus
from wtb_prefect.domain.interfaces.segment_runner import SegmentRunner

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
    return register_batch(plan, base, is_alive, session)


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
    bodies = 0
    status: BatchStatus | None = BatchStatus.FAILED
    try:
        if run.on_plan is not None:
            run.on_plan(plan)
        items = root_items(plan)
        if items:
            bodies = await run_items(
                items, make_runner(stored_scope(plan.batch_id, session)), plan, session
            )
        status = None
        if session.project.keep_checkpoints == "last":
            prune_completed(plan.batch_id, session)
    except (KeyboardInterrupt, asyncio.CancelledError):
        status = BatchStatus.INTERRUPTED
        raise
    finally:
        final = close_batch(plan, session, bodies, status)
        session.workspaces.sweep()
    return BatchEnd(plan=plan, status=final, node_executions=bodies)
