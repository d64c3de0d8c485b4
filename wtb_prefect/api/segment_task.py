"""The Prefect task of a batch: one chunk of stretches, run in whatever process it lands."""

from __future__ import annotations

from typing import Any

from prefect import get_run_logger, task
from prefect.context import TaskRunContext
from prefect.logging import get_logger

from wtb_prefect.api.events import mirrored_events
from wtb_prefect.api.masked_errors import masked_errors
from wtb_prefect.api.prefect_segments import chunk_from_json, result_to_json
from wtb_prefect.api.remote_calls import remote_calls_here
from wtb_prefect.api.worker_end import leave_answer
from wtb_prefect.application.run_batch import stored_scope
from wtb_prefect.application.run_chunk import first_failure, run_chunk
from wtb_prefect.application.session import Session
from wtb_prefect.bootstrap.project import load_project
from wtb_prefect.bootstrap.session import open_session
from wtb_prefect.domain.events import WorkerStarted
from wtb_prefect.domain.project import ProjectLocations
from wtb_prefect.infrastructure.event_loop import run_blocking
from wtb_prefect.infrastructure.processes import this_process


@masked_errors()
def execute_chunk(
    project: str,
    locations: dict[str, str | None],
    batch_id: str,
    parallel: int,
    chunk: dict[str, Any],
    answer_id: str | None = None,
) -> dict[str, Any]:
    """Runs a chunk here. All arguments are JSON values; cases are read from the ledger.

    `answer_id` is under what a worker that has to end leaves its answer; default the task run's id.
    """
    work = chunk_from_json(chunk)
    definition = load_project(project, ProjectLocations.from_json(locations))
    calls = remote_calls_here(project, locations) if definition.remote else None
    with (
        mirrored_events(steps=definition.step_events) as bus,
        open_session(definition, bus.publish, calls) as session,
    ):
        _tell_started(batch_id, len(work.items), session)
        scope = stored_scope(batch_id, session)
        try:
            result = run_blocking(run_chunk(work, scope, session, parallel))
        except BaseExceptionGroup as group:
            # The stretches of a chunk fail as a group; the first failure is the one to report.
            raise first_failure(group) from None
        answer = result_to_json(result)
        hung = leave_answer(answer, session, answer_id)
    logger = get_run_logger() if TaskRunContext.get() else get_logger("wtb.segments")
    logger.info("%s items, %s node bodies", len(work.items), result.node_executions)
    for node in hung:
        logger.warning("Node %r still runs in a thread, which nothing can stop", node)
    return answer


def _tell_started(batch_id: str, items: int, session: Session) -> None:
    here = this_process()
    started = WorkerStarted(
        at=session.clock.now(), batch_id=batch_id, host=here.host, pid=here.pid, items=items
    )
    with session.open_uow(write=True) as uow:
        uow.record(started, "segment_task")
        uow.commit()


@task(name="run-segments", persist_result=False)
def run_segments(
    project: str,
    locations: dict[str, str | None],
    batch_id: str,
    parallel: int,
    chunk: dict[str, Any],
) -> dict[str, Any]:
    """Runs some of a batch's stretches. Ray pickles a task by value, so the body is a call."""
    return execute_chunk(project, locations, batch_id, parallel, chunk)
