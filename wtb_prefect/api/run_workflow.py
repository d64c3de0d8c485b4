"""One execution as a Prefect flow: where it holds, the flow run is suspended with a form."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

from prefect import flow, get_run_logger
from prefect.exceptions import TerminationSignal
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment, flow_run
from pydantic import Field

from wtb_prefect.api.events import mirrored_events
from wtb_prefect.api.masked_errors import masked_errors
from wtb_prefect.api.settle_runs import FLOW_RUN, flow_run_is_cancelled
from wtb_prefect.application.ask_execution import stop_execution
from wtb_prefect.application.drive_execution import Controller
from wtb_prefect.application.resume_execution import resume_execution, standing_of
from wtb_prefect.application.session import Session
from wtb_prefect.application.start_execution import RunRequest, start_execution
from wtb_prefect.bootstrap.project import load_project
from wtb_prefect.bootstrap.session import open_session
from wtb_prefect.domain.events import ExecutionResumed
from wtb_prefect.domain.execution import Execution, ExecutionStatus
from wtb_prefect.domain.identifiers import stable_id, thread_id
from wtb_prefect.domain.interfaces.outbox_repository import EVERYTHING
from wtb_prefect.domain.interfaces.workflow_engine import Standing
from wtb_prefect.domain.project import ProjectLocations
from wtb_prefect.errors import InvalidInputError
from wtb_prefect.infrastructure.event_loop import run_in_thread
from wtb_prefect.infrastructure.processes import is_alive, this_process


class Decision(RunInput):
    """What a person decides where an execution holds; both empty: it simply goes on."""

    update: str = Field(
        "", description='A change of the state, made first: a JSON object, {"key": "value"}.'
    )
    answer: str = Field("", description="The answer to its question: JSON, or text as it is.")


def run_name() -> str:
    """What people read in the list of runs."""
    module, _, attribute = str(flow_run.parameters.get("project")).partition(":")
    return f"run-workflow {module.rpartition('/')[2]}:{attribute}"


@flow(
    name="run_workflow",
    flow_run_name=run_name,
    persist_result=True,
    # Never pickled: a stored result is read back by other processes.
    result_serializer="json",
)
def run_workflow(
    project: str,
    state: dict[str, Any],
    variants: dict[str, str] | None = None,
    breakpoints: list[str] | None = None,
    locations: dict[str, str | None] | None = None,
) -> dict[str, Any]:
    """Runs a workflow once. At a breakpoint or a question a deployed run is suspended: pressing
    Resume goes on from the same checkpoint, in a new process.

    Args:
        project: Where the project is: "package.module:project" or "path/to/file.py:project".
        state: The state it starts with.
        variants: Variants by node; the others keep their original.
        breakpoints: Nodes to hold before.
        locations: Where the project keeps its things, if not where it says itself.
    """
    where = None if locations is None else ProjectLocations.from_json(locations)
    # Suspending ends this process; the flow begins again here, and finds its execution.
    execution_id = stable_id("run", flow_run.id)
    request = RunRequest(
        execution_id=execution_id,
        state=state,
        variants=variants or {},
        breakpoints=breakpoints or (),
        marks={FLOW_RUN: str(flow_run.id)},
    )
    with masked_errors():
        definition = load_project(project, where)
    with (
        masked_errors(),
        mirrored_events(steps=definition.step_events) as bus,
        open_session(definition, bus.publish) as session,
    ):
        by = Controller(owner=this_process(), is_alive=is_alive)
        try:
            found = _run_on(request, session, by)
        except (SystemExit, TerminationSignal):
            # A worker that stops sends the same signal: then the execution is paused, and goes on
            # when the flow run is tried again.
            if flow_run_is_cancelled(str(flow_run.id)):
                run_in_thread(stop_execution(execution_id, session, by, 0.0))
            raise
        summary = _summary(found, session)
    if found.status is ExecutionStatus.FAILED:
        raise RuntimeError(summary["error"])
    return summary


def _run_on(request: RunRequest, session: Session, by: Controller) -> Execution:
    """From where the ledger has it to an end, or to where nobody could be asked."""
    with session.open_uow() as uow:
        found = uow.executions.get(request.execution_id)
    if found is None:
        found = run_in_thread(start_execution(request, session, by))
    ends = (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)
    while found.status not in ends:
        if found.status is ExecutionStatus.PAUSED and found.next_nodes:
            if not deployment.id:
                break  # there is nobody to start it again
            found = _ask(found, session, by)
        else:  # a crash, or the end of its worker, has cut it off
            found = run_in_thread(resume_execution(request.execution_id, session, by))
    return found


def _ask(held: Execution, session: Session, by: Controller) -> Execution:
    """Goes on as somebody decides; the first time it is asked, the flow run is suspended.

    What was decided is kept under a key, for the process that goes on. A node may ask twice at one
    checkpoint, so the key counts how often the execution went on, and how often in vain.
    """
    standing = standing_of(held, session)
    get_run_logger().info("%s", _words(held, standing))
    with session.open_uow() as uow:
        lines = uow.audit_log.list(held.execution_id, limit=EVERYTHING)
    resumed = sum(line.action == ExecutionResumed.name for line in lines)
    refused = ""
    for attempt in count():
        form = Decision.with_initial_data(description=_form(held, standing, session, refused))
        key = f"wtb-{resumed}-{attempt}"
        decided: Decision = suspend_flow_run(wait_for_input=form, key=key)
        try:
            return _go_on(held, decided, session, by)
        except InvalidInputError as exc:  # it was left as it was
            refused = str(exc)
            get_run_logger().warning("%s", refused)
    raise AssertionError("count() has no end")


def _go_on(held: Execution, decided: Decision, session: Session, by: Controller) -> Execution:
    try:
        edit = json.loads(decided.update) if decided.update.strip() else None
    except ValueError as exc:
        raise InvalidInputError(f"the update is not JSON: {exc}") from exc
    if edit is not None and not isinstance(edit, dict):
        raise InvalidInputError("the update is a JSON object of state keys")
    value = _parsed(decided.answer) if decided.answer.strip() else None
    execution_id = held.execution_id
    if edit is not None and value is not None:
        raise InvalidInputError("change the state first, then answer: the node asks again")
    return run_in_thread(resume_execution(execution_id, session, by, edit=edit, value=value))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _words(held: Execution, standing: Standing) -> str:
    asked = "; ".join(repr(question.value) for question in standing.questions)
    before = ", ".join(held.next_nodes)
    return f"Execution {held.execution_id} holds before {before}" + (
        f", asking {asked}" if asked else ""
    )


def _form(held: Execution, standing: Standing, session: Session, refused: str) -> str:
    """What people see beside the form, as Markdown."""
    assert held.head is not None, "it holds at a checkpoint"
    values = session.engine.state(thread_id(held.execution_id), held.head).values
    rows = [f"| `{key}` | `{_short(value)}` |" for key, value in values.items()]
    said = [f"**Not taken:** {refused}", ""] if refused else []
    return "\n".join([*said, _words(held, standing), "", "| state | value |", "|---|---|", *rows])


def _short(value: object, limit: int = 300) -> str:
    text = repr(value).replace("|", "\\|").replace("`", "'").replace("\n", " ")
    return text if len(text) <= limit else f"{text[:limit]}..."


def _summary(ended: Execution, session: Session) -> dict[str, Any]:
    """An execution in JSON values."""
    return {
        "execution_id": ended.execution_id,
        "status": str(ended.status),
        "next": list(ended.next_nodes),
        "error": None if ended.error is None else session.surroundings.mask(str(ended.error)),
        "node_executions": ended.node_executions,
    }
