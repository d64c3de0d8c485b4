"""A stretch that failed for a passing reason goes on from its last record, before its cells fail.

Many cells may stand behind one stretch: a model's hiccup in a shared prefix would cost all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from wtb_prefect.application.record_steps import StepRecorder
from wtb_prefect.application.session import Session
from wtb_prefect.application.time_limit import Deadline
from wtb_prefect.domain.execution import Execution, ExecutionStatus
from wtb_prefect.domain.interfaces.workflow_engine import Stop, StopKind
from wtb_prefect.domain.interfaces.workspace import Workspace
from wtb_prefect.domain.outbox import AuditEntry

QUIET_SECONDS = 60.0
_LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt at a stretch: how it stopped, and the execution as it stands then.

    What the recorder has not written yet is not in the ledger, nor in the execution's counts.
    """

    ended: Execution
    recorder: StepRecorder
    workspace: Workspace
    stop: Stop


Begin = TypeVar("Begin")
"""Where an attempt begins: an execution, and what its stores hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How often a stretch may be tried again, and until when."""

    retries: int
    deadline: Deadline

    def allows(self, seconds: float) -> bool:
        """Whether there is time for a wait."""
        left = self.deadline.left
        return left is None or seconds < left


async def run_attempts(
    run_once: Callable[[Begin], Awaitable[Attempt]],
    again: Callable[[Execution], Begin],
    begin: Begin,
    budget: Budget,
    session: Session,
) -> tuple[Attempt, int]:
    """The attempt that counts, and the node bodies that the ones before it ran.

    `again` takes what is beyond the ledger's last record out of the stores, and begins there.

    After a transient error the same execution goes on: only the nodes that failed run again, in a
    workspace with the files as they were recorded.
    """
    earlier = 0
    for retry in range(1, budget.retries + 1):
        attempt = await run_once(begin)
        if attempt.stop.kind is not StopKind.FAILED or not attempt.stop.transient:
            return attempt, earlier
        seconds = session.backoff.seconds(retry, attempt.stop.retry_after)
        if not budget.allows(seconds) or not await _is_quiet(attempt.workspace, session):
            return attempt, earlier
        going_on = _record(attempt, seconds, session)
        earlier += attempt.recorder.spent.bodies
        await session.backoff.sleep(seconds)
        begin = again(going_on)
    return await run_once(begin), earlier


async def _is_quiet(workspace: Workspace, session: Session) -> bool:
    """Waits for siblings of the failed node, which may still run in threads: two attempts must not
    write in one workspace."""
    deadline = session.clock.elapsed() + QUIET_SECONDS
    while session.engine.still_running(workspace):
        if session.clock.elapsed() > deadline:
            return False
        await asyncio.sleep(_LOOK_SECONDS)
    return True


def counted(ended: Execution, recorder: StepRecorder) -> Execution:
    """With what the recorder counted, all of it: ask after `write_end`."""
    return replace(
        ended,
        node_executions=ended.node_executions + recorder.spent.bodies,
        cache_hits=ended.cache_hits + recorder.spent.cache_hits,
    )


def _record(attempt: Attempt, seconds: float, session: Session) -> Execution:
    """Writes what the attempt did: the execution goes on, also in another process."""
    recorder = attempt.recorder
    with session.open_uow(write=True) as uow:
        recorder.write_end(uow)
        going_on = replace(
            counted(attempt.ended, recorder),
            status=ExecutionStatus.RUNNING,
            retries=attempt.ended.retries + 1,
            error=None,
            finished_at=None,
        )
        uow.executions.save(going_on)
        uow.audit_log.append(
            AuditEntry(
                at=session.clock.now(),
                actor="run_segment",
                action="execution.retried",
                subject=going_on.execution_id,
                details={
                    "batch_id": going_on.batch_id,
                    "retry": going_on.retries,
                    "error": str(attempt.ended.error),
                    "seconds": round(seconds, 3),
                },
            )
        )
        uow.commit()
    return going_on
