"""A stretch that failed for a passing reason goes on from its last record, before its cells fail.

Many cells may stand behind one stretch: a model's hiccup in a shared prefix would cost all of them.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from wtb_prefect.application.begin_segment import Begin, begin_retry
from wtb_prefect.application.run_attempt import Attempt, Terms, counted, run_attempt
from wtb_prefect.application.session import Session
from wtb_prefect.application.time_limit import deadline_of
from wtb_prefect.domain.batch_test import Case
from wtb_prefect.domain.events import ExecutionRetried
from wtb_prefect.domain.execution import Execution, ExecutionStatus
from wtb_prefect.domain.interfaces.workflow_engine import StopKind
from wtb_prefect.domain.interfaces.workspace import Workspace

QUIET_SECONDS = 60.0
_LOOK_SECONDS = 0.02


async def run_attempts(
    begin: Begin, case: Case, terms: Terms, session: Session
) -> tuple[Attempt, int]:
    """The attempt that counts, and the node bodies that the ones before it ran.

    After a transient error the same execution goes on: only the nodes that failed run again, in a
    workspace with the files as they were recorded.
    """
    deadline = deadline_of(begin.execution, terms.time_limit, session)
    earlier = 0
    for retry in range(1, terms.retries + 1):
        attempt = await run_attempt(begin, case, deadline, terms, session)
        if attempt.stop.kind is not StopKind.FAILED or not attempt.stop.transient:
            return attempt, earlier
        seconds = session.backoff.seconds(retry, attempt.stop.retry_after)
        if not deadline.allows(seconds) or not await _is_quiet(attempt.workspace, session):
            return attempt, earlier
        going_on = _record(attempt, seconds, session)
        earlier += attempt.recorder.spent.bodies
        await session.backoff.sleep(seconds)
        begin = begin_retry(going_on, session)
        terms = replace(terms, edit=None)  # recorded by the first attempt
    return await run_attempt(begin, case, deadline, terms, session), earlier


async def _is_quiet(workspace: Workspace, session: Session) -> bool:
    """Waits for siblings of the failed node, which may still run in threads: two attempts must not
    write in one workspace."""
    deadline = session.clock.elapsed() + QUIET_SECONDS
    while session.engine.still_running(workspace):
        if session.clock.elapsed() > deadline:
            return False
        await asyncio.sleep(_LOOK_SECONDS)
    return True


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
        retried = ExecutionRetried(
            at=session.clock.now(),
            **ExecutionRetried.fields_of(going_on),
            retry=going_on.retries,
            error=str(attempt.ended.error),
            seconds=round(seconds, 3),
        )
        uow.record(retried, "run_segment")
        uow.commit()
    return going_on
