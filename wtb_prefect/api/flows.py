"""The batch test as a Prefect flow."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from math import ceil
from typing import Annotated, Any

from prefect import flow, get_run_logger, tags
from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from pydantic import BaseModel, Field

from wtb_prefect.api.artifacts import ProgressArtifact, optional, publish_summary
from wtb_prefect.api.events import mirrored_events
from wtb_prefect.api.masked_errors import masked_errors
from wtb_prefect.api.prefect_segments import PrefectSegmentRunner
from wtb_prefect.api.ray_task_runner import SegmentRayTaskRunner
from wtb_prefect.api.remote_calls import make_room
from wtb_prefect.api.segment_task import run_segments
from wtb_prefect.api.without_server import WithoutServer, server_is_lost
from wtb_prefect.api.worker_end import left_answer
from wtb_prefect.application.batch_test import BatchEnd, run_batch_test
from wtb_prefect.application.plan_batch import BatchPlan, BatchRequest, stored_request
from wtb_prefect.application.read_results import BatchReport, read_report
from wtb_prefect.application.run_batch import BatchRun
from wtb_prefect.application.run_chunk import DEFAULT_PARALLEL
from wtb_prefect.application.session import BatchScope, Session
from wtb_prefect.bootstrap.project import load_project
from wtb_prefect.bootstrap.session import open_session
from wtb_prefect.domain.batch_test import RunOptions
from wtb_prefect.domain.cell_filter import CellFilter
from wtb_prefect.domain.project import ProjectDefinition, ProjectLocations
from wtb_prefect.errors import InvalidInputError
from wtb_prefect.infrastructure.event_loop import run_in_thread, was_terminated
from wtb_prefect.infrastructure.processes import is_alive, this_process


class FlowOptions(BaseModel):
    """How a batch is run; what is left out is as the stored request or the default has it."""

    self_check: int | None = Field(
        None, ge=0, description="Cells to run again on their own, and to compare."
    )
    retries: int | None = Field(
        None, ge=0, description="Attempts after a transient error, per execution."
    )
    time_limit: float | None = Field(
        None, gt=0, description="Seconds a cell may take, its shared prefix included."
    )
    retry_failed: bool | None = Field(
        None, description="Failed cells go on from their last record."
    )
    fail_fast: bool | None = Field(
        None, description="Start nothing new after the first failed cell."
    )

    def as_asked(self, options: RunOptions) -> RunOptions:
        """The options with what is given here in place."""
        return replace(options, **self.model_dump(exclude_none=True))


def run_name() -> str:
    """What people read in the list of runs: the project's file or module, and the batch."""
    parameters = flow_run.parameters
    module, _, attribute = str(parameters.get("project")).partition(":")
    batch = str(parameters.get("batch_id") or "new")
    return f"batch-test {module.rpartition('/')[2]}:{attribute} {batch[:12]}"


@flow(
    name="batch_test",
    flow_run_name=run_name,
    task_runner=SegmentRayTaskRunner(),
    persist_result=True,
    # Never pickled: a stored result is read back by other processes.
    result_serializer="json",
)
def batch_test(
    project: str,
    matrix: dict[str, str | list[str]] | list[dict[str, str]] | None = None,
    cases: str | list[dict[str, Any]] | None = None,
    repeats: Annotated[int, Field(ge=1, le=1000)] = 1,
    batch_id: str | None = None,
    share_prefixes: bool = True,
    max_parallel: Annotated[int, Field(ge=1, le=1024)] = DEFAULT_PARALLEL,
    locations: dict[str, str | None] | None = None,
    only: dict[str, Any] | None = None,
    options: FlowOptions | None = None,
) -> dict[str, Any]:
    """Runs a batch test and returns its summary; the ledger holds everything else.

    Args:
        project: Where the project is: "package.module:project" or "path/to/file.py:project".
        matrix: Variants by node ("*" means all), or a list of combinations. Empty: the baseline.
        cases: A .jsonl or .csv file, or the cases themselves. Empty: those stored under batch_id.
        repeats: Independent draws of each case.
        batch_id: A name for the batch, to extend it later; also the idempotency key to trigger it.
        share_prefixes: Run what combinations have in common once.
        max_parallel: Stretches of execution in flight at once, over all workers.
        locations: Where the project keeps its things, if not where it says itself.
        only: Cells to run now: cases, combinations, tags (lists), limit. Empty: as stored with the
            batch; {}: all of them.
        options: How the batch is run: retries, time limit, failed cells, what is checked again.
    """
    where = None if locations is None else ProjectLocations.from_json(locations)
    with masked_errors():
        definition = load_project(project, where)
        with (
            mirrored_events(steps=definition.step_events) as bus,
            open_session(definition, bus.publish) as session,
        ):
            request = _request(session, matrix, cases, repeats, batch_id, share_prefixes)
            if options is not None:
                request = replace(request, options=options.as_asked(request.options))
            if only is not None:
                request = replace(request, only=CellFilter.from_json(only))
            return _run(request, session, project, max_parallel)


