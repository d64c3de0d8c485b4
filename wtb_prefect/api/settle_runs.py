"""Executions whose flow run was cancelled while it was suspended: no process could stop them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx
from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run

from wtb_prefect.api.events import mirrored_events
from wtb_prefect.api.masked_errors import masked_errors
from wtb_prefect.application.ask_execution import stop_execution
from wtb_prefect.application.drive_execution import Controller
from wtb_prefect.bootstrap.project import load_project
from wtb_prefect.bootstrap.session import open_session
from wtb_prefect.domain.execution import ExecutionKind, ExecutionStatus
from wtb_prefect.domain.project import ProjectLocations
from wtb_prefect.infrastructure.event_loop import run_in_thread
from wtb_prefect.infrastructure.processes import is_alive, this_process

FLOW_RUN = "flow_run_id"
"""Under which an execution of `run_workflow` keeps the id of its flow run."""


def run_name() -> str:
    """What people read in the list of runs."""
    return f"settle-runs {flow_run.parameters.get('project')}"


@flow(
    name="settle_runs",
    flow_run_name=run_name,
    persist_result=True,
    # Never pickled: a stored result is read back by other processes.
    result_serializer="json",
)
def settle_runs(project: str, locations: dict[str, str | None] | None = None) -> dict[str, Any]:
    """Cancels executions whose flow run was cancelled while it was suspended; returns their ids.

    Args:
        project: Where the project is: "package.module:project" or "path/to/file.py:project".
        locations: Where the project keeps its things, if not where it says itself.
    """
    where = None if locations is None else ProjectLocations.from_json(locations)
    with masked_errors():
        definition = load_project(project, where)
        with (
            mirrored_events(steps=definition.step_events) as bus,
            open_session(definition, bus.publish) as session,
        ):
            with session.open_uow() as uow:
                runs = uow.executions.list(workflow_id=definition.workflow_id)
            held = [
                run
                for run in runs
                if run.kind is ExecutionKind.RUN and run.status is ExecutionStatus.PAUSED
            ]
            by = Controller(owner=this_process(), is_alive=is_alive)
            settled = []
            for run in held:
                flow_run_id = run.metadata.get(FLOW_RUN)
                if flow_run_id is None or not flow_run_is_cancelled(flow_run_id):
                    continue
                run_in_thread(stop_execution(run.execution_id, session, by, 0.0))
                settled.append(run.execution_id)
    get_run_logger().info("%s of %s held executions cancelled", len(settled), len(held))
    return {"cancelled": settled}


def flow_run_is_cancelled(flow_run_id: str) -> bool:
    """Whether somebody has asked for it; False where the server cannot be asked."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(flow_run_id)).state
    except (httpx.HTTPError, ObjectNotFound):
        return False
    return state is not None and (state.is_cancelling() or state.is_cancelled())