def _request(
    session: Session,
    matrix: Any,
    cases: Any,
    repeats: int,
    batch_id: str | None,
    share_prefixes: bool,
) -> BatchRequest:
    if cases is not None:
        return BatchRequest(
            matrix=matrix,
            cases=cases,
            repeats=repeats,
            share_prefixes=share_prefixes,
            batch_id=batch_id,
        )
    if batch_id is None:
        raise InvalidInputError("give cases, or the batch_id of a stored batch")
    return stored_request(batch_id, session)


def _run(
    request: BatchRequest, session: Session, project: str, max_parallel: int
) -> dict[str, Any]:
    definition = session.project
    if definition.cwd and _runner_name() == "threads":
        raise InvalidInputError(
            f"project {definition.name!r} has cwd='workspace', and threads of one process share "
            "its current directory: run it on Ray"
        )
    logger = get_run_logger()
    progress: list[ProgressArtifact] = []
    runners: list[PrefectSegmentRunner] = []

    def on_plan(plan: BatchPlan) -> None:
        counts = {str(state): count for state, count in plan.counts.items() if count}
        logger.info("Batch %s: %s cells %s", plan.batch_id, len(plan.cells), counts)
        progress.append(ProgressArtifact(session.open_uow, plan).__enter__())

    def make_runner(scope: BatchScope) -> PrefectSegmentRunner:
        runners.append(_runner_of(scope, session, project, max_parallel))
        return runners[0]

    run = BatchRun(
        owner=this_process(),
        runner_name=_runner_name(),
        is_alive=is_alive,
        on_plan=on_plan,
        was_terminated=was_terminated,
    )
    try:
        with tags(f"project:{definition.name}"):
            # Not in the main thread: there a signal's exception could hit any callback of the loop.
            end = run_in_thread(run_batch_test(request, session, make_runner, run))
    finally:
        for runner in runners:
            runner.close()
        for bar in progress:
            bar.__exit__(None, None, None)
    return _publish(end, session, definition, shown=not any(r.server_lost for r in runners))


def _runner_of(
    scope: BatchScope, session: Session, project: str, max_parallel: int
) -> PrefectSegmentRunner:
    definition = session.project
    slots = _slots(max_parallel)
    context = FlowRunContext.get()
    if definition.remote and context and isinstance(context.task_runner, SegmentRayTaskRunner):
        make_room(context.task_runner, definition.remote)
    parameters = {
        "project": project,
        "locations": definition.locations.to_json(),
        "batch_id": scope.batch_id,
        "parallel": 1 if definition.cwd else ceil(max_parallel / slots),
    }
    return PrefectSegmentRunner(
        run_segments,
        parameters=parameters,
        slots=slots,
        left_answer=partial(left_answer, open_uow=session.open_uow),
        instead=WithoutServer(parameters, slots).submit,
        is_lost=server_is_lost,
    )


def _slots(max_parallel: int) -> int:
    """How many chunks run at once: Ray's CPUs, or this machine's for threads."""
    context = FlowRunContext.get()
    runner = context.task_runner if context else None
    if isinstance(runner, SegmentRayTaskRunner):
        return min(max_parallel, runner.slots)
    return min(max_parallel, os.cpu_count() or 1)


def _runner_name() -> str:
    context = FlowRunContext.get()
    on_ray = context is not None and isinstance(context.task_runner, SegmentRayTaskRunner)
    return "ray" if on_ray else "threads"


def _publish(
    end: BatchEnd, session: Session, definition: ProjectDefinition, *, shown: bool
) -> dict[str, Any]:
    cell_ids = {planned.cell.cell_id for planned in end.plan.cells}
    report = read_report(session.open_uow, end.plan.batch_id, cell_ids)
    summary = summary_of(report, end)
    if not shown:
        return summary  # each call to a lost server takes seconds to fail
    with optional("summary artifact not created"):
        publish_summary(report, end.plan)
    return summary


def summary_of(report: BatchReport, end: BatchEnd) -> dict[str, Any]:
    """A batch in JSON values: small enough for a flow's result and an event's payload."""
    counts: dict[str, int] = {}
    for cell in report.cells:
        counts[str(cell.status)] = counts.get(str(cell.status), 0) + 1
    return {
        "batch_id": end.plan.batch_id,
        "status": str(end.status),
        "cells": counts,
        "node_executions": end.node_executions,
        "best": report.best,
        "mocked": list(report.mocked),
        "self_check": report.self_check,
    }
